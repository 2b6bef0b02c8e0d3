//! Planted bugs: a simulation that does not find them proves nothing.
//!
//! Each bug is caught on pinned seeds, in every run, by the invariant that it breaks.

use bmdemo::executor::planted::Planted;

use crate::number;
use crate::profile::Profile;
use crate::runner::run_one;

/// A bug, the invariant that must accuse it, and seeds that show it.
struct Case {
    bug: Planted,
    accuser: &'static str,
    profile: fn(u64) -> Profile,
    seeds: &'static [u64],
}

/// Of the first seeds of each profile those that show the bug; found by `hunt_for_planted_bugs`.
const CASES: &[Case] = &[
    Case {
        bug: Planted::NoIntent,
        accuser: "promise_03_intent_is_durable_before_an_effect",
        profile: Profile::of,
        seeds: &[1, 3, 4, 6, 8],
    },
    Case {
        bug: Planted::BlindRetry,
        accuser: "promise_06_unknown_outcomes_are_not_acted_on_blindly",
        profile: Profile::of,
        seeds: &[1, 6, 8, 10, 14],
    },
    Case {
        bug: Planted::AckBeforeCommit,
        accuser: "promise_01_acknowledged_is_durable",
        profile: Profile::of,
        seeds: &[1, 2, 3, 5, 6],
    },
    Case {
        bug: Planted::TimerLost,
        accuser: "promise_05_nothing_is_stuck",
        profile: Profile::of,
        seeds: &[2, 3, 10, 12, 16],
    },
    Case {
        bug: Planted::EpochPerRun,
        accuser: "promise_10_claims_raise_the_epoch",
        profile: Profile::of,
        seeds: &[1, 2, 3, 5, 6],
    },
    Case {
        bug: Planted::EventMisjudged,
        accuser: "promise_09_a_watch_misses_and_repeats_nothing",
        profile: Profile::of,
        seeds: &[1, 2, 3, 4, 5],
    },
    Case {
        bug: Planted::FenceAfterReadBack,
        accuser: "promise_10_no_effect_behind_a_newer_reader",
        profile: Profile::overlapping,
        seeds: &[2, 3, 5, 10, 19],
    },
    Case {
        bug: Planted::LostWorker,
        accuser: "promise_05_nothing_is_stuck",
        profile: Profile::of,
        seeds: &[1, 3, 5, 6, 10],
    },
    Case {
        bug: Planted::QueueByName,
        accuser: "promise_16_first_come_first_served",
        profile: Profile::queueing,
        seeds: &[4, 6, 13, 19, 24],
    },
];

#[test]
fn planted_bugs_are_caught() {
    for bug in Planted::ALL {
        assert!(CASES.iter().any(|case| case.bug == bug), "{bug:?} is not looked for");
    }
    for Case { bug, accuser, profile, seeds } in CASES {
        assert!(seeds.len() >= 3, "{bug:?} has too few seeds");
        for &seed in *seeds {
            let report = run_one(seed, profile(seed), Some(*bug));
            let accused: Vec<_> = report.violations.iter().map(|one| one.invariant).collect();
            assert!(accused.contains(accuser), "{bug:?} at seed {seed}: accused by {accused:?}");
            // It is the bug that is accused, not the simulation.
            let report = run_one(seed, profile(seed), None);
            assert!(report.violations.is_empty(), "seed {seed}: {:?}", report.violations);
        }
    }
}

/// Looks for seeds that show each bug, among `BMDEMO_SIM_HUNT` of them.
#[test]
fn hunt_for_planted_bugs() {
    let Some(count) = number("BMDEMO_SIM_HUNT") else { return };
    for Case { bug, accuser, profile, .. } in CASES {
        let mut caught = Vec::new();
        let mut others = std::collections::BTreeMap::<_, u64>::new();
        for seed in 1..=count {
            let report = run_one(seed, profile(seed), Some(*bug));
            match report.violations.first() {
                Some(first) if first.invariant == *accuser => caught.push(seed),
                Some(first) => *others.entry(first.invariant).or_default() += 1,
                None => {}
            }
        }
        println!(
            "{bug:?}: {} of {count} by {accuser}: {caught:?}; others: {others:?}",
            caught.len()
        );
    }
}
