//! Many seeds on two threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::executor::planted::Planted;

use crate::driver::{Report, simulate};
use crate::panics;
use crate::profile::Profile;

/// Simulation threads, each with its own runtime.
pub(crate) const THREADS: usize = 2;

/// Runs one seed, panics included in its report.
pub(crate) fn run_one(seed: u64, profile: Profile, planted: Option<Planted>) -> Report {
    panics::watch();
    let report = simulate(seed, profile, planted);
    drop(panics::take());
    report
}

/// Result of many seeds.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) seeds: u64,
    pub(crate) runs: usize,
    pub(crate) commits: u64,
    pub(crate) incarnations: u64,
    pub(crate) acknowledged: u64,
    pub(crate) effects: usize,
    pub(crate) failing: Vec<(u64, Report)>,
    pub(crate) took: Duration,
}

/// Runs seeds from `first` until there were `count`, or `time` has passed; stops at `failing_max` failing ones.
pub(crate) fn run_many(
    first: u64,
    count: u64,
    time: Option<Duration>,
    failing_max: usize,
) -> Summary {
    let clock = SystemClock::new();
    let next = AtomicU64::new(first);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    let over = time.is_some_and(|time| clock.monotonic() > time);
                    if over || seed >= first + count {
                        return;
                    }
                    let report = run_one(seed, Profile::of(seed), None);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.seeds += 1;
                    summary.runs += report.runs;
                    summary.commits += report.commits;
                    summary.incarnations += u64::from(report.incarnations);
                    summary.acknowledged += report.acknowledged;
                    summary.effects += report.effects;
                    if !report.violations.is_empty() {
                        summary.failing.push((seed, report));
                        if summary.failing.len() >= failing_max {
                            return;
                        }
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.took = clock.monotonic();
    summary
}

/// The report of a failing seed: what is wrong, how it came to that, and how to reproduce it.
pub(crate) fn accusation(seed: u64, report: &Report) -> String {
    let tail = report.trace.len().saturating_sub(80);
    let violations: Vec<_> = report
        .violations
        .iter()
        .map(|violation| format!("{}: {}", violation.invariant, violation.message))
        .collect();
    format!(
        "seed {seed} breaks\n  {}\n\nThe end of its trace:\n{}\n\nReplay it with:\n  \
         BMDEMO_SIM_SEED={seed} cargo test --test sim one_seed -- --nocapture\n",
        violations.join("\n  "),
        report.trace[tail..].join("\n")
    )
}
