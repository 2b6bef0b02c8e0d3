//! Watchers that repeatedly lose their connection, and one that never reads.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bmdemo::executor::feed::{Start, WatchHub, WatchItem, WatchLimits};
use bmdemo::executor::{Engine, EngineError};
use bmdemo::ids::{MachineId, Revision};
use bmdemo::model::filter::{Filter, Subject};
use bmdemo::model::{Machine, Run};
use bmdemo::store::Store as _;
use bmdemo::store::memory::MemoryStore;
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt as _};

use crate::book::Object;
use crate::sim::Sim;

/// The serving engine. A watch channel of tokio would wake its receivers in a random order.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    engine: Mutex<(u64, Option<Engine>)>,
    changed: Notify,
}

impl Serving {
    pub(crate) fn set(&self, engine: Option<Engine>) {
        let mut serving = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        *serving = (serving.0 + 1, engine);
        drop(serving);
        self.changed.notify_waiters();
    }

    fn get(&self) -> (u64, Option<Engine>) {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The serving engine, and the number of the change that made it so.
    async fn up(&self) -> (u64, Engine) {
        loop {
            match self.get() {
                (since, Some(engine)) => return (since, engine),
                (since, None) => self.changed(since).await,
            }
        }
    }

    /// Resolves once it differs from what it was after change `since`.
    async fn changed(&self, since: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.get().0 != since {
                return;
            }
            changed.await;
        }
    }
}

/// What a watcher received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Revision from which it has watched.
    pub(crate) from: Revision,
    pub(crate) changes: Vec<(Revision, Object)>,
    /// Where it can resume.
    pub(crate) resume: Revision,
}

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    Runs,
    RunsOf(MachineId),
    /// Runs that are running, or were so far.
    RunsRunning,
    Machines,
}

impl Scope {
    pub(crate) fn covers(&self, object: &Object) -> bool {
        match (self, object) {
            (Self::Runs | Self::RunsRunning, Object::Run(..))
            | (Self::Machines, Object::Machine(_)) => true,
            (Self::RunsOf(machine), Object::Run(of, _)) => machine == of,
            (Self::Runs | Self::RunsOf(_) | Self::RunsRunning, Object::Machine(_))
            | (Self::Machines, Object::Run(..)) => false,
        }
    }
}

/// A watcher, and what it received so far.
pub(crate) struct Watcher {
    pub(crate) scope: Scope,
    seen: Arc<Mutex<Seen>>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

type Items = Pin<Box<dyn Stream<Item = Result<Item, EngineError>> + Send>>;

/// An item of a watch, of either kind.
enum Item {
    Change { revision: Revision, resume: Revision, object: Object },
    Bookmark(Revision),
    Other,
}

fn of_run(item: WatchItem<Run>) -> Item {
    plain(item, |run| Object::Run(run.machine_id.clone(), run.id))
}

fn of_machine(item: WatchItem<Machine>) -> Item {
    plain(item, |machine| Object::Machine(machine.id.clone()))
}

fn plain<T>(item: WatchItem<T>, name: impl Fn(&T) -> Object) -> Item {
    match item {
        WatchItem::Change { event, resume } | WatchItem::Removed { event, resume } => {
            Item::Change { revision: event.revision, resume, object: name(&event.record) }
        }
        WatchItem::LeftOut(count) => panic!("{count} records cannot be read"),
        WatchItem::Bookmark(revision) => Item::Bookmark(revision),
        WatchItem::Snapshot(..) | WatchItem::Synced(_) => Item::Other,
    }
}

fn open(engine: &Engine, scope: &Scope, start: Start) -> Items {
    let store = engine.store().clone();
    match scope {
        Scope::Runs => Box::pin(
            engine.watch().watch_runs(store, Filter::default(), start).map(|i| i.map(of_run)),
        ),
        Scope::RunsOf(machine) => {
            let filter = Filter::parse(&format!("machine_id={machine}"), Subject::Run);
            let filter = filter.expect("a filter");
            Box::pin(engine.watch().watch_runs(store, filter, start).map(|i| i.map(of_run)))
        }
        Scope::RunsRunning => {
            let filter = Filter::parse("phase=RUNNING", Subject::Run).expect("a filter");
            Box::pin(engine.watch().watch_runs(store, filter, start).map(|i| i.map(of_run)))
        }
        Scope::Machines => {
            let watch = engine.watch().watch_machines(store, Filter::default(), start);
            Box::pin(watch.map(|item| item.map(of_machine)))
        }
    }
}

impl Watcher {
    /// Watches from now on, with whatever engine serves.
    pub(crate) fn spawn(
        sim: Arc<Sim>,
        scope: Scope,
        from: Revision,
        serving: Arc<Serving>,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen { from, changes: Vec::new(), resume: from }));
        let watcher = Self { scope: scope.clone(), seen: seen.clone() };
        tokio::spawn(async move {
            loop {
                let (since, engine) = serving.up().await;
                let resume = {
                    let mut seen = lock(&seen);
                    // Half of a commit is repeated.
                    let resume = seen.resume;
                    seen.changes.retain(|(revision, _)| *revision <= resume);
                    resume
                };
                let mut items = open(&engine, &scope, Start::Resume(resume));
                let patience = sim.sleep_ms(1 + sim.below(20_000));
                tokio::pin!(patience);
                loop {
                    tokio::select! {
                        biased;
                        () = serving.changed(since) => break,
                        item = items.next() => match item {
                            Some(Ok(item)) => take(&seen, item),
                            Some(Err(_)) | None => break,
                        },
                        () = &mut patience, if !sim.is_healed() => break,
                    }
                }
                drop(items);
                sim.sleep_ms(1 + sim.below(100)).await;
            }
        });
        watcher
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

fn take(seen: &Mutex<Seen>, item: Item) {
    let mut seen = lock(seen);
    match item {
        Item::Change { revision, resume, object } => {
            seen.changes.push((revision, object));
            seen.resume = resume;
        }
        Item::Bookmark(revision) => seen.resume = revision,
        Item::Other => {}
    }
}

/// A watcher with a short queue that never reads until the end.
pub(crate) struct Sleeper {
    items: Items,
    seen: Mutex<Seen>,
}

impl Sleeper {
    pub(crate) async fn start(sim: &Sim, store: &Arc<MemoryStore>) -> Self {
        let limits = WatchLimits { queue_events_max: 4, ..WatchLimits::default() };
        let hub = Arc::new(WatchHub::new(sim.clock.clone(), limits));
        store.listen(hub.clone());
        tokio::spawn(WatchHub::clone(&hub).run());
        let from = sim.oracle().book.head;
        let start = Start::Resume(from);
        let items = hub.watch_runs(store.clone(), Filter::default(), start);
        let mut items: Items = Box::pin(items.map(|item| item.map(of_run)));
        let seen = Mutex::new(Seen { from, changes: Vec::new(), resume: from });
        // It subscribes, and then reads no more.
        let first = std::future::poll_fn(|context| {
            std::task::Poll::Ready(match items.as_mut().poll_next(context) {
                std::task::Poll::Ready(Some(Ok(item))) => Some(item),
                std::task::Poll::Ready(_) | std::task::Poll::Pending => None,
            })
        });
        if let Some(item) = first.await {
            take(&seen, item);
        }
        Self { items, seen }
    }

    /// Reads everything up to `head`.
    pub(crate) async fn wake(mut self, head: Revision) -> Seen {
        while lock(&self.seen).resume < head {
            match self.items.next().await {
                Some(Ok(item)) => take(&self.seen, item),
                Some(Err(_)) | None => break,
            }
        }
        self.seen.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
