//! The hub: commits come in, and watchers subscribe.
//!
//! The committing thread puts a commit into the inbox and continues; a task publishes it ([`WatchHub::run`]). It
//! judges a change once for all watchers with the same filter, by the record before and after the change, and offers
//! it to those it concerns without waiting for any of them: each has a bounded queue, and a queue that overflows is
//! emptied and marked. Its watcher then reads what it missed from the change feed of the store and continues with the
//! queue, so a slow reader neither blocks the engine nor misses an event.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::groups::{Backlogs, Grouped, Seat, Watchers};
use super::inbox::Inbox;
use super::queue::{Queue, lock};
use super::watched::Interest;
use crate::clock::Clock;
use crate::executor::error::EngineError;
use crate::executor::planted::Planted;
use crate::ids::{Revision, RunId};
use crate::model::Run;
use crate::store::{Committed, Listener};

/// Bounds of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchLimits {
    /// Most watches and log followers at a time.
    pub watchers_max: usize,
    /// Most changes and log chunks waiting to be published before all watchers are made to read the change feed.
    pub inbox_changes_max: usize,
    /// Most events waiting in one watcher's queue before it is made to read the change feed.
    pub queue_events_max: usize,
    /// Records read per page while a watch lists the present state.
    pub page_size: usize,
    /// Changes read from the change feed at a time for watchers that lag.
    pub feed_changes: usize,
    /// Most events per second for all lagging watchers together: they must leave processor time to the engine and to
    /// the watchers that keep up.
    pub behind_events_per_s: usize,
    /// How long a watch is silent before it sends a bookmark.
    pub bookmark_every: Duration,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            watchers_max: 2_000,
            inbox_changes_max: 65_536,
            queue_events_max: 1_024,
            page_size: 500,
            feed_changes: 512,
            behind_events_per_s: 100_000,
            bookmark_every: Duration::from_secs(10),
        }
    }
}

/// Commits published before yielding to other tasks.
const COMMITS_PER_TURN: usize = 64;

/// Publishes every commit to its watchers. Clones share it.
#[derive(Clone)]
pub struct WatchHub {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: WatchLimits,
    pub(super) backlogs: Backlogs,
    inbox: Inbox,
    /// Watchers that are reading the change feed.
    behind: AtomicUsize,
    pub(super) planted: Option<Planted>,
    /// Locked while commits are published, never by the committing thread.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Newest commit that was published.
    head: Revision,
    next_id: u64,
    watchers: usize,
    closed: bool,
    seats: Watchers,
    followers: BTreeMap<RunId, BTreeMap<u64, Arc<Notify>>>,
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
    /// A hub without watchers. Register it with [`crate::store::Store::listen`] before the first watch starts, and
    /// spawn [`WatchHub::run`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: WatchLimits) -> Self {
        Self::with_bug(clock, limits, None)
    }

    /// A hub with a bug that a test has planted.
    pub(in crate::executor) fn with_bug(
        clock: Arc<dyn Clock>,
        limits: WatchLimits,
        planted: Option<Planted>,
    ) -> Self {
        let shared = Shared {
            clock,
            limits,
            backlogs: Backlogs::default(),
            inbox: Inbox::new(limits.inbox_changes_max),
            behind: AtomicUsize::new(0),
            planted,
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes commits as they come; never returns.
    pub async fn run(self) {
        loop {
            self.shared.inbox.arrived.notified().await;
            while self.publish_some() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Publishes everything that is waiting.
    pub fn publish(&self) {
        while self.publish_some() {}
    }

    /// Publishes some of what is waiting; returns whether there was anything.
    fn publish_some(&self) -> bool {
        // Taken out under the lock of the watchers, so that commits are published in order.
        let mut state = lock(&self.shared.state);
        let taken = self.shared.inbox.take(COMMITS_PER_TURN);
        if taken.lost {
            state.overflow();
        }
        for commit in &taken.commits {
            state.publish(commit, self.shared.limits.queue_events_max);
        }
        taken.lost || !taken.commits.is_empty()
    }

    /// Watches and log followers open now.
    #[must_use]
    pub fn watchers(&self) -> usize {
        lock(&self.shared.state).watchers
    }

    /// Watchers whose queue has overflowed and that have not caught up yet.
    #[must_use]
    pub fn lagging(&self) -> usize {
        lock(&self.shared.state).seats.lagging()
    }

    /// Ends every watch with [`EngineError::ShuttingDown`] once it has sent what it has, and refuses new ones. Open
    /// streams would keep a server from stopping.
    pub fn close(&self) {
        self.publish();
        let mut state = lock(&self.shared.state);
        state.closed = true;
        state.seats.close();
        for follower in state.followers.values().flat_map(BTreeMap::values) {
            follower.notify_one();
        }
    }

    /// Whether [`WatchHub::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.state).closed
    }

    /// The revision up to which the owner of an idle queue has received everything, or `None` if it is not idle.
    pub(super) fn idle_at<T>(&self, queue: &Queue<T>) -> Option<Revision> {
        // Publishing holds this lock from the first queue to the last: an empty queue has received everything up to
        // the head.
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
        self.shared.inbox.open();
        Ok(state.next_id)
    }

    /// Subscribes a watcher. It receives its part of every commit that becomes durable from now on; parts of a few
    /// older ones may come first.
    pub(super) fn subscribe<T: Grouped>(
        &self,
        interest: &Interest<T>,
    ) -> Result<Subscription<T>, EngineError> {
        let mut state = lock(&self.shared.state);
        let id = self.admit(&mut state)?;
        let queue = Arc::new(Queue::new());
        let seat = T::groups(&mut state.seats).join(interest, id, queue.clone());
        drop(state);
        Ok(Subscription { hub: self.clone(), seat, queue })
    }

    /// Subscribes to be woken by every log chunk of a run, and by its end.
    pub(super) fn follow(&self, run: RunId) -> Result<Follower, EngineError> {
        let mut state = lock(&self.shared.state);
        let id = self.admit(&mut state)?;
        let woken = Arc::new(Notify::new());
        state.followers.entry(run).or_default().insert(id, Arc::clone(&woken));
        drop(state);
        Ok(Follower { hub: self.clone(), run, id, woken })
    }

    fn leave(&self, state: &mut State) {
        state.watchers -= 1;
        self.shared.inbox.close();
    }

    /// Counts a watcher that reads the change feed.
    pub(super) fn fall_behind(&self) -> Behind {
        self.shared.behind.fetch_add(1, Ordering::Relaxed);
        Behind { hub: self.clone() }
    }
}

/// A subscription of the hub; ends when dropped.
pub(super) struct Subscription<T: Grouped> {
    pub(super) hub: WatchHub,
    seat: Seat,
    pub(super) queue: Arc<Queue<T>>,
}

impl<T: Grouped> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.hub.shared.state);
        self.hub.leave(&mut state);
        T::groups(&mut state.seats).leave(&self.seat);
    }
}

/// A watcher that is reading the change feed; ends when dropped.
pub(super) struct Behind {
    hub: WatchHub,
}

impl Behind {
    /// How long it must rest after `events`, so that all lagging watchers together stay within their bound.
    pub(super) fn rest(&self, events: usize) -> Duration {
        let shared = &self.hub.shared;
        let sharing = shared.behind.load(Ordering::Relaxed) as u64;
        let ns = events as u64 * sharing * 1_000_000_000;
        Duration::from_nanos(ns / shared.limits.behind_events_per_s.max(1) as u64)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.hub.shared.behind.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A subscription that only wakes; ends when dropped.
pub(super) struct Follower {
    hub: WatchHub,
    run: RunId,
    id: u64,
    woken: Arc<Notify>,
}

impl Follower {
    /// Resolves when a run has printed or ended since the last call, or the hub was closed.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = lock(&self.hub.shared.state);
        self.hub.leave(&mut state);
        if let Some(followers) = state.followers.get_mut(&self.run) {
            followers.remove(&self.id);
            if followers.is_empty() {
                state.followers.remove(&self.run);
            }
        }
    }
}

impl State {
    fn publish(&mut self, commit: &Committed, queue_events_max: usize) {
        self.head = self.head.max(commit.revision);
        self.seats.publish(commit, queue_events_max);
        if self.followers.is_empty() {
            return;
        }
        let printed = commit.logs.iter().map(|chunk| chunk.run_id);
        let ended = commit.written::<Run>().filter(|run| !run.state.is_active()).map(|run| run.id);
        for run in printed.chain(ended) {
            for follower in self.followers.get(&run).into_iter().flat_map(BTreeMap::values) {
                follower.notify_one();
            }
        }
    }

    /// Commits were lost before they were published: all watchers read the change feed, all followers check again.
    fn overflow(&self) {
        self.seats.overflow();
        for follower in self.followers.values().flat_map(BTreeMap::values) {
            follower.notify_one();
        }
    }
}

impl Listener for WatchHub {
    fn committed(&self, committed: &Arc<Committed>) {
        self.shared.inbox.put(committed);
    }
}

#[cfg(test)]
impl WatchHub {
    /// Number of different filters that are watched.
    pub(super) fn filters(&self) -> usize {
        lock(&self.shared.state).seats.filters()
    }
}
