//! Calls that were denied, for the audit: a bounded number of each caller and of all together, and the rest counted, so
//! that a flood of them neither fills the disk nor keeps the store busy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::model::{AuditEntry, Decision};
use crate::store::{Batch, Store};

/// Time between two commits of denials, and over which they are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// Denials of one caller that have an entry each, within [`WINDOW`].
const OF_ONE_MAX: u64 = 10;
/// The same of all callers together.
const OF_ALL_MAX: u64 = 50;
/// Denials that wait for a store that cannot be written to.
const WAITING_MAX: usize = 500;
/// Callers that are counted separately within [`WINDOW`].
const CALLERS_MAX: usize = 1_000;

/// Where denials are noted. Clones share it.
#[derive(Debug, Clone)]
pub struct Denied {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
    noted: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    since: Duration,
    of_one: BTreeMap<String, u64>,
    of_all: u64,
    waiting: Vec<AuditEntry>,
    left_out: u64,
}

impl Denied {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default(), noted: Arc::default() }
    }

    /// Notes that a call of `caller` was denied, a principal or the address of a peer. Returns whether it gets an entry
    /// of its own: then it may be logged, too.
    pub fn note(&self, caller: &str, entry: AuditEntry) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(state.since) >= WINDOW {
            state.since = now;
            state.of_all = 0;
            state.of_one.clear();
        }
        let is_known = state.of_one.contains_key(caller);
        let is_room = is_known || state.of_one.len() < CALLERS_MAX;
        let of_one = if is_room {
            let count = state.of_one.entry(caller.to_owned()).or_default();
            *count += 1;
            *count
        } else {
            u64::MAX
        };
        let fits =
            of_one <= OF_ONE_MAX && state.of_all < OF_ALL_MAX && state.waiting.len() < WAITING_MAX;
        if fits {
            state.of_all += 1;
            state.waiting.push(entry);
        } else {
            state.left_out += entry.calls;
        }
        drop(state);
        self.noted.notify_one();
        fits
    }

    /// Writes what is noted, at most once in [`WINDOW`]. Never returns.
    pub(super) async fn run(self, store: Arc<dyn Store>) {
        loop {
            self.noted.notified().await;
            self.write(&*store).await;
            self.clock.sleep(WINDOW).await;
        }
    }

    /// Writes what is noted and not written yet.
    pub(super) async fn write(&self, store: &dyn Store) {
        let (mut audit, left_out) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.left_out))
        };
        if left_out > 0 {
            audit.push(others(left_out));
        }
        if audit.is_empty() {
            return;
        }
        let batch = Batch { audit: audit.clone(), ..Batch::default() };
        if let Err(error) = store.commit(batch).await {
            tracing::warn!(%error, "denied calls could not be written to the audit");
            // Only counted from now on; if the commit is durable after all, they are counted twice.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.left_out += audit.iter().map(|entry| entry.calls).sum::<u64>();
            drop(state);
            self.noted.notify_one();
        }
    }
}

/// The entry of those that have none of their own.
fn others(calls: u64) -> AuditEntry {
    AuditEntry {
        decision: Decision::Denied,
        principal: "".into(),
        verified: false,
        proof: String::new(),
        peer: String::new(),
        rpc: String::new(),
        objects: Vec::new(),
        request_id: String::new(),
        reason: format!("{calls} more calls were denied than have entries of their own"),
        body_digest: String::new(),
        plan_digest: String::new(),
        calls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Timestamp, TokioClock};
    use crate::store::codec::decode_audit;
    use crate::store::memory::MemoryStore;

    fn denial(who: &str) -> AuditEntry {
        AuditEntry { principal: who.into(), reason: "no".to_owned(), calls: 1, ..others(1) }
    }

    async fn written(store: &MemoryStore) -> Vec<(String, u64)> {
        let rows = store.audit(0, 10_000).await.unwrap();
        let entries = rows.iter().map(|row| decode_audit(&row.body).unwrap());
        entries.map(|entry| (entry.principal.to_string(), entry.calls)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_and_not_written() {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp(1_700_000_000_000)));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let denied = Denied::new(clock.clone());
        let running = tokio::spawn(denied.clone().run(store.clone()));
        assert!(denied.note("ann", denial("ann")));
        clock.sleep(Duration::from_millis(10)).await;
        assert_eq!(written(&store).await, [("ann".to_owned(), 1)], "the first one at once");
        let fitting = (0..100_000).filter(|_| denied.note("ann", denial("ann"))).count();
        assert_eq!(fitting, 9);
        assert!(denied.note("bob", denial("bob")), "one caller leaves room for another");
        clock.sleep(Duration::from_secs(5)).await;
        let entries = written(&store).await;
        assert_eq!(entries.len(), 12, "{entries:?}");
        assert_eq!(entries[11], (String::new(), 99_991));
        let (newest, _) = store.revisions().await.unwrap();
        assert_eq!(newest.0, 2, "in one commit");
        // Many callers, as many peers as there are addresses.
        let many = (0..5_000).filter(|number| {
            let peer = format!("10.0.{}.{}", number / 250, number % 250);
            denied.note(&peer, denial(""))
        });
        assert_eq!(many.count() as u64, OF_ALL_MAX);
        clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(written(&store).await.iter().map(|(_, calls)| calls).sum::<u64>(), 105_002);
        assert!(written(&store).await.len() <= 12 + 51);
        running.abort();
    }
}
