//! Addresses as people write them: `host`, `host:port`, `[v6]:port`. The only parser for them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name of a host, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
/// Longest part of a name between dots, in bytes.
const PART_BYTES_MAX: usize = 63;

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By address.
    Ip(IpAddr),
    /// By name.
    Name(String),
}

/// A host with the port that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, 1 to 65535.
    pub port: Option<u16>,
}

/// Why a text is not an address, with how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing before the port, or nothing at all.
    #[error("has no host: write host or host:port")]
    NoHost,
    /// `user@host`.
    #[error("must not have a user: write the host only, without credentials")]
    User,
    /// An address of IPv6 without its brackets.
    #[error("has an IPv6 address without brackets: write [{0}], with a port [{0}]:443")]
    Brackets(Ipv6Addr),
    /// Brackets around something else.
    #[error(
        "has brackets around something that is not an IPv6 address: write it as in [2001:db8::1]:443"
    )]
    NotV6,
    /// An invalid port.
    #[error("has the invalid port {0:?}: ports are 1 to 65535")]
    Port(String),
    /// Something after the host.
    #[error("must end after the host and the port, without {0:?}")]
    Rest(String),
    /// An invalid host name.
    #[error(
        "names the invalid host {0:?}: a name has letters, digits and, inside, '-' or '_', with dots between its parts"
    )]
    Name(String),
    /// Four numbers that are not an address, or an address that no host can have.
    #[error("names {0}, which cannot be the address of a host")]
    NoAddress(String),
}

impl Authority {
    /// Parses an address.
    ///
    /// # Errors
    /// [`AddressError`], whose text follows the name of the field.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(at) = text.find(['/', '?', '#']) {
            return Err(AddressError::Rest(text[at..].to_owned()));
        }
        if text.contains('@') {
            return Err(AddressError::User);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(AddressError::NotV6)?;
            let address = inside.parse::<Ipv6Addr>().map_err(|_| AddressError::NotV6)?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if after.is_empty() => None,
                None => return Err(AddressError::Rest(after.to_owned())),
            };
            return Ok(Self { host: Host::Ip(address.into()), port });
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Err(AddressError::Brackets(address));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        let host = Host::parse(host)?;
        Ok(Self { host, port: port.map(parse_port).transpose()? })
    }
}

impl Host {
    /// Parses a name or an IPv4 address.
    fn parse(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let edge = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_part = |part: &str| {
            let bytes = part.as_bytes();
            bytes.len() <= PART_BYTES_MAX
                && bytes.first().is_some_and(edge)
                && bytes.last().is_some_and(edge)
                && bytes.iter().all(|byte| edge(byte) || *byte == b'-')
        };
        if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_part) {
            return Err(AddressError::Name(text.to_owned()));
        }
        // A last part of digits makes resolvers take it for an IPv4 address (WHATWG URL, "ends in a number").
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::NoAddress(text.to_owned()));
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }

    /// The address if no host can have it: it stands for all hosts, for none, or for a group.
    #[must_use]
    pub fn impossible(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => {
                let canonical = ip.to_canonical();
                let broadcast = canonical == IpAddr::V4(Ipv4Addr::BROADCAST);
                (canonical.is_unspecified() || canonical.is_multicast() || broadcast).then_some(*ip)
            }
            Self::Name(_) => None,
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| digits && *port > 0)
        .ok_or_else(|| AddressError::Port(text.to_owned()))
}

impl fmt::Display for Host {
    /// In the form for a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let read = |text: &str| {
            let Authority { host, port } = Authority::parse(text).unwrap();
            (host.to_string(), port)
        };
        assert_eq!(read("Rack-1.example.com"), ("rack-1.example.com".to_owned(), None));
        assert_eq!(read("node_7:22"), ("node_7".to_owned(), Some(22)));
        assert_eq!(read("10.0.0.7:65535"), ("10.0.0.7".to_owned(), Some(65_535)));
        assert_eq!(read("[::1]"), ("[::1]".to_owned(), None));
        assert_eq!(read("[2001:DB8::1]:1"), ("[2001:db8::1]".to_owned(), Some(1)));
        assert_eq!(read("host."), ("host.".to_owned(), None));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_way_to_mend_it() {
        let mut table = String::new();
        let long = "x".repeat(64);
        for text in [
            "",
            ":22",
            "a:0",
            "a:65536",
            "a:99999",
            "a:",
            "a:+1",
            "a:22x",
            "a:1:2",
            "::1",
            "2001:db8::1",
            "[::1",
            "[a]:1",
            "[::1]x",
            "[::1]:0",
            "root@a",
            "root:pw@a",
            "a/b",
            "a?x",
            "a#x",
            "-oProxyCommand=x",
            "a b",
            "a..b",
            "a-.b",
            "1.2.3",
            "256.0.0.1",
            "7",
            "ä",
            "a\u{202e}",
            &long,
        ] {
            let error = Authority::parse(text).unwrap_err();
            table += &format!("{text:?} {error}\n");
        }
        crate::assert_golden!("addresses_refused", table);
    }

    #[test]
    fn some_addresses_are_those_of_no_host() {
        let impossible = |text: &str| Authority::parse(text).unwrap().host.impossible().is_some();
        for text in
            ["0.0.0.0", "255.255.255.255", "224.0.0.1", "[::]", "[ff02::1]", "[::ffff:0.0.0.0]"]
        {
            assert!(impossible(text), "{text}");
        }
        for text in ["10.0.0.1", "127.0.0.1", "[fe80::1]", "name"] {
            assert!(!impossible(text), "{text}");
        }
    }
}
