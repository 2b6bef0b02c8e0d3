//! Runs with waits, approvals and time limits, on the engine: their timers fire even if nothing is in memory.

use super::harness::{Harness, START, machine_id, origin};
use crate::executor::request::{MachineChanges, Verb};
use crate::ids::RunId;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::{HoldReason, Run, RunErrorCode};
use crate::plan::registry::BUILT_IN;
use crate::plan::{Registry, SourceFile, compile};

const PLAN: &str = r#"
id = "plan/language"
allowed_phases = ["FACTORY_READY"]
time_limit = "3h"

[[steps]]
name = "soak"
action = "wait"
args = { for = "30m" }

[[steps]]
name = "ask"
action = "approve"
args = { message = "Continue?" }
timeout = "1h"

[[steps]]
name = "labeled"
action = "wait"
until = { label = { rack = "r9" } }
timeout = "2h"

[[steps]]
name = "boot"
action = "set-netboot"

[[finally]]
name = "tell"
action = "notify"
"#;

const HOUR: u64 = 60 * 60 * 1_000;

fn registry() -> Registry {
    let own = compile(&[SourceFile { name: "language.toml", bytes: PLAN.as_bytes() }]).unwrap();
    Registry::from_plans(BUILT_IN.iter().cloned().chain(own).collect()).unwrap()
}

async fn started() -> (Harness, RunId) {
    let mut harness = Harness::new("").await;
    harness.plans = registry;
    harness.crash().await;
    harness.register(1).await;
    let id = harness.start(1, "plan/language").await.unwrap().id;
    (harness, id)
}

/// An engine with a run that is held for approval.
pub(super) async fn asking() -> (Harness, RunId) {
    let (harness, id) = started().await;
    harness.until(id, asks).await;
    (harness, id)
}

fn asks(run: &Run) -> bool {
    run.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::Approval)
}

fn yes() -> Verb {
    Verb::Answer { step: "ask".to_owned(), yes: true }
}

async fn label(harness: &Harness, rack: &str) {
    let label_edits = [("rack".to_owned(), Some(rack.to_owned()))].into_iter().collect();
    let changes = MachineChanges { label_edits, ..MachineChanges::default() };
    harness.engine.update_machine(&origin(), &machine_id(1), changes).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_asks_and_continues() {
    let (mut harness, id) = started().await;
    harness.pass(HOUR / 4).await;
    harness.crash().await;
    let asked = harness.until(id, asks).await;
    assert_eq!(asked.steps[0].finished_at, Some(START.plus_ms(HOUR / 2)), "a crash adds nothing");
    harness.operate(id, yes()).await.unwrap();
    harness.pass(HOUR / 4).await;
    label(&harness, "r9").await;
    let run = harness.finished(id).await;
    assert_eq!(run.state, run::State::Succeeded);
    assert_eq!(run.steps[4].state, State::Succeeded, "the last");
    // Checked every ten seconds, and the provider only for its own calls.
    let labeled_at = START.plus_ms(HOUR / 2 + HOUR / 4);
    let found_at = run.steps[2].finished_at.unwrap();
    assert!(found_at.since(labeled_at).as_millis() <= 10_000, "{found_at}");
    let actions: Vec<_> = harness.ledger().into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["set-netboot", "notify"]);
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_a_no_also_after_a_restart() {
    for crashes in [false, true] {
        let (mut harness, id) = started().await;
        harness.until(id, asks).await;
        harness.pass(HOUR / 2).await;
        if crashes {
            harness.crash().await;
            assert!(asks(&harness.engine.run(id).await.unwrap()));
        }
        let run = harness.finished(id).await;
        assert_eq!((run.state, run.steps[1].state), (run::State::Failed, State::Failed));
        assert_eq!(run.steps[1].finished_at, Some(START.plus_ms(HOUR / 2 + HOUR)));
        assert_eq!(run.steps[4].state, State::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_run_holds_also_after_a_restart() {
    for crashes in [false, true] {
        let (mut harness, id) = started().await;
        harness.until(id, asks).await;
        harness.pass(HOUR - 1_000).await;
        harness.operate(id, yes()).await.unwrap();
        harness.pass(HOUR).await;
        if crashes {
            harness.crash().await;
        }
        let run = harness.finished(id).await;
        assert_eq!(run.state, run::State::Failed);
        let error = run.error.as_ref().unwrap();
        assert_eq!((error.code, error.step.as_str()), (RunErrorCode::TimedOut, "labeled"));
        assert_eq!(run.steps[2].state, State::Canceled);
        assert_eq!(run.steps[2].finished_at, Some(START.plus_ms(3 * HOUR)));
        assert_eq!(run.steps[4].state, State::Succeeded);
    }
}
