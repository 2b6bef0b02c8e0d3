//! Stores with deliberate bugs: a suite that passes them has proved nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio::sync::watch;

use super::*;
use crate::ids::{BatchId, RunId};
use crate::model::filter::Filter;
use crate::model::{
    AuditHead, AuditRow, Change, Cursor, HistoryRow, Installation, Lock, LogChunk, Object, Observed,
};
use crate::store::{
    Availability, Fut, Listener, LogHead, Outcome, Ownership, Page, Position, Retention, SlotKey,
    Subject, Trimmed,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// None: the wrapper itself is right.
    None,
    /// The last writer wins.
    RevisionIgnored,
    EpochIgnored,
    RequestForgotten,
    /// A refused batch leaves its machines behind.
    HalfWritten,
    /// One change in twenty is not in the feed, as with revisions from a sequence.
    ChangeMissed,
    CommitCutInFeed,
    CompactionHidden,
    /// Pages count rows instead of remembering a position.
    PagesByOffset,
    /// Reads show the present, whatever revision is requested.
    PastIgnored,
    HistoryUnordered,
    ListenersToldLate,
    LogsOffByOne,
    LogsMiscounted,
    ActiveRunTrimmed,
    /// A change lacks the record before it.
    BeforeForgotten,
    /// Of several machines only the first is held.
    OneHoldChecked,
    SlotsIgnored,
    /// A cursor moves from wherever it is.
    CursorTaken,
    /// A batch is reported as not durable without checking.
    OutcomeGuessed,
    /// The audit is written in a commit of its own.
    AuditApart,
}

struct Wrong {
    inner: Arc<dyn Store>,
    bug: Bug,
    calls: AtomicU64,
}

impl Wrong {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }
}

/// A listener that is notified of a commit only when the next one comes.
struct Late(Arc<dyn Listener>, std::sync::Mutex<Option<Arc<Committed>>>);

impl Listener for Late {
    fn committed(&self, committed: &Arc<Committed>) {
        if let Some(last) = self.1.lock().unwrap().replace(committed.clone()) {
            self.0.committed(&last);
        }
    }
}

impl Store for Wrong {
    fn commit(&self, mut batch: Batch) -> Fut<'_, Arc<Committed>> {
        Box::pin(async move {
            if self.has(Bug::RevisionIgnored) {
                for write in &mut batch.writes {
                    if let Object::Machine(images) = &mut write.object {
                        let id = images.last().map(|machine| machine.id.clone()).unwrap();
                        images.before = self.inner.machine(&id).await?;
                    }
                }
            }
            if self.has(Bug::EpochIgnored) {
                batch.holds.clear();
            }
            if self.has(Bug::OneHoldChecked) {
                batch.holds.truncate(1);
            }
            if self.has(Bug::SlotsIgnored) {
                batch.slots.clear();
            }
            if self.has(Bug::CursorTaken) {
                for step in &mut batch.cursors {
                    step.before = self.inner.cursor(&step.receiver).await?;
                }
            }
            if self.has(Bug::RequestForgotten) {
                batch.request = None;
            }
            let audit = match self.has(Bug::AuditApart) {
                true => std::mem::take(&mut batch.audit),
                false => Vec::new(),
            };
            let is_machine = |write: &&Write| write.images::<Machine>().is_some();
            let writes = batch.writes.iter().filter(is_machine).cloned().collect();
            let done = self.inner.commit(batch).await;
            if !audit.is_empty() {
                self.inner.commit(Batch { audit, ..Batch::default() }).await?;
            }
            if self.has(Bug::HalfWritten) && done.is_err() {
                let half = Batch { writes, ..Batch::default() };
                let _ = self.inner.commit(half).await;
            }
            done
        })
    }

    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome> {
        if self.has(Bug::OutcomeGuessed) {
            return Box::pin(async { Ok(Outcome::NotCommitted) });
        }
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
        if self.has(Bug::PastIgnored) {
            self.inner.machine(id)
        } else {
            self.inner.machine_at(id, at)
        }
    }

    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>> {
        self.inner.run(id)
    }

    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>> {
        if self.has(Bug::PastIgnored) { self.inner.run(id) } else { self.inner.run_at(id, at) }
    }

    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>> {
        if !self.has(Bug::PagesByOffset) {
            return self.inner.machines(query);
        }
        Box::pin(async move {
            let skip = query.after.as_ref().and_then(Position::ordinal).unwrap_or_default();
            let skip = usize::try_from(skip).unwrap();
            let all = Query { after: None, limit: usize::MAX, ..query.clone() };
            let mut page = self.inner.machines(all).await?;
            let more = page.items.len() > skip + query.limit;
            page.items = page.items.into_iter().skip(skip).take(query.limit).collect();
            page.next = more.then_some(Position::Ordinal((skip + query.limit) as u64));
            Ok(page)
        })
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

    fn request<'a>(&'a self, scope: &'a str, id: &'a str) -> Fut<'a, Option<RequestRecord>> {
        self.inner.request(scope, id)
    }

    fn history(
        &self,
        subject: Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Fut<'_, Vec<HistoryRow>> {
        Box::pin(async move {
            let mut rows = self.inner.history(subject, after, limit).await?;
            if self.has(Bug::HistoryUnordered) {
                rows.sort_by_key(|row| row.run_id);
            }
            Ok(rows)
        })
    }

    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>> {
        Box::pin(async move {
            let mut changes = match self.inner.changes(after, limit).await {
                Err(StoreError::Compacted { oldest }) if self.has(Bug::CompactionHidden) => {
                    self.inner.changes(oldest, limit).await?
                }
                read => read?,
            };
            if self.has(Bug::BeforeForgotten) {
                for change in &mut changes {
                    match &mut change.object {
                        Object::Machine(images) if images.after.is_some() => images.before = None,
                        Object::Run(images) => images.before = None,
                        Object::Machine(_) => {}
                    }
                }
            }
            if self.has(Bug::CommitCutInFeed) {
                changes.truncate(limit.max(1));
            }
            if self.has(Bug::ChangeMissed) {
                changes.retain(|_| self.calls.fetch_add(1, SeqCst) % 20 != 19);
            }
            Ok(changes)
        })
    }

    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>> {
        let from = if self.has(Bug::LogsOffByOne) { from.saturating_add(1) } else { from };
        self.inner.logs(run, from, limit)
    }

    fn log_head(&self, run: RunId) -> Fut<'_, LogHead> {
        Box::pin(async move {
            let mut head = self.inner.log_head(run).await?;
            head.chunks += u64::from(self.has(Bug::LogsMiscounted));
            Ok(head)
        })
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
        Box::pin(async move {
            let trimmed = self.inner.trim(retention).await?;
            if self.has(Bug::ActiveRunTrimmed) {
                let query = Query { active_only: true, limit: 1, ..Query::default() };
                for run in self.inner.runs(query).await?.items {
                    let ended =
                        Run { state: State::Failed, finished_at: Some(T0), ..(*run).clone() };
                    self.inner.commit(batch([run_write(Some(&run), &ended)])).await?;
                    self.inner.trim(retention).await?;
                }
            }
            Ok(trimmed)
        })
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        if self.has(Bug::ListenersToldLate) {
            return self.inner.listen(Arc::new(Late(listener, std::sync::Mutex::default())));
        }
        self.inner.listen(listener);
    }

    fn kind(&self) -> &'static str {
        "wrong"
    }
}

/// Names of the cases that a store with `bug` fails.
fn failing(bug: Bug) -> Vec<&'static str> {
    let failing = CASES.iter().filter(|(_, case)| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let right = fresh_memory();
        let store = Wrong { inner: right.store.clone(), bug, calls: AtomicU64::new(0) };
        let fresh = Fresh { store: Arc::new(store), ..right };
        let failed = runtime.block_on(async { tokio::spawn(case(fresh)).await.is_err() });
        runtime.shutdown_background();
        failed
    });
    failing.map(|(name, _)| *name).collect()
}

#[test]
fn a_right_store_passes_every_case() {
    assert_eq!(failing(Bug::None), [""; 0]);
}

#[test]
fn every_wrong_store_is_caught() {
    for (bug, case) in [
        // The race of "no_update_is_lost_under_contention" needs luck to show it; this case does not.
        (Bug::RevisionIgnored, "a_refused_batch_leaves_no_trace"),
        (Bug::EpochIgnored, "a_fenced_writer_cannot_write"),
        (Bug::RequestForgotten, "a_request_id_is_used_once"),
        (Bug::HalfWritten, "a_refused_batch_leaves_no_trace"),
        (Bug::ChangeMissed, "readers_see_every_change_once_in_order"),
        (Bug::CommitCutInFeed, "changes_come_as_whole_commits"),
        (Bug::CompactionHidden, "readers_behind_the_compaction_get_an_error"),
        (Bug::PagesByOffset, "pages_are_stable_under_inserts_and_deletions"),
        (Bug::PastIgnored, "a_run_is_known_as_of_every_revision"),
        (Bug::HistoryUnordered, "history_is_ordered_and_pages"),
        (Bug::ListenersToldLate, "listeners_hear_in_order_before_the_writer"),
        (Bug::LogsOffByOne, "logs_are_dense"),
        (Bug::LogsMiscounted, "logs_are_dense"),
        (Bug::ActiveRunTrimmed, "an_active_run_loses_nothing"),
        (Bug::BeforeForgotten, "a_list_and_the_changes_after_it_make_the_final_state"),
        (Bug::OneHoldChecked, "many_machines_are_held_in_one_batch"),
        (Bug::SlotsIgnored, "slots_are_exact_under_racing_runs"),
        (Bug::CursorTaken, "a_cursor_moves_from_where_its_writer_saw_it"),
        (Bug::OutcomeGuessed, "the_outcome_of_a_batch_can_be_asked_for"),
        (Bug::AuditApart, "the_audit_is_written_with_what_it_speaks_of"),
    ] {
        let failing = failing(bug);
        assert!(failing.contains(&case), "{bug:?} fails only {failing:?}");
    }
}
