//! Unknown outcomes.

use super::harness::{Harness, origin, refusal};
use crate::executor::Refusal;
use crate::executor::request::Verb;
use crate::ids::RunId;
use crate::lifecycle::run;
use crate::lifecycle::step::{Resolution, State};
use crate::model::HoldReason;
use crate::model::machine::{REASON_ABORTED, REASON_OUTCOME_UNKNOWN};
use crate::provider::fake;

/// The result of repave is lost, and the first observations are inconclusive.
const UNKNOWABLE: &str = "step=repave do=fail-after times=1; step=repave do=unknowable times=2";
const REPAVE: usize = 1;

async fn held() -> (Harness, RunId) {
    let (harness, id) = Harness::running(UNKNOWABLE, "plan/repave-join").await;
    harness.until(id, |run| run.state == run::State::Held).await;
    // The world continues: the image is written whether or not the outcome is known.
    harness.pass(5_000).await;
    (harness, id)
}

fn resolve(resolution: Option<Resolution>) -> Verb {
    Verb::Resolve { step: "repave".to_owned(), resolution }
}

#[tokio::test(start_paused = true)]
async fn an_unknowable_outcome_holds_the_run_and_blocks_the_machine() {
    let (mut harness, id) = held().await;
    for restarted in [false, true] {
        if restarted {
            harness.crash().await;
        }
        let run = harness.engine.run(id).await.unwrap();
        assert_eq!((run.phase(), run.state), (run::Phase::Running, run::State::Held));
        assert_eq!(run.hold.as_ref().unwrap().reason, HoldReason::OutcomeUnknown);
        assert!(run.hold.as_ref().unwrap().message.contains(&format!("{id}/repave/1")));
        assert!(matches!(run.steps[REPAVE].state, State::Unknown { attempt: 1 }));
        let condition = harness.intervention().await.unwrap();
        assert_eq!((condition.status, condition.reason.as_str()), (true, REASON_OUTCOME_UNKNOWN));
        assert_eq!(harness.engine.load().0, 0, "a held run gives its slot back");
        let (why, message) = refusal(harness.operate(id, Verb::Resume).await);
        assert_eq!(why, Refusal::RunState);
        assert!(message.contains("resolve the step"), "{message}");
        let cleared = harness.engine.clear_intervention(&origin(), &run.machine_id).await;
        assert_eq!(refusal(cleared).0, Refusal::RunActive);
        assert_eq!(refusal(harness.start(1, "plan/reboot").await).0, Refusal::RunActive);
    }
    let repaves = harness.ledger().iter().filter(|entry| entry.action == "repave").count();
    assert_eq!(repaves, 1, "nothing is sent again by itself");
}

#[tokio::test(start_paused = true)]
async fn an_operator_says_what_became_of_it() {
    for (resolution, state, attempt, repaves) in [
        (Resolution::Done, State::Succeeded, 1, 1),
        (Resolution::Retry, State::Succeeded, 2, 2),
        (Resolution::Skip, State::Skipped, 1, 1),
    ] {
        let (harness, id) = held().await;
        harness.operate(id, resolve(Some(resolution))).await.unwrap();
        assert!(!harness.intervention().await.unwrap().status);
        let run = harness.finished(id).await;
        assert_eq!(run.phase(), run::Phase::Succeeded, "{resolution:?}: {run:#?}");
        assert_eq!((run.steps[REPAVE].state, run.steps[REPAVE].attempt), (state, attempt));
        // No one knows what is on a disk whose repave was skipped.
        let disks = harness.machine(1).await.untrusted_disks.clone().map(|disks| disks.step);
        assert_eq!(disks.as_deref(), (resolution == Resolution::Skip).then_some("repave"));
        let ledger = harness.ledger();
        assert_eq!(ledger.iter().filter(|entry| entry.action == "repave").count(), repaves);
        // The operator's "retry" is the one way to repeat a destructive effect.
        let repeated = fake::repeated_steps(&ledger).len();
        assert_eq!(repeated, usize::from(resolution == Resolution::Retry));
    }
}

#[tokio::test(start_paused = true)]
async fn a_canceled_run_no_longer_asks_what_became_of_it() {
    let (harness, id) = held().await;
    harness.operate(id, Verb::Cancel).await.unwrap();
    assert_eq!(harness.finished(id).await.phase(), run::Phase::Canceled);
    let condition = harness.intervention().await.unwrap();
    assert_eq!(condition.reason, REASON_OUTCOME_UNKNOWN);
    assert_eq!(
        condition.message,
        "plan/repave-join was canceled, and whether repave took effect is unknown; look at the machine"
    );
    assert!(harness.machine(1).await.untrusted_disks.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_operator_gives_up_and_the_machine_stays_blocked_until_cleared() {
    let (harness, id) = held().await;
    let run = harness.operate(id, resolve(None)).await.unwrap();
    assert_eq!(run.phase(), run::Phase::Failed);
    assert_eq!(harness.intervention().await.unwrap().reason, REASON_ABORTED);
    assert_eq!(refusal(harness.start(1, "plan/reboot").await).0, Refusal::InterventionNeeded);
    assert_eq!(
        refusal(harness.engine.retry_run(&origin(), id).await).0,
        Refusal::InterventionNeeded
    );
    harness.engine.clear_intervention(&origin(), &run.machine_id).await.unwrap();
    let retried = harness.engine.retry_run(&origin(), id).await.unwrap();
    assert_eq!(retried.spec.retry_of, Some(id));
    assert_eq!(harness.finished(retried.id).await.phase(), run::Phase::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_retried_run_repeats_only_what_is_needed() {
    let (harness, id) =
        Harness::running("step=join do=fail-permanent times=1", "plan/repave-join").await;
    let run = harness.finished(id).await;
    assert_eq!(run.phase(), run::Phase::Failed);
    let retried = harness.engine.retry_run(&origin(), id).await.unwrap();
    let retried = harness.finished(retried.id).await;
    assert_eq!(retried.phase(), run::Phase::Succeeded, "{retried:#?}");
    // The boot source was restored when the first run failed; joining does not need it, only new join material, so
    // the machine is not imaged again.
    let skipped: Vec<_> = retried
        .steps
        .iter()
        .filter(|step| step.state == State::Skipped)
        .map(|step| step.name.as_str())
        .collect();
    assert_eq!(skipped, ["set-netboot", "repave"]);
}
