//! Who calls, as the server has found out before the call reaches its handler.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::model::scope::Scope;
use crate::pb::Role;

/// Resolves when the caller's credentials are no longer accepted.
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a caller has proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By a certificate.
    Certificate,
    /// By a token of this server.
    Token,
    /// By a token of an issuer that this server trusts.
    Jwt,
}

impl Proof {
    /// Name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Jwt => "jwt",
        }
    }
}

/// A caller whose name the server has verified. The server attaches it to the request.
#[derive(Clone)]
pub struct Identity {
    /// Name of the principal.
    pub name: Arc<str>,
    /// What the principal may do.
    pub role: Role,
    /// The only machines that the principal may see and touch, and their runs; all of them if there is none.
    pub scope: Option<Arc<Scope>>,
    /// How it was proved.
    pub proof: Proof,
    /// When the credentials expire, if they do.
    pub expires_at: Option<Timestamp>,
    /// Begins to wait for their end, or until role or scope is another.
    pub ended: Arc<dyn Fn() -> Ended + Send + Sync>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("proof", &self.proof)
            .finish_non_exhaustive()
    }
}
