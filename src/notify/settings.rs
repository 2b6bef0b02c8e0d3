//! What receivers are made with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::interest::Interest;
use crate::clock::{Clock, Random};
use crate::credentials::Credentials;
use crate::outbound::{Dial, Origin, Trust};
use crate::store::Store;

/// What the configuration says about a receiver.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// Its name: that of its cursor.
    pub name: String,
    /// Where it is.
    pub origin: Origin,
    /// Path and query.
    pub path: String,
    /// Name of the credential that events are signed with.
    pub secret: Option<String>,
    /// Whose certificate is believed.
    pub trust: Trust,
    /// Longest time until an answer.
    pub timeout: Duration,
    /// An event that is not taken for this long is left out; `None` for never.
    pub give_up_after: Option<Duration>,
    /// Which events it gets.
    pub interest: Interest,
    /// `source` of its events.
    pub source: String,
}

/// What receivers need of their server.
#[derive(Clone)]
pub struct NotifyPorts {
    /// The feed of changes, and the cursors.
    pub store: Arc<dyn Store>,
    /// Makes connections.
    pub dial: Arc<dyn Dial>,
    /// Secrets.
    pub credentials: Credentials,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Spreads retries.
    pub random: Arc<dyn Random>,
}

impl fmt::Debug for NotifyPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyPorts").finish_non_exhaustive()
    }
}
