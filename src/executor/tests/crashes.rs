//! Crashes, restarts and orderly shutdowns at any point.

use std::time::Duration;

use super::harness::{Harness, every_step, origin, refusal};
use crate::executor::request::Verb;
use crate::executor::{EngineError, Refusal};
use crate::lifecycle::run;
use crate::lifecycle::step::{Resolution, State};
use crate::model::{EntryKind, HoldReason, Run};
use crate::plan::{Plan, Registry};

#[tokio::test(start_paused = true)]
async fn a_crash_during_any_step_of_any_plan_is_got_over() {
    for (plan, place, step) in every_step() {
        let (mut harness, id) = Harness::at_step("", plan, place).await;
        let before = harness.machine(1).await.epoch;
        harness.crash().await;
        assert!(harness.machine(1).await.epoch > before);
        let run = harness.finished(id).await;
        let what = format!("{} of {plan}", step.name);
        assert_eq!(run.phase(), run::Phase::Succeeded, "{what}: {run:#?}");
        assert!(run.steps.iter().all(|step| step.attempt == 1), "no attempt was wasted: {what}");
        harness.nothing_was_repeated();
        let history = harness.history(id).await;
        let recovered = history.iter().filter(|entry| entry.kind == EntryKind::RunRecovered);
        assert_eq!(recovered.count(), 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn crash_after_crash_is_got_over() {
    let (mut harness, id) = Harness::running("", "plan/repave-join").await;
    for _ in 0..40 {
        harness.pass(97).await;
        harness.crash().await;
    }
    let run = harness.finished(id).await;
    assert_eq!(run.phase(), run::Phase::Succeeded, "{run:#?}");
    harness.nothing_was_repeated();
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_attempts_keeps_the_next_one_waiting() {
    let (mut harness, id) =
        Harness::running("step=repave do=fail times=1", "plan/repave-join").await;
    let waiting = |run: &Run| matches!(run.steps[1].state, State::BackingOff { .. });
    let before = harness.until(id, waiting).await;
    harness.crash().await;
    let after = harness.engine.run(id).await.unwrap();
    assert_eq!(after.steps[1].state, before.steps[1].state);
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[1].attempt), (run::Phase::Succeeded, 2));
}

#[tokio::test(start_paused = true)]
async fn a_crash_forgets_no_cancel_no_pause_and_no_place_in_the_queue() {
    let (mut harness, id) = Harness::at_step("", "plan/repave-join", 1).await;
    harness.operate(id, Verb::Cancel).await.unwrap();
    harness.crash().await;
    let run = harness.finished(id).await;
    assert_eq!(run.phase(), run::Phase::Canceled);
    assert_eq!(run.steps[1].state, State::Succeeded, "destructive: it settled first");

    let (mut harness, id) = Harness::at_step("", "plan/repave-join", 1).await;
    harness.operate(id, Verb::Pause).await.unwrap();
    harness.crash().await;
    let run = harness.until(id, |run| run.state == run::State::Held).await;
    assert_eq!(run.steps[1].state, State::Succeeded);
    harness.crash().await;
    assert_eq!(harness.engine.run(id).await.unwrap().state, run::State::Held);
    harness.operate(id, Verb::Resume).await.unwrap();
    harness.crash().await;
    assert_eq!(harness.finished(id).await.phase(), run::Phase::Succeeded);
    harness.nothing_was_repeated();
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_undoing_resumes_undoing() {
    let (mut harness, id) = Harness::at_step("", "plan/repave-join", 0).await;
    harness.operate(id, Verb::Cancel).await.unwrap();
    harness.until(id, |run| run.steps.len() == 6).await;
    harness.crash().await;
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[5].state), (run::Phase::Canceled, State::Succeeded));
    assert_eq!(harness.world.machine(&run.machine_id).unwrap().boot_override, None);
}

/// A registry in which plan/repave-join has changed.
fn changed_plans() -> Registry {
    let mut plans: Vec<Plan> =
        Registry::built_in().iter().map(|registered| Plan::clone(&registered.plan)).collect();
    let plan = plans.iter_mut().find(|plan| plan.id == "plan/repave-join").unwrap();
    plan.steps.to_mut().truncate(1);
    plan.result.phase = None;
    Registry::from_plans(plans).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_run_keeps_the_plan_that_it_started_with() {
    for crashes in [false, true] {
        let (mut harness, id) = Harness::at_step("", "plan/repave-join", 1).await;
        if crashes {
            harness.plans = changed_plans;
            harness.crash().await;
        } else {
            harness.engine.set_plans(changed_plans());
        }
        let run = harness.finished(id).await;
        assert_eq!((run.phase(), run.steps.len()), (run::Phase::Succeeded, 5));
        assert_eq!(harness.engine.pinned_plan(&run).await.unwrap().steps.len(), 5);
        harness.set_phase(1, crate::lifecycle::machine::Phase::Maintenance).await.unwrap();
        let new = harness.start(1, "plan/repave-join").await.unwrap();
        assert_eq!(new.steps.len(), 1, "a new run takes the new plan");
        assert_ne!(new.spec.plan_digest, run.spec.plan_digest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_wastes_no_attempt() {
    for (plan, place, step) in every_step() {
        let (mut harness, id) = Harness::at_step("", plan, place).await;
        harness.engine.drain(Duration::from_secs(10)).await;
        assert!(matches!(harness.start(1, plan).await, Err(EngineError::ShuttingDown)));
        harness.restart().await;
        let run = harness.finished(id).await;
        let what = format!("{} of {plan}", step.name);
        assert_eq!(run.phase(), run::Phase::Succeeded, "{what}: {run:#?}");
        assert!(run.steps.iter().all(|step| step.attempt == 1 && step.unknowns == 0), "{what}");
        harness.nothing_was_repeated();
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever() {
    let (mut harness, id) =
        Harness::running("step=repave do=hang times=1", "plan/repave-join").await;
    harness.until(id, |run| run.steps[1].state.is_open()).await;
    let before = crate::clock::Clock::monotonic(&*harness.clock);
    harness.engine.drain(Duration::from_secs(10)).await;
    let took = crate::clock::Clock::monotonic(&*harness.clock) - before;
    assert!((10..12).contains(&took.as_secs()), "{took:?}");
    harness.restart().await;
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[1].attempt), (run::Phase::Succeeded, 1));
    harness.nothing_was_repeated();
}

/// Restarted without the provider of a machine: the outcome of what was sent is unknown, and must not be reported as
/// a failure.
#[tokio::test(start_paused = true)]
async fn a_restart_without_the_provider_holds_what_was_sent() {
    for place in [0, 1] {
        let (mut harness, id) = Harness::at_step("", "plan/repave-join", place).await;
        harness.providers = |_| Vec::new();
        harness.crash().await;
        let held = harness.until(id, |run| run.state == run::State::Held).await;
        assert_eq!(held.hold.as_ref().unwrap().reason, HoldReason::OutcomeUnknown);
        assert!(held.steps[place].message.contains("is not configured"), "{held:#?}");
        harness.providers = |fake| vec![fake];
        harness.crash().await;
        let resolution = Some(Resolution::Done);
        let step = held.steps[place].name.clone();
        harness.operate(id, Verb::Resolve { step, resolution }).await.unwrap();
        assert_eq!(harness.finished(id).await.phase(), run::Phase::Succeeded);
        harness.nothing_was_repeated();
    }
}

/// A run that ends before the fence of its new owner is raised still keeps the former owner out.
#[tokio::test(start_paused = true)]
async fn a_run_that_ends_early_still_shuts_its_former_owner_out() {
    let (mut harness, id) = Harness::at_step("", "plan/rma", 2).await;
    // Polling: the new owner has had nothing to ask yet.
    harness.crash().await;
    harness.operate(id, Verb::Cancel).await.unwrap();
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[2].state), (run::Phase::Canceled, State::Canceled));
    harness.pass(60_000).await;
    let epoch = harness.machine(1).await.epoch;
    assert_eq!(harness.world.machine(&run.machine_id).unwrap().fence, epoch);
}

#[tokio::test(start_paused = true)]
async fn a_killed_engine_takes_nothing_more() {
    let (mut harness, id) = Harness::at_step("", "plan/repave-join", 1).await;
    let old = harness.engine.clone();
    harness.crash().await;
    let answer = old.operate(&origin(), id, Verb::Cancel).await;
    assert!(matches!(answer, Err(EngineError::ShuttingDown)), "{answer:?}");
    assert_eq!(refusal(harness.start(1, "plan/reboot").await).0, Refusal::RunActive);
    assert_eq!(harness.finished(id).await.phase(), run::Phase::Succeeded);
}
