//! Which run gets a slot, and when.

use super::*;
use crate::clock::Timestamp;
use crate::executor::limits::RiskLimits;
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

fn open(limits: Limits) -> Slots {
    let mut slots = Slots::closed(limits);
    assert_eq!(slots.open(), []);
    slots
}

/// A run is accepted in a commit of its own number: `true` if it has its slot at once.
fn accept(slots: &mut Slots, number: u64, rack: &str) -> bool {
    let taken = slots.take(run(number), Risk::None, &machine(number, rack));
    slots.queued(run(number), Revision(number));
    taken
}

#[test]
fn a_full_rack_does_not_delay_another() {
    let mut slots = open(limits(10, 1));
    assert!(accept(&mut slots, 1, "a"));
    assert!(!accept(&mut slots, 2, "a"));
    assert!(accept(&mut slots, 3, "b"));
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
    let mut slots = open(limits(1, 5));
    assert!(accept(&mut slots, 1, "a"));
    assert!(!accept(&mut slots, 2, "b"));
    assert!(!accept(&mut slots, 3, "a"));
    // Asking again keeps the position.
    assert_eq!(slots.request(run(2), Risk::None, &machine(2, "b"), Revision(9)), []);
    assert_eq!(slots.release(run(1))[0].1, run(2));
    assert_eq!(slots.release(run(2))[0].1, run(3));
}

#[test]
fn the_order_of_the_commits_counts_not_that_of_the_questions() {
    let mut slots = open(limits(1, 5));
    assert!(accept(&mut slots, 1, "a"));
    for number in [2, 3, 4] {
        assert!(!slots.take(run(number), Risk::None, &machine(number, "a")));
    }
    // The commit of 3 was the first, that of 4 has failed, and 2 learns about its own last.
    slots.queued(run(3), Revision(5));
    assert_eq!(slots.release(run(4)), []);
    assert_eq!(slots.release(run(1)), [(machine(3, "a").id, run(3))]);
    assert_eq!(slots.request(run(2), Risk::None, &machine(2, "a"), Revision(6)), []);
    assert_eq!(slots.waits_for(run(2)).unwrap().split_once("; ").unwrap().1, "0 ahead of it");
    assert_eq!(slots.release(run(3)), [(machine(2, "a").id, run(2))]);
}

#[test]
fn limits_can_be_raised_and_lowered() {
    let mut slots = open(limits(1, 5));
    assert!(accept(&mut slots, 1, "a"));
    for number in 2..6 {
        assert!(!accept(&mut slots, number, "a"));
    }
    assert_eq!(slots.set_limits(&limits(3, 2)), [(machine(2, "a").id, run(2))]);
    assert_eq!(
        slots.waits_for(run(3)).unwrap(),
        "the limit of 2 runs with rack=a is reached; 0 ahead of it"
    );
    assert_eq!(slots.waits_for(run(5)).unwrap().split_once("; ").unwrap().1, "2 ahead of it");
    // Without a limit on racks; waiting runs are served at once.
    let free = Limits { runs_max: 3, ..Limits::default() };
    assert_eq!(slots.set_limits(&free), [(machine(3, "a").id, run(3))]);
    // No run loses its slot, and none gets one before there is room.
    assert_eq!(slots.set_limits(&limits(1, 5)), []);
    assert_eq!(slots.counts(), (3, 2));
    assert_eq!((slots.release(run(1)), slots.release(run(2))), (vec![], vec![]));
    assert_eq!(slots.release(run(3)), [(machine(4, "a").id, run(4))]);
}

#[test]
fn those_that_had_a_slot_before_a_restart_come_first_and_the_queue_is_as_it_was() {
    let mut slots = Slots::closed(limits(1, 5));
    // Accepted before the others were recovered.
    assert!(!accept(&mut slots, 9, "a"));
    // Recovered early, because an operator asked for it.
    assert_eq!(slots.request(run(3), Risk::None, &machine(3, "a"), Revision(12)), []);
    let set = slots.of(Risk::None, &machine(1, "a"));
    slots.restore(run(1), set);
    for (place, number) in [2, 3].into_iter().enumerate() {
        let order = Order::recovered(place as u64);
        slots.restore_queued(run(number), machine(number, "a").id, set, order);
    }
    assert_eq!(slots.open(), []);
    for (ended, next) in [(1, 2), (2, 3), (3, 9)] {
        assert_eq!(slots.release(run(ended)), [(machine(next, "a").id, run(next))]);
    }
}

#[test]
fn leaving_the_queue_frees_nothing_and_delays_no_run() {
    let mut slots = open(limits(1, 5));
    assert!(accept(&mut slots, 1, "a"));
    assert!(!accept(&mut slots, 2, "a"));
    assert!(!accept(&mut slots, 3, "a"));
    assert_eq!(slots.release(run(2)), []);
    assert_eq!(slots.release(run(1))[0].1, run(3));
}

proptest! {
    /// Exact: no limit is ever exceeded, and no run waits while every limit of its own has room.
    #[test]
    fn limits_are_exact(ops in prop::collection::vec((0_u64..20, any::<bool>()), 1..200)) {
        let mut slots = open(limits(4, 2));
        let racks = ["a", "b", "c"];
        for (revision, (number, release)) in ops.into_iter().enumerate() {
            if release || slots.has(run(number)) || slots.waiting.contains_key(&run(number)) {
                slots.release(run(number));
            } else {
                let machine = machine(number, racks[(number % 3) as usize]);
                slots.take(run(number), Risk::None, &machine);
                slots.queued(run(number), Revision(revision as u64));
            }
            prop_assert!(slots.granted.len() <= 4);
            for (key, used) in &slots.used {
                prop_assert!(*used <= slots.limit(key));
            }
            for (set, queue) in &slots.queues {
                prop_assert!(slots.full(*set).is_some(), "a run waits for nothing");
                prop_assert!(queue.iter().is_sorted_by_key(|waiter| waiter.order));
            }
            prop_assert_eq!(
                slots.queues.values().map(VecDeque::len).sum::<usize>(),
                slots.waiting.len()
            );
        }
    }
}

/// A run of a plan with a risk is accepted: `true` if it has its slot at once.
fn accept_risky(slots: &mut Slots, number: u64, risk: Risk, rack: &str) -> bool {
    let taken = slots.take(run(number), risk, &machine(number, rack));
    slots.queued(run(number), Revision(number));
    taken
}

fn on_risk(max: Option<Cap>, rack: Option<Cap>) -> RiskLimits {
    let max_by_label = rack.map(|cap| ("rack".to_owned(), cap)).into_iter().collect();
    RiskLimits { max, max_by_label }
}

#[test]
fn what_is_at_risk_has_limits_of_its_own() {
    let mut slots = open(Limits {
        disruptive: on_risk(Some(Cap::Number(2)), None),
        data_destroying: on_risk(None, Some(Cap::Number(1))),
        ..Limits::default()
    });
    assert!(accept_risky(&mut slots, 1, Risk::DataDestroying, "a"));
    assert!(!accept_risky(&mut slots, 2, Risk::DataDestroying, "a"));
    assert!(accept_risky(&mut slots, 3, Risk::Disruptive, "a"));
    assert!(!accept_risky(&mut slots, 4, Risk::DataDestroying, "b"));
    assert!(!accept_risky(&mut slots, 5, Risk::Disruptive, "b"));
    assert!(accept_risky(&mut slots, 6, Risk::None, "a"), "what risks nothing does not wait");
    let waits_for = |slots: &Slots, number| slots.waits_for(run(number)).unwrap();
    for number in [2, 4, 5] {
        let why = waits_for(&slots, number);
        assert!(why.starts_with("the limit of 2 disruptive runs is reached"), "{why}");
    }
    assert_eq!(slots.release(run(3)), [(machine(4, "b").id, run(4))]);
    assert_eq!(slots.release(run(4)), [(machine(5, "b").id, run(5))]);
    slots.release(run(5));
    let why = waits_for(&slots, 2);
    assert!(why.starts_with("the limit of 1 data-destroying runs with rack=a is reached"), "{why}");
    let keys = slots.stored_keys(run(1), Risk::DataDestroying, &machine(1, "a"), true);
    let names: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["runs", "disruptive", "data-destroying/label/rack=a"]);
    assert_eq!(slots.release(run(1)), [(machine(2, "a").id, run(2))]);
}

#[test]
fn a_share_is_one_until_the_machines_are_counted() {
    let mut slots = open(Limits {
        data_destroying: on_risk(Some(Cap::Percent(10)), Some(Cap::Percent(50))),
        ..Limits::default()
    });
    let destroying = Risk::DataDestroying;
    assert!(accept_risky(&mut slots, 1, destroying, "a"));
    for number in 2..=6 {
        assert!(!accept_risky(&mut slots, number, destroying, if number > 4 { "b" } else { "a" }));
    }
    assert!(slots.has_uncounted());
    let place = |rack: &str| ("rack".to_owned(), rack.to_owned());
    let places = [place("a"), place("b")].into_iter().collect();
    assert_eq!(slots.shares(), (true, places));
    assert!(!slots.has_uncounted());
    // Four of 49, two of four, and at least one of one.
    let at = [(place("a"), 4), (place("b"), 1)].into_iter().collect();
    let served: Vec<_> = slots.set_machines(Some(49), at).into_iter().map(|(_, run)| run).collect();
    assert_eq!(served, [run(2), run(5)]);
    assert!(accept_risky(&mut slots, 7, destroying, "c"), "one of a rack that was not counted");
    assert!(!accept_risky(&mut slots, 8, destroying, "c"));
    assert!(slots.has_uncounted());
}

#[test]
fn a_slot_that_was_not_used_is_put_back_at_its_turn() {
    let mut slots = open(limits(1, 5));
    assert!(accept(&mut slots, 1, "a"));
    assert!(!accept(&mut slots, 2, "a") && !accept(&mut slots, 3, "a"));
    assert_eq!(slots.release(run(1))[0].1, run(2));
    // Its turn comes again at once, before that of the next.
    assert_eq!(slots.put_back(run(2)), [(machine(2, "a").id, run(2))]);
    // One that waits stays where it is.
    assert_eq!(slots.put_back(run(3)), []);
    assert_eq!(slots.counts(), (1, 1));
    assert_eq!(slots.release(run(2))[0].1, run(3));
}
