//! Seeds that have found a bug in the engine, and what it was.

use crate::profile::Profile;
use crate::runner::{accusation, run_one};

/// Every bug that the simulation has found so far. A change of the simulation itself may change what a seed does: the
/// line stays, as the list of what to look for.
const SEEDS: &[(u64, &str)] = &[
    (54, "a start whose commit was durable and reported as unknown: no worker drove the run"),
    (22, "the same: the run had given its slot back, and one more than the limit continued"),
    (59, "a held run that was canceled undid its steps without a slot"),
    (
        679,
        "after a restart a waiting run took its slot before those that were running had theirs again",
    ),
    (1254, "the same"),
    (949, "a request was answered with a machine as it had been before a write in doubt"),
    (
        2,
        "a destructive action was sent after a cancel had been acknowledged: the step was still looking",
    ),
    (15, "the same"),
    (
        7806,
        "no bug, an invariant that asked for too much: what a former owner sent before the fence of its successor was \
         up was taken for a step begun after a cancel. Found beside it: a run that ended before that fence left it down",
    ),
    (7988, "the same, with a step that is undone"),
    (8648, "the same as 7806"),
    (10944, "the same"),
    (11620, "the same"),
    (13140, "the same"),
    (13396, "the same as 7988"),
    (
        18345,
        "a former owner answered a request that changed nothing with a machine as it had been, and again with another",
    ),
    (
        72987,
        "a run continued without a slot: it had been paused, and so released its slot, before it learned that it had one",
    ),
    (155_602, "the same"),
];

#[test]
fn bugs_of_the_past_stay_fixed() {
    for (seed, what) in SEEDS {
        let report = run_one(*seed, Profile::of(*seed), None);
        assert!(report.violations.is_empty(), "{what}\n{}", accusation(*seed, &report));
    }
}
