//! Providers that fail, lie, hang, or lose their results.

use super::harness::{Harness, every_step};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::EntryKind;
use crate::model::machine::REASON_RUN_FAILED;
use crate::provider::fake::Outcome;

/// One fault in one step of one plan is survived, whatever it is, and no effect happens twice.
#[tokio::test(start_paused = true)]
async fn every_step_gets_over_one_fault() {
    for fault in ["fail", "fail-after", "hang", "lie", "unreachable", "slow:2m"] {
        for (plan, place, step) in every_step() {
            let name = &step.name;
            let (harness, id) =
                Harness::running(&format!("step={name} do={fault} times=1"), plan).await;
            let run = harness.finished(id).await;
            let what = format!("{fault} in {name} of {plan}");
            assert_eq!(run.phase(), run::Phase::Succeeded, "{what}: {run:#?}");
            assert_eq!(run.steps[place].state, State::Succeeded, "{what}");
            harness.nothing_was_repeated();
            let effects = harness
                .ledger()
                .into_iter()
                .filter(|entry| {
                    entry.outcome == Outcome::Done && entry.action == run.steps[place].name
                })
                .count();
            assert_eq!(effects, 1, "{what}: {:#?}", harness.ledger());
            assert!(run.steps[place].attempt <= 2, "{what}: {:#?}", run.steps[place]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_retried_under_a_new_operation() {
    let (harness, id) = Harness::running("step=repave do=fail times=2", "plan/repave-join").await;
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[1].attempt), (run::Phase::Succeeded, 3));
    let history = harness.history(id).await;
    let retries = history.iter().filter(|entry| entry.kind == EntryKind::StepRetrying).count();
    assert_eq!(retries, 2);
    assert!(history.iter().any(|entry| entry.message.contains("simulated failure of repave")));
    let operations: Vec<_> = harness.ledger().into_iter().map(|entry| entry.operation).collect();
    let wanted: Vec<_> = (1..=3).map(|attempt| format!("{id}/repave/{attempt}")).collect();
    assert_eq!(operations[1..4].iter().map(|id| id.as_str()).collect::<Vec<_>>(), wanted);
}

#[tokio::test(start_paused = true)]
async fn used_up_attempts_fail_the_run_and_a_later_success_clears_it() {
    let (harness, id) = Harness::running("step=repave do=fail times=3", "plan/repave-join").await;
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[1].attempt), (run::Phase::Failed, 3));
    let error = run.error.clone().unwrap();
    assert_eq!((error.step.as_str(), error.retryable), ("repave", true));
    // The machine ends as the plan promises: it does not reinstall itself at its next boot.
    assert_eq!(run.steps.last().unwrap().name, "undo set-netboot");
    assert_eq!(harness.world.machine(&run.machine_id).unwrap().boot_override, None);
    let condition = harness.intervention().await.unwrap();
    assert!(condition.status);
    assert_eq!(condition.reason, REASON_RUN_FAILED);
    assert_eq!(
        condition.message,
        "plan/repave-join failed: step repave: simulated failure of repave on machine-1 \
         (expected repave done; saw repave did not take effect)"
    );
    assert_eq!(harness.machine(1).await.phase, Phase::FactoryReady, "a failure leaves the phase");
    // A reboot is another plan: it says nothing about the repave.
    let reboot = harness.start(1, "plan/reboot").await.unwrap();
    assert_eq!(harness.finished(reboot.id).await.phase(), run::Phase::Succeeded);
    assert!(harness.intervention().await.unwrap().status);
    let again = harness.start(1, "plan/repave-join").await.unwrap();
    assert_eq!(harness.finished(again.id).await.phase(), run::Phase::Succeeded);
    assert!(!harness.intervention().await.unwrap().status);
}

#[tokio::test(start_paused = true)]
async fn what_trying_again_cannot_mend_fails_at_once() {
    for fault in ["fail-permanent", "fail-human", "fail-late"] {
        let (harness, id) =
            Harness::running(&format!("step=repave do={fault}"), "plan/repave-join").await;
        let run = harness.finished(id).await;
        assert_eq!((run.phase(), run.steps[1].attempt), (run::Phase::Failed, 1), "{fault}");
        assert!(!run.error.clone().unwrap().retryable, "{fault}");
        assert!(run.steps.iter().skip(2).take(3).all(|step| step.state == State::Canceled));
        assert_eq!(harness.intervention().await.unwrap().reason, REASON_RUN_FAILED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lie_is_caught_by_the_check() {
    let (harness, id) = Harness::running("step=repave do=lie", "plan/repave-join").await;
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[1].attempt), (run::Phase::Failed, 3));
    assert_eq!(run.steps[1].message, "reported done, but it is not");
    assert_eq!(
        (run.steps[1].expected.as_str(), run.steps[1].observed.as_str()),
        ("image ubuntu-24.04", "there is no image")
    );
    let lies = harness.ledger().iter().filter(|entry| entry.outcome == Outcome::Lied).count();
    assert_eq!(lies, 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_up() {
    let (harness, id) =
        Harness::running("step=repave do=fail-after times=1", "plan/repave-join").await;
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[1].attempt), (run::Phase::Succeeded, 1));
    let unknown = |entry: &&crate::model::Entry| entry.kind == EntryKind::StepOutcomeUnknown;
    assert_eq!(harness.history(id).await.iter().filter(unknown).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_given_up_after_its_timeout_and_looked_up() {
    let (harness, id) = Harness::running("step=repave do=hang times=1", "plan/repave-join").await;
    let run = harness.finished(id).await;
    let step = &run.steps[1];
    assert_eq!(
        (run.phase(), step.attempt, step.state),
        (run::Phase::Succeeded, 1, State::Succeeded)
    );
    let took = step.finished_at.unwrap().since(step.started_at.unwrap()).as_secs();
    assert!((3_600..3_700).contains(&took), "{took} s");
    assert_eq!(step.observed, "image is ubuntu-24.04", "the evidence");
    harness.nothing_was_repeated();
}

#[tokio::test(start_paused = true)]
async fn a_dead_machine_delays_no_other() {
    let harness = Harness::new("machine=machine-1 do=hang").await;
    harness.register(3).await;
    let dead = harness.start(1, "plan/reboot").await.unwrap();
    for machine in 2..=3 {
        let run = harness.start(machine, "plan/reboot").await.unwrap();
        let run = harness.finished(run.id).await;
        assert_eq!(run.phase(), run::Phase::Succeeded);
        assert!(run.finished_at.unwrap().since(run.created_at).as_secs() < 5);
    }
    assert!(harness.engine.run(dead.id).await.unwrap().state.is_active());
}
