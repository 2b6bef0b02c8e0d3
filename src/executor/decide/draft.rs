//! A decision while it is made: the records as they will be, and what follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::around::Surroundings;
use crate::clock::Timestamp;
use crate::ids::Epoch;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::machine::Condition;
use crate::model::{Actor, ConditionKind, Entry, EntryKind, Machine, Run};
use crate::plan::{Plan, Role, Value};

/// What a decision may look at besides the records.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Time of the decision.
    pub now: Timestamp,
    /// 64 random bits, for the jitter of a backoff.
    pub random: u64,
    /// The plan that the run pinned.
    pub plan: &'a Plan,
    /// The run's parameters, bound by that plan.
    pub params: &'a BTreeMap<String, Value>,
    /// Loop breaker: most destructive attempts within this many milliseconds; `None` if it does not count here.
    pub loop_breaker: Option<(usize, u64)>,
    /// The server is shutting down: no new attempt is opened.
    pub draining: bool,
}

/// What to do once the decision is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask the provider whether the step is done.
    Observe {
        /// Place of the step.
        step: usize,
    },
    /// Send the step's action.
    Act {
        /// Place of the step.
        step: usize,
    },
    /// Have the provider verify the step.
    Verify {
        /// Place of the step.
        step: usize,
    },
    /// Tell the provider to stop the step's operation, and forget the call in flight.
    Stop {
        /// Place of the step.
        step: usize,
    },
    /// Forget the call in flight: its answer no longer matters.
    Forget,
    /// Wake the step at this time.
    Wake {
        /// Place of the step.
        step: usize,
        /// When.
        at: Timestamp,
    },
    /// The step's attempt times out at this time.
    Deadline {
        /// Place of the step.
        step: usize,
        /// When.
        at: Timestamp,
    },
    /// The time of the whole run is up at this time.
    TimeLimit {
        /// When.
        at: Timestamp,
    },
    /// Raise the fence at the provider without acting: a former owner's calls must not come through.
    RaiseFence {
        /// New epoch.
        epoch: Epoch,
    },
}

/// A run and its machine while something is decided about them.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The run.
    pub run: Run,
    /// The machine, shared with whoever else reads it until it changes.
    pub machine: Arc<Machine>,
    /// Whether the machine changed.
    pub machine_changed: bool,
    /// What happened to the run.
    pub run_entries: Vec<Entry>,
    /// What happened to the machine.
    pub machine_entries: Vec<Entry>,
    /// What to do once this is durable.
    pub effects: Vec<Effect>,
    /// What a step that the engine carries out itself is asked, to be answered in the same decision.
    pub(super) asked: Option<Asked>,
    /// What an operator has answered to a step that asks.
    pub(super) verdict: Option<bool>,
}

/// A call of a step that no provider carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether it is so.
    Observe,
    /// To begin.
    Act,
    /// Whether it is so, and stays so.
    Verify,
}

impl Draft {
    /// Starts a decision from the records as they are.
    #[must_use]
    pub fn new(run: Run, machine: impl Into<Arc<Machine>>) -> Self {
        Self {
            run,
            machine: machine.into(),
            machine_changed: false,
            run_entries: Vec::new(),
            machine_entries: Vec::new(),
            effects: Vec::new(),
            asked: None,
            verdict: None,
        }
    }

    /// The machine, to be changed.
    pub fn machine_mut(&mut self) -> &mut Machine {
        Arc::make_mut(&mut self.machine)
    }

    /// What guards look at.
    pub(super) fn surroundings<'a>(&'a self, facts: Facts<'a>) -> Surroundings<'a> {
        Surroundings { machine: &self.machine, params: facts.params, steps: &self.run.steps }
    }

    /// Whether the decision must be committed before its effects are performed.
    ///
    /// Moving between the stages of an open attempt needs no commit: after a crash every stage means the same.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.machine_changed || !self.run_entries.is_empty()
    }

    /// Applies an event to the run's state machine; a refusal is returned and changes nothing.
    pub(super) fn run_event(
        &mut self,
        event: run::Event,
        facts: Facts<'_>,
    ) -> Result<(), run::Rejected> {
        let facts = run::Facts {
            has_compensations: self.compensations(facts.plan).next().is_some(),
            has_on_failure: facts.plan.has(Role::OnFailure),
            has_finally: facts.plan.has(Role::Finally),
            outcome_unknown: self.outcome_unknown(),
            suspended: self.suspended(facts.plan),
            asks: self.run.asks(),
        };
        self.run.state = run::apply(self.run.state, event, facts)?;
        Ok(())
    }

    pub(super) fn outcome_unknown(&self) -> bool {
        self.run
            .hold
            .as_ref()
            .is_some_and(|hold| hold.reason == crate::model::HoldReason::OutcomeUnknown)
    }

    /// What the run returns to if it was ending when it was held. Only a restore holds such a run, and what it was doing
    /// is in its record: a run that is being unwound has steps that undo others.
    fn suspended(&self, plan: &Plan) -> Option<run::Suspended> {
        let canceled = self.run.cancel_requested_at.is_some();
        let of = |role| {
            let steps = plan.steps.iter().zip(self.run.steps.iter());
            steps.filter(move |(step, _)| step.role == role).map(|(_, record)| record)
        };
        // An operator may skip a step long before its turn comes.
        let begun = |role| of(role).any(|record| record.attempt > 0);
        if begun(Role::Finally) {
            let done = of(Role::Main)
                .all(|record| matches!(record.state, State::Succeeded | State::Skipped));
            let ending = match (&self.run.error, done) {
                (Some(_), _) => run::Ending::Failed,
                (None, true) => run::Ending::Succeeded,
                (None, false) => run::Ending::Canceled,
            };
            return Some(run::Suspended::Closing { ending });
        }
        if begun(Role::OnFailure) || self.run.steps.iter().any(|step| step.compensates.is_some()) {
            let ending = if canceled { run::Ending::Canceled } else { run::Ending::Failed };
            return Some(run::Suspended::Unwinding { ending });
        }
        if self.run.error.is_some() {
            return Some(run::Suspended::Stopping);
        }
        canceled.then_some(run::Suspended::Canceling)
    }

    pub(super) fn note(&mut self, entry: Entry) {
        self.run_entries.push(entry);
    }

    /// Sets a condition of the machine and notes it in the machine's history if its status or reason changed.
    pub(super) fn set_condition(
        &mut self,
        kind: ConditionKind,
        condition: Condition,
        actor: &Actor,
    ) {
        let before = self.machine.conditions.get(kind);
        if before.is_some_and(|old| {
            old.status == condition.status
                && old.reason == condition.reason
                && old.message == condition.message
        }) {
            return;
        }
        let before = before.map(|old| old.status);
        let entry = Entry::new(EntryKind::ConditionChanged, actor.clone());
        // Where only the reason is new, nothing has moved.
        let (entry, is) = if before == Some(condition.status) {
            (entry, "is still")
        } else {
            (entry.moved(status_name(before), status_name(Some(condition.status))), "is")
        };
        let entry = entry.reason(&condition.reason).message(format!(
            "{} {is} {}: {}",
            kind.as_str(),
            condition.status,
            condition.message
        ));
        self.machine_mut().conditions.set(kind, condition);
        self.machine_entries.push(entry);
        self.machine_changed = true;
    }

    /// Forgets a condition of the machine, as if it had never been observed.
    pub(super) fn unset_condition(&mut self, kind: ConditionKind, reason: &str, message: &str) {
        let Some(before) = self.machine.conditions.get(kind) else { return };
        let entry = Entry::new(EntryKind::ConditionChanged, Actor::engine())
            .moved(status_name(Some(before.status)), status_name(None))
            .reason(reason)
            .message(format!("{} is unknown: {message}", kind.as_str()));
        self.machine_mut().conditions.unset(kind);
        self.machine_entries.push(entry);
        self.machine_changed = true;
    }

    /// A condition as this run observes it.
    pub(super) fn observed(
        &self,
        now: Timestamp,
        status: bool,
        reason: &str,
        message: String,
    ) -> Condition {
        Condition {
            status,
            reason: reason.to_owned(),
            message,
            last_transition_at: now,
            observed_by: format!("run/{}", self.run.id),
            plan_id: self.run.spec.plan_id.clone(),
        }
    }
}

fn status_name(status: Option<bool>) -> &'static str {
    match status {
        None => "unknown",
        Some(true) => "true",
        Some(false) => "false",
    }
}
