//! Fan-out of commits to whoever watches.
//!
//! A commit is offered to the watchers that are interested in its objects and to nobody else, without waiting for
//! any of them: each has a bounded queue, and one that overflows is emptied and marked. Its watcher then reads what
//! it missed from the store's log and goes on with the queue, so a slow reader costs neither the engine nor itself
//! an event.

mod queue;
mod stream;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_stream::Stream;

use self::queue::Queue;
use super::error::EngineError;
use crate::clock::{Clock, Timestamp};
use crate::ids::{MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{Change, Entry, Machine, Object, Run};
use crate::store::{Committed, Listener, Store};

/// Bounds of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchLimits {
    /// Most watches and log followers at a time.
    pub watchers_max: usize,
    /// Most changes waiting in one watcher's queue before it is sent to the log.
    pub queue_changes_max: usize,
    /// Objects read per page while a watch lists what is there.
    pub page_size: usize,
    /// Changes read from the log at a time by a watcher that is behind.
    pub log_changes: usize,
    /// How long a watch is silent before it sends a bookmark.
    pub bookmark_every: Duration,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            watchers_max: 2_000,
            queue_changes_max: 1_024,
            page_size: 500,
            log_changes: 512,
            bookmark_every: Duration::from_secs(10),
        }
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the objects as they are, then their changes.
    Snapshot,
    /// With the changes after this revision.
    Resume(Revision),
    /// With whatever changes from now on.
    Now,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchItem<T> {
    /// A matching object as it was at this revision.
    Snapshot(Arc<T>, Revision),
    /// What was told so far is the state at this revision: every snapshot has been sent.
    Synced(Revision),
    /// A matching object was written.
    Change {
        /// Revision of the commit.
        revision: Revision,
        /// Where a new watch may resume without missing anything. Of a commit that changed several objects only the
        /// last carries the commit's own revision; zero while the snapshots are not complete.
        resume: Revision,
        /// When.
        at: Timestamp,
        /// The object after it.
        object: Arc<T>,
        /// What happened.
        entries: Arc<[Entry]>,
    },
    /// An object that matched does not any more, or is gone.
    Removed {
        /// Revision of the commit.
        revision: Revision,
        /// Where a new watch may resume, as in `Change`.
        resume: Revision,
        /// When.
        at: Timestamp,
        /// The object after the change, or before its deletion.
        object: Arc<T>,
        /// What happened.
        entries: Arc<[Entry]>,
    },
    /// Nothing happened for a while: everything up to this revision has been told.
    Bookmark(Revision),
}

/// What a watch on runs tells.
pub type RunWatchItem = WatchItem<Run>;

/// What a watch on machines tells.
pub type MachineWatchItem = WatchItem<Machine>;

/// Hears of every commit and wakes those who watch. Clones share it.
#[derive(Clone)]
pub struct WatchHub {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    limits: WatchLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    head: Revision,
    next_id: u64,
    watchers: usize,
    closed: bool,
    queues: BTreeMap<Key, BTreeMap<u64, Arc<Queue>>>,
    followers: BTreeMap<RunId, BTreeMap<u64, Arc<Notify>>>,
}

/// What a watcher is interested in. Publishing looks up the keys of a change and touches nobody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Runs,
    RunsOf(MachineId),
    Run(RunId),
    Machines,
    Machine(MachineId),
}

impl Key {
    fn interested_in(change: &Change) -> [Option<Self>; 3] {
        match &change.object {
            Object::Run(images) => match images.last() {
                Some(run) => [
                    Some(Self::Runs),
                    Some(Self::RunsOf(run.machine_id.clone())),
                    Some(Self::Run(run.id)),
                ],
                None => [None, None, None],
            },
            Object::Machine(images) => {
                let machine = images.last().map(|machine| Self::Machine(machine.id.clone()));
                [Some(Self::Machines), machine, None]
            }
        }
    }

    fn covers(&self, change: &Change) -> bool {
        match (self, &change.object) {
            (Self::Runs, Object::Run(_)) | (Self::Machines, Object::Machine(_)) => true,
            (Self::RunsOf(id), Object::Run(images)) => {
                images.last().is_some_and(|run| run.machine_id == *id)
            }
            (Self::Run(id), Object::Run(images)) => images.last().is_some_and(|run| run.id == *id),
            (Self::Machine(id), Object::Machine(images)) => {
                images.last().is_some_and(|machine| machine.id == *id)
            }
            (Self::Runs | Self::RunsOf(_) | Self::Run(_), Object::Machine(_))
            | (Self::Machines | Self::Machine(_), Object::Run(_)) => false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for WatchHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("WatchHub")
            .field("head", &state.head)
            .field("watchers", &state.watchers)
            .finish_non_exhaustive()
    }
}

impl WatchHub {
    /// A hub that nobody watches yet. Register it with [`Store::listen`] before the first watch begins.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: WatchLimits) -> Self {
        Self { shared: Arc::new(Shared { clock, limits, state: Mutex::default() }) }
    }

    /// Watches the runs that match `filter`.
    ///
    /// A watch whose filter pins one `run_id` ends after telling how the run ended; any other goes on for ever. A
    /// failed item is the last.
    pub fn watch_runs(
        &self,
        store: Arc<dyn Store>,
        filter: Filter,
        start: Start,
    ) -> impl Stream<Item = Result<RunWatchItem, EngineError>> + Send + 'static + use<> {
        stream::open::<Run>(self.clone(), store, filter, start)
    }

    /// Watches the machines that match `filter`.
    pub fn watch_machines(
        &self,
        store: Arc<dyn Store>,
        filter: Filter,
        start: Start,
    ) -> impl Stream<Item = Result<MachineWatchItem, EngineError>> + Send + 'static + use<> {
        stream::open::<Machine>(self.clone(), store, filter, start)
    }

    /// Watches and log followers open now.
    #[must_use]
    pub fn watchers(&self) -> usize {
        lock(&self.shared.state).watchers
    }

    /// Watchers whose queue has overflowed and that have not caught up yet.
    #[must_use]
    pub fn lagging(&self) -> usize {
        let state = lock(&self.shared.state);
        let queues = state.queues.values().flat_map(BTreeMap::values);
        queues.filter(|queue| queue.is_lagged()).count()
    }

    /// Ends every watch with [`EngineError::ShuttingDown`] once it has told what it has, and refuses new ones.
    /// Open streams would keep a server from stopping.
    pub fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        for queue in state.queues.values().flat_map(BTreeMap::values) {
            queue.close();
        }
        for follower in state.followers.values().flat_map(BTreeMap::values) {
            follower.notify_one();
        }
    }

    /// Whether [`WatchHub::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.state).closed
    }

    /// The revision up to which the owner of an idle queue has been told everything, or `None` if it is not idle.
    fn idle_at(&self, queue: &Queue) -> Option<Revision> {
        // Publishing holds this lock from the first queue to the last: an empty queue has heard of the head.
        let state = lock(&self.shared.state);
        queue.is_idle().then_some(state.head)
    }

    fn admit(&self, state: &mut State) -> Result<u64, EngineError> {
        if state.closed {
            return Err(EngineError::ShuttingDown);
        }
        let max = self.shared.limits.watchers_max;
        if state.watchers >= max {
            return Err(EngineError::Exhausted {
                limit: "WATCHERS",
                message: format!("{max} watches are open, and no more are allowed"),
            });
        }
        state.watchers += 1;
        state.next_id += 1;
        Ok(state.next_id)
    }

    fn subscribe(&self, key: Key) -> Result<Subscription, EngineError> {
        let mut state = lock(&self.shared.state);
        let id = self.admit(&mut state)?;
        let queue = Arc::new(Queue::default());
        state.queues.entry(key.clone()).or_default().insert(id, Arc::clone(&queue));
        drop(state);
        Ok(Subscription { hub: self.clone(), key, id, queue })
    }

    /// Is woken by every log chunk and every change of a run.
    pub(super) fn follow(&self, run: RunId) -> Result<Follower, EngineError> {
        let mut state = lock(&self.shared.state);
        let id = self.admit(&mut state)?;
        let woken = Arc::new(Notify::new());
        state.followers.entry(run).or_default().insert(id, Arc::clone(&woken));
        drop(state);
        Ok(Follower { hub: self.clone(), run, id, woken })
    }
}

/// A place in the hub; given back when dropped.
struct Subscription {
    hub: WatchHub,
    key: Key,
    id: u64,
    queue: Arc<Queue>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = lock(&self.hub.shared.state);
        state.watchers -= 1;
        remove(&mut state.queues, &self.key, self.id);
    }
}

/// A place in the hub that only wakes; given back when dropped.
pub(super) struct Follower {
    hub: WatchHub,
    run: RunId,
    id: u64,
    woken: Arc<Notify>,
}

impl Follower {
    /// Resolves when the run or its log has changed since the last call, or the hub was closed.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = lock(&self.hub.shared.state);
        state.watchers -= 1;
        remove(&mut state.followers, &self.run, self.id);
    }
}

fn remove<K: Ord, V>(map: &mut BTreeMap<K, BTreeMap<u64, V>>, key: &K, id: u64) {
    if let Some(entries) = map.get_mut(key) {
        entries.remove(&id);
        if entries.is_empty() {
            map.remove(key);
        }
    }
}

impl Listener for WatchHub {
    fn committed(&self, committed: &Arc<Committed>) {
        let Committed { revision, changes, logs, .. } = &**committed;
        let revision = *revision;
        let mut state = lock(&self.shared.state);
        state.head = state.head.max(revision);
        // A watcher gets its part of a commit in one piece.
        let mut parts: BTreeMap<u64, (&Arc<Queue>, Vec<Change>)> = BTreeMap::new();
        for change in changes {
            for key in Key::interested_in(change).into_iter().flatten() {
                for (id, queue) in state.queues.get(&key).into_iter().flatten() {
                    parts.entry(*id).or_insert((queue, Vec::new())).1.push(change.clone());
                }
            }
        }
        for (queue, part) in parts.into_values() {
            queue.push(revision, part, self.shared.limits.queue_changes_max);
        }
        let printed = logs.iter().map(|chunk| chunk.run_id);
        let written = committed.written::<Run>().map(|run| run.id);
        for run in printed.chain(written) {
            for follower in state.followers.get(&run).into_iter().flat_map(BTreeMap::values) {
                follower.notify_one();
            }
        }
    }
}
