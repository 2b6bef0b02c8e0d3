//! Runs from start to end.

use super::harness::Harness;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::ConditionKind;
use crate::provider::fake;

#[tokio::test(start_paused = true)]
async fn a_repave_brings_a_machine_into_service() {
    let harness = Harness::new("").await;
    harness.register(1).await;
    let run = harness.start(1, "plan/repave-join").await.unwrap();
    let run = harness.finished(run.id).await;
    assert_eq!(run.phase(), run::Phase::Succeeded, "{run:#?}");
    assert!(run.steps.iter().all(|step| step.state == State::Succeeded));
    let took = run.finished_at.unwrap().since(run.started_at.unwrap()).as_millis();
    assert!((2_000..3_500).contains(&took), "{took} ms");
    let machine = harness.machine(1).await;
    assert_eq!(machine.phase, Phase::Ready);
    assert_eq!(machine.effective().0.as_str(), "IN_SERVICE");
    assert!(machine.conditions.is_true(ConditionKind::Reachable));
    assert_eq!(machine.active_run, None);
    assert_eq!(fake::violations(&harness.world.ledger()), Vec::<String>::new());
}
