//! One request and its bounds.

use std::time::Duration;

use http::Method;
use http::header::{HeaderName, HeaderValue};

/// Bounds of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time until the connection stands, TLS included.
    pub connect: Duration,
    /// Longest silence: until the answer begins, and between two parts of it.
    pub read: Duration,
    /// Longest time of the whole call, waiting for earlier calls not included.
    pub whole: Duration,
    /// Most bytes of the answer's body that are read.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(30),
            whole: Duration::from_secs(60),
            body_bytes_max: 1024 * 1024,
        }
    }
}

/// One request.
///
/// A header's value can be a secret: a call has no `Debug`.
#[derive(Clone)]
pub struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Vec<u8>,
    pub(super) limits: Limits,
}

impl Call {
    /// A request for a path with its query, as in `/redfish/v1`.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>, limits: Limits) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new(), limits }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds a body with its type.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, bytes: Vec<u8>) -> Self {
        self.body = bytes;
        self.header(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether sending it twice is the same as sending it once, since it changes nothing.
    pub(super) fn is_harmless(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}
