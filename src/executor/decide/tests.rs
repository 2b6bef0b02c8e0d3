//! Decisions about a run, one event at a time.

mod draft;
mod flow;
mod holds;
mod language;
mod records;
mod recovery;
mod restored;
mod retry;
mod unwinding;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::clock::Timestamp;
use crate::executor::admission;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::request::{NewRun, Verb};
use crate::ids::{Epoch, MachineId, RunId};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::{Basis, ErrorClass, Event, Resolution, Seen, State};
use crate::model::machine::{
    REASON_ABORTED, REASON_OUTCOME_UNKNOWN, REASON_RUN_CANCELED, REASON_RUN_FAILED,
};
use crate::model::{
    Actor, ConditionKind, Entry, HoldReason, Machine, MachineSpec, Run, StepRecord,
};
use crate::plan::{Plan, Registered, SourceFile, Value, Values};
use crate::testing::origin;

/// A plan with everything that decisions depend on. `RULE` stands for the rule of its destructive step.
const PLAN: &str = r#"
id = "plan/bench"
destructive = true
allowed_phases = ["READY", "MAINTENANCE"]

[params.image]
kind = "string"
default = "image-1"

[params.check]
kind = "boolean"
default = true

[[steps]]
name = "boot"
action = "set-netboot"
retry = { max_attempts = 2, backoff = "1s", backoff_max = "4s" }
compensation = { action = "clear-netboot" }

[[steps]]
name = "drain"
action = "drain"
on_unknown = "retry"
sets = { InCustomerCluster = false }
compensation = { action = "undrain" }

[[steps]]
name = "write"
action = "repave"
args = { image = { param = "image" } }
retry = { max_attempts = 2, backoff = "1s", backoff_max = "4s" }
on_unknown = "RULE"
needs = ["boot"]

[[steps]]
name = "check"
action = "verify-connectivity"
when = { param = { check = true } }
sets = { Reachable = true }

[result]
phase = "READY"
conditions = { Degraded = false }
"#;

const BOOT: usize = 0;
const DRAIN: usize = 1;
const WRITE: usize = 2;
const CHECK: usize = 3;

fn compile(text: &str) -> Plan {
    let file = SourceFile { name: "bench.toml", bytes: text.as_bytes() };
    crate::plan::compile(&[file]).unwrap().remove(0)
}

/// A run on a machine, and the world that sends it events.
#[derive(Clone)]
struct Bench {
    plan: Plan,
    params: BTreeMap<String, Value>,
    run: Run,
    machine: Machine,
    now: Timestamp,
    loop_breaker: Option<(usize, u64)>,
    draining: bool,
    /// Effects and entries of the last decision.
    effects: Vec<Effect>,
    entries: Vec<Entry>,
}

impl Bench {
    /// A run of [`PLAN`] that was accepted and waits for its slot.
    fn accepted(rule: &str, parameters: &[(&str, &str)]) -> Self {
        let plan = compile(&PLAN.replace("RULE", rule));
        let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
        let id = MachineId::parse("machine-1").unwrap();
        let now = Timestamp(1_000_000);
        let mut machine = Machine::registered(id.clone(), BTreeMap::new(), spec, now);
        machine.phase = Phase::Maintenance;
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let new = NewRun {
            machine_id: id,
            run_type: None,
            plan_id: plan.id.to_string(),
            parameters: parameters.iter().map(text).collect(),
            force: false,
            plan_digest: String::new(),
        };
        let params = admission::bind(&plan, &new.parameters).unwrap();
        let run_id = RunId::new(now, [1, 0]);
        let registered = Registered::new(plan.clone());
        let run = admission::accepted(run_id, &machine, &registered, &params, &new, &origin(), now);
        machine.active_run = Some(run_id);
        machine.epoch = Epoch(1);
        Self {
            plan,
            params,
            run,
            machine,
            now,
            loop_breaker: None,
            draining: false,
            effects: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// A run whose first step is open.
    fn started(rule: &str) -> Self {
        let mut bench = Self::accepted(rule, &[]);
        bench.admit();
        bench
    }

    /// A run whose step at `place` is open and has been sent.
    fn acting(rule: &str, place: usize) -> Self {
        let mut bench = Self::started(rule);
        while bench.state(place) == State::Waiting {
            let step = bench.current();
            bench.succeed(step);
        }
        bench.send(place, Event::Observed(Seen::NotDone));
        assert_eq!(bench.state(place), State::Acting { attempt: 1 });
        bench
    }

    /// A run that is held because the outcome of the destructive step is unknown.
    fn held_unknown() -> Self {
        let mut bench = Self::acting("hold", WRITE);
        bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
        assert_eq!(bench.run.state, run::State::Held);
        bench
    }

    fn decide<T>(&mut self, decide: impl FnOnce(&mut Draft, Facts<'_>) -> T) -> T {
        let mut draft = Draft::new(self.run.clone(), self.machine.clone());
        let facts = Facts {
            now: self.now,
            random: 0,
            plan: &self.plan,
            params: &self.params,
            loop_breaker: self.loop_breaker,
            draining: self.draining,
            braking: Braking::default(),
            trusts_hardware: false,
        };
        let answer = decide(&mut draft, facts);
        self.effects = draft.effects;
        self.entries = draft.run_entries;
        self.entries.extend(draft.machine_entries);
        self.run = draft.run;
        self.machine = Machine::clone(&draft.machine);
        answer
    }

    fn admit(&mut self) -> Admission {
        self.decide(Draft::admit)
    }

    fn send(&mut self, place: usize, event: Event) {
        self.decide(|draft, facts| draft.step(&StepInput::bare(place, event), facts));
    }

    fn recover(&mut self) {
        self.decide(|draft, facts| {
            draft.machine_mut().epoch = draft.machine.epoch.next();
            draft.recover(facts);
        });
    }

    /// Performs a verb; a refusal must leave no trace.
    fn operate(&mut self, verb: Verb) -> Result<(), EngineError> {
        let before = (self.run.clone(), self.machine.clone());
        let origin = origin();
        let mut after = self.clone();
        after.decide(|draft, facts| draft.operate(&verb, &origin.actor, &origin.reason, facts))?;
        assert_eq!(before, (self.run.clone(), self.machine.clone()));
        *self = after;
        Ok(())
    }

    fn refusal(&mut self, verb: Verb) -> (Refusal, String) {
        match self.operate(verb) {
            Err(EngineError::Refused { refusal, message, .. }) => {
                (refusal, message.replace(&self.run.id.to_string(), "RUN"))
            }
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, place: usize) -> State {
        self.run.steps[place].state
    }

    /// Index of the step in progress.
    fn current(&self) -> usize {
        Draft::new(self.run.clone(), self.machine.clone())
            .in_progress()
            .unwrap_or_else(|| panic!("no step is in progress: {:#?}", self.run))
    }

    /// Returns success for the open step's calls until it has succeeded.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other state waits for another event")]
    fn succeed(&mut self, place: usize) {
        for _ in 0..4 {
            match self.state(place) {
                State::Observing { .. } => self.send(place, Event::Observed(Seen::NotDone)),
                State::Acting { .. } => self.send(place, Event::Acted),
                State::Verifying { .. } => self.send(place, Event::Verified),
                _ => break,
            }
        }
        assert_eq!(self.state(place), State::Succeeded, "{:#?}", self.run);
    }

    /// Returns success for every call until the run no longer moves.
    fn finish(&mut self) {
        for _ in 0..20 {
            match Draft::new(self.run.clone(), self.machine.clone()).in_progress() {
                Some(place) if self.run.state.has_slot() => self.succeed(place),
                Some(_) | None => return,
            }
        }
        panic!("the run does not end: {:#?}", self.run);
    }

    /// Fails the step in flight permanently.
    fn fail(&mut self, place: usize) {
        self.send(place, Event::CallFailed(ErrorClass::Permanent));
        assert_eq!(self.state(place), State::Failed);
    }

    fn names(&self, state: State) -> Vec<&str> {
        let steps = self.run.steps.iter().filter(|step| step.state == state);
        steps.map(|step| step.name.as_str()).collect()
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.entries.iter().map(|entry| entry.kind.as_str()).collect()
    }

    /// Status and reason of a condition.
    fn condition(&self, kind: ConditionKind) -> Option<(bool, &str)> {
        self.machine.conditions.get(kind).map(|c| (c.status, c.reason.as_str()))
    }

    fn intervention(&self) -> Option<(bool, &str)> {
        self.condition(ConditionKind::NeedsIntervention)
    }

    fn acts(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Act { .. }))
    }
}

fn skip(step: &str) -> Verb {
    Verb::Skip { step: step.to_owned() }
}

fn resolve(step: &str, resolution: Option<Resolution>) -> Verb {
    Verb::Resolve { step: step.to_owned(), resolution }
}
