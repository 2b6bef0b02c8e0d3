//! Consequences of a step's new state for its run.

use super::draft::{Draft, Effect, Facts};
use super::step::StepInput;
use crate::clock::Timestamp;
use crate::ids::OperationId;
use crate::lifecycle::run;
use crate::lifecycle::step::{self, ErrorClass, Event, Seen, State};
use crate::model::machine::REASON_OUTCOME_UNKNOWN;
use crate::model::{Actor, ConditionKind, Entry, EntryKind, Hold, HoldReason};
use crate::plan::Role;

/// A run waits at least this long without its slot, in milliseconds: giving it back costs two commits.
const DEFERRED_MS_MIN: u64 = 1_000;

/// Reason of the history entry of a deferred run that needs a slot again.
pub(in crate::executor) const REASON_DUE: &str = "DUE";

impl Draft {
    /// Applies the consequences of the step's new state to the run.
    pub(super) fn follow(
        &mut self,
        place: usize,
        before: State,
        input: &StepInput,
        facts: Facts<'_>,
    ) {
        let after = self.run.steps[place].state;
        if before == after {
            return;
        }
        match after {
            State::Polling { until, .. } => {
                if !matches!(before, State::Observing { basis: step::Basis::Poll, .. }) {
                    let message = if facts.plan.own(place).is_some() {
                        self.own_begun(place, until, facts)
                    } else {
                        format!(
                            "step {}: the provider is working on it",
                            self.run.steps[place].name
                        )
                    };
                    let entry = self.step_entry(EntryKind::StepAccepted, place).message(message);
                    self.note(entry);
                }
            }
            State::BackingOff { until, basis: step::Basis::Fresh, .. } => {
                self.retrying(place, until, input);
                self.defer(input, facts);
                self.safe_point(facts);
            }
            State::Unknown { .. } => self.hold_unknown(place, facts),
            State::Succeeded | State::Skipped | State::Failed | State::Canceled => {
                self.settled(place, before, input, facts);
            }
            State::Waiting
            | State::Observing { .. }
            | State::Acting { .. }
            | State::Verifying { .. }
            | State::BackingOff { .. } => {}
        }
    }

    fn retrying(&mut self, place: usize, until: Timestamp, input: &StepInput) {
        let record = &mut self.run.steps[place];
        if record.message.is_empty() || input.event == Event::TimedOut {
            record.message = why(input.event).to_owned();
        }
        record.deadline_at = None;
        let message = format!(
            "step {} attempt {} failed: {}; next attempt at {until}",
            record.name, record.attempt, record.message
        );
        let entry = self
            .step_entry(EntryKind::StepRetrying, place)
            .reason(class_name(input.event))
            .message(message);
        self.note(entry);
        self.effects.push(Effect::Forget);
    }

    /// A run whose provider names the time of the next attempt, such as a controller that is left alone for a while, gives
    /// its slot back until then.
    fn defer(&mut self, input: &StepInput, facts: Facts<'_>) {
        let from = facts.now.plus_ms(DEFERRED_MS_MIN);
        if input.answer.retry_at.is_some_and(|at| at >= from)
            && self.run.state == run::State::Running
            && self.run_event(run::Event::Defer, facts).is_err()
        {
            debug_assert!(false, "a running run can be deferred");
        }
    }

    /// The step of a deferred run waits no longer: the run needs a slot again, and gets it in order.
    pub(super) fn due(&mut self, facts: Facts<'_>) {
        if self.run_event(run::Event::Due, facts).is_ok() {
            self.run.queued_at = Some(facts.now);
            let entry = Entry::new(EntryKind::RunResumed, Actor::engine()).reason(REASON_DUE);
            self.note(entry.message("due again: waits for a slot"));
        }
    }

    /// It cannot be determined what happened: only an operator can release the run, and the machine reports it.
    fn hold_unknown(&mut self, place: usize, facts: Facts<'_>) {
        let name = self.run.steps[place].name.clone();
        let message = format!(
            "outcome of step {name} is unknown (operation {}); resolve it as done, retry, skip or abort",
            self.run.steps[place].operation.as_ref().map_or("none", OperationId::as_str),
        );
        // The history has it already if a second look could not tell either.
        if self.run.steps[place].unknowns == 0 {
            let entry = self
                .step_entry(EntryKind::StepOutcomeUnknown, place)
                .reason(REASON_OUTCOME_UNKNOWN)
                .message(format!("outcome of {name} is unknown"));
            self.note(entry);
        }
        self.run.steps[place].deadline_at = None;
        self.effects.push(Effect::Forget);
        if self.role(place, facts).is_some_and(|role| role != Role::Main) {
            // The outcome of an on_failure or finally step changes only its own record.
            let mut input = StepInput::bare(place, Event::Cancel);
            "whether it took effect is unknown".clone_into(&mut input.answer.message);
            self.step(&input, facts);
            return;
        }
        let condition = self.observed(facts.now, true, REASON_OUTCOME_UNKNOWN, message.clone());
        self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        if self.run_event(run::Event::Hold, facts).is_ok() {
            self.held(HoldReason::OutcomeUnknown, message, Actor::engine(), facts);
        } else {
            // A run that is ending cannot be held: the step ends with it, and the machine stays blocked.
            self.step(&StepInput::bare(place, Event::Cancel), facts);
        }
    }

    pub(super) fn held(
        &mut self,
        reason: HoldReason,
        message: String,
        actor: Actor,
        facts: Facts<'_>,
    ) {
        let entry = Entry::new(EntryKind::RunHeld, actor).reason(reason.as_str());
        self.note(entry.message(format!("run held: {message}")));
        self.run.hold = Some(Hold { reason, message, since: facts.now });
    }

    fn settled(&mut self, place: usize, before: State, input: &StepInput, facts: Facts<'_>) {
        let record = &mut self.run.steps[place];
        let name = record.name.clone();
        let (kind, message) = match record.state {
            State::Succeeded => {
                // Results of earlier attempts no longer matter; those of the success are kept already.
                if input.answer.message.is_empty() {
                    record.message.clear();
                }
                (EntryKind::StepSucceeded, format!("step {name} succeeded"))
            }
            State::Skipped => (EntryKind::StepSkipped, format!("step {name} skipped")),
            State::Canceled => (EntryKind::StepCanceled, format!("step {name} canceled")),
            State::Failed
            | State::Waiting
            | State::Observing { .. }
            | State::Acting { .. }
            | State::Polling { .. }
            | State::Verifying { .. }
            | State::BackingOff { .. }
            | State::Unknown { .. } => {
                if record.message.is_empty() || input.event == Event::TimedOut {
                    record.message = why(input.event).to_owned();
                }
                (EntryKind::StepFailed, format!("step {name} failed: {}", record.message))
            }
        };
        // A skip by an operator was added to the history in the operator's name.
        if input.event != Event::Skip {
            let entry =
                self.step_entry(kind, place).reason(class_name(input.event)).message(message);
            self.note(entry);
        }
        // A call in flight belongs to another step while this one is not reached yet.
        if before != State::Waiting {
            self.effects.push(Effect::Forget);
        }
        if self.run.steps[place].state == State::Succeeded {
            match self.run.steps[place].compensates {
                None => self.learn(place, facts),
                Some(undone) => self.take_back(undone, facts),
            }
        }
        self.continue_after(place, input, facts);
    }
}

fn class_name(event: Event) -> &'static str {
    match event {
        Event::CallFailed(class) => match class {
            ErrorClass::Transient => "TRANSIENT",
            ErrorClass::Permanent => "PERMANENT",
            ErrorClass::NeedsHuman => "NEEDS_HUMAN",
            ErrorClass::OutcomeUnknown => "OUTCOME_UNKNOWN",
        },
        Event::TimedOut => "TIMED_OUT",
        Event::NotVerified => "NOT_VERIFIED",
        Event::Observed(_) => "OBSERVED",
        Event::GuardedOut => "GUARD",
        Event::Resolve(_) | Event::Skip => "OPERATOR",
        Event::Start
        | Event::Acted
        | Event::Accepted { .. }
        | Event::Verified
        | Event::Woken
        | Event::Recovered
        | Event::Cancel
        | Event::Detach => "",
    }
}

fn why(event: Event) -> &'static str {
    if event == Event::TimedOut {
        "timed out"
    } else if event == Event::NotVerified {
        "reported done, but it is not"
    } else if event == Event::Observed(Seen::NotDone) {
        "the provider no longer knows the operation"
    } else {
        "failed"
    }
}
