//! Says who was refused and why, in the log of the server alone: a bounded number of each kind, and the others are counted.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::refusals::Refusals;
use crate::clock::Clock;

/// Refusals of one kind that are logged within [`WINDOW`].
const LOGGED_MAX: u64 = 10;
/// Time after which they are counted from 0 again.
const WINDOW: Duration = Duration::from_secs(10);

/// The log of those who were refused. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Denials {
    clock: Arc<dyn Clock>,
    refusals: Refusals,
    logged: Arc<Mutex<BTreeMap<&'static str, Logged>>>,
}

#[derive(Debug, Default)]
struct Logged {
    since: Duration,
    count: u64,
}

impl Denials {
    pub(super) fn new(clock: Arc<dyn Clock>, refusals: Refusals) -> Self {
        Self { clock, refusals, logged: Arc::default() }
    }

    /// Counts a refusal under `cause`, and logs it unless there were many of its `kind`: a name of a closed list.
    pub(super) fn note(
        &self,
        what: &'static str,
        cause: &'static str,
        kind: &'static str,
        peer: Option<SocketAddr>,
        reason: &dyn Display,
    ) {
        self.refusals.count(cause);
        let now = self.clock.monotonic();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = logged.entry(kind).or_insert(Logged { since: now, count: 0 });
        if now.saturating_sub(entry.since) >= WINDOW {
            let left_out = entry.count.saturating_sub(LOGGED_MAX);
            if left_out > 0 {
                tracing::warn!(left_out, kind, "more were refused than are logged");
            }
            *entry = Logged { since: now, count: 0 };
        }
        entry.count += 1;
        if entry.count <= LOGGED_MAX {
            let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
            tracing::warn!(%peer, %reason, "{what}");
        }
    }
}
