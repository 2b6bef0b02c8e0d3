//! Deterministic simulation of the engine (design section 9).
//!
//! From one seed: the production engine, the store in memory and the fake provider under virtual time, with crashes at
//! commit boundaries and effects, two incarnations that overlap, store errors, provider faults, clock jumps, and
//! clients that ask for everything at random times. Every invariant is a function under `invariants`, and is asked
//! after every commit, call, effect and answer.
//!
//! ```sh
//! cargo test --test sim                                                # the short form
//! BMDEMO_PROOF=full cargo test --profile sim --test sim                # two minutes, optimised
//! BMDEMO_SIM_SEEDS=200000 cargo test --profile sim --test sim seeds    # as many as wanted
//! BMDEMO_SIM_SEED=123 cargo test --test sim one_seed -- --nocapture    # one seed again, with its whole trace
//! ```

mod book;
mod client;
mod crash_windows;
mod driver;
mod gate;
mod invariants;
mod oracle;
mod panics;
mod plans;
mod planted;
mod profile;
mod provider;
mod regressions;
mod runner;
mod sim;
mod store;
mod watcher;

use std::time::Duration;

use profile::Profile;
use runner::{accusation, run_many, run_one};

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")))
}

fn is_full() -> bool {
    std::env::var("BMDEMO_PROOF").is_ok_and(|proof| proof == "full")
}

/// Many seeds, and none of them breaks a promise.
#[test]
fn seeds() {
    let first = number("BMDEMO_SIM_FIRST").unwrap_or(1);
    let (count, time) = match (number("BMDEMO_SIM_SEEDS"), is_full()) {
        (Some(count), _) => (count, None),
        (None, true) => (1_000_000, Some(Duration::from_secs(120))),
        (None, false) => (150, None),
    };
    let summary = run_many(first, count, time, 20);
    println!(
        "{} seeds in {:.1?} ({:.0}/s): {} runs, {} commits, {} effects, {} acknowledged requests, {} incarnations",
        summary.seeds,
        summary.took,
        summary.seeds as f64 / summary.took.as_secs_f64(),
        summary.runs,
        summary.commits,
        summary.effects,
        summary.acknowledged,
        summary.incarnations,
    );
    for (seed, report) in summary.failing.iter().skip(1) {
        let first = &report.violations[0];
        println!("seed {seed} breaks {}: {}", first.invariant, first.message);
    }
    if let Some((seed, report)) = summary.failing.first() {
        panic!(
            "{} of {} seeds fail\n{}",
            summary.failing.len(),
            summary.seeds,
            accusation(*seed, report)
        );
    }
    assert!(!is_full() || summary.seeds >= 2_000, "only {} seeds", summary.seeds);
}

/// Waits, approvals, time limits, on_failure and finally steps.
#[test]
fn seeds_of_the_language() {
    let count = number("BMDEMO_SIM_SEEDS").unwrap_or(if is_full() { 2_000 } else { 40 });
    for seed in 1..=count {
        let report = run_one(seed, Profile::language(seed), None);
        assert!(report.violations.is_empty(), "{}", accusation(seed, &report));
    }
}

/// Runs that give their slot back while they wait for a machine.
#[test]
fn seeds_of_busy_machines() {
    let count = number("BMDEMO_SIM_SEEDS").unwrap_or(if is_full() { 2_000 } else { 40 });
    // The last once broke the order of waiting runs.
    for seed in (1..=count).chain([131]) {
        let report = run_one(seed, Profile::busy(seed), None);
        assert!(report.violations.is_empty(), "{}", accusation(seed, &report));
    }
}

/// Stops, over crashes; and plans that are paused because their runs fail.
#[test]
fn seeds_of_brakes() {
    let count = number("BMDEMO_SIM_SEEDS").unwrap_or(if is_full() { 2_000 } else { 40 });
    for seed in 1..=count {
        for profile in [Profile::braking, Profile::failing] {
            let report = run_one(seed, profile(seed), None);
            assert!(report.violations.is_empty(), "{}", accusation(seed, &report));
        }
    }
}

/// Machines that are swapped while they are worked on.
#[test]
fn seeds_of_swapped_machines() {
    let count = number("BMDEMO_SIM_SEEDS").unwrap_or(if is_full() { 2_000 } else { 40 });
    for seed in 1..=count {
        let report = run_one(seed, Profile::swapping(seed), None);
        assert!(report.violations.is_empty(), "{}", accusation(seed, &report));
    }
}

/// The seed of `BMDEMO_SIM_SEED`, with its whole trace.
#[test]
fn one_seed() {
    let Some(seed) = number("BMDEMO_SIM_SEED") else { return };
    let report = run_one(seed, Profile::of(seed), None);
    println!("{}", report.trace.join("\n"));
    assert!(report.violations.is_empty(), "{}", accusation(seed, &report));
}

/// A seed determines everything: the same seed gives the same trace, byte for byte.
#[test]
fn a_seed_replays_exactly() {
    for seed in 1..=5 {
        let [first, second] = [(), ()].map(|()| run_one(seed, Profile::of(seed), None));
        let at = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
        if let Some(at) = at {
            panic!("seed {seed} differs:\n{}\n{}", first.trace[at], second.trace[at]);
        }
        assert_eq!(first.hash, second.hash, "seed {seed}");
    }
}
