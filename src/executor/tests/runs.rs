//! Runs from start to end.

use super::harness::{Harness, PLANS, steps_of};
use crate::executor::Limits;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::ConditionKind;
use crate::provider::fake::{Outcome, Timing};

#[tokio::test(start_paused = true)]
async fn a_repave_brings_a_machine_into_service() {
    let (harness, run) = Harness::running("", "plan/repave-join").await;
    let run = harness.finished(run).await;
    assert_eq!(run.phase(), run::Phase::Succeeded, "{run:#?}");
    let took = run.finished_at.unwrap().since(run.started_at.unwrap()).as_millis();
    assert!((2_000..3_500).contains(&took), "{took} ms");
    let machine = harness.machine(1).await;
    assert_eq!(machine.phase, Phase::Ready);
    assert_eq!(machine.effective().0.as_str(), "IN_SERVICE");
}

/// Phase and conditions (Reachable, InCustomerCluster) that each plan sets on a fresh machine.
const RESULTS: [(&str, Phase, Option<bool>, Option<bool>); 5] = [
    ("plan/repave-join", Phase::Ready, Some(true), Some(true)),
    ("plan/rma", Phase::Rma, None, Some(false)),
    ("plan/reboot", Phase::FactoryReady, None, None),
    ("plan/upgrade", Phase::Ready, Some(true), Some(true)),
    ("plan/net-reconfig", Phase::FactoryReady, Some(true), None),
];

#[tokio::test(start_paused = true)]
async fn every_plan_succeeds_and_sets_what_it_declares() {
    assert_eq!(RESULTS.map(|(plan, ..)| plan), PLANS);
    for timing in [Timing::Default, Timing::Zero] {
        for (plan, phase, reachable, in_cluster) in RESULTS {
            let harness = Harness::with("", timing, Limits::default()).await;
            harness.register(1).await;
            let id = harness.start_where_allowed(plan).await;
            let run = harness.finished(id).await;
            assert_eq!(run.phase(), run::Phase::Succeeded, "{run:#?}");
            assert!(
                run.steps.iter().all(|step| step.state == State::Succeeded && step.attempt == 1)
            );
            let machine = harness.machine(1).await;
            let status = |kind| machine.conditions.get(kind).map(|condition| condition.status);
            assert_eq!(machine.phase, phase, "{plan}");
            assert_eq!(status(ConditionKind::Reachable), reachable, "{plan}");
            assert_eq!(status(ConditionKind::InCustomerCluster), in_cluster, "{plan}");
            assert_eq!(status(ConditionKind::NeedsIntervention), None, "{plan}");
            assert_eq!(machine.active_run, None);
            harness.nothing_was_repeated();
            let ledger = harness.ledger();
            assert_eq!(
                ledger.len(),
                steps_of(plan).len(),
                "one operation for each step: {ledger:#?}"
            );
            assert!(ledger.iter().all(|entry| entry.outcome == Outcome::Done));
            assert_eq!(harness.engine.load(), (0, 0, 0), "an idle machine costs nothing");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_run_needs_a_plan_that_the_effective_state_allows() {
    let (harness, run) = Harness::running("", "plan/repave-join").await;
    harness.finished(run).await;
    let (_, message) = super::harness::refusal(harness.start(1, "plan/repave-join").await);
    assert!(message.contains("effectively IN_SERVICE"), "{message}");
    let mut forced = super::harness::new_run(1, "plan/repave-join");
    forced.force = true;
    let run = harness.engine.start_run(&super::harness::origin(), forced).await.unwrap();
    let run = harness.finished(run.id).await;
    assert!(run.spec.forced && run.phase() == run::Phase::Succeeded);
}
