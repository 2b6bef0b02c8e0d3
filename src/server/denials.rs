//! Says who was refused and why, in the log of the server alone: a bounded number of each kind, and the others are counted.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::refusals::Refusals;
use crate::clock::Clock;
use crate::executor::Denied;
use crate::model::{AuditEntry, Decision};

/// Refusals of one kind that are logged within [`WINDOW`].
const LOGGED_MAX: u64 = 10;
/// Time after which they are counted from 0 again.
const WINDOW: Duration = Duration::from_secs(10);

/// Longest reason in the audit, in characters: it may name what a caller has made up.
const REASON_CHARS_MAX: usize = 400;

/// The log of those who were refused. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Denials {
    clock: Arc<dyn Clock>,
    refusals: Refusals,
    logged: Arc<Mutex<BTreeMap<&'static str, Logged>>>,
    /// Where the audit has them from, once there is an engine.
    audit: Arc<OnceLock<Denied>>,
}

#[derive(Debug, Default)]
struct Logged {
    since: Duration,
    count: u64,
}

impl Denials {
    pub(super) fn new(clock: Arc<dyn Clock>, refusals: Refusals) -> Self {
        Self { clock, refusals, logged: Arc::default(), audit: Arc::default() }
    }

    /// Writes them to the audit, too, from now on.
    pub(super) fn audited(&self, denied: Denied) {
        if self.audit.set(denied).is_err() {
            tracing::debug!("denials were audited before");
        }
    }

    /// Counts a refusal under `cause`, writes it to the audit, and logs it unless there were many of its `kind`: a name of a closed list.
    pub(super) fn note(
        &self,
        what: &'static str,
        cause: &'static str,
        kind: &'static str,
        peer: Option<SocketAddr>,
        (rpc, reason): (&str, &dyn Display),
    ) {
        self.refusals.count(cause);
        if let Some(denied) = self.audit.get() {
            let address = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
            denied.note(&address, denial(kind, peer, rpc, reason));
        }
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

/// What the audit says of a caller of whom nothing is known but the address.
fn denial(
    kind: &'static str,
    peer: Option<SocketAddr>,
    rpc: &str,
    reason: &dyn Display,
) -> AuditEntry {
    AuditEntry {
        decision: Decision::Denied,
        principal: "".into(),
        verified: false,
        proof: String::new(),
        peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
        rpc: rpc.to_owned(),
        objects: Vec::new(),
        request_id: String::new(),
        reason: format!("{kind}: {reason}").chars().take(REASON_CHARS_MAX).collect(),
        body_digest: String::new(),
        plan_digest: String::new(),
        calls: 1,
    }
}
