//! The store as one incarnation reaches it: late, failing, and at times with an unknown outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::watch;

use bmdemo::ids::{BatchId, MachineId, Revision, RunId};
use bmdemo::model::filter::Filter;
use bmdemo::model::{
    AuditHead, AuditRow, Change, Cursor, HistoryRow, Installation, Lock, LogChunk, Machine,
    Observed, Run,
};
use bmdemo::store::memory::MemoryStore;
use bmdemo::store::{
    Availability, Batch, Committed, Fut, Listener, LogHead, Outcome, Ownership, Page, Query,
    RequestRecord, Retention, SlotKey, Store, StoreError, Subject, Trimmed,
};

use crate::gate::Incarnation;
use crate::sim::{Outage, Point, Sim, poll_once};

/// The store in memory, seen by one incarnation.
pub(crate) struct SimStore {
    pub(crate) inner: Arc<MemoryStore>,
    pub(crate) sim: Arc<Sim>,
    pub(crate) who: Incarnation,
}

fn io(text: &str) -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::new(std::io::Error::other(text.to_owned()))
}

impl SimStore {
    async fn read<'a, T>(&'a self, read: Fut<'a, T>) -> Result<T, StoreError> {
        self.sim.gates.pass(self.who).await;
        self.sim.delay(self.sim.profile.store_ms / 4).await;
        let chance = self.sim.trouble(self.sim.profile.unavailable_permille / 4);
        if chance || self.sim.outage() == Outage::Unavailable {
            return Err(StoreError::Unavailable(io("a simulated read error")));
        }
        let answer = read.await;
        self.sim.delay(self.sim.profile.store_ms / 4).await;
        self.sim.gates.pass(self.who).await;
        answer
    }

    async fn write(&self, batch: Batch) -> Result<Arc<Committed>, StoreError> {
        let sim = &self.sim;
        sim.delay(sim.profile.store_ms).await;
        sim.point(self.who, Point::BeforeCommit(&batch)).await;
        if sim.trouble(sim.profile.unavailable_permille) || sim.outage() == Outage::Unavailable {
            return Err(StoreError::Unavailable(io("a simulated write error")));
        }
        if sim.outage() == Outage::Full {
            return Err(StoreError::Full(io("a simulated full disk")));
        }
        let in_doubt = sim.trouble(sim.profile.unknown_permille);
        if in_doubt && sim.below(2) == 0 {
            sim.note("a commit is lost, with an unknown outcome");
            return Err(StoreError::Unknown(io("a simulated loss of a commit")));
        }
        let copy = batch.clone();
        sim.oracle().committing = self.who;
        let mut commit = self.inner.commit(batch);
        let polled = poll_once(&mut commit).await;
        sim.oracle().committing = 0;
        let Poll::Ready(result) = polled else { panic!("the store in memory never waits") };
        if let Err(error) = &result {
            sim.note(format!("commit of {} refused: {error}", self.who));
        }
        sim.point(self.who, Point::AfterCommit(&copy)).await;
        sim.delay(sim.profile.store_ms).await;
        sim.gates.pass(self.who).await;
        if in_doubt && result.is_ok() {
            sim.note("a commit is durable, with an unknown outcome");
            return Err(StoreError::Unknown(io("a simulated loss of an answer")));
        }
        result
    }
}

impl Store for SimStore {
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>> {
        Box::pin(self.write(batch))
    }

    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome> {
        Box::pin(self.read(self.inner.outcome(id, since)))
    }

    fn availability(&self) -> watch::Receiver<Availability> {
        self.sim.availability()
    }

    fn ownership(&self) -> &dyn Ownership {
        self.inner.ownership()
    }

    fn slots(&self) -> Fut<'_, BTreeMap<SlotKey, u64>> {
        Box::pin(self.read(self.inner.slots()))
    }

    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>> {
        Box::pin(self.read(self.inner.machine(id)))
    }

    fn observed<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Observed>> {
        Box::pin(self.read(self.inner.observed(id)))
    }

    fn installation<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Installation>> {
        Box::pin(self.read(self.inner.installation(id)))
    }

    fn mac_owner<'a>(&'a self, mac: &'a str) -> Fut<'a, Option<MachineId>> {
        Box::pin(self.read(self.inner.mac_owner(mac)))
    }

    fn cursor<'a>(&'a self, receiver: &'a str) -> Fut<'a, Option<Cursor>> {
        Box::pin(self.read(self.inner.cursor(receiver)))
    }

    fn locks(&self) -> Fut<'_, Vec<Lock>> {
        Box::pin(self.read(self.inner.locks()))
    }

    fn machine_at<'a>(&'a self, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Machine>>> {
        Box::pin(self.read(self.inner.machine_at(id, at)))
    }

    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>> {
        Box::pin(self.read(self.inner.run(id)))
    }

    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>> {
        Box::pin(self.read(self.inner.run_at(id, at)))
    }

    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>> {
        Box::pin(self.read(self.inner.machines(query)))
    }

    fn runs(&self, query: Query) -> Fut<'_, Page<Run>> {
        Box::pin(self.read(self.inner.runs(query)))
    }

    fn count_machines(&self, filter: Filter) -> Fut<'_, u64> {
        Box::pin(self.read(self.inner.count_machines(filter)))
    }

    fn count_runs(&self, filter: Filter) -> Fut<'_, u64> {
        Box::pin(self.read(self.inner.count_runs(filter)))
    }

    fn plan<'a>(&'a self, digest: &'a str) -> Fut<'a, Option<Arc<str>>> {
        Box::pin(self.read(self.inner.plan(digest)))
    }

    fn request<'a>(
        &'a self,
        scope: &'a str,
        request_id: &'a str,
    ) -> Fut<'a, Option<RequestRecord>> {
        Box::pin(self.read(self.inner.request(scope, request_id)))
    }

    fn history(
        &self,
        subject: Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Fut<'_, Vec<HistoryRow>> {
        Box::pin(self.read(self.inner.history(subject, after, limit)))
    }

    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>> {
        Box::pin(self.read(self.inner.changes(after, limit)))
    }

    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>> {
        Box::pin(self.read(self.inner.logs(run, from, limit)))
    }

    fn log_head(&self, run: RunId) -> Fut<'_, LogHead> {
        Box::pin(self.read(self.inner.log_head(run)))
    }

    fn revisions(&self) -> Fut<'_, (Revision, Revision)> {
        Box::pin(self.read(self.inner.revisions()))
    }

    fn audit(&self, after: u64, limit: usize) -> Fut<'_, Vec<AuditRow>> {
        Box::pin(self.read(self.inner.audit(after, limit)))
    }

    fn audit_ends(&self) -> Fut<'_, (AuditHead, AuditHead)> {
        Box::pin(self.read(self.inner.audit_ends()))
    }

    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed> {
        Box::pin(self.read(self.inner.trim(retention)))
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        self.inner.listen(listener);
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }
}
