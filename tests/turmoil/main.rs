//! The real API over a simulated network: clients with deadlines that ask again, servers that crash and come back,
//! partitions, held messages.
//!
//! The production engine and connection code serve the store in memory and the fake provider behind turmoil's network,
//! in virtual time. However the network behaves: a request id never makes two runs, what was acknowledged is there, no
//! step is repeated, every run ends, and a resumed watch reports every change once and in order.
//!
//! ```sh
//! cargo test --test turmoil                                            # 20 seeds
//! BMDEMO_PROOF=full cargo test --profile sim --test turmoil            # 500 seeds
//! BMDEMO_TURMOIL_SEEDS=5000 cargo test --profile sim --test turmoil    # as many as wanted
//! BMDEMO_TURMOIL_SEED=123 cargo test --test turmoil -- --nocapture     # one seed again, with what happened;
//!                                              # RUST_LOG=turmoil=trace shows every message on the network
//! ```
//!
//! A seed decides what clients ask, when messages arrive and what goes wrong: it gives the same trace again.

mod book;
mod client;
mod network;
mod watcher;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use book::{Mistake, Report};

const THREADS: usize = 2;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")))
}

/// The result of a seed; a panic counts as a violation.
fn run(seed: u64, mistake: Option<Mistake>) -> Report {
    catch_unwind(AssertUnwindSafe(|| network::simulate(seed, mistake))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Report { violations: vec![text.to_owned()], ..Report::default() }
    })
}

#[test]
fn requests_are_not_repeated_and_watches_resume_where_they_were() {
    if let Some(seed) = number("BMDEMO_TURMOIL_SEED") {
        tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stdout)
            .init();
        let report = run(seed, None);
        println!("{}", report.trace.join("\n"));
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
        return;
    }
    let is_full = std::env::var("BMDEMO_PROOF").is_ok_and(|proof| proof == "full");
    let count = number("BMDEMO_TURMOIL_SEEDS").unwrap_or(if is_full { 500 } else { 20 });
    let next = AtomicU64::new(1);
    let total = Mutex::new(Report::default());
    let failing = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed > count {
                        return;
                    }
                    let report = run(seed, None);
                    total.lock().unwrap().add(&report);
                    if !report.violations.is_empty() {
                        failing.lock().unwrap().push((seed, report));
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!(
        "{count} seeds: {} runs acknowledged, {} calls without an answer, {} watches resumed, {} faults",
        total.acknowledged, total.unanswered, total.resumed, total.faults
    );
    let mut failing = failing.into_inner().unwrap();
    failing.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, report)) = failing.first() {
        panic!(
            "{} of {count} seeds fail; BMDEMO_TURMOIL_SEED={seed} shows the first:\n{}\n{}",
            failing.len(),
            report.violations.join("\n"),
            report.trace.join("\n")
        );
    }
    // A network without trouble proves nothing.
    assert!(total.unanswered >= count && total.resumed >= count && total.faults >= count);
}

/// A seed determines everything: the same seed gives the same trace.
#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 3, 5] {
        let [first, second] = [(), ()].map(|()| run(seed, None).trace);
        let at = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(at) = at {
            panic!("seed {seed} differs:\n{}\n{}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

/// The verdict detects mistakes of clients.
#[test]
fn mistakes_are_noticed() {
    for mistake in [Mistake::NewRequestId, Mistake::ResumeTooEarly] {
        // A call that comes after its deadline changes nothing, so a second request id seldom finds anything to
        // repeat.
        let noticed = (1..=60).any(|seed| !run(seed, Some(mistake)).violations.is_empty());
        assert!(noticed, "{mistake:?}");
    }
}
