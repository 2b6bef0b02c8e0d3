//! Planted bugs: a simulation that does not find them proves nothing.
//!
//! Each bug is caught within the first seeds, in every run, by the invariant that it breaks.

use bmdemo::executor::planted::Planted;

use crate::number;
use crate::profile::Profile;
use crate::runner::run_one;

/// A bug, the invariant that must detect it, and the profile whose seeds show it.
struct Case {
    bug: Planted,
    accuser: &'static str,
    profile: fn(u64) -> Profile,
}

/// Seeds that must show each bug, among how many from the first on. Which ones they are changes with every change of
/// the engine, since it shifts the schedule; their number does not.
const SHOWN_BY: usize = 3;
const AMONG: u64 = 40;

const CASES: &[Case] = &[
    Case {
        bug: Planted::NoIntent,
        accuser: "promise_03_intent_is_durable_before_an_effect",
        profile: Profile::of,
    },
    Case {
        bug: Planted::BlindRetry,
        accuser: "promise_06_unknown_outcomes_are_not_acted_on_blindly",
        profile: Profile::of,
    },
    Case {
        bug: Planted::AckBeforeCommit,
        accuser: "promise_01_acknowledged_is_durable",
        profile: Profile::of,
    },
    Case { bug: Planted::TimerLost, accuser: "promise_05_nothing_is_stuck", profile: Profile::of },
    Case {
        bug: Planted::EpochPerRun,
        accuser: "promise_10_claims_raise_the_epoch",
        profile: Profile::of,
    },
    Case {
        bug: Planted::EventMisjudged,
        accuser: "promise_09_a_watch_misses_and_repeats_nothing",
        profile: Profile::of,
    },
    Case {
        bug: Planted::FenceAfterReadBack,
        accuser: "promise_10_no_effect_behind_a_newer_reader",
        profile: Profile::overlapping,
    },
    Case { bug: Planted::LostWorker, accuser: "promise_05_nothing_is_stuck", profile: Profile::of },
    Case {
        bug: Planted::QueueByName,
        accuser: "promise_16_first_come_first_served",
        profile: Profile::queueing,
    },
    Case {
        bug: Planted::AnyHardware,
        accuser: "promise_22_only_the_registered_hardware_is_written",
        profile: Profile::swapping,
    },
    Case {
        bug: Planted::AuditOutsideCommit,
        accuser: "the_audit_speaks_of_every_request",
        profile: Profile::of,
    },
    Case {
        bug: Planted::RiskForgotten,
        accuser: "blast_radius_is_kept",
        profile: Profile::careful,
    },
    Case {
        bug: Planted::StopForgotten,
        accuser: "nothing_begins_while_everything_is_stopped",
        profile: Profile::braking,
    },
    Case {
        bug: Planted::FailuresUncounted,
        accuser: "a_plan_that_keeps_failing_is_paused",
        profile: Profile::failing,
    },
];

#[test]
fn planted_bugs_are_caught() {
    for bug in Planted::ALL {
        assert!(CASES.iter().any(|case| case.bug == bug), "{bug:?} is not looked for");
    }
    for Case { bug, accuser, profile } in CASES {
        let shown: Vec<u64> = (1..=AMONG)
            .filter(|&seed| {
                let report = run_one(seed, profile(seed), Some(*bug));
                report.violations.iter().any(|one| one.invariant == *accuser)
            })
            .take(SHOWN_BY)
            .collect();
        assert!(
            shown.len() >= SHOWN_BY,
            "{bug:?}: only {shown:?} of {AMONG} are accused by {accuser}"
        );
        for seed in shown {
            // The bug is reported, not a flaw of the simulation.
            let report = run_one(seed, profile(seed), None);
            assert!(report.violations.is_empty(), "seed {seed}: {:?}", report.violations);
        }
    }
}

/// Counts the seeds that show each bug, among `BMDEMO_SIM_HUNT` of them.
#[test]
fn hunt_for_planted_bugs() {
    let Some(count) = number("BMDEMO_SIM_HUNT") else { return };
    for Case { bug, accuser, profile } in CASES {
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
