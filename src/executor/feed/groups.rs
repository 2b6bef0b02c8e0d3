//! Watchers grouped by filter: a change is judged once for all that have the same one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backlog::Backlog;
use super::event::{Happened, Part};
use super::queue::Queue;
use super::watched::{Interest, Key, Watched};
use crate::model::{Machine, Run};
use crate::store::Committed;

/// Watchers with the same filter.
struct Group<T: Watched> {
    id: u64,
    interest: Interest<T>,
    members: BTreeMap<u64, Arc<Queue<T>>>,
}

/// The watchers of one kind of record.
pub(super) struct Groups<T: Watched> {
    /// By key, then by the canonical text of the filter.
    groups: BTreeMap<Key, BTreeMap<Arc<str>, Group<T>>>,
}

/// Position of a watcher in its group.
#[derive(Clone)]
pub(super) struct Seat {
    key: Key,
    filter: Arc<str>,
    id: u64,
}

/// All watchers.
#[derive(Default)]
pub(super) struct Watchers {
    runs: Groups<Run>,
    machines: Groups<Machine>,
}

/// The change feed pages that lagging watchers share.
#[derive(Default)]
pub(super) struct Backlogs {
    runs: Backlog<Run>,
    machines: Backlog<Machine>,
}

/// A kind of record that has groups of watchers.
pub(super) trait Grouped: Watched {
    fn groups(watchers: &mut Watchers) -> &mut Groups<Self>;
    fn backlog(backlogs: &Backlogs) -> &Backlog<Self>;
}

impl Grouped for Run {
    fn groups(watchers: &mut Watchers) -> &mut Groups<Self> {
        &mut watchers.runs
    }

    fn backlog(backlogs: &Backlogs) -> &Backlog<Self> {
        &backlogs.runs
    }
}

impl Grouped for Machine {
    fn groups(watchers: &mut Watchers) -> &mut Groups<Self> {
        &mut watchers.machines
    }

    fn backlog(backlogs: &Backlogs) -> &Backlog<Self> {
        &backlogs.machines
    }
}

impl<T: Watched> Default for Groups<T> {
    fn default() -> Self {
        Self { groups: BTreeMap::new() }
    }
}

impl<T: Watched> Groups<T> {
    /// Adds a queue to those with the same filter. `id` is not in use.
    pub(super) fn join(&mut self, interest: &Interest<T>, id: u64, queue: Arc<Queue<T>>) -> Seat {
        let (key, text) = (interest.key.clone(), Arc::from(interest.filter.to_string()));
        let alike = self.groups.entry(key.clone()).or_default();
        let group = alike.entry(Arc::clone(&text)).or_insert_with(|| Group {
            id,
            interest: interest.clone(),
            members: BTreeMap::new(),
        });
        group.members.insert(id, queue);
        Seat { key, filter: text, id }
    }

    pub(super) fn leave(&mut self, seat: &Seat) {
        let Some(alike) = self.groups.get_mut(&seat.key) else { return };
        if let Some(group) = alike.get_mut(&seat.filter) {
            group.members.remove(&seat.id);
            if group.members.is_empty() {
                alike.remove(&seat.filter);
            }
        }
        if alike.is_empty() {
            self.groups.remove(&seat.key);
        }
    }

    fn queues(&self) -> impl Iterator<Item = &Arc<Queue<T>>> {
        let groups = self.groups.values().flat_map(BTreeMap::values);
        groups.flat_map(|group| group.members.values())
    }

    /// Offers a commit to the watchers it concerns. Each gets its part as a whole.
    fn publish(&self, commit: &Committed, queue_events_max: usize) {
        if self.groups.is_empty() {
            return;
        }
        let mut parts: BTreeMap<u64, (&Group<T>, Part<T>)> = BTreeMap::new();
        for mut happened in commit.changes.iter().filter_map(Happened::<T>::of) {
            for key in happened.record.keys() {
                for group in self.groups.get(&key).into_iter().flat_map(BTreeMap::values) {
                    let (_, part) =
                        parts.entry(group.id).or_insert((group, Part::new(commit.revision)));
                    happened.judge(&group.interest, part);
                }
            }
        }
        for (group, part) in parts.into_values().filter(|(_, part)| !part.is_empty()) {
            let part = Arc::new(part);
            for queue in group.members.values() {
                queue.push(&part, queue_events_max);
            }
        }
    }
}

impl Watchers {
    pub(super) fn publish(&self, commit: &Committed, queue_events_max: usize) {
        self.runs.publish(commit, queue_events_max);
        self.machines.publish(commit, queue_events_max);
    }

    /// Watchers whose queue has overflowed and that have not caught up yet.
    pub(super) fn lagging(&self) -> usize {
        self.runs.queues().filter(|queue| queue.is_lagged()).count()
            + self.machines.queues().filter(|queue| queue.is_lagged()).count()
    }

    /// Makes all watchers read the change feed.
    pub(super) fn overflow(&self) {
        self.runs.queues().for_each(|queue| queue.overflow());
        self.machines.queues().for_each(|queue| queue.overflow());
    }

    pub(super) fn close(&self) {
        self.runs.queues().for_each(|queue| queue.close());
        self.machines.queues().for_each(|queue| queue.close());
    }

    /// Number of different filters that are watched.
    #[cfg(test)]
    pub(super) fn filters(&self) -> usize {
        let runs = self.runs.groups.values().map(BTreeMap::len).sum::<usize>();
        runs + self.machines.groups.values().map(BTreeMap::len).sum::<usize>()
    }
}
