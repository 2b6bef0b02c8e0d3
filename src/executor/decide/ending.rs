//! The end of a run: succeeded, failed, canceled or aborted, and what is undone before.

use super::draft::{Draft, Effect, Facts};
use super::learn::{is_in_doubt, was_sent};
use super::step::StepInput;
use crate::executor::names;
use crate::lifecycle::run::{self, Ending};
use crate::lifecycle::step::{self, ErrorClass, Event, State};
use crate::model::machine::{
    REASON_ABORTED, REASON_OUTCOME_UNKNOWN, REASON_RUN_CANCELED, REASON_RUN_FAILED,
};
use crate::model::{Actor, ConditionKind, Entry, EntryKind, RunError, RunErrorCode, StepRecord};
use crate::plan::{Plan, Role};

impl Draft {
    /// Steps that took effect and declare a compensation, newest first.
    pub(super) fn compensations<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = usize> + 'a {
        let done = |place: usize| self.run.steps.iter().any(|step| step.compensates == Some(place));
        (0..plan.steps.len()).rev().filter(move |&place| {
            plan.steps[place].compensation.is_some()
                && self.run.steps.get(place).is_some_and(|step| step.started_at.is_some())
                && !done(place)
        })
    }

    pub(super) fn end_or_unwind(&mut self, facts: Facts<'_>) {
        match self.run.state {
            run::State::Unwinding { ending } => {
                let places: Vec<_> = self.compensations(facts.plan).collect();
                let has_on_failure =
                    ending == Ending::Failed && self.waiting(Role::OnFailure, facts).is_some();
                let what = match (has_on_failure, places.is_empty()) {
                    (true, false) => "running the on_failure steps, then undoing completed steps",
                    (false, false) => "undoing completed steps",
                    (_, true) => "running the on_failure steps",
                };
                for place in places {
                    let mut record =
                        StepRecord::waiting(format!("undo {}", self.run.steps[place].name));
                    record.compensates = Some(place);
                    self.run.steps.push(record);
                }
                let why = match ending {
                    Ending::Canceled => "a cancel was requested",
                    Ending::Failed | Ending::Succeeded => "a step failed",
                };
                let why = match &self.run.error {
                    Some(error)
                        if error.code == RunErrorCode::TimedOut && ending == Ending::Failed =>
                    {
                        "its time limit passed"
                    }
                    Some(_) | None => why,
                };
                let entry = Entry::new(EntryKind::RunUnwinding, Actor::engine());
                self.note(entry.message(format!("{what}: {why}")));
                self.unwind(facts);
            }
            run::State::Closing { .. } => {
                let entry = Entry::new(EntryKind::RunClosing, Actor::engine());
                self.note(entry.message("running the finally steps"));
                self.finish(facts);
            }
            run::State::Succeeded => self.succeed(facts),
            run::State::Failed => self.fail(facts),
            run::State::Canceled => self.cancel(facts),
            run::State::Pending
            | run::State::Running
            | run::State::Pausing
            | run::State::Held
            | run::State::Deferred
            | run::State::Resuming
            | run::State::Canceling
            | run::State::Stopping => {}
        }
    }

    /// Every step succeeded or was skipped: sets the result that the plan declares.
    fn succeed(&mut self, facts: Facts<'_>) {
        self.run.current_step = None;
        for place in 0..self.run.steps.len() {
            if self.run.steps[place].state == State::Waiting {
                self.close(place, Event::GuardedOut, "not needed: the run did not fail", facts);
            }
        }
        let result = &facts.plan.result;
        for &(kind, status) in result.conditions.iter() {
            let message = format!("{} succeeded", self.run.spec.plan_id);
            let condition = self.observed(facts.now, status, "RUN_SUCCEEDED", message);
            self.set_condition(names::condition(kind), condition, &Actor::engine());
        }
        let recovered =
            self.machine.conditions.get(ConditionKind::NeedsIntervention).is_some_and(|c| {
                c.status
                    && c.plan_id == self.run.spec.plan_id
                    && [REASON_RUN_FAILED, REASON_RUN_CANCELED].contains(&c.reason.as_str())
            });
        if recovered {
            let message = format!("a later run of {} succeeded", self.run.spec.plan_id);
            let condition = self.observed(facts.now, false, "RUN_SUCCEEDED", message);
            self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        }
        if let Some(phase) = result.phase {
            let from = self.machine.phase;
            // Checked when the run was accepted, and the phase cannot be set while a run is active.
            if let Ok(to) = from.moved_to(names::phase(phase))
                && to != from
            {
                self.machine_mut().phase = to;
                self.machine_entries.push(
                    Entry::new(EntryKind::PhaseChanged, Actor::engine())
                        .moved(from.as_str(), to.as_str())
                        .reason("RUN_SUCCEEDED")
                        .message(format!(
                            "phase {from} -> {to}: {} succeeded",
                            self.run.spec.plan_id
                        )),
                );
            }
        }
        self.trust_disks();
        self.distrust_skipped(facts);
        self.release(EntryKind::RunSucceeded, "run succeeded".to_owned(), Actor::engine(), facts);
    }

    fn fail(&mut self, facts: Facts<'_>) {
        self.close_waiting("not started: the run failed", facts);
        self.leave_behind(facts);
        let message =
            self.run.error.as_ref().map_or_else(String::new, |error| error.message.clone());
        if self.machine.blocked_by().is_none() {
            let mut text = format!("{} failed: {message}", self.run.spec.plan_id);
            if let Some(left) = self.not_undone() {
                text += &format!("; and {left} did not succeed");
            }
            let condition = self.observed(facts.now, true, REASON_RUN_FAILED, text);
            self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        }
        let message = format!("run failed: {message}");
        self.release(EntryKind::RunFailed, message, Actor::engine(), facts);
    }

    fn cancel(&mut self, facts: Facts<'_>) {
        self.close_waiting("not started: the run was canceled", facts);
        self.leave_behind(facts);
        let destroyed = (0..self.run.steps.len())
            .find(|&place| was_sent(&self.run.steps[place]) && self.must_settle(facts.plan, place));
        let mut why = Vec::new();
        if let Some(place) = destroyed {
            let name = &self.run.steps[place].name;
            why.push(format!("after its destructive step {name} had started"));
        }
        if let Some(left) = self.not_undone() {
            why.push(format!("but {left} did not succeed"));
        }
        let is_unknown = self.machine.conditions.get(ConditionKind::NeedsIntervention).is_some_and(
            |condition| condition.status && condition.reason == REASON_OUTCOME_UNKNOWN,
        );
        if is_unknown {
            // Its message asks for an answer that an ended run cannot take.
            let doubtful =
                (0..self.run.steps.len()).rev().find(|&place| is_in_doubt(&self.run.steps[place]));
            let step = doubtful.map_or("a step", |place| self.run.steps[place].name.as_ref());
            let text = format!(
                "{} was canceled, and whether {step} took effect is unknown; look at the machine",
                self.run.spec.plan_id
            );
            let condition = self.observed(facts.now, true, REASON_OUTCOME_UNKNOWN, text);
            self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        } else if !why.is_empty() && self.machine.blocked_by().is_none() {
            let text = format!("{} was canceled {}", self.run.spec.plan_id, why.join(", "));
            let condition = self.observed(facts.now, true, REASON_RUN_CANCELED, text);
            self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        }
        self.run.current_step = None;
        self.release(EntryKind::RunCanceled, "run canceled".to_owned(), Actor::engine(), facts);
    }

    /// Compensations that did not succeed: an effect remains that the plan says must not.
    fn not_undone(&self) -> Option<String> {
        let left: Vec<_> = self
            .run
            .steps
            .iter()
            .filter(|step| {
                step.compensates.is_some() && matches!(step.state, State::Failed | State::Canceled)
            })
            .map(|step| step.name.as_str())
            .collect();
        (!left.is_empty()).then(|| left.join(", "))
    }

    /// Ends a run that was canceled before it had a slot.
    pub(super) fn cancel_pending(&mut self, facts: Facts<'_>) {
        self.cancel(facts);
    }

    /// Ends the run at once: anything in flight is abandoned, and the fence keeps it from getting through.
    pub(super) fn abort(&mut self, actor: &Actor, reason: &str, facts: Facts<'_>) {
        let in_flight = self.in_progress();
        for place in 0..self.run.steps.len() {
            if self.run.steps[place].state.is_settled() {
                continue;
            }
            let text = if Some(place) == in_flight && was_sent(&self.run.steps[place]) {
                "aborted; whether it took effect is unknown"
            } else if Some(place) == in_flight {
                "aborted before anything was sent"
            } else {
                "not started: the run was aborted"
            };
            self.close(place, Event::Detach, text, facts);
        }
        self.leave_behind(facts);
        let step = in_flight.map_or_else(String::new, |place| self.run.steps[place].name.clone());
        self.run.current_step = in_flight;
        let message = format!("aborted by {}: {reason}", actor.name);
        self.run.error = Some(RunError {
            code: RunErrorCode::Aborted,
            message: message.clone(),
            retryable: false,
            step,
        });
        let text = format!("{} was {message}", self.run.spec.plan_id);
        let condition = self.observed(facts.now, true, REASON_ABORTED, text);
        self.set_condition(ConditionKind::NeedsIntervention, condition, actor);
        self.machine_mut().epoch = self.machine.epoch.next();
        self.effects.push(Effect::Forget);
        self.effects.push(Effect::RaiseFence { epoch: self.machine.epoch });
        self.release(EntryKind::RunAborted, format!("run {message}"), actor.clone(), facts);
    }

    fn close_waiting(&mut self, why: &str, facts: Facts<'_>) {
        for place in 0..self.run.steps.len() {
            if self.run.steps[place].state == State::Waiting {
                self.close(place, Event::Cancel, why, facts);
            }
        }
    }

    /// Ends a step together with its run: it has no consequences for the run.
    fn close(&mut self, place: usize, event: Event, why: &str, facts: Facts<'_>) {
        let record = &self.run.steps[place];
        let Some(rules) = super::step::rules(facts.plan, record, place) else { return };
        let step_facts = step::Facts {
            now: facts.now,
            random: facts.random,
            stopping: true,
            unknowns: record.unknowns,
            interrupted: record.interrupted,
            retry_at: None,
        };
        let before = record.state;
        let Ok((after, _)) = step::apply(rules, before, event, step_facts) else { return };
        let record = &mut self.run.steps[place];
        record.state = after;
        why.clone_into(&mut record.message);
        record.deadline_at = None;
        if before != State::Waiting {
            record.finished_at = Some(facts.now);
        }
    }

    /// Ends the run and releases its machine.
    fn release(&mut self, kind: EntryKind, message: String, actor: Actor, facts: Facts<'_>) {
        self.run.finished_at = Some(facts.now);
        self.run.queued_at = None;
        self.run.hold = None;
        self.note(Entry::new(kind, actor).message(message));
        self.machine_mut().active_run = None;
        self.machine_changed = true;
    }

    pub(super) fn step_error(&self, place: usize, input: &StepInput) -> RunError {
        let record = &self.run.steps[place];
        let code = if input.event == Event::TimedOut {
            RunErrorCode::TimedOut
        } else {
            RunErrorCode::StepFailed
        };
        let mut message = format!("step {}: {}", record.name, record.message);
        if !record.expected.is_empty() {
            message += &format!(" (expected {}; saw {})", record.expected, record.observed);
        }
        let retryable = !matches!(
            input.event,
            Event::CallFailed(ErrorClass::Permanent | ErrorClass::NeedsHuman)
        );
        RunError { code, message, retryable, step: record.name.clone() }
    }
}
