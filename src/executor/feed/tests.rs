mod property;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio_stream::{Stream, StreamExt as _};

use super::*;
use crate::clock::{Timestamp, TokioClock};
use crate::executor::error::EngineError;
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run::State as RunState;
use crate::model::filter::{Filter, Subject};
use crate::model::{
    Actor, Entry, EntryKind, LogChunk, LogStream, Machine, MachineSpec, Run, RunType,
};
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Committed, Store as _, Write};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

type Items<T> = Pin<Box<dyn Stream<Item = Result<WatchItem<T>, EngineError>> + Send>>;

struct World {
    store: Arc<MemoryStore>,
    hub: WatchHub,
}

impl World {
    fn new(limits: WatchLimits) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(TokioClock::new(NOW))));
        let hub = WatchHub::new(Arc::new(TokioClock::new(NOW)), limits);
        store.listen(Arc::new(hub.clone()));
        Self { store, hub }
    }

    fn machines(&self, filter: &str, start: Start) -> Items<Machine> {
        let filter = Filter::parse(filter, Subject::Machine).unwrap();
        Box::pin(self.hub.watch_machines(self.store.clone(), filter, start))
    }

    fn runs(&self, filter: &str, start: Start) -> Items<Run> {
        let filter = Filter::parse(filter, Subject::Run).unwrap();
        Box::pin(self.hub.watch_runs(self.store.clone(), filter, start))
    }

    async fn commit(&self, batch: Batch) -> Arc<Committed> {
        let committed = self.store.commit(batch).await.unwrap();
        self.hub.publish();
        committed
    }

    async fn register(&self, name: &str) -> Arc<Machine> {
        let committed = self.commit(Batch::of(write(None, machine(name)))).await;
        committed.machine().unwrap().clone()
    }

    async fn write_run(&self, run: Run, logs: Vec<LogChunk>) -> Arc<Run> {
        let before = self.store.run(run.id).await.unwrap();
        let kind = if before.is_none() { EntryKind::RunCreated } else { EntryKind::RunStarted };
        let entries = vec![Entry::new(kind, Actor::engine())];
        let batch = Batch { logs, ..Batch::of(Write::new(before, run, entries)) };
        self.commit(batch).await.run().unwrap().clone()
    }
}

fn machine(name: &str) -> Machine {
    let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
    Machine::registered(MachineId::parse(name).unwrap(), BTreeMap::new(), spec, NOW)
}

fn write(before: Option<&Arc<Machine>>, after: Machine) -> Write {
    let kind =
        if before.is_none() { EntryKind::MachineRegistered } else { EntryKind::PhaseChanged };
    Write::new(before.cloned(), after, vec![Entry::new(kind, Actor::engine())])
}

fn run(number: u64, machine: &str) -> Run {
    let id = RunId::new(NOW, [number, 0]);
    let mut run = crate::testing::run(id, MachineId::parse(machine).unwrap(), NOW);
    let spec = Arc::make_mut(&mut run.spec);
    (spec.run_type, spec.plan_id) = (RunType::Reboot, "plan/reboot".to_owned());
    run
}

fn chunk(run: &Run, offset: u64, step: &str) -> LogChunk {
    LogChunk {
        run_id: run.id,
        offset,
        at: NOW,
        step: step.to_owned(),
        attempt: 1,
        stream: LogStream::Stdout,
        text: format!("line {offset}\n"),
        truncated: false,
    }
}

/// Items that are available without waiting.
fn poll<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

fn drain<T>(stream: &mut Items<T>) -> Vec<String>
where
    WatchItem<T>: Line,
{
    let mut lines = Vec::new();
    loop {
        match poll(stream) {
            Poll::Ready(Some(Ok(item))) => lines.push(item.line()),
            Poll::Ready(Some(Err(error))) => lines.push(format!("error: {error}")),
            Poll::Ready(None) => {
                lines.push("end".to_owned());
                return lines;
            }
            Poll::Pending => return lines,
        }
    }
}

/// A line for each item, for the tests below.
trait Line {
    fn line(&self) -> String;
}

fn line_of<T>(item: &WatchItem<T>, name: impl Fn(&T) -> String) -> String {
    match item {
        WatchItem::Snapshot(object, as_of) => format!("snapshot {} @{as_of}", name(object)),
        WatchItem::Synced(revision) => format!("synced @{revision}"),
        WatchItem::Change { event, resume } => {
            format!("change {} @{} resume {resume}", name(&event.record), event.revision)
        }
        WatchItem::Removed { event, resume } => {
            format!("removed {} @{} resume {resume}", name(&event.record), event.revision)
        }
        WatchItem::LeftOut(count) => format!("left out {count}"),
        WatchItem::Bookmark(revision) => format!("bookmark @{revision}"),
    }
}

impl Line for WatchItem<Machine> {
    fn line(&self) -> String {
        line_of(self, |machine| format!("{} {}", machine.id, machine.phase))
    }
}

impl Line for WatchItem<Run> {
    fn line(&self) -> String {
        line_of(self, |run| format!("{} {}", run.machine_id, run.phase()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_lists_then_follows_and_reports_removals() {
    let world = World::new(WatchLimits::default());
    let first = world.register("m-1").await;
    let mut all = world.machines("", Start::Snapshot);
    let mut fresh = world.machines("phase=FACTORY_READY", Start::Snapshot);
    assert_eq!(drain(&mut all), ["snapshot m-1 FACTORY_READY @1", "synced @1"]);
    assert_eq!(drain(&mut fresh), ["snapshot m-1 FACTORY_READY @1", "synced @1"]);

    let ready = Machine { phase: Phase::Ready, ..(*first).clone() };
    let writes = vec![write(Some(&first), ready), write(None, machine("m-2"))];
    let committed = world.commit(Batch { writes, ..Batch::default() }).await;
    let second = committed.written::<Machine>().nth(1).unwrap().clone();
    assert_eq!(
        drain(&mut all),
        ["change m-1 READY @2 resume 1", "change m-2 FACTORY_READY @2 resume 2"]
    );
    assert_eq!(
        drain(&mut fresh),
        ["removed m-1 READY @2 resume 1", "change m-2 FACTORY_READY @2 resume 2"]
    );

    world.commit(Batch::of(Write::deletion(second, Vec::new()))).await;
    assert_eq!(drain(&mut all), ["removed m-2 FACTORY_READY @3 resume 3"]);
    assert_eq!(drain(&mut fresh), ["removed m-2 FACTORY_READY @3 resume 3"]);
    // A resumed watch judges by the records before and after, as they are in the change feed.
    let mut late = world.machines("phase=FACTORY_READY", Start::Resume(Revision(1)));
    assert_eq!(
        drain(&mut late),
        [
            "removed m-1 READY @2 resume 1",
            "change m-2 FACTORY_READY @2 resume 2",
            "removed m-2 FACTORY_READY @3 resume 3"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_one_run_ends_after_its_terminal_state() {
    let world = World::new(WatchLimits::default());
    world.register("m-1").await;
    let pending = world.write_run(run(1, "m-1"), Vec::new()).await;
    let filter = format!("run_id={}", pending.id);
    let mut watch = world.runs(&filter, Start::Snapshot);
    assert_eq!(drain(&mut watch), ["snapshot m-1 PENDING @2", "synced @2"]);
    let ended = Run { state: RunState::Succeeded, ..(*pending).clone() };
    world.write_run(ended, Vec::new()).await;
    assert_eq!(drain(&mut watch), ["change m-1 SUCCEEDED @3 resume 3", "end"]);
    for (start, lines) in [
        (Start::Snapshot, vec!["snapshot m-1 SUCCEEDED @3", "synced @3", "end"]),
        (Start::Resume(Revision(2)), vec!["change m-1 SUCCEEDED @3 resume 3", "end"]),
        (Start::Resume(Revision(3)), vec!["end"]),
        (Start::Now, vec!["synced @3", "end"]),
    ] {
        assert_eq!(drain(&mut world.runs(&filter, start)), lines, "{start:?}");
    }
    let mut narrow = world.runs(&format!("{filter} AND phase=PENDING"), Start::Resume(Revision(2)));
    assert_eq!(drain(&mut narrow), ["removed m-1 SUCCEEDED @3 resume 3", "end"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_sends_bookmarks_that_count_commits_of_others() {
    let world = World::new(WatchLimits::default());
    world.register("m-1").await;
    let mut watch = world.machines("machine_id=m-1", Start::Now);
    assert_eq!(drain(&mut watch), ["synced @1"]);
    world.register("m-2").await;
    let before = world.hub.shared.clock.now();
    assert_eq!(watch.next().await.unwrap().unwrap().line(), "bookmark @2");
    assert_eq!(world.hub.shared.clock.now().since(before), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn watchers_are_bounded_and_give_their_place_back() {
    let world = World::new(WatchLimits { watchers_max: 2, ..WatchLimits::default() });
    let mut open: Vec<_> = (0..2).map(|_| world.machines("", Start::Now)).collect();
    for watch in &mut open {
        assert_eq!(drain(watch), ["synced @0"]);
    }
    let refused = drain(&mut world.machines("", Start::Now));
    assert_eq!(refused, ["error: 2 watches are open, and no more are allowed", "end"]);
    open.pop();
    assert_eq!(drain(&mut world.machines("", Start::Now)), ["synced @0"]);
    drop(open);
    assert_eq!(world.hub.watchers(), 0);
    assert!(world.hub.filters() == 0);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_watches_after_what_they_have() {
    let world = World::new(WatchLimits::default());
    let mut watch = world.machines("", Start::Now);
    assert_eq!(drain(&mut watch), ["synced @0"]);
    world.register("m-1").await;
    world.hub.close();
    let lines = drain(&mut watch);
    assert_eq!(
        lines,
        ["change m-1 FACTORY_READY @1 resume 1", "error: the server is shutting down", "end"]
    );
    assert_eq!(drain(&mut world.machines("", Start::Now))[0], "error: the server is shutting down");
}

#[tokio::test(start_paused = true)]
async fn a_revision_of_another_store_is_refused() {
    let world = World::new(WatchLimits::default());
    let lines = drain(&mut world.machines("", Start::Resume(Revision(7))));
    assert!(
        lines[0].starts_with("error: resume_from: is 7, but the newest revision is 0"),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lagging_watcher_is_marked_and_catches_up() {
    let world = World::new(WatchLimits { queue_events_max: 3, ..WatchLimits::default() });
    let mut watch = world.machines("", Start::Now);
    assert_eq!(drain(&mut watch), ["synced @0"]);
    for number in 1..=10 {
        world.register(&format!("m-{number}")).await;
    }
    assert_eq!(world.hub.lagging(), 1);
    let lines = drain(&mut watch);
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[9], "change m-10 FACTORY_READY @10 resume 10");
    assert_eq!(world.hub.lagging(), 0);
}

#[tokio::test(start_paused = true)]
async fn logs_are_replayed_then_followed_to_the_end_of_the_run() {
    let world = World::new(WatchLimits::default());
    world.register("m-1").await;
    let pending = world.write_run(run(1, "m-1"), Vec::new()).await;
    let grown = Run { state: RunState::Running, ..(*pending).clone() };
    let chunks = vec![chunk(&grown, 0, "drain"), chunk(&grown, 1, "reboot")];
    let running = world.write_run(grown, chunks).await;
    let follow = |query: LogQuery| {
        Box::pin(follow_logs(world.store.clone(), world.hub.clone(), running.id, query))
    };
    let offsets = |stream: &mut Pin<Box<_>>| {
        let mut offsets = Vec::new();
        while let Poll::Ready(Some(chunk)) = poll(stream) {
            let chunk: Result<Arc<LogChunk>, EngineError> = chunk;
            offsets.push(chunk.unwrap().offset);
        }
        offsets
    };
    let mut all = follow(LogQuery { follow: true, ..LogQuery::default() });
    let mut tail = follow(LogQuery { follow: true, tail: Some(1), ..LogQuery::default() });
    let query = LogQuery { follow: true, step: "reboot".to_owned(), ..LogQuery::default() };
    let mut step = follow(query);
    let mut stored = follow(LogQuery { from: 1, ..LogQuery::default() });
    assert_eq!(offsets(&mut all), [0, 1]);
    assert_eq!(offsets(&mut tail), [1]);
    assert_eq!(offsets(&mut step), [1]);
    assert_eq!(offsets(&mut stored), [1]);
    assert!(matches!(poll(&mut stored), Poll::Ready(None)), "not following, so it is over");

    let grown = Run { state: RunState::Succeeded, ..(*running).clone() };
    let last = vec![chunk(&grown, 2, "reboot")];
    world.write_run(grown, last).await;
    for stream in [&mut all, &mut tail, &mut step] {
        assert_eq!(offsets(stream), [2]);
        assert!(matches!(poll(stream), Poll::Ready(None)), "over with the run");
    }
    assert_eq!(world.hub.watchers(), 0);
    let unknown = RunId::new(NOW, [99, 0]);
    let query = LogQuery::default();
    let mut none = Box::pin(follow_logs(world.store.clone(), world.hub.clone(), unknown, query));
    assert!(matches!(poll(&mut none), Poll::Ready(Some(Err(EngineError::NotFound { .. })))));
}
