//! Scheme, host and port: what a connection goes to.

use std::fmt;

use crate::address::{AddressError, Authority, Host};

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether over TLS.
    pub is_tls: bool,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// Why a text is no URL of an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Another scheme, or none.
    #[error("must be an https or http URL")]
    Scheme,
    /// The host or the port.
    #[error("{0}")]
    Address(#[from] AddressError),
}

impl Origin {
    /// Takes a URL apart: its origin, and its path with whatever follows, `/` if it has none.
    ///
    /// # Errors
    /// [`OriginError`], whose text follows the name of the field.
    pub fn parse(url: &str) -> Result<(Self, &str), OriginError> {
        let (scheme, rest) = url.split_once("://").ok_or(OriginError::Scheme)?;
        let is_tls = scheme.eq_ignore_ascii_case("https");
        if !is_tls && !scheme.eq_ignore_ascii_case("http") {
            return Err(OriginError::Scheme);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let Authority { host, port } = Authority::parse(authority)?;
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        Ok((Self { is_tls, host, port }, if path.is_empty() { "/" } else { path }))
    }

    /// Host and port as in the `Host` header: without the scheme's own port.
    #[must_use]
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let read = |url: &str| {
            let (origin, path) = Origin::parse(url).unwrap();
            (origin.to_string(), origin.port, path.to_owned())
        };
        let own = |text: &str, port, path: &str| (text.to_owned(), port, path.to_owned());
        assert_eq!(read("https://BMC-1.example"), own("https://bmc-1.example", 443, "/"));
        assert_eq!(read("HTTPS://10.0.0.8:443/a?b"), own("https://10.0.0.8", 443, "/a?b"));
        assert_eq!(read("http://[fd00::1]:8080/x"), own("http://[fd00::1]:8080", 8080, "/x"));
        assert_eq!(Origin::parse("ftp://h").unwrap_err(), OriginError::Scheme);
        assert_eq!(Origin::parse("h").unwrap_err(), OriginError::Scheme);
        let user = Origin::parse("https://u:p@h").unwrap_err();
        assert_eq!(user, OriginError::Address(AddressError::User));
    }
}
