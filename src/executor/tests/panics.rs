//! Providers that panic: the outcome is unknown, and the worker of the machine survives.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::harness::{Harness, PLANS, Providers, steps_of};
use crate::executor::request::Verb;
use crate::ids::Epoch;
use crate::lifecycle::run;
use crate::lifecycle::step::{Resolution, State};
use crate::model::{Entry, EntryKind, HoldReason};
use crate::plan::{OnUnknown, Plan, Registry};
use crate::provider::{
    Acted, Call, Capabilities, Fut, Health, Logs, Observation, Provider, Target, Verification,
};

/// The fake provider, but the first `act` of every step panics.
#[derive(Debug)]
struct Panicking {
    fake: Arc<dyn Provider>,
    /// Whether it panics after the fake provider has acted; otherwise before anything is sent.
    late: bool,
    /// Steps of which an `act` has panicked: run/step.
    panicked: Mutex<BTreeSet<String>>,
}

impl Panicking {
    fn early(fake: Arc<dyn Provider>) -> Vec<Arc<dyn Provider>> {
        vec![Arc::new(Self { fake, late: false, panicked: Mutex::default() })]
    }

    fn late(fake: Arc<dyn Provider>) -> Vec<Arc<dyn Provider>> {
        vec![Arc::new(Self { fake, late: true, panicked: Mutex::default() })]
    }
}

impl Provider for Panicking {
    fn name(&self) -> &str {
        self.fake.name()
    }

    fn capabilities(&self, target: &Target) -> Capabilities {
        self.fake.capabilities(target)
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        self.fake.fence(target, epoch, uses)
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        self.fake.observe(target, call, logs)
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        let (step, _attempt) = call.operation.as_str().rsplit_once('/').unwrap();
        let is_first = self.panicked.lock().unwrap().insert(step.to_owned());
        assert!(!is_first || self.late, "before {step}");
        let act = self.fake.act(target, call, logs);
        Box::pin(async move {
            let acted = act.await;
            assert!(!is_first, "after {step}");
            acted
        })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        self.fake.verify(target, call, logs)
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        self.fake.stop(target, call)
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        self.fake.probe(target)
    }

    fn is_real(&self) -> bool {
        self.fake.is_real()
    }
}

/// An engine with `machine-1`, and with the test's own providers and plans.
async fn harness(providers: Providers, plans: fn() -> Registry) -> Harness {
    let mut harness = Harness::new("").await;
    (harness.providers, harness.plans) = (providers, plans);
    harness.crash().await;
    harness.register(1).await;
    harness
}

#[tokio::test(start_paused = true)]
async fn every_step_gets_over_a_panic_by_its_rule() {
    for (providers, is_late) in [(Panicking::early as Providers, false), (Panicking::late, true)] {
        for plan in PLANS {
            let harness = harness(providers, Registry::built_in).await;
            let id = harness.start_where_allowed(plan).await;
            let run = harness.finished(id).await;
            assert_eq!(run.phase(), run::Phase::Succeeded, "{plan}: {run:#?}");
            let history = harness.history(id).await;
            let is_unknown = |entry: &&Entry| entry.kind == EntryKind::StepOutcomeUnknown;
            let unknown = history.iter().filter(is_unknown).map(|entry| &entry.step);
            assert!(unknown.eq(run.steps.iter().map(|step| &step.name)), "{plan}: each step once");
            for (record, step) in run.steps.iter().zip(steps_of(plan)) {
                // An observation finds whether it was done; `retry` asks under the same operation id.
                let is_new = step.on_unknown == OnUnknown::Verify && !is_late;
                let attempts = if is_new { 2 } else { 1 };
                assert_eq!(record.attempt, attempts, "{} of {plan}, late: {is_late}", record.name);
            }
            harness.nothing_was_repeated();
            // Recovering a machine claims the next epoch: its first worker did all of it.
            assert_eq!(harness.machine(1).await.epoch, Epoch(1), "{plan}");
        }
    }
}

/// A registry in which a repave with an unknown outcome waits for an operator.
fn holding_plans() -> Registry {
    let mut plans: Vec<Plan> =
        Registry::built_in().iter().map(|registered| Plan::clone(&registered.plan)).collect();
    let plan = plans.iter_mut().find(|plan| plan.id == "plan/repave-join").unwrap();
    plan.steps.to_mut()[1].on_unknown = OnUnknown::Hold;
    Registry::from_plans(plans).unwrap()
}

/// The worker that made the call continues: it handles an operator's answer, the rest of the run, and the next run.
#[tokio::test(start_paused = true)]
async fn after_a_panic_the_actor_takes_the_next_request() {
    let harness = harness(Panicking::early, holding_plans).await;
    let id = harness.start(1, "plan/repave-join").await.unwrap().id;
    let run = harness.until(id, |run| run.state == run::State::Held).await;
    assert_eq!(run.hold.as_ref().unwrap().reason, HoldReason::OutcomeUnknown);
    assert_eq!(run.steps[1].state, State::Unknown { attempt: 1 });
    let message = &run.steps[1].message;
    assert_eq!(message, &format!("the provider panicked: before {id}/repave"));
    let retry = Verb::Resolve { step: "repave".to_owned(), resolution: Some(Resolution::Retry) };
    harness.operate(id, retry).await.unwrap();
    assert_eq!(harness.finished(id).await.phase(), run::Phase::Succeeded);
    harness.nothing_was_repeated();
    let reboot = harness.start(1, "plan/reboot").await.unwrap();
    assert_eq!(harness.finished(reboot.id).await.phase(), run::Phase::Succeeded);
    assert_eq!(harness.machine(1).await.epoch, Epoch(2), "one claim a run");
}
