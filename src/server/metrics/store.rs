//! Metrics of the store: duration of commits, and its writer's counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::watch;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::seconds::Seconds;
use crate::clock::Clock;
use crate::ids::{BatchId, MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{
    AuditHead, AuditRow, Change, Cursor, HistoryRow, Installation, Lock, LogChunk, Machine,
    Observed, Run,
};
use crate::server::durable::Durable;
use crate::store::{
    Availability, Batch, Committed, Fut, Listener, LogHead, Outcome, Ownership, Page, Query,
    RequestRecord, Retention, SlotKey, Store, StoreError, StoreStats, Subject, Trimmed,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CommitLabels {
    outcome: &'static str,
}

/// A store whose commits are timed.
pub(super) struct MeteredStore {
    inner: Arc<dyn Store>,
    commits: Seconds<CommitLabels>,
    clock: Arc<dyn Clock>,
}

impl MeteredStore {
    pub(super) fn new(
        inner: Arc<dyn Store>,
        commits: Seconds<CommitLabels>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { inner, commits, clock }
    }
}

fn outcome(result: &Result<Arc<Committed>, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StoreError::Conflict { .. }) => "conflict",
        Err(StoreError::ActiveRun { .. }) => "active_run",
        Err(StoreError::MacTaken { .. }) => "mac_taken",
        Err(StoreError::Fenced { .. }) => "fenced",
        Err(StoreError::RequestUsed(_)) => "request_used",
        Err(StoreError::NoSlot { .. }) => "no_slot",
        Err(StoreError::Compacted { .. }) => "compacted",
        Err(StoreError::Full(_)) => "full",
        Err(StoreError::Unknown(_)) => "unknown",
        Err(StoreError::Unavailable(_)) => "unavailable",
        Err(StoreError::Corrupt { .. }) => "corrupt",
    }
}

impl Store for MeteredStore {
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>> {
        Box::pin(async move {
            let begun = self.clock.monotonic();
            let result = self.inner.commit(batch).await;
            let took = self.clock.monotonic().saturating_sub(begun);
            let labels = CommitLabels { outcome: outcome(&result) };
            self.commits.get_or_create(&labels).observe(took.as_secs_f64());
            result
        })
    }

    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome> {
        self.inner.outcome(id, since)
    }

    fn availability(&self) -> watch::Receiver<Availability> {
        self.inner.availability()
    }

    fn ownership(&self) -> &dyn Ownership {
        self.inner.ownership()
    }

    fn slots(&self) -> Fut<'_, BTreeMap<SlotKey, u64>> {
        self.inner.slots()
    }

    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>> {
        self.inner.machine(id)
    }

    fn observed<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Observed>> {
        self.inner.observed(id)
    }

    fn installation<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Installation>> {
        self.inner.installation(id)
    }

    fn mac_owner<'a>(&'a self, mac: &'a str) -> Fut<'a, Option<MachineId>> {
        self.inner.mac_owner(mac)
    }

    fn cursor<'a>(&'a self, receiver: &'a str) -> Fut<'a, Option<Cursor>> {
        self.inner.cursor(receiver)
    }

    fn locks(&self) -> Fut<'_, Vec<Lock>> {
        self.inner.locks()
    }

    fn machine_at<'a>(&'a self, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Machine>>> {
        self.inner.machine_at(id, at)
    }

    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>> {
        self.inner.run(id)
    }

    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>> {
        self.inner.run_at(id, at)
    }

    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>> {
        self.inner.machines(query)
    }

    fn runs(&self, query: Query) -> Fut<'_, Page<Run>> {
        self.inner.runs(query)
    }

    fn count_machines(&self, filter: Filter) -> Fut<'_, u64> {
        self.inner.count_machines(filter)
    }

    fn count_runs(&self, filter: Filter) -> Fut<'_, u64> {
        self.inner.count_runs(filter)
    }

    fn plan<'a>(&'a self, digest: &'a str) -> Fut<'a, Option<Arc<str>>> {
        self.inner.plan(digest)
    }

    fn request<'a>(
        &'a self,
        scope: &'a str,
        request_id: &'a str,
    ) -> Fut<'a, Option<RequestRecord>> {
        self.inner.request(scope, request_id)
    }

    fn history(
        &self,
        subject: Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Fut<'_, Vec<HistoryRow>> {
        self.inner.history(subject, after, limit)
    }

    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>> {
        self.inner.changes(after, limit)
    }

    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>> {
        self.inner.logs(run, from, limit)
    }

    fn log_head(&self, run: RunId) -> Fut<'_, LogHead> {
        self.inner.log_head(run)
    }

    fn revisions(&self) -> Fut<'_, (Revision, Revision)> {
        self.inner.revisions()
    }

    fn audit(&self, after: u64, limit: usize) -> Fut<'_, Vec<AuditRow>> {
        self.inner.audit(after, limit)
    }

    fn audit_ends(&self) -> Fut<'_, (AuditHead, AuditHead)> {
        self.inner.audit_ends()
    }

    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed> {
        self.inner.trim(retention)
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        self.inner.listen(listener);
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    /// Fewest commits in a group of this size; the next size has twice as many.
    commits_min: u64,
}

/// The counters of the writer of the store on disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    commits: Counter,
    refused: Counter,
    flushes: Counter,
    checkpoints: Counter,
    queued: Gauge,
    broken: Gauge,
    away: Gauge,
    groups: Family<GroupLabels, Counter>,
}

impl Disk {
    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("store_commits", "Commits made durable", &self.commits),
            ("store_commits_refused", "Commits refused by a precondition", &self.refused),
            ("store_flushes", "Transactions, each with one flush to the disk", &self.flushes),
            ("store_checkpoints", "Checkpoints of the write-ahead log", &self.checkpoints),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register("store_queue", "Commits that wait for the writer", self.queued.clone());
        let help = "1 after a flush has failed, or the database was lost: nothing is written until the server is restarted";
        registry.register("store_broken", help, self.broken.clone());
        let help = "1 while the database of the store cannot be reached";
        registry.register("store_away", help, self.away.clone());
        let help = "Transactions, by the number of commits that they made durable at once";
        registry.register("store_groups", help, self.groups.clone());
    }

    pub(super) fn read(&self, store: &Durable) {
        let StoreStats { commits, refused, flushes, checkpoints, queued, groups } = store.stats();
        for (counter, value) in [
            (&self.commits, commits),
            (&self.refused, refused),
            (&self.flushes, flushes),
            (&self.checkpoints, checkpoints),
        ] {
            counter.inner().store(value, Relaxed);
        }
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        let availability = *store.availability().borrow();
        self.broken.set(i64::from(matches!(availability, Availability::Broken { .. })));
        self.away.set(i64::from(matches!(availability, Availability::Away { .. })));
        for (log2, value) in (0..).zip(groups) {
            let labels = GroupLabels { commits_min: 1 << log2 };
            self.groups.get_or_create(&labels).inner().store(value, Relaxed);
        }
    }
}
