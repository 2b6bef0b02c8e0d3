//! Limits on concurrent runs: exact, fair, and without polling.
//!
//! A run counts against the global limit, its provider's, one for each limited label of its machine, and those on what
//! its plan puts at risk. Waiting runs are served first come, first served, among those that wait for the same limits:
//! a full rack never delays another rack, and a repave that waits never delays a reboot.
//!
//! The order is that of the commits that made the runs wait. So it is the same after any number of restarts, and a
//! run enters the queue when its commit is published, not when its worker learns about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::key::Key;
pub(super) use self::key::Place;
use crate::executor::limits::{Cap, Limits};
use crate::ids::{MachineId, Revision, RunId};
use crate::model::Machine;
use crate::plan::Risk;
use crate::store::SlotKey;

/// The limits that a run counts against; runs with the same limits share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeySet(u32);

/// Position in a queue: runs that waited before a restart come before all that started to wait after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order(u64);

impl Order {
    const LIVE: u64 = 1 << 63;

    /// For a run that waited before the restart, by its position among them.
    pub(super) const fn recovered(place: u64) -> Self {
        Self(place)
    }

    /// For a run that a commit made wait.
    pub(super) const fn live(revision: Revision) -> Self {
        Self(Self::LIVE | revision.0)
    }
}

#[derive(Debug)]
struct Waiter {
    order: Order,
    run: RunId,
    machine: MachineId,
}

/// Which runs have a slot and which wait for one.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Limits,
    sets: Vec<Vec<Key>>,
    used: BTreeMap<Key, usize>,
    /// With the position from which it came, if it had to wait.
    granted: BTreeMap<RunId, (KeySet, Option<(Order, MachineId)>)>,
    /// Each in order.
    queues: BTreeMap<KeySet, VecDeque<Waiter>>,
    waiting: BTreeMap<RunId, (KeySet, Order)>,
    /// Runs that will wait once their commit is durable.
    announced: BTreeMap<RunId, (KeySet, MachineId)>,
    open: bool,
    /// Machines there are, in all and in each place of which a limit is a share, as they were counted last.
    machines: Option<u64>,
    machines_at: BTreeMap<Place, u64>,
    has_uncounted: bool,
}

impl Slots {
    /// No run has a slot, and none gets one except by [`Slots::restore`] until [`Slots::open`]: runs that had a slot
    /// before a restart come first.
    #[must_use]
    pub(super) fn closed(limits: Limits) -> Self {
        Self {
            limits,
            sets: Vec::new(),
            used: BTreeMap::new(),
            granted: BTreeMap::new(),
            queues: BTreeMap::new(),
            waiting: BTreeMap::new(),
            announced: BTreeMap::new(),
            open: false,
            machines: None,
            machines_at: BTreeMap::new(),
            has_uncounted: false,
        }
    }

    /// Hands out slots from now on; returns the runs that get one because of it.
    pub(super) fn open(&mut self) -> Vec<(MachineId, RunId)> {
        self.open = true;
        self.serve()
    }

    /// The present limits.
    #[must_use]
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes the limits; returns the runs that get a slot because of it. No run loses its slot.
    pub(super) fn set_limits(&mut self, limits: &Limits) -> Vec<(MachineId, RunId)> {
        self.limits.set_runs(limits);
        self.has_uncounted = true;
        self.serve()
    }

    /// The places of which a limit is a share, and whether one is a share of all machines: the caller counts them.
    #[must_use]
    pub(super) fn shares(&mut self) -> (bool, BTreeSet<Place>) {
        self.has_uncounted = false;
        let is_share = |cap: &Cap| matches!(cap, Cap::Percent(_));
        let mut of_all = self.limits.on_risk(Risk::DataDestroying);
        let of_all = of_all.any(|(_, limits)| limits.max.as_ref().is_some_and(is_share));
        let places = self.sets.iter().flatten().filter_map(|key| match key {
            Key::RiskAt(_, place) if self.cap(key).is_some_and(|cap| is_share(&cap)) => {
                Some(place.clone())
            }
            Key::RiskAt(..) | Key::Global | Key::Provider(_) | Key::Label(..) | Key::Risk(_) => {
                None
            }
        });
        (of_all, places.collect())
    }

    /// Whether there may be machines of which a limit is a share and that were never counted.
    #[must_use]
    pub(super) fn has_uncounted(&self) -> bool {
        self.has_uncounted && self.limits.count_risk()
    }

    /// Takes the present numbers of machines; returns the runs that get a slot because of it.
    pub(super) fn set_machines(
        &mut self,
        machines: Option<u64>,
        at: BTreeMap<Place, u64>,
    ) -> Vec<(MachineId, RunId)> {
        self.machines = machines;
        self.machines_at = at;
        self.serve()
    }

    /// The limits that a run of a plan with this risk counts against on a machine.
    pub(super) fn key_set(
        &mut self,
        risk: Risk,
        provider: &str,
        labels: &BTreeMap<String, String>,
    ) -> KeySet {
        let mut keys = vec![Key::Global];
        if self.limits.runs_max_by_provider.contains_key(provider) {
            keys.push(Key::Provider(provider.to_owned()));
        }
        for label in self.limits.runs_max_by_label.keys() {
            if let Some(value) = labels.get(label) {
                keys.push(Key::Label(label.clone(), value.clone()));
            }
        }
        for (least, limits) in self.limits.on_risk(risk) {
            if limits.max.is_some() {
                keys.push(Key::Risk(least));
            }
            for label in limits.max_by_label.keys() {
                if let Some(value) = labels.get(label) {
                    keys.push(Key::RiskAt(least, (label.clone(), value.clone())));
                }
            }
        }
        let place = self.sets.iter().position(|set| *set == keys).unwrap_or_else(|| {
            self.sets.push(keys);
            self.has_uncounted = true;
            self.sets.len() - 1
        });
        // One for each value of the limited labels: far fewer than machines.
        KeySet(u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn of(&mut self, risk: Risk, machine: &Machine) -> KeySet {
        self.key_set(risk, &machine.spec.provider, &machine.labels)
    }

    fn keys(&self, set: KeySet) -> &[Key] {
        usize::try_from(set.0)
            .ok()
            .and_then(|place| self.sets.get(place))
            .map_or(&[], Vec::as_slice)
    }

    fn limit(&self, key: &Key) -> usize {
        match key {
            Key::Global => self.limits.runs_max,
            Key::Provider(name) => {
                self.limits.runs_max_by_provider.get(name).copied().unwrap_or(usize::MAX)
            }
            Key::Label(name, _) => {
                self.limits.runs_max_by_label.get(name).copied().unwrap_or(usize::MAX)
            }
            Key::Risk(_) => self.cap(key).map_or(usize::MAX, |cap| cap.among(self.machines)),
            Key::RiskAt(_, place) => {
                let machines = self.machines_at.get(place).copied();
                self.cap(key).map_or(usize::MAX, |cap| cap.among(machines))
            }
        }
    }

    /// The limit on a risk as it is configured, if there is one.
    fn cap(&self, key: &Key) -> Option<Cap> {
        let (risk, label) = match key {
            Key::Risk(risk) => (risk, None),
            Key::RiskAt(risk, (label, _)) => (risk, Some(label)),
            Key::Global | Key::Provider(_) | Key::Label(..) => return None,
        };
        let (_, limits) = self.limits.on_risk(*risk).find(|(least, _)| least == risk)?;
        match label {
            Some(label) => limits.max_by_label.get(label).copied(),
            None => limits.max,
        }
    }

    fn used(&self, key: &Key) -> usize {
        self.used.get(key).copied().unwrap_or(0)
    }

    fn full(&self, set: KeySet) -> Option<&Key> {
        self.keys(set).iter().find(|key| self.used(key) >= self.limit(key))
    }

    fn grant(&mut self, run: RunId, set: KeySet) {
        for key in self.keys(set).to_vec() {
            *self.used.entry(key).or_default() += 1;
        }
        self.granted.insert(run, (set, None));
    }

    /// Requests a slot for a run that is not durable yet: `true` if it has it now. Otherwise it is announced, and
    /// waits once [`Slots::queued`] says that its commit is durable.
    pub(super) fn take(&mut self, run: RunId, risk: Risk, machine: &Machine) -> bool {
        let set = self.of(risk, machine);
        // Other runs wait for the same limits: they come first.
        if self.open && self.full(set).is_none() && !self.queues.contains_key(&set) {
            self.grant(run, set);
            return true;
        }
        self.announced.insert(run, (set, machine.id.clone()));
        false
    }

    /// A run will wait for a slot, once its commit is durable.
    pub(super) fn announce(&mut self, run: RunId, risk: Risk, machine: &Machine) {
        let set = self.of(risk, machine);
        self.announced.insert(run, (set, machine.id.clone()));
    }

    /// The commit of an announced run is durable: it waits from now on.
    pub(super) fn queued(&mut self, run: RunId, revision: Revision) {
        if let Some((set, machine)) = self.announced.remove(&run) {
            self.enqueue(run, machine, set, Order::live(revision));
        }
    }

    /// A run waited before a restart: it keeps its position.
    pub(super) fn restore_queued(
        &mut self,
        run: RunId,
        machine: MachineId,
        set: KeySet,
        order: Order,
    ) {
        if self.granted.contains_key(&run) {
            return;
        }
        if self.waiting.get(&run).is_some_and(|(_, held)| *held > order) {
            self.leave_queue(run);
        }
        if !self.waiting.contains_key(&run) {
            self.enqueue(run, machine, set, order);
        }
    }

    fn enqueue(&mut self, run: RunId, machine: MachineId, set: KeySet, order: Order) {
        let queue = self.queues.entry(set).or_default();
        let place = queue.partition_point(|waiter| waiter.order <= order);
        queue.insert(place, Waiter { order, run, machine });
        self.waiting.insert(run, (set, order));
    }

    /// Position of a waiting run in its queue.
    fn place(&self, run: RunId) -> Option<(KeySet, usize)> {
        let (set, order) = self.waiting.get(&run)?;
        let queue = self.queues.get(set)?;
        let first = queue.partition_point(|waiter| waiter.order < *order);
        let place = queue.range(first..).position(|waiter| waiter.run == run)?;
        Some((*set, first + place))
    }

    fn leave_queue(&mut self, run: RunId) {
        if let Some((set, place)) = self.place(run)
            && let Some(queue) = self.queues.get_mut(&set)
        {
            queue.remove(place);
            if queue.is_empty() {
                self.queues.remove(&set);
            }
        }
        self.waiting.remove(&run);
    }

    /// Requests a slot for a run that waits according to its record; returns the runs that get one because of it. A
    /// run that is not in a queue yet, because it was not recovered with the others, goes to the end.
    pub(super) fn request(
        &mut self,
        run: RunId,
        risk: Risk,
        machine: &Machine,
        revision: Revision,
    ) -> Vec<(MachineId, RunId)> {
        self.queued(run, revision);
        if !self.granted.contains_key(&run) && !self.waiting.contains_key(&run) {
            let set = self.of(risk, machine);
            self.enqueue(run, machine.id.clone(), set, Order::live(revision));
        }
        self.serve()
    }

    /// What a run that gets a slot takes in the store, and the limit of each.
    pub(super) fn stored_keys(
        &mut self,
        run: RunId,
        risk: Risk,
        machine: &Machine,
        had_one: bool,
    ) -> Vec<(SlotKey, u64)> {
        let granted = self.granted.get(&run).map(|(set, _)| *set);
        let is_bounded = granted.is_some() && !had_one;
        let set = granted.unwrap_or_else(|| self.of(risk, machine));
        let max = |key| match is_bounded {
            true => u64::try_from(self.limit(key)).unwrap_or(u64::MAX),
            false => u64::MAX,
        };
        self.keys(set).iter().map(|key| (key.stored(), max(key))).collect()
    }

    /// Whether the run has a slot now.
    #[must_use]
    pub(super) fn has(&self, run: RunId) -> bool {
        self.granted.contains_key(&run)
    }

    /// Gives a run its slot whatever the limits say: it had one before the restart.
    pub(super) fn restore(&mut self, run: RunId, set: KeySet) {
        if !self.granted.contains_key(&run) {
            self.leave_queue(run);
            self.grant(run, set);
        }
    }

    /// Releases the run's slot, or its position in the queue; returns the runs that get a slot because of it.
    pub(super) fn release(&mut self, run: RunId) -> Vec<(MachineId, RunId)> {
        self.announced.remove(&run);
        match self.granted.remove(&run) {
            Some((set, _)) => self.free(set),
            None => self.leave_queue(run),
        }
        self.serve()
    }

    /// The run has not used its slot, and still waits according to its record: it is in the queue where it was. Returns the
    /// runs that get a slot because of it, perhaps itself again.
    pub(super) fn put_back(&mut self, run: RunId) -> Vec<(MachineId, RunId)> {
        if let Some((set, from)) = self.granted.remove(&run) {
            self.free(set);
            if let Some((order, machine)) = from {
                self.enqueue(run, machine, set, order);
            }
        }
        self.serve()
    }

    fn free(&mut self, set: KeySet) {
        for key in self.keys(set).to_vec() {
            if let Some(used) = self.used.get_mut(&key) {
                *used = used.saturating_sub(1);
                if *used == 0 {
                    self.used.remove(&key);
                }
            }
        }
    }

    /// Gives slots to waiting runs, oldest first among the heads of the queues.
    fn serve(&mut self) -> Vec<(MachineId, RunId)> {
        let mut served = Vec::new();
        // If the global limit is reached, no queue needs to be checked.
        while self.open && self.used(&Key::Global) < self.limits.runs_max {
            let next = self
                .queues
                .iter()
                .filter(|(set, _)| self.full(**set).is_none())
                .filter_map(|(set, queue)| queue.front().map(|head| (head.order, *set)))
                .min();
            let Some((_, set)) = next else { break };
            let Some(queue) = self.queues.get_mut(&set) else { break };
            let Some(waiter) = queue.pop_front() else { break };
            if queue.is_empty() {
                self.queues.remove(&set);
            }
            self.waiting.remove(&waiter.run);
            self.grant(waiter.run, set);
            if let Some((_, from)) = self.granted.get_mut(&waiter.run) {
                *from = Some((waiter.order, waiter.machine.clone()));
            }
            served.push((waiter.machine, waiter.run));
        }
        served
    }

    /// The limit that a waiting run waits for, for people.
    #[must_use]
    pub(super) fn waits_for(&self, run: RunId) -> Option<String> {
        let (set, ahead) = self.place(run)?;
        let reason = match self.full(set) {
            Some(key) => format!("the limit of {} {key} is reached", self.limit(key)),
            None => "it is about to get its slot".to_owned(),
        };
        Some(format!("{reason}; {ahead} ahead of it"))
    }

    /// Runs that have a slot, and runs that wait for one.
    #[must_use]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.granted.len(), self.waiting.len() + self.announced.len())
    }
}

mod key;
#[cfg(test)]
mod tests;
