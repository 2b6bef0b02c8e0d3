//! What holds runs back: a stop of everything, locks, and pauses of plans, as far as they are in force.
//!
//! The store has them; this is what every decision looks at. A stop is in force here from before its commit begins, so
//! that when it is acknowledged nothing begins any more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::decide::Braking;
use crate::clock::Timestamp;
use crate::ids::{MachineId, RunId};
use crate::lifecycle::run;
use crate::model::{Lock, LockTarget, Machine, Run};
use crate::store::{Committed, Listener};

/// Most locks that are in force at a time.
pub(super) const LOCKS_MAX: usize = 256;

/// Most locks that are kept after they have ended.
pub(super) const ENDED_MAX: usize = 64;

/// See the module.
pub(super) struct Brakes {
    state: Mutex<State>,
    /// Whether there is any lock at all: mostly there is none, and decisions are many.
    is_any: AtomicBool,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    locks: BTreeMap<String, Arc<Lock>>,
    /// Runs that would have begun something, each with what has held it back.
    held: BTreeMap<RunId, Held>,
}

struct Held {
    machine: MachineId,
    lock: Arc<Lock>,
}

impl State {
    fn find(&self, now: Timestamp, wanted: impl Fn(&Lock) -> bool) -> Option<&Arc<Lock>> {
        self.locks.values().find(|lock| lock.holds(now) && wanted(lock))
    }

    /// The lock that holds a run back, the widest first.
    fn on(&self, machine: &Machine, digest: &str, now: Timestamp) -> Option<&Arc<Lock>> {
        self.find(now, |lock| lock.target == LockTarget::All)
            .or_else(|| self.find(now, |lock| lock.is_on_machine(machine)))
            .or_else(|| self.find(now, |lock| lock.is_on_plan(digest)))
    }
}

impl Brakes {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            is_any: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the store has. What a commit has said meanwhile is newer.
    pub(super) fn load(&self, locks: Vec<Lock>) {
        let mut state = self.state();
        for lock in locks {
            state.locks.entry(lock.id.clone()).or_insert_with(|| Arc::new(lock));
        }
        self.changed(state);
    }

    /// Takes a lock over, in place of one with its id.
    pub(super) fn put(&self, lock: Arc<Lock>) {
        let mut state = self.state();
        state.locks.insert(lock.id.clone(), lock);
        self.changed(state);
    }

    /// Drops locks: they are not stored, or no longer.
    pub(super) fn drop_all<'a>(&self, ids: impl IntoIterator<Item = &'a str>) {
        let mut state = self.state();
        for id in ids {
            state.locks.remove(id);
        }
        self.changed(state);
    }

    fn changed(&self, state: MutexGuard<'_, State>) {
        self.is_any.store(!state.locks.is_empty(), Ordering::SeqCst);
        // While the state is locked: who reads it then knows its number.
        self.changes.send_modify(|changes| *changes += 1);
        drop(state);
    }

    /// Notified of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The lock by labels that a machine would no longer be under.
    pub(super) fn left(
        &self,
        before: &Machine,
        after: &Machine,
        now: Timestamp,
    ) -> Option<Arc<Lock>> {
        if !self.is_any.load(Ordering::SeqCst) || before.labels == after.labels {
            return None;
        }
        let is_left = |lock: &Lock| lock.is_on_machine(before) && !lock.is_on_machine(after);
        self.state().find(now, is_left).cloned()
    }

    /// What holds a run back, and the number of the change up to which that is so.
    pub(super) fn braking(&self, machine: &Machine, run: &Run, now: Timestamp) -> (Braking, u64) {
        if !self.is_any.load(Ordering::SeqCst) {
            return (Braking::default(), *self.changes.borrow());
        }
        let state = self.state();
        let digest = &run.spec.plan_digest;
        let mut braking = Braking::default();
        let mut spells = Vec::new();
        for lock in state.locks.values().filter(|lock| lock.is_on_run(machine, run)) {
            match lock.ended_at(now) {
                None if lock.is_on_plan(digest) => braking.destroying = true,
                None => braking.all = true,
                Some(ended_at) => spells.push((lock.at, ended_at)),
            }
        }
        if let Some(started_at) = run.started_at {
            braking.spared_ms = total_ms(spells, started_at);
        }
        (braking, *self.changes.borrow())
    }

    /// Whether nothing may begin on a machine.
    pub(super) fn is_on(&self, machine: &Machine, now: Timestamp) -> bool {
        self.is_any.load(Ordering::SeqCst)
            && self.state().find(now, |lock| lock.is_on_machine(machine)).is_some()
    }

    /// A run is held back, as of a change; `false` if there was another one since: then the run is to look again.
    pub(super) fn hold(&self, run: &Run, machine: &Machine, as_of: u64, now: Timestamp) -> bool {
        let mut state = self.state();
        if *self.changes.borrow() != as_of {
            return false;
        }
        // It has ended by itself since.
        let Some(lock) = state.on(machine, &run.spec.plan_digest, now).cloned() else {
            return false;
        };
        state.held.insert(run.id, Held { machine: machine.id.clone(), lock });
        true
    }

    /// The run has ended.
    pub(super) fn forget(&self, run: RunId) {
        if self.is_any.load(Ordering::SeqCst) {
            self.state().held.remove(&run);
        }
    }

    /// Takes the runs that nothing holds back any more, the oldest first, and says when the next lock ends by itself.
    pub(super) fn take_released(
        &self,
        now: Timestamp,
    ) -> (Vec<(RunId, MachineId)>, Option<Timestamp>) {
        let mut state = self.state();
        let State { locks, held } = &mut *state;
        let is_free = |held: &Held| locks.get(&held.lock.id).is_none_or(|lock| !lock.holds(now));
        let free: Vec<_> = held
            .iter()
            .filter(|(_, held)| is_free(held))
            .map(|(run, held)| (*run, held.machine.clone()))
            .collect();
        for (run, _) in &free {
            held.remove(run);
        }
        let next =
            locks.values().filter(|lock| lock.holds(now)).filter_map(|lock| lock.until).min();
        (free, next)
    }

    /// What keeps an active run from continuing; `None` if nothing does, or it has not come to that yet.
    pub(super) fn held_back(&self, run: &Run, now: Timestamp) -> Option<Arc<Lock>> {
        if !self.is_any.load(Ordering::SeqCst) {
            return None;
        }
        let state = self.state();
        if let Some(held) = state.held.get(&run.id).filter(|held| held.lock.holds(now)) {
            return Some(held.lock.clone());
        }
        // It waits for a slot, and would not begin with one either.
        let is_queued = matches!(run.state, run::State::Pending | run::State::Resuming);
        let stop = state.find(now, |lock| lock.target == LockTarget::All).filter(|_| is_queued);
        stop.cloned()
    }

    /// Number of runs that are held back.
    pub(super) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// What refuses a run of the plan with this digest on a machine.
    pub(super) fn refuses(
        &self,
        machine: &Machine,
        digest: &str,
        now: Timestamp,
    ) -> Option<Arc<Lock>> {
        if !self.is_any.load(Ordering::SeqCst) {
            return None;
        }
        self.state().on(machine, digest, now).cloned()
    }

    /// The lock on a caller, if there is one.
    pub(super) fn principal(&self, name: &str, now: Timestamp) -> Option<Arc<Lock>> {
        if !self.is_any.load(Ordering::SeqCst) {
            return None;
        }
        let is_on = |lock: &Lock| matches!(&lock.target, LockTarget::Principal(of) if of == name);
        self.state().find(now, is_on).cloned()
    }

    /// Every lock that is kept.
    pub(super) fn all(&self) -> Vec<Arc<Lock>> {
        self.state().locks.values().cloned().collect()
    }
}

impl Listener for Brakes {
    fn committed(&self, committed: &Arc<Committed>) {
        for lock in &committed.locks {
            self.put(lock.clone());
        }
    }
}

/// How long spells lasted together since `from`, in milliseconds; where they overlap, once.
fn total_ms(mut spells: Vec<(Timestamp, Timestamp)>, from: Timestamp) -> u64 {
    spells.sort_unstable();
    let (mut total, mut counted_to) = (0, from);
    for (began, ended) in spells {
        let began = began.max(counted_to);
        total += u64::try_from(ended.since(began).as_millis()).unwrap_or(u64::MAX);
        counted_to = counted_to.max(ended);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_count_once_and_from_the_start_of_the_run() {
        let at = Timestamp;
        let spells = vec![(at(50), at(60)), (at(5), at(20)), (at(15), at(30)), (at(1), at(3))];
        assert_eq!(total_ms(spells.clone(), at(10)), 20 + 10);
        assert_eq!(total_ms(spells, at(100)), 0);
    }
}
