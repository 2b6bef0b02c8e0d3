//! What is known of one controller between two requests to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde_json::Value as Json;

use crate::provider::breaker::Breaker;

/// What one request at a time sees and changes.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) breaker: Breaker,
    /// When the last request was sent.
    pub(super) sent_at: Option<Duration>,
    /// Its service root, once it was read.
    pub(super) root: Option<Arc<Json>>,
    /// Sessions by the reference of their credentials.
    pub(super) sessions: BTreeMap<String, Session>,
    /// Passwords go with each request until then: it gives no session at the moment.
    pub(super) basic_until: Option<Duration>,
    /// Credentials that it has refused.
    pub(super) refused: Option<Refused>,
    /// The operation during which a session was ended from outside: only another one, which its owner has recorded since,
    /// may open a session again.
    pub(super) ended_during: Option<String>,
}

/// An open session.
pub(super) struct Session {
    pub(super) token: HeaderValue,
    /// Its path, if the controller gave one.
    pub(super) path: Option<String>,
    pub(super) user: String,
    pub(super) used_at: Duration,
}

/// The token is a secret.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Credentials that a controller has refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reference: String,
    pub(super) digest: [u8; 32],
    pub(super) until: Duration,
    pub(super) pause: Duration,
}
