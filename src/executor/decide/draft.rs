//! A decision in progress: the records as they will be, and the effects.

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

/// Inputs of a decision besides the records.
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
    /// Loop breaker: most destructive attempts within this many milliseconds; `None` if it does not apply.
    pub loop_breaker: Option<(usize, u64)>,
    /// The server is shutting down: no new attempt is opened.
    pub draining: bool,
    /// What holds the run back.
    pub braking: Braking,
    /// Only with a planted bug: whose hardware it is does not matter.
    pub trusts_hardware: bool,
}

/// What holds a run back now, and for how long it was held back before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Braking {
    /// Nothing may begin: a stop of everything, or a lock on the machine.
    pub all: bool,
    /// The first step that destroys data may not begin: the plan is paused.
    pub destroying: bool,
    /// How long it was held back since it started, in milliseconds: its time limit leaves that out.
    pub spared_ms: u64,
}

impl Braking {
    pub(super) const fn is_on(self) -> bool {
        self.all || self.destroying
    }
}

/// What to do once the decision is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask the provider whether the step is done.
    Observe {
        /// Index of the step.
        step: usize,
    },
    /// Send the step's action.
    Act {
        /// Index of the step.
        step: usize,
    },
    /// Have the provider verify the step.
    Verify {
        /// Index of the step.
        step: usize,
    },
    /// Ask the provider to stop the step's operation, and drop the call in flight.
    Stop {
        /// Index of the step.
        step: usize,
    },
    /// Drop the call in flight: its result no longer matters.
    Forget,
    /// Wake the step at this time.
    Wake {
        /// Index of the step.
        step: usize,
        /// When.
        at: Timestamp,
    },
    /// The step's attempt times out at this time.
    Deadline {
        /// Index of the step.
        step: usize,
        /// When.
        at: Timestamp,
    },
    /// The time limit of the whole run passes at this time.
    TimeLimit {
        /// When.
        at: Timestamp,
    },
    /// Raise the fence at the provider without acting: calls of a former owner must not get through.
    RaiseFence {
        /// New epoch.
        epoch: Epoch,
    },
}

/// A run and its machine during a decision.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The run.
    pub run: Run,
    /// The machine, shared with other readers until it changes.
    pub machine: Arc<Machine>,
    /// Whether the machine changed.
    pub machine_changed: bool,
    /// New history entries of the run.
    pub run_entries: Vec<Entry>,
    /// New history entries of the machine.
    pub machine_entries: Vec<Entry>,
    /// What to do once this is durable.
    pub effects: Vec<Effect>,
    /// Whether something would have begun, had nothing held the run back.
    pub braked: bool,
    /// A call to a step that the engine performs itself, answered in the same decision.
    pub(super) asked: Option<Asked>,
    /// An operator's answer to a step that asks for approval.
    pub(super) verdict: Option<bool>,
}

/// A call of a step that the engine performs itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether it is done.
    Observe,
    /// Start it.
    Act,
    /// Whether it is done, and stays so.
    Verify,
}

impl Draft {
    /// Starts a decision from the present records.
    #[must_use]
    pub fn new(run: Run, machine: impl Into<Arc<Machine>>) -> Self {
        Self {
            run,
            machine: machine.into(),
            machine_changed: false,
            run_entries: Vec::new(),
            machine_entries: Vec::new(),
            effects: Vec::new(),
            braked: false,
            asked: None,
            verdict: None,
        }
    }

    /// The machine, for changes.
    pub fn machine_mut(&mut self) -> &mut Machine {
        Arc::make_mut(&mut self.machine)
    }

    /// The facts that guards depend on.
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

    /// What the run returns to if it was ending when it was held. Only a restore holds such a run, and its record
    /// says what it was doing: a run that is unwinding has compensation steps.
    fn suspended(&self, plan: &Plan) -> Option<run::Suspended> {
        let canceled = self.run.cancel_requested_at.is_some();
        let of = |role| {
            let steps = plan.steps.iter().zip(self.run.steps.iter());
            steps.filter(move |(step, _)| step.role == role).map(|(_, record)| record)
        };
        // An operator may skip a step long before it is reached.
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

    /// Sets a condition of the machine and adds it to the machine's history if its status or reason changed.
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
        // If only the reason is new, the state has not changed.
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

    /// Removes a condition of the machine, as if it had never been observed.
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
