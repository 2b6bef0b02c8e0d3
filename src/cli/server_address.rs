//! Server addresses as users type them: `host`, `host:port`, `[v6]:port`, `http://host:port`, `https://host:port`.

use std::net::Ipv6Addr;

use crate::address::{Authority, Host};
use crate::text::escaped;

use super::error::Error;

/// Default port of a server.
const PORT: u16 = 50_051;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerAddress {
    /// URLs to try, in this order: `localhost` stands for two addresses.
    pub(crate) urls: Vec<String>,
    /// The URL to display.
    pub(crate) shown: String,
    /// Whether no port was given, so that the default is used.
    pub(crate) port_assumed: bool,
    /// The name that the certificate of the server must have; `None` for a plain connection.
    pub(crate) secure_name: Option<String>,
    /// Whether it is this machine.
    pub(crate) is_local: bool,
}

/// How an IPv6 address and a port with no brackets must be written. The address alone is refused with the others.
fn bare_v6(text: &str) -> Option<String> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return None;
    }
    let (host, port) = text.rsplit_once(':')?;
    host.parse::<Ipv6Addr>().ok()?;
    port.parse::<u16>().ok()?;
    Some(format!("write [{host}]:{port}"))
}

impl ServerAddress {
    /// Parses what a user typed.
    ///
    /// # Errors
    /// Usage, saying what is wrong with it.
    pub(crate) fn parse(typed: &str) -> Result<Self, Error> {
        let refused = |why: &str| {
            Error::usage(
                format!("\"{}\" is not the address of a server: it {why}", escaped(typed)),
                "give host:port, for example --server localhost:50051",
            )
        };
        if typed.trim().is_empty() {
            return Err(refused("is empty"));
        }
        let (scheme, rest) = match typed.split_once("://") {
            None => ("http", typed),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                ("http", rest.strip_suffix('/').unwrap_or(rest))
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                ("https", rest.strip_suffix('/').unwrap_or(rest))
            }
            Some((scheme, _)) => {
                return Err(refused(&format!(
                    "has the scheme {:?}: only http and https are known",
                    escaped(scheme)
                )));
            }
        };
        if let Some(right) = bare_v6(rest) {
            return Err(refused(&format!("has an IPv6 address without brackets: {right}")));
        }
        // A port alone means this machine.
        let is_port = rest.strip_prefix(':').is_some_and(|port| !port.contains(':'));
        let rest = if is_port { format!("localhost{rest}") } else { rest.to_owned() };
        let Authority { host, port } =
            Authority::parse(&rest).map_err(|error| refused(&escaped(&error.to_string())))?;
        if let Some(address) = host.impossible() {
            return Err(refused(&format!(
                "names {address}, which cannot be the address of a host"
            )));
        }
        let port_assumed = port.is_none();
        let port = port.unwrap_or(PORT);
        let shown = format!("{scheme}://{host}:{port}");
        let secure_name = (scheme == "https").then(|| match &host {
            Host::Name(name) => name.clone(),
            Host::Ip(address) => address.to_string(),
        });
        let is_local = match &host {
            Host::Name(name) => name == "localhost",
            Host::Ip(address) => address.to_canonical().is_loopback(),
        };
        let urls = match host {
            // Servers listen on 127.0.0.1 unless configured otherwise.
            Host::Name(name) if name == "localhost" => {
                vec![format!("{scheme}://127.0.0.1:{port}"), format!("{scheme}://[::1]:{port}")]
            }
            Host::Name(_) | Host::Ip(_) => vec![shown.clone()],
        };
        Ok(Self { urls, shown, port_assumed, secure_name, is_local })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_urls() {
        let both = |port: u16| {
            [format!("http://127.0.0.1:{port}"), format!("http://[::1]:{port}")].to_vec()
        };
        for (typed, urls) in [
            ("localhost:50051", both(50_051)),
            ("LOCALHOST", both(50_051)),
            (":7000", both(7000)),
            ("10.0.0.7:50051", vec!["http://10.0.0.7:50051".to_owned()]),
            ("http://host.example:1/", vec!["http://host.example:1".to_owned()]),
            ("http://host.example", vec!["http://host.example:50051".to_owned()]),
            ("[::1]:50051", vec!["http://[::1]:50051".to_owned()]),
            ("[::1]", vec!["http://[::1]:50051".to_owned()]),
        ] {
            assert_eq!(ServerAddress::parse(typed).unwrap().urls, urls, "{typed}");
        }
        let bare = ServerAddress::parse("::1:23100").unwrap_err().to_string();
        assert!(bare.contains("write [::1]:23100"), "{bare}");
        assert_eq!(ServerAddress::parse("localhost").unwrap().shown, "http://localhost:50051");
    }

    #[test]
    fn https_has_a_name_that_the_certificate_must_have() {
        for (typed, url, name) in [
            ("https://a.example:1", "https://a.example:1", "a.example"),
            ("HTTPS://localhost", "https://127.0.0.1:50051", "localhost"),
            ("https://10.0.0.7/", "https://10.0.0.7:50051", "10.0.0.7"),
            ("https://[::1]:2", "https://[::1]:2", "::1"),
        ] {
            let parsed = ServerAddress::parse(typed).unwrap();
            assert_eq!((parsed.urls[0].as_str(), parsed.secure_name.as_deref()), (url, Some(name)));
        }
        assert_eq!(ServerAddress::parse("a").unwrap().secure_name, None);
    }

    #[test]
    fn a_port_is_named_or_assumed() {
        for typed in ["a:1", ":1", "[::1]:1", "http://a:1", "http://[::1]:1/"] {
            assert!(!ServerAddress::parse(typed).unwrap().port_assumed, "{typed}");
        }
        for typed in ["a", "[::1]", "http://a", "http://[::1]/"] {
            assert!(ServerAddress::parse(typed).unwrap().port_assumed, "{typed}");
        }
    }

    #[test]
    fn what_is_no_address_is_a_usage_error() {
        let mut table = String::new();
        for typed in [
            "",
            " ",
            "https://",
            "https://a/b",
            "ftp://a",
            "unix:///tmp/x",
            "unix:/tmp/x",
            "a:0",
            "a:65536",
            "a:99999",
            "a:",
            ":",
            "http://",
            "http://a/b",
            "a/b",
            "::1",
            "root@a",
            "a b",
            "0.0.0.0:50051",
            "-x",
            "a:1:2",
            "a#x",
            "a\u{202e}:1",
        ] {
            let error = ServerAddress::parse(typed).unwrap_err();
            assert_eq!(error.code(), 2, "{typed}");
            let Error::Usage { message, hint } = error else { panic!("{typed}") };
            table += &format!("{message}\n    {hint}\n");
        }
        crate::assert_golden!("server_addresses_refused", table);
    }
}
