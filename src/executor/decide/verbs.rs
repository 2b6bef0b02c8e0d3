//! Operators' control verbs on a run. The state machines allow or refuse each verb, and it is kept in the history.

use super::draft::{Draft, Facts};
use super::step::StepInput;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::request::Verb;
use crate::lifecycle::run;
use crate::lifecycle::step::{Event, Resolution, State};
use crate::model::machine::REASON_OUTCOME_UNKNOWN;
use crate::model::{Actor, ConditionKind, Entry, EntryKind, HoldReason};

impl Draft {
    /// Performs a verb on a run that has not ended: the caller has refused verbs on ended ones.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if the verb is not possible in the state of the run or the step,
    /// [`EngineError::NotFound`] if there is no such step; then nothing has changed.
    pub fn operate(
        &mut self,
        verb: &Verb,
        actor: &Actor,
        reason: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        match verb {
            Verb::Cancel => self.request_cancel(actor, reason, facts),
            Verb::Abort => {
                self.take(run::Event::Abort, "aborted", facts)?;
                self.abort(actor, reason, facts);
                Ok(())
            }
            Verb::Pause => self.request_pause(actor, reason, facts),
            Verb::Resume => self.request_resume(actor, reason, facts),
            Verb::Skip { step } => self.skip(step, actor, reason, facts),
            Verb::Answer { step, yes } => self.answer(step, *yes, actor, reason, facts),
            Verb::Resolve { step, resolution } => {
                self.resolve(step, *resolution, actor, reason, facts)
            }
        }
    }

    fn take(
        &mut self,
        event: run::Event,
        participle: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        self.run_event(event, facts).map_err(|rejected| {
            let why = match rejected {
                run::Rejected::Denied(why) => why.to_owned(),
                run::Rejected::Illegal { state, .. } => format!("it is {}", describe(state)),
            };
            let message = format!("run {} cannot be {participle}: {why}", self.run.id);
            self.refused(Refusal::RunState, message)
        })
    }

    fn refused(&self, refusal: Refusal, message: String) -> EngineError {
        let subject = format!("runs/{}", self.run.id);
        EngineError::Refused { refusal, subject, message, hint: String::new() }
    }

    fn request_cancel(
        &mut self,
        actor: &Actor,
        reason: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        let before = self.run.state;
        self.take(run::Event::Cancel, "canceled", facts)?;
        if before == self.run.state {
            return Ok(());
        }
        self.run.cancel_requested_at = Some(facts.now);
        self.run.hold = None;
        self.run.queued_at = None;
        let left_open = matches!(before, run::State::Held | run::State::Resuming)
            .then(|| self.in_progress())
            .flatten()
            .filter(|place| self.run.steps[*place].state.is_open());
        let entry = Entry::new(EntryKind::RunCancelRequested, actor.clone()).reason(reason);
        self.note(entry.message(format!("cancel requested by {}", actor.name)));
        if self.run.state == run::State::Canceled {
            self.cancel_pending(facts);
            return Ok(());
        }
        if let Some(place) = left_open {
            // Held by a restore, or a step of the engine: nothing is in flight that could still return.
            self.recover_held(place, facts);
        }
        self.safe_point(facts);
        Ok(())
    }

    fn request_pause(
        &mut self,
        actor: &Actor,
        reason: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        let before = self.run.state;
        self.take(run::Event::Pause, "paused", facts)?;
        if before == self.run.state {
            return Ok(());
        }
        if self.run.state == run::State::Held {
            self.run.queued_at = None;
            let message = format!("paused by {}", actor.name);
            self.held(HoldReason::Paused, message, actor.clone(), facts);
            return Ok(());
        }
        let entry = Entry::new(EntryKind::RunPauseRequested, actor.clone()).reason(reason);
        self.note(entry.message(format!("pause requested by {}", actor.name)));
        if !self.is_in_flight(facts) {
            self.safe_point(facts);
        }
        Ok(())
    }

    fn request_resume(
        &mut self,
        actor: &Actor,
        reason: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        let before = self.run.state;
        self.take(run::Event::Resume, "resumed", facts)?;
        if before == self.run.state {
            return Ok(());
        }
        if self.run.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::LoopBreaker) {
            // The operator takes responsibility: counting starts over.
            self.machine_mut().destructive_at.clear();
            self.machine_changed = true;
        }
        self.try_again(actor, facts);
        self.released(facts);
        let entry = Entry::new(EntryKind::RunResumed, actor.clone()).reason(reason);
        self.note(entry.message(format!("resumed by {}", actor.name)));
        Ok(())
    }

    fn released(&mut self, facts: Facts<'_>) {
        self.run.hold = None;
        if self.run.state == run::State::Resuming {
            self.run.queued_at = Some(facts.now);
        }
    }

    /// The operator has answered the question that held the run: it waits for a slot again.
    fn answered(&mut self, facts: Facts<'_>) -> Result<(), EngineError> {
        if let Some(hold) = &mut self.run.hold {
            hold.reason = HoldReason::Paused;
        }
        self.take(run::Event::Resume, "resumed", facts)?;
        self.released(facts);
        Ok(())
    }

    fn place(&self, step: &str) -> Result<usize, EngineError> {
        self.run.steps.iter().position(|record| record.name == step).ok_or_else(|| {
            let names: Vec<_> = self.run.steps.iter().map(|record| record.name.as_str()).collect();
            EngineError::invalid(
                "step",
                format!(
                    "run {} has no step {step:?}; its steps are {}",
                    self.run.id,
                    names.join(", ")
                ),
            )
        })
    }

    fn skip(
        &mut self,
        step: &str,
        actor: &Actor,
        reason: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        let place = self.place(step)?;
        let before = self.run.steps[place].state;
        if self.run.asks() && self.in_progress() == Some(place) {
            let message = format!(
                "step {step} cannot be skipped: it asks for approval: approve or reject it instead"
            );
            return Err(self.refused(Refusal::StepState, message));
        }
        let Some(rules) = super::step::rules(facts.plan, &self.run.steps[place], place) else {
            return Err(EngineError::Internal("step is not in the pinned plan".to_owned()));
        };
        let step_facts = crate::lifecycle::step::Facts {
            now: facts.now,
            random: facts.random,
            stopping: false,
            unknowns: 0,
            interrupted: 0,
            retry_at: None,
        };
        // A dry application first: the refusal must name the reason, and change nothing.
        if let Err(rejected) = crate::lifecycle::step::apply(rules, before, Event::Skip, step_facts)
        {
            let message = match rejected {
                crate::lifecycle::step::Rejected::Denied(why) => {
                    format!("step {step} cannot be skipped: {why}")
                }
                crate::lifecycle::step::Rejected::Illegal { .. } => {
                    format!("step {step} cannot be skipped: it is {}", before.phase().as_str())
                }
            };
            return Err(self.refused(Refusal::StepState, message));
        }
        let mut input = StepInput::bare(place, Event::Skip);
        input.answer.message = format!("skipped by {}: {reason}", actor.name);
        self.audited(EntryKind::StepSkipped, step, actor, reason, "skipped");
        self.step(&input, facts);
        Ok(())
    }

    /// Answers the step that asks for approval; an empty name means the one that does.
    fn answer(
        &mut self,
        step: &str,
        yes: bool,
        actor: &Actor,
        reason: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        let named = if step.is_empty() { None } else { Some(self.place(step)?) };
        let asking = self.in_progress().filter(|_| self.run.asks());
        let Some(place) = asking.filter(|place| named.is_none_or(|named| named == *place)) else {
            let message = match named {
                Some(place) => format!(
                    "step {step} cannot be answered: it does not ask for approval, it is {}",
                    self.run.steps[place].state.phase().as_str()
                ),
                None => format!(
                    "run {} cannot be answered: none of its steps asks for approval{}",
                    self.run.id,
                    // A run that was paused or restored asks again once it is resumed.
                    if self.run.state == run::State::Held && self.asks_when_resumed(facts) {
                        " while it is held: resume it first"
                    } else {
                        ""
                    }
                ),
            };
            return Err(self.refused(Refusal::StepState, message));
        };
        let name = self.run.steps[place].name.clone();
        let word = if yes { "approved" } else { "refused" };
        if yes {
            self.answered(facts)?;
        }
        self.audited(EntryKind::StepAnswered, &name, actor, reason, word);
        self.verdict = Some(yes);
        let mut input = StepInput::bare(place, Event::Woken);
        input.answer.message = format!("{word} by {}: {reason}", actor.name);
        self.step(&input, facts);
        Ok(())
    }

    /// Whether the step in progress asks for approval, also while something else holds the run.
    fn asks_when_resumed(&self, facts: Facts<'_>) -> bool {
        let step = self.in_progress().and_then(|place| facts.plan.steps.get(place));
        step.is_some_and(|step| step.action.asks())
    }

    fn resolve(
        &mut self,
        step: &str,
        resolution: Option<Resolution>,
        actor: &Actor,
        reason: &str,
        facts: Facts<'_>,
    ) -> Result<(), EngineError> {
        let place = self.place(step)?;
        let state = self.run.steps[place].state;
        if !matches!(state, State::Unknown { .. }) {
            let message = format!(
                "step {step} cannot be resolved: its outcome is not unknown, it is {}",
                state.phase().as_str()
            );
            return Err(self.refused(Refusal::StepState, message));
        }
        let Some(resolution) = resolution else {
            self.take(run::Event::Abort, "aborted", facts)?;
            self.audited(EntryKind::StepResolved, step, actor, reason, "given up");
            self.abort(actor, reason, facts);
            return Ok(());
        };
        self.answered(facts)?;
        let word = match resolution {
            Resolution::Done => "done",
            Resolution::Retry => "not done, to be retried",
            Resolution::Skip => "not needed, skipped",
        };
        self.audited(EntryKind::StepResolved, step, actor, reason, word);
        if self
            .machine
            .conditions
            .get(ConditionKind::NeedsIntervention)
            .is_some_and(|condition| condition.status && condition.reason == REASON_OUTCOME_UNKNOWN)
        {
            let text = format!("{} resolved step {step} as {word}: {reason}", actor.name);
            let condition = self.observed(facts.now, false, "RESOLVED", text);
            self.set_condition(ConditionKind::NeedsIntervention, condition, actor);
        }
        let mut input = StepInput::bare(place, Event::Resolve(resolution));
        input.answer.message = format!("resolved as {word} by {}: {reason}", actor.name);
        self.step(&input, facts);
        Ok(())
    }

    fn audited(&mut self, kind: EntryKind, step: &str, actor: &Actor, reason: &str, word: &str) {
        let entry = Entry::new(kind, actor.clone()).step(step).reason(reason);
        self.note(entry.message(format!("step {step} {word} by {}", actor.name)));
    }
}

/// State of a run, for people.
fn describe(state: run::State) -> &'static str {
    match state {
        run::State::Pending => "PENDING",
        run::State::Running => "RUNNING",
        run::State::Pausing => "RUNNING and about to be held",
        run::State::Held => "held",
        run::State::Deferred => "waiting for its next attempt, without a slot",
        run::State::Resuming => "released and waiting for a slot",
        run::State::Canceling => "being canceled",
        run::State::Stopping => "ending, because its time limit passed",
        run::State::Unwinding { .. } => "being unwound",
        run::State::Closing { .. } => "running its finally steps",
        run::State::Succeeded => "SUCCEEDED",
        run::State::Failed => "FAILED",
        run::State::Canceled => "CANCELED",
    }
}
