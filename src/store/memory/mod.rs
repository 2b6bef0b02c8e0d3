//! Store in memory: for tests, the simulation and `--ephemeral`. Nothing survives the process.
//!
//! Everything is ordered (no hash maps), so a simulation replays exactly. A call does all its work when its future is
//! polled for the first time, without waiting in between: a future that is dropped before that did nothing, one that
//! was polled has been applied. Wrappers that inject faults or delays can rely on this.

mod commit;
mod read;
mod state;
mod trim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::state::State;
use super::{
    Availability, Batch, Committed, Fut, Listener, LogHead, Outcome, Ownership, OwnsAll, Page,
    Query, RequestRecord, Retention, SlotKey, Store, StoreError, Subject, Trimmed,
};
use crate::clock::{Clock, SystemClock};
use crate::ids::{BatchId, MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{
    AuditHead, AuditRow, Change, Cursor, HistoryRow, Installation, Lock, LogChunk, Machine,
    Observed, Run,
};

/// [`Store`] that keeps everything in memory.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    availability: watch::Sender<Availability>,
    /// Locked during a whole commit, so that listeners get commits in the order of revisions.
    listeners: Mutex<Vec<Arc<dyn Listener>>>,
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store, whose commits have the time of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let availability = watch::Sender::default();
        Self { clock, availability, listeners: Mutex::default(), state: Mutex::default() }
    }

    /// The state; a panic of another caller left it between two calls, never inside one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, batch: Batch) -> Result<Arc<Committed>, StoreError> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = Arc::new(self.state().commit(batch, self.clock.now())?);
        for listener in listeners.iter() {
            listener.committed(&committed);
        }
        Ok(committed)
    }
}

impl Default for MemoryStore {
    /// An empty store on the clock of the system.
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::new()))
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>> {
        Box::pin(async move { self.apply(batch) })
    }

    fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    fn ownership(&self) -> &dyn Ownership {
        &OwnsAll
    }

    fn slots(&self) -> Fut<'_, BTreeMap<SlotKey, u64>> {
        Box::pin(async move { Ok(self.state().slots.used()) })
    }

    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome> {
        Box::pin(async move { Ok(self.state().outcomes.of(id, since)) })
    }

    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>> {
        Box::pin(async move { Ok(self.state().machine(id)) })
    }

    fn observed<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Observed>> {
        Box::pin(async move { Ok(self.state().observed.get(id).cloned()) })
    }

    fn installation<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Installation>> {
        Box::pin(async move { Ok(self.state().installations.get(id).cloned()) })
    }

    fn mac_owner<'a>(&'a self, mac: &'a str) -> Fut<'a, Option<MachineId>> {
        Box::pin(async move { Ok(self.state().macs.get(mac).cloned()) })
    }

    fn cursor<'a>(&'a self, receiver: &'a str) -> Fut<'a, Option<Cursor>> {
        Box::pin(async move { Ok(self.state().cursors.get(receiver).copied()) })
    }

    fn locks(&self) -> Fut<'_, Vec<Lock>> {
        Box::pin(
            async move { Ok(self.state().locks.values().map(|lock| Lock::clone(lock)).collect()) },
        )
    }

    fn machine_at<'a>(&'a self, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Machine>>> {
        Box::pin(async move { Ok(self.state().machine_at(id, at)) })
    }

    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>> {
        Box::pin(async move { Ok(self.state().run(id)) })
    }

    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>> {
        Box::pin(async move { Ok(self.state().run_at(id, at).map(Arc::new)) })
    }

    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>> {
        Box::pin(async move { Ok(self.state().machines(&query)) })
    }

    fn runs(&self, query: Query) -> Fut<'_, Page<Run>> {
        Box::pin(async move { Ok(self.state().runs(&query)) })
    }

    fn count_machines(&self, filter: Filter) -> Fut<'_, u64> {
        Box::pin(async move { Ok(self.state().count_machines(&filter)) })
    }

    fn count_runs(&self, filter: Filter) -> Fut<'_, u64> {
        Box::pin(async move { Ok(self.state().count_runs(&filter)) })
    }

    fn plan<'a>(&'a self, digest: &'a str) -> Fut<'a, Option<Arc<str>>> {
        Box::pin(async move { Ok(self.state().plans.get(digest).cloned()) })
    }

    fn request<'a>(
        &'a self,
        scope: &'a str,
        request_id: &'a str,
    ) -> Fut<'a, Option<RequestRecord>> {
        Box::pin(async move { Ok(self.state().request_record(scope, request_id).cloned()) })
    }

    fn history(
        &self,
        subject: Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Fut<'_, Vec<HistoryRow>> {
        Box::pin(async move { Ok(self.state().history(&subject, after, limit)) })
    }

    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>> {
        Box::pin(async move { self.state().changes_after(after, limit) })
    }

    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>> {
        Box::pin(async move { Ok(self.state().logs_from(run, from, limit)) })
    }

    fn log_head(&self, run: RunId) -> Fut<'_, LogHead> {
        Box::pin(async move { Ok(self.state().log_head(run)) })
    }

    fn revisions(&self) -> Fut<'_, (Revision, Revision)> {
        Box::pin(async move {
            let state = self.state();
            Ok((state.revision, state.compacted))
        })
    }

    fn audit(&self, after: u64, limit: usize) -> Fut<'_, Vec<AuditRow>> {
        Box::pin(async move {
            let state = self.state();
            let later = state.audit.iter().filter(|row| row.seq > after);
            Ok(later.take(limit).cloned().collect())
        })
    }

    fn audit_ends(&self) -> Fut<'_, (AuditHead, AuditHead)> {
        Box::pin(async move {
            let state = self.state();
            Ok((state.audit_anchor, state.audit_head()))
        })
    }

    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed> {
        Box::pin(async move { Ok(self.state().trim(retention)) })
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}
