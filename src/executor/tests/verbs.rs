//! Operators' verbs, in every step of every plan.

use super::harness::{Harness, every_step, new_run, origin, refusal, steps_of};
use crate::executor::Refusal;
use crate::executor::request::{NewRun, Verb};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::machine::{REASON_ABORTED, REASON_RUN_CANCELED};
use crate::model::{ConditionKind, EntryKind};
use crate::plan::Step;
use crate::provider::fake::Outcome;

fn must_settle(step: &Step) -> bool {
    step.action.traits.must_settle()
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_any_step_of_any_plan() {
    for (plan, place, step) in every_step() {
        let what = format!("{} of {plan}", step.name);
        let steps = steps_of(plan);
        let (harness, id) = Harness::at_step("", plan, place).await;
        let phase = harness.machine(1).await.phase;
        let answer = harness.operate(id, Verb::Cancel).await.unwrap();
        assert!(answer.cancel_requested_at.is_some());
        let run = harness.finished(id).await;
        let last = place + 1 == steps.len();
        if must_settle(&step) && last {
            // The last step finished before the cancel.
            assert_eq!(run.phase(), run::Phase::Succeeded, "{what}");
            assert_eq!(harness.intervention().await, None, "{what}");
            continue;
        }
        assert_eq!(run.phase(), run::Phase::Canceled, "{what}: {run:#?}");
        let settled = if must_settle(&step) { State::Succeeded } else { State::Canceled };
        assert_eq!(run.steps[place].state, settled, "{what}");
        for later in place + 1..steps.len() {
            assert_eq!((run.steps[later].state, run.steps[later].attempt), (State::Canceled, 0));
        }
        // Every step that took effect and declares a compensation is undone, newest first.
        let undone: Vec<_> = run.steps.iter().skip(steps.len()).map(|s| s.name.clone()).collect();
        let wanted: Vec<_> = steps[..=place]
            .iter()
            .rev()
            .filter(|step| step.compensation.is_some())
            .map(|step| format!("undo {}", step.name))
            .collect();
        assert_eq!(undone, wanted, "{what}");
        assert!(run.steps.iter().skip(steps.len()).all(|step| step.state == State::Succeeded));
        // A person must look only if something was destroyed.
        let destroyed = steps[..=place].iter().any(must_settle);
        let reason = harness.intervention().await.map(|condition| condition.reason);
        assert_eq!(reason.as_deref(), destroyed.then_some(REASON_RUN_CANCELED), "{what}");
        assert_eq!(harness.machine(1).await.phase, phase, "{what}: a cancel leaves the phase");
        harness.nothing_was_repeated();
        let in_flight =
            harness.ledger().into_iter().find(|entry| entry.action == step.name).unwrap();
        let ended = if must_settle(&step) { Outcome::Done } else { Outcome::Stopped };
        assert_eq!(in_flight.outcome, ended, "{what}");
        // The machine is free again.
        harness.pass(60_000).await;
        // One that has joined its cluster may have work: it is only repaved by force.
        let force = harness.machine(1).await.conditions.is_true(ConditionKind::InCustomerCluster);
        let new = NewRun { force, ..new_run(1, plan) };
        let again = harness.engine.start_run(&origin(), new).await.unwrap();
        assert_eq!(harness.finished(again.id).await.phase(), run::Phase::Succeeded, "{what}");
        assert!(harness.intervention().await.is_none_or(|condition| !condition.status));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_in_any_step_of_any_plan() {
    for (plan, place, step) in every_step() {
        let what = format!("{} of {plan}", step.name);
        let (harness, id) = Harness::at_step("", plan, place).await;
        harness.operate(id, Verb::Pause).await.unwrap();
        if place + 1 < steps_of(plan).len() {
            let held = harness.until(id, |run| run.state == run::State::Held).await;
            assert_eq!(held.steps[place].state, State::Succeeded, "{what}");
            assert_eq!(harness.engine.load().0, 0, "{what}: it gives its slot back");
            let operations = harness.ledger().len();
            // Shorter than the life of join material.
            harness.pass(600_000).await;
            assert_eq!(harness.ledger().len(), operations, "{what}: nothing starts while held");
            assert_eq!(refusal(harness.start(1, plan).await).0, Refusal::RunActive);
            harness.operate(id, Verb::Resume).await.unwrap();
        }
        let run = harness.finished(id).await;
        assert_eq!(run.phase(), run::Phase::Succeeded, "{what}: {run:#?}");
        harness.nothing_was_repeated();
    }
}

#[tokio::test(start_paused = true)]
async fn a_skip_of_any_step_that_has_not_started() {
    for (plan, place, step) in every_step().filter(|(_, place, _)| *place > 0) {
        let what = format!("{} of {plan}", step.name);
        let (harness, id) = Harness::at_step("", plan, 0).await;
        harness.operate(id, Verb::Skip { step: step.name.to_string() }).await.unwrap();
        let run = harness.finished(id).await;
        assert_eq!(
            (run.steps[place].state, run.steps[place].attempt),
            (State::Skipped, 0),
            "{what}"
        );
        assert_eq!(run.steps[0].state, State::Succeeded, "{what}: the step in flight continued");
        assert!(harness.ledger().iter().all(|entry| entry.action != step.name), "{what}");
        let history = harness.history(id).await;
        let skipped: Vec<_> =
            history.iter().filter(|entry| entry.kind == EntryKind::StepSkipped).collect();
        assert_eq!(skipped.len(), 1, "{what}");
        assert_eq!((&*skipped[0].actor.name, skipped[0].reason.as_str()), ("tester", "a test"));
    }
}

/// Skipping a later step while the provider has not returned yet does not affect that call.
#[tokio::test(start_paused = true)]
async fn a_skip_does_not_disturb_the_call_in_flight() {
    let (harness, id) =
        Harness::running("step=set-netboot call=observe do=hang times=1", "plan/repave-join").await;
    harness.until(id, |run| run.steps[0].state.is_open()).await;
    harness.operate(id, Verb::Skip { step: "repave".to_owned() }).await.unwrap();
    let run = harness.until(id, |run| run.steps[0].attempt == 2).await;
    let waited = run.steps[0].attempt_at.unwrap().since(run.steps[0].started_at.unwrap());
    assert!((60..65).contains(&waited.as_secs()), "one timeout, no more: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abort_in_any_step_of_any_plan() {
    for (plan, place, step) in every_step() {
        let what = format!("{} of {plan}", step.name);
        let (harness, id) = Harness::at_step("", plan, place).await;
        let before = harness.machine(1).await;
        let run = harness.operate(id, Verb::Abort).await.unwrap();
        assert_eq!(run.phase(), run::Phase::Failed, "{what}");
        assert_eq!(run.error.as_ref().unwrap().code.as_str(), "ABORTED");
        assert_eq!(run.steps.len(), steps_of(plan).len(), "{what}: nothing is undone");
        let after = harness.machine(1).await;
        assert!(after.epoch > before.epoch && after.phase == before.phase, "{what}");
        assert_eq!(harness.intervention().await.unwrap().reason, REASON_ABORTED);
        harness.pass(10).await;
        let fence = harness.world.machine(&after.id).unwrap().fence;
        assert_eq!(fence, after.epoch, "{what}: late calls of the run do not come through");
        assert_eq!(refusal(harness.start(1, plan).await).0, Refusal::InterventionNeeded);
        harness.engine.clear_intervention(&origin(), &after.id).await.unwrap();
        harness.pass(60_000).await;
        let again = harness.engine.retry_run(&origin(), id).await.unwrap();
        let again = harness.finished(again.id).await;
        assert_eq!(again.phase(), run::Phase::Succeeded, "{what}: {again:#?}");
        harness.ledger();
    }
}

#[tokio::test(start_paused = true)]
async fn phases_and_labels_of_a_busy_machine() {
    let (harness, id) = Harness::at_step("", "plan/reboot", 0).await;
    let (why, message) = refusal(harness.set_phase(1, Phase::Ready).await);
    assert_eq!(why, Refusal::RunActive);
    assert!(message.contains("cannot be set while run"), "{message}");
    harness.finished(id).await;
    assert_eq!(harness.set_phase(1, Phase::Ready).await.unwrap().phase, Phase::Ready);
    let (why, message) = refusal(harness.set_phase(1, Phase::FactoryReady).await);
    assert_eq!(why, Refusal::IllegalPhase);
    assert!(message.contains("legal targets: IN_SERVICE, MAINTENANCE, RMA"), "{message}");
}
