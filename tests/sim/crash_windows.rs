//! Every crash window of the design, in every step of every plan: the run continues and succeeds, each step has taken
//! effect once, and the history says that it was recovered.

use std::collections::BTreeMap;

use bmdemo::lifecycle::machine::Phase;
use bmdemo::lifecycle::run;
use bmdemo::model::{Entry, EntryKind, Run};
use bmdemo::plan::Registry;
use bmdemo::provider::fake::{self, Timing};
use bmdemo::store::{Batch, Store as _, Subject};

use crate::book::{in_operation, parts};
use crate::client::{Ask, Request};
use crate::driver::{Driver, in_virtual_time, machine, request};
use crate::plans::PLANS;
use crate::profile::Profile;
use crate::runner::THREADS;
use crate::sim::{CallKind, Fuse, Point};

/// Where in a step the server is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    /// Before the intent is committed.
    BeforeIntent,
    /// After the intent is durable, before it is answered.
    AfterIntent,
    /// After the observation, before the action is sent.
    BeforeCall,
    /// The world has accepted the action, and the response has not come.
    DuringCall,
    /// The provider is known to have the operation, and is working on it.
    WhileItLasts,
    /// The action is done and checked, and its result is not committed.
    BeforeResult,
    /// The result is durable, before it is answered.
    AfterResult,
}

impl Window {
    const ALL: [Self; 7] = [
        Self::BeforeIntent,
        Self::AfterIntent,
        Self::BeforeCall,
        Self::DuringCall,
        Self::WhileItLasts,
        Self::BeforeResult,
        Self::AfterResult,
    ];

    fn holds(self, step: &str, point: &Point<'_>) -> bool {
        match (self, point) {
            (Self::BeforeIntent, Point::BeforeCommit(batch))
            | (Self::AfterIntent, Point::AfterCommit(batch)) => {
                says(batch, EntryKind::StepStarted, step)
            }
            (Self::WhileItLasts, Point::AfterCommit(batch)) => {
                says(batch, EntryKind::StepAccepted, step)
            }
            (Self::BeforeResult, Point::BeforeCommit(batch))
            | (Self::AfterResult, Point::AfterCommit(batch)) => {
                says(batch, EntryKind::StepSucceeded, step)
            }
            (Self::BeforeCall, Point::BeforeCall(CallKind::Act, Some(call)))
            | (Self::DuringCall, Point::AfterCall(CallKind::Act, Some(call))) => {
                parts(call.operation.as_str()).1 == in_operation(step)
            }
            _ => false,
        }
    }

    fn fuse(self, step: String) -> Fuse {
        Box::new(move |point| self.holds(&step, point))
    }
}

fn says(batch: &Batch, kind: EntryKind, step: &str) -> bool {
    let runs = batch.writes.iter().filter(|write| write.images::<Run>().is_some());
    let mut entries = runs.flat_map(|write| &write.entries);
    entries.any(|entry: &Entry| entry.kind == kind && entry.step == step)
}

#[test]
fn crash_windows() {
    let registry = Registry::built_in();
    let mut cases = Vec::new();
    for plan in PLANS {
        let steps = &registry.get(plan).expect("a built-in plan").plan.steps;
        for step in steps.iter() {
            for timing in [Timing::Default, Timing::Zero] {
                for window in Window::ALL {
                    // Instantaneous actions have no duration.
                    if window != Window::WhileItLasts || timing == Timing::Default {
                        cases.push((plan, step.name.to_string(), timing, window));
                    }
                }
            }
        }
    }
    let part = cases.len().div_ceil(THREADS);
    std::thread::scope(|scope| {
        for cases in cases.chunks(part) {
            scope.spawn(move || {
                for (plan, step, timing, window) in cases {
                    let name = format!("{plan}, step {step}, {timing}, {window:?}");
                    in_virtual_time(killed_in(plan, step, *timing, *window, &name));
                }
            });
        }
    });
    assert_eq!(cases.len(), 17 * 13, "five plans of 17 steps, 7 windows and 6");
}

async fn killed_in(plan: &'static str, step: &str, timing: Timing, window: Window, name: &str) {
    let mut driver = Driver::new(7, Profile::calm(timing), None);
    driver.boot().await;
    driver.register().await;
    let (who, engine) = driver.current();
    if plan == "plan/upgrade" {
        let ask = Ask::SetPhase { machine: machine(1), phase: Phase::Ready };
        driver.clients.ask(&engine, who, request(ask)).await;
    }
    driver.sim.set_fuse(window.fuse(step.to_owned()));
    let ask = Ask::Start { machine: machine(1), plan, force: false };
    let start = Request { id: "the one".to_owned(), ..request(ask) };
    driver.clients.send(&engine, who, start.clone());
    tokio::select! {
        biased;
        () = driver.sim.gates.died(who) => {}
        () = driver.sim.sleep_ms(24 * 60 * 60 * 1_000) => panic!("{name}: never came to that"),
    }
    // Not if it was never accepted, or had ended.
    let taken_up = driver.sim.oracle().book.active.values().any(|runs| !runs.is_empty());
    driver.restart().await;
    // The client had no answer, and repeats the request.
    let (who, engine) = driver.current();
    driver.clients.ask(&engine, who, start).await;
    driver.let_runs_end().await;

    let runs: Vec<_> = driver.sim.oracle().book.runs.values().cloned().collect();
    let [run] = &runs[..] else { panic!("{name}: {} runs", runs.len()) };
    assert_eq!(run.phase(), run::Phase::Succeeded, "{name}: {run:#?}");
    let ledger = driver.world.ledger();
    assert_eq!(fake::violations(&ledger), Vec::<String>::new(), "{name}");
    let mut effects: BTreeMap<String, u32> = BTreeMap::new();
    for entry in ledger.iter().filter(|entry| entry.has_effect()) {
        *effects.entry(parts(entry.operation.as_str()).1).or_default() += 1;
    }
    let once: BTreeMap<_, _> = run.steps.iter().map(|step| (step.name.clone(), 1)).collect();
    assert_eq!(effects, once, "{name}");
    assert_eq!(recovered(&driver, run).await, taken_up, "{name}");
    let report = driver.report();
    assert!(report.violations.is_empty(), "{name}: {:?}", report.violations);
    assert_eq!(report.incarnations, 2, "{name}");
}

/// Whether the history says that the run was recovered.
async fn recovered(driver: &Driver, run: &Run) -> bool {
    let history = driver.store.history(Subject::Run(run.id), None, 1_000).await;
    let history = history.expect("it is in memory");
    history.iter().any(|row| row.entry.kind == EntryKind::RunRecovered)
}
