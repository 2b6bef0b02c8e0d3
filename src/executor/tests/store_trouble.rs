//! A store that fails once, at each commit in turn, or for an hour: nothing is lost and nothing is done twice.

mod corrupt;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

use super::harness::{Harness, machine_id, new_run, origin};
use crate::executor::EngineError;
use crate::executor::request::{MachineChanges, Origin, Verb};
use crate::ids::{BatchId, Epoch, MachineId, Revision, RunId};
use crate::lifecycle::{run, step::State};
use crate::model::filter::Filter;
use crate::model::{
    AuditHead, AuditRow, Change, Cursor, Entry, EntryKind, HistoryRow, HoldReason, Installation,
    Lock, LogChunk, Machine, Observed, Run,
};
use crate::store::{
    Availability, Batch, Committed, Fut, Listener, LogHead, Outcome, Ownership, Page, Query,
    RequestRecord, Retention, SlotKey, Store, StoreError, Subject, Trimmed, Unreadable,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing is written, and that is known.
    Unavailable,
    /// The same, because the disk is full.
    Full,
    /// Nothing is written, and the outcome is unknown.
    Lost,
    /// It is durable, and the outcome is unknown.
    Kept,
    /// Another writer is reported to have written first.
    Conflict,
    /// Another server is reported to own the machine's work.
    Fenced,
    /// An error that a retry cannot fix.
    Corrupt,
    Panic,
}

impl Trouble {
    /// Errors that an engine survives by itself.
    const PASSING: [Self; 5] =
        [Self::Unavailable, Self::Full, Self::Lost, Self::Kept, Self::Conflict];

    fn error(self) -> StoreError {
        let why = Arc::new(std::io::Error::other("a test"));
        match self {
            Self::Unavailable => StoreError::Unavailable(why),
            Self::Full => StoreError::Full(why),
            Self::Lost | Self::Kept => StoreError::Unknown(why),
            Self::Conflict => StoreError::Conflict {
                kind: "run",
                id: "a run".to_owned(),
                expected: Revision(1),
                stored: Revision(2),
            },
            Self::Corrupt | Self::Panic => StoreError::Corrupt {
                kind: "run",
                id: "a run".to_owned(),
                message: "a test".to_owned(),
            },
            Self::Fenced => {
                StoreError::Fenced { machine_id: machine_id(1), held: Epoch(1), current: Epoch(2) }
            }
        }
    }
}

/// When commits fail.
#[derive(Debug, Clone, Copy)]
enum Fails {
    Never,
    /// One commit, after `n` good ones.
    Once(Trouble, u32),
    Always(Trouble),
    /// `n` commits in a row.
    Times(Trouble, u32),
}

struct Troubled {
    inner: Arc<dyn Store>,
    fails: Mutex<Fails>,
    /// A run whose record cannot be read.
    unreadable: Mutex<Option<RunId>>,
}

impl Troubled {
    fn set(&self, fails: Fails) {
        *self.fails.lock().unwrap() = fails;
    }

    /// The error of the next commit.
    fn next(&self) -> Option<Trouble> {
        let mut fails = self.fails.lock().unwrap();
        let (trouble, left) = match *fails {
            Fails::Never => (None, Fails::Never),
            Fails::Once(trouble, 0) => (Some(trouble), Fails::Never),
            Fails::Once(trouble, more) => (None, Fails::Once(trouble, more - 1)),
            Fails::Always(trouble) => (Some(trouble), Fails::Always(trouble)),
            Fails::Times(_, 0) => (None, Fails::Never),
            Fails::Times(trouble, more) => (Some(trouble), Fails::Times(trouble, more - 1)),
        };
        *fails = left;
        trouble
    }

    /// Whether every commit succeeds from now on.
    fn is_well(&self) -> bool {
        matches!(*self.fails.lock().unwrap(), Fails::Never)
    }
}

impl Store for Troubled {
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>> {
        Box::pin(async move {
            let Some(trouble) = self.next() else { return self.inner.commit(batch).await };
            if trouble == Trouble::Kept {
                self.inner.commit(batch).await?;
            }
            assert_ne!(trouble, Trouble::Panic, "a bug that a test has planted");
            Err(trouble.error())
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
        if *self.unreadable.lock().unwrap() == Some(id) {
            return Box::pin(async { Err(Trouble::Corrupt.error()) });
        }
        self.inner.run(id)
    }

    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>> {
        self.inner.run_at(id, at)
    }

    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>> {
        self.inner.machines(query)
    }

    fn runs(&self, query: Query) -> Fut<'_, Page<Run>> {
        Box::pin(async move {
            let mut page = self.inner.runs(query).await?;
            let hidden = *self.unreadable.lock().unwrap();
            if let Some(place) = page.items.iter().position(|run| Some(run.id) == hidden) {
                let run = page.items.remove(place);
                page.unreadable.push(Unreadable {
                    kind: "run",
                    id: run.id.to_string(),
                    machine_id: Some(run.machine_id.clone()),
                    message: "a test".to_owned(),
                });
            }
            Ok(page)
        })
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

/// An engine with machine-1 on such a store, which works so far.
async fn troubled() -> (Harness, Arc<Troubled>) {
    let mut harness = Harness::new("").await;
    harness.register(1).await;
    let store = Arc::new(Troubled {
        inner: harness.store.clone(),
        fails: Mutex::new(Fails::Never),
        unreadable: Mutex::default(),
    });
    harness.engine.kill();
    harness.store = store.clone();
    harness.restart().await;
    (harness, store)
}

/// The traces of a run: its history and the output of its steps.
async fn traces(harness: &Harness, run: RunId) -> (Vec<(EntryKind, String)>, String) {
    let kind_and_step = |entry: Entry| (entry.kind, entry.step);
    let history = harness.history(run).await.into_iter().map(kind_and_step).collect();
    let chunks = harness.store.logs(run, 0, 10_000).await.unwrap();
    (history, chunks.iter().map(|chunk| chunk.text.as_str()).collect())
}

#[tokio::test(start_paused = true)]
async fn trouble_with_any_commit_of_a_run_leaves_no_trace() {
    let (harness, _) = troubled().await;
    let id = harness.start(1, "plan/repave-join").await.unwrap().id;
    harness.finished(id).await;
    let wanted = traces(&harness, id).await;
    for trouble in Trouble::PASSING {
        let mut commits = 0;
        loop {
            let (harness, store) = troubled().await;
            let id = harness.start(1, "plan/repave-join").await.unwrap().id;
            store.set(Fails::Once(trouble, commits));
            let run = harness.finished(id).await;
            if !store.is_well() {
                break;
            }
            let what = format!("{trouble:?} after {commits} commits");
            assert_eq!(run.phase(), run::Phase::Succeeded, "{what}: {run:#?}");
            assert!(run.steps.iter().all(|step| step.attempt == 1), "{what}: {run:#?}");
            harness.nothing_was_repeated();
            assert_eq!(traces(&harness, id).await, wanted, "{what}");
            commits += 1;
        }
        assert!(commits > 5, "the plan has five steps, and {commits} commits met {trouble:?}");
    }
}

/// An engine that lost its machine changes neither the store nor the world, until a restart claims it again.
#[tokio::test(start_paused = true)]
async fn a_run_whose_machine_another_server_owns_is_not_touched() {
    for commits in 0.. {
        let (mut harness, store) = troubled().await;
        let id = harness.start(1, "plan/repave-join").await.unwrap().id;
        store.set(Fails::Once(Trouble::Fenced, commits));
        // A minute ends the run, and the material it minted is still valid after two.
        harness.pass(60_000).await;
        if !store.is_well() {
            break;
        }
        let left = harness.engine.run(id).await.unwrap();
        assert!(left.state.is_active(), "after {commits} commits: {left:#?}");
        let done = harness.ledger().len();
        harness.pass(60_000).await;
        assert_eq!(harness.engine.run(id).await.unwrap(), left, "after {commits} commits");
        assert_eq!(harness.ledger().len(), done, "after {commits} commits");
        harness.crash().await;
        let run = harness.finished(id).await;
        assert_eq!(run.phase(), run::Phase::Succeeded, "after {commits} commits: {run:#?}");
        harness.nothing_was_repeated();
    }
}

/// A client that gets a store error repeats the request with the same request id, and has one run in the end.
#[tokio::test(start_paused = true)]
async fn what_a_client_asks_again_is_done_once() {
    let asked = |id: &str| Origin {
        request_id: id.to_owned(),
        body_digest: "digest".to_owned(),
        ..origin()
    };
    for trouble in Trouble::PASSING {
        let (harness, store) = troubled().await;
        store.set(Fails::Once(trouble, 0));
        let request = asked("start");
        let start = || harness.engine.start_run(&request, new_run(1, "plan/repave-join"));
        let first = start().await;
        assert!(matches!(first, Ok(_) | Err(EngineError::Store(_))), "{trouble:?}: {first:?}");
        let id = start().await.unwrap().id;
        assert_eq!(harness.machine(1).await.active_run, Some(id), "{trouble:?}");

        store.set(Fails::Once(trouble, 0));
        let again = asked("pause");
        let pause = || harness.engine.operate(&again, id, Verb::Pause);
        let first = pause().await;
        assert!(matches!(first, Ok(_) | Err(EngineError::Store(_))), "{trouble:?}: {first:?}");
        pause().await.unwrap();
        harness.until(id, |run| run.state == run::State::Held).await;
        harness.operate(id, Verb::Resume).await.unwrap();
        let run = harness.finished(id).await;
        assert_eq!(run.phase(), run::Phase::Succeeded, "{trouble:?}: {run:#?}");
        harness.nothing_was_repeated();
        let history = harness.history(id).await;
        for kind in [EntryKind::RunCreated, EntryKind::RunPauseRequested] {
            let count = history.iter().filter(|entry| entry.kind == kind).count();
            assert_eq!(count, 1, "{trouble:?}: {kind:?}");
        }
    }
}

/// While the store is unavailable, requests of clients are refused; results from the world are kept for later.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_an_hour_costs_nothing_but_the_hour() {
    for trouble in [Trouble::Unavailable, Trouble::Full] {
        let (harness, store) = troubled().await;
        let id = harness.start(1, "plan/repave-join").await.unwrap().id;
        harness.polling(id, 1).await;
        store.set(Fails::Always(trouble));
        harness.pass(3_600_000).await;
        let id_1 = machine_id(1);
        let changes = MachineChanges {
            ssh_endpoint: Some("10.0.0.1:22".to_owned()),
            ..MachineChanges::default()
        };
        let answers = [
            harness.operate(id, Verb::Pause).await.map(drop),
            harness.start(1, "plan/reboot").await.map(drop),
            harness.engine.update_machine(&origin(), &id_1, changes).await.map(drop),
            harness.engine.clear_intervention(&origin(), &id_1).await.map(drop),
            harness.engine.delete_machine(&origin(), &id_1).await,
        ];
        for answer in answers {
            assert!(matches!(answer, Err(EngineError::Store(_))), "{trouble:?}: {answer:?}");
        }
        let run = harness.engine.run(id).await.unwrap();
        assert!(matches!(run.steps[1].state, State::Polling { .. }), "{trouble:?}: {run:#?}");
        store.set(Fails::Never);
        let run = harness.finished(id).await;
        assert_eq!(run.phase(), run::Phase::Succeeded, "{trouble:?}: {run:#?}");
        harness.nothing_was_repeated();
    }
}

/// Errors that a retry cannot fix, and panics, are retried a few times; then an operator must look.
#[tokio::test(start_paused = true)]
async fn a_run_at_which_the_engine_fails_again_and_again_is_held() {
    for trouble in [Trouble::Corrupt, Trouble::Panic] {
        let (harness, store) = troubled().await;
        harness.register(2).await;
        let id = harness.start(1, "plan/repave-join").await.unwrap().id;
        harness.polling(id, 1).await;
        store.set(Fails::Times(trouble, 3));
        let held = harness.until(id, |run| run.state == run::State::Held).await;
        assert_eq!(held.hold.as_ref().unwrap().reason, HoldReason::EngineFault, "{trouble:?}");
        let needed = harness.intervention().await.unwrap();
        assert_eq!((needed.status, needed.reason.as_str()), (true, "ENGINE_FAULT"), "{trouble:?}");
        let other = harness.start(2, "plan/repave-join").await.unwrap().id;
        assert_eq!(harness.finished(other).await.phase(), run::Phase::Succeeded);
        harness.operate(id, Verb::Resume).await.unwrap();
        assert!(!harness.intervention().await.unwrap().status, "{trouble:?}");
        let run = harness.finished(id).await;
        assert_eq!(run.phase(), run::Phase::Succeeded, "{trouble:?}: {run:#?}");
        harness.nothing_was_repeated();
    }
}
