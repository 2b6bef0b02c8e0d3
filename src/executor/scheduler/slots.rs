//! Limits on what runs at the same time: exact, fair, and without polling.
//!
//! A run counts against the global limit, its provider's, and one for each limited label of its machine. Runs that
//! have to wait are served first come, first served, among those that wait for the same things: a full rack never
//! delays another rack.

use std::collections::{BTreeMap, VecDeque};

use crate::executor::limits::Limits;
use crate::ids::{MachineId, RunId};
use crate::model::Machine;

/// Something that is limited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Global,
    Provider(String),
    Label(String, String),
}

#[derive(Debug)]
struct Waiter {
    sequence: u64,
    run: RunId,
    machine: MachineId,
}

/// Who has a slot and who waits for one.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Limits,
    used: BTreeMap<Key, usize>,
    granted: BTreeMap<RunId, Vec<Key>>,
    queues: BTreeMap<Vec<Key>, VecDeque<Waiter>>,
    waiting: BTreeMap<RunId, Vec<Key>>,
    next_sequence: u64,
    open: bool,
}

impl Slots {
    /// No one has a slot.
    #[must_use]
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            used: BTreeMap::new(),
            granted: BTreeMap::new(),
            queues: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_sequence: 0,
            open: true,
        }
    }

    /// No one has a slot, and no one gets one but by [`Slots::restore`] until [`Slots::open`]: runs that had a slot
    /// before a restart come first.
    #[must_use]
    pub(super) fn closed(limits: Limits) -> Self {
        Self { open: false, ..Self::new(limits) }
    }

    /// Hands out slots from now on; names the runs that have one now because of it.
    pub(super) fn open(&mut self) -> Vec<(MachineId, RunId)> {
        self.open = true;
        self.serve()
    }

    /// The limits in force.
    #[must_use]
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes the limits; names the runs that have a slot now because of it. Nobody loses a slot.
    pub(super) fn set_limits(&mut self, limits: &Limits) -> Vec<(MachineId, RunId)> {
        self.limits.set_runs(limits);
        self.serve()
    }

    fn keys(&self, machine: &Machine) -> Vec<Key> {
        let mut keys = vec![Key::Global];
        if self.limits.runs_max_by_provider.contains_key(&machine.spec.provider) {
            keys.push(Key::Provider(machine.spec.provider.clone()));
        }
        for label in self.limits.runs_max_by_label.keys() {
            if let Some(value) = machine.labels.get(label) {
                keys.push(Key::Label(label.clone(), value.clone()));
            }
        }
        keys
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
        }
    }

    fn used(&self, key: &Key) -> usize {
        self.used.get(key).copied().unwrap_or(0)
    }

    fn full<'a>(&self, keys: &'a [Key]) -> Option<&'a Key> {
        keys.iter().find(|key| self.used(key) >= self.limit(key))
    }

    fn take(&mut self, run: RunId, keys: Vec<Key>) {
        for key in &keys {
            *self.used.entry(key.clone()).or_default() += 1;
        }
        self.granted.insert(run, keys);
    }

    /// Asks for a slot: `true` if the run has it now, otherwise it waits and is named by a later [`Slots::release`].
    pub(super) fn request(&mut self, run: RunId, machine: &Machine) -> bool {
        if self.granted.contains_key(&run) {
            return true;
        }
        if self.waiting.contains_key(&run) {
            return false;
        }
        let keys = self.keys(machine);
        // Whoever waits for the same things came first.
        if self.open && self.full(&keys).is_none() && !self.queues.contains_key(&keys) {
            self.take(run, keys);
            return true;
        }
        let waiter = Waiter { sequence: self.next_sequence, run, machine: machine.id.clone() };
        self.next_sequence += 1;
        self.queues.entry(keys.clone()).or_default().push_back(waiter);
        self.waiting.insert(run, keys);
        false
    }

    /// Whether the run has a slot now.
    #[must_use]
    pub(super) fn has(&self, run: RunId) -> bool {
        self.granted.contains_key(&run)
    }

    /// Gives a run its slot whatever the limits say: it had one before the restart.
    pub(super) fn restore(&mut self, run: RunId, machine: &Machine) {
        if !self.granted.contains_key(&run) {
            let keys = self.keys(machine);
            self.take(run, keys);
        }
    }

    /// Gives back the run's slot, or its place in the queue; names the runs that have a slot now because of it.
    pub(super) fn release(&mut self, run: RunId) -> Vec<(MachineId, RunId)> {
        match self.granted.remove(&run) {
            Some(keys) => {
                for key in keys {
                    let used = self.used.entry(key).or_default();
                    *used = used.saturating_sub(1);
                }
                self.used.retain(|_, used| *used > 0);
            }
            None => {
                let Some(keys) = self.waiting.remove(&run) else { return Vec::new() };
                if let Some(queue) = self.queues.get_mut(&keys) {
                    queue.retain(|waiter| waiter.run != run);
                    if queue.is_empty() {
                        self.queues.remove(&keys);
                    }
                }
            }
        }
        self.serve()
    }

    /// Serves whoever can be served, oldest first among the heads of the queues.
    fn serve(&mut self) -> Vec<(MachineId, RunId)> {
        let mut served = Vec::new();
        if !self.open {
            return served;
        }
        loop {
            let next = self
                .queues
                .iter()
                .filter(|(keys, _)| self.full(keys).is_none())
                .filter_map(|(keys, queue)| queue.front().map(|head| (head.sequence, keys)))
                .min()
                .map(|(_, keys)| keys.clone());
            let Some(keys) = next else { return served };
            let Some(queue) = self.queues.get_mut(&keys) else { return served };
            let Some(waiter) = queue.pop_front() else { return served };
            if queue.is_empty() {
                self.queues.remove(&keys);
            }
            self.waiting.remove(&waiter.run);
            self.take(waiter.run, keys);
            served.push((waiter.machine, waiter.run));
        }
    }

    /// Which limit keeps a waiting run back, for people.
    #[must_use]
    pub(super) fn waits_for(&self, run: RunId) -> Option<String> {
        let keys = self.waiting.get(&run)?;
        let queue = self.queues.get(keys)?;
        let ahead = queue.iter().take_while(|waiter| waiter.run != run).count();
        let reason = match self.full(keys) {
            Some(Key::Global) => format!("the limit of {} runs is reached", self.limits.runs_max),
            Some(key @ Key::Provider(name)) => {
                format!("the limit of {} runs on provider {name} is reached", self.limit(key))
            }
            Some(key @ Key::Label(name, value)) => {
                format!("the limit of {} runs with {name}={value} is reached", self.limit(key))
            }
            None => "its turn is about to come".to_owned(),
        };
        Some(format!("{reason}; {ahead} ahead of it"))
    }

    /// Runs that have a slot, and runs that wait for one.
    #[must_use]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.granted.len(), self.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::MachineSpec;
    use proptest::prelude::*;

    fn machine(id: u64, rack: &str) -> Machine {
        let labels = [("rack".to_owned(), rack.to_owned())].into_iter().collect();
        let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
        let id = MachineId::parse(&format!("machine-{id}")).unwrap();
        Machine::registered(id, labels, spec, Timestamp(0))
    }

    fn run(number: u64) -> RunId {
        RunId::new(Timestamp(number), [number, 0])
    }

    fn limits(global: usize, rack: usize) -> Limits {
        Limits {
            runs_max: global,
            runs_max_by_label: [("rack".to_owned(), rack)].into_iter().collect(),
            ..Limits::default()
        }
    }

    #[test]
    fn a_full_rack_does_not_delay_another() {
        let mut slots = Slots::new(limits(10, 1));
        assert!(slots.request(run(1), &machine(1, "a")));
        assert!(!slots.request(run(2), &machine(2, "a")));
        assert!(slots.request(run(3), &machine(3, "b")));
        assert_eq!(
            slots.waits_for(run(2)).unwrap(),
            "the limit of 1 runs with rack=a is reached; 0 ahead of it"
        );
        assert_eq!(slots.release(run(3)), []);
        assert_eq!(slots.release(run(1)), [(machine(2, "a").id, run(2))]);
        assert_eq!(slots.counts(), (1, 0));
    }

    #[test]
    fn first_come_first_served_under_the_global_limit() {
        let mut slots = Slots::new(limits(1, 5));
        assert!(slots.request(run(1), &machine(1, "a")));
        assert!(!slots.request(run(2), &machine(2, "b")));
        assert!(!slots.request(run(3), &machine(3, "a")));
        // Asking again keeps the place.
        assert!(!slots.request(run(2), &machine(2, "b")));
        assert_eq!(slots.release(run(1))[0].1, run(2));
        assert_eq!(slots.release(run(2))[0].1, run(3));
    }

    #[test]
    fn limits_can_be_raised_and_lowered() {
        let mut slots = Slots::new(limits(1, 5));
        assert!(slots.request(run(1), &machine(1, "a")));
        for number in 2..6 {
            assert!(!slots.request(run(number), &machine(number, "a")));
        }
        assert_eq!(slots.set_limits(&limits(3, 2)), [(machine(2, "a").id, run(2))]);
        assert_eq!(
            slots.waits_for(run(3)).unwrap(),
            "the limit of 2 runs with rack=a is reached; 0 ahead of it"
        );
        // Without a limit on racks; whoever waits is served at once.
        let free = Limits { runs_max: 3, ..Limits::default() };
        assert_eq!(slots.set_limits(&free), [(machine(3, "a").id, run(3))]);
        // Nobody loses a slot, and nobody gets one before there is room.
        assert_eq!(slots.set_limits(&limits(1, 5)), []);
        assert_eq!(slots.counts(), (3, 2));
        assert_eq!((slots.release(run(1)), slots.release(run(2))), (vec![], vec![]));
        assert_eq!(slots.release(run(3)), [(machine(4, "a").id, run(4))]);
    }

    #[test]
    fn those_that_had_a_slot_before_a_restart_come_first() {
        let mut slots = Slots::closed(limits(1, 5));
        assert!(!slots.request(run(2), &machine(2, "b")));
        slots.restore(run(1), &machine(1, "a"));
        assert_eq!(slots.open(), []);
        assert_eq!(slots.release(run(1)), [(machine(2, "b").id, run(2))]);
    }

    #[test]
    fn leaving_the_queue_frees_nothing_and_delays_nobody() {
        let mut slots = Slots::new(limits(1, 5));
        assert!(slots.request(run(1), &machine(1, "a")));
        assert!(!slots.request(run(2), &machine(2, "a")));
        assert!(!slots.request(run(3), &machine(3, "a")));
        assert_eq!(slots.release(run(2)), []);
        assert_eq!(slots.release(run(1))[0].1, run(3));
    }

    proptest! {
        /// Exact: no limit is ever exceeded, and nobody waits while every limit of theirs has room.
        #[test]
        fn limits_are_exact(ops in prop::collection::vec((0_u64..20, 0_u64..3, any::<bool>()), 1..200)) {
            let mut slots = Slots::new(limits(4, 2));
            let racks = ["a", "b", "c"];
            for (number, rack, release) in ops {
                if release {
                    slots.release(run(number));
                } else {
                    // A machine keeps its rack: the run's number decides.
                    let _ = rack;
                    slots.request(run(number), &machine(number, racks[(number % 3) as usize]));
                }
                prop_assert!(slots.granted.len() <= 4);
                for (key, used) in &slots.used {
                    prop_assert!(*used <= slots.limit(key));
                }
                for keys in slots.queues.keys() {
                    prop_assert!(slots.full(keys).is_some(), "somebody waits for nothing");
                }
            }
        }
    }
}
