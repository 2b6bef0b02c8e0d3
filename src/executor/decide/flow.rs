//! How a run goes from step to step, and how it ends.

use super::step::{StepInput, action, timeout_ms};
use super::{Draft, Effect, Facts};
use crate::executor::names;
use crate::lifecycle::run::{self, Ending};
use crate::lifecycle::step::{self, Basis, ErrorClass, Event, State};
use crate::model::machine::{REASON_ABORTED, REASON_RUN_CANCELED, REASON_RUN_FAILED};
use crate::model::{
    Actor, ConditionKind, Entry, EntryKind, HoldReason, RunError, RunErrorCode, StepRecord,
};
use crate::plan::Plan;

/// Whether the scheduler's slot starts a new run or lets a held one go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The run was not waiting for a slot.
    NotWaiting,
    /// It has its slot and goes on.
    Admitted,
}

impl Draft {
    /// Gives the run its slot: it starts, or goes on where it was held.
    pub fn admit(&mut self, facts: Facts<'_>) -> Admission {
        if self.run_event(run::Event::Admit, facts).is_err() {
            return Admission::NotWaiting;
        }
        self.run.queued_at = None;
        let entry = if self.run.started_at.is_none() {
            self.run.started_at = Some(facts.now);
            Entry::new(EntryKind::RunStarted, Actor::engine()).message("run started")
        } else {
            Entry::new(EntryKind::RunResumed, Actor::engine()).message("run goes on")
        };
        self.note(entry);
        if self.in_progress().is_some() {
            self.rearm(facts);
        } else {
            self.advance(facts);
        }
        Admission::Admitted
    }

    /// Place of the step whose public phase is RUNNING.
    #[must_use]
    pub fn in_progress(&self) -> Option<usize> {
        self.run
            .steps
            .iter()
            .position(|step| step.state != State::Waiting && !step.state.is_settled())
    }

    /// Asks again for the timers of the step in progress.
    pub(super) fn rearm(&mut self, facts: Facts<'_>) {
        let Some(place) = self.in_progress() else { return };
        self.bound_waits(place, facts);
        let record = &self.run.steps[place];
        match record.state {
            State::Polling { until, .. } | State::BackingOff { until, .. } => {
                self.effects.push(Effect::Wake { step: place, at: until.max(facts.now) });
            }
            State::Waiting
            | State::Observing { .. }
            | State::Acting { .. }
            | State::Verifying { .. }
            | State::Unknown { .. }
            | State::Succeeded
            | State::Failed
            | State::Skipped
            | State::Canceled => {}
        }
        if let Some(at) = self.run.steps[place].deadline_at {
            self.effects.push(Effect::Deadline { step: place, at });
        }
    }

    /// Bounds what a step waits for: the wall clock may have been set back since its instants were stored. What lies
    /// further ahead than it can have been meant is due now; a deadline starts anew.
    fn bound_waits(&mut self, place: usize, facts: Facts<'_>) {
        let record = &self.run.steps[place];
        let Some(rules) = super::step::rules(facts.plan, record, place) else { return };
        let timeout_at = facts.now.plus_ms(timeout_ms(facts.plan, record, place));
        let record = &mut self.run.steps[place];
        if let Some(deadline_at) = &mut record.deadline_at {
            *deadline_at = timeout_at.min(*deadline_at);
        }
        let (until, latest) = match &mut record.state {
            State::Polling { until, .. } => (until, timeout_at),
            State::BackingOff { until, .. } => (until, facts.now.plus_ms(rules.backoff.ms_max)),
            State::Waiting
            | State::Observing { .. }
            | State::Acting { .. }
            | State::Verifying { .. }
            | State::Unknown { .. }
            | State::Succeeded
            | State::Failed
            | State::Skipped
            | State::Canceled => return,
        };
        if *until > latest {
            *until = facts.now;
        }
    }

    /// Starts the next step whose guard agrees, or ends the run.
    pub(super) fn advance(&mut self, facts: Facts<'_>) {
        if self.run.state != run::State::Running || self.in_progress().is_some() {
            return;
        }
        let next = self
            .run
            .steps
            .iter()
            .position(|step| step.state == State::Waiting && step.compensates.is_none());
        let Some(place) = next else {
            if self.run_event(run::Event::StepsDone, facts).is_ok() {
                self.succeed(facts);
            }
            return;
        };
        if !self.guard_agrees(place, facts) {
            let mut input = StepInput::bare(place, Event::GuardedOut);
            "its guard does not hold".clone_into(&mut input.answer.message);
            // Settling calls back into `advance`; that ends because a step is used up each time.
            self.step(&input, facts);
            return;
        }
        if !self.may_open(place, facts) {
            return;
        }
        self.step(&StepInput::bare(place, Event::Start), facts);
    }

    fn guard_agrees(&self, place: usize, facts: Facts<'_>) -> bool {
        let Some(guard) = facts.plan.steps.get(place).and_then(|step| step.when.as_ref()) else {
            return true;
        };
        guard.holds(facts.params, names::plan_phase(self.machine.phase), |kind| {
            self.machine.conditions.is_true(names::condition(kind))
        })
    }

    /// Whether a new attempt of a step may be opened now; trips the loop breaker if there were too many.
    pub(super) fn may_open(&mut self, place: usize, facts: Facts<'_>) -> bool {
        if facts.draining {
            return false;
        }
        let unwinding = matches!(self.run.state, run::State::Unwinding { .. });
        if self.run.state != run::State::Running && !unwinding {
            return false;
        }
        let Some((most, window_ms)) = facts.loop_breaker else { return true };
        if unwinding || !self.is_destructive(facts.plan, place) {
            return true;
        }
        let oldest = facts.now.0.saturating_sub(window_ms);
        self.machine_mut().destructive_at.retain(|at| at.0 > oldest);
        if self.machine.destructive_at.len() < most {
            return true;
        }
        let message = format!(
            "{} destructive attempts on {} within {} s; resume the run if that is meant",
            self.machine.destructive_at.len(),
            self.machine.id,
            window_ms / 1000
        );
        if self.run_event(run::Event::Hold, facts).is_ok() {
            self.held(HoldReason::LoopBreaker, message, Actor::engine(), facts);
        }
        false
    }

    /// Nothing of the step is in flight: a pause or a cancel that waited for that takes effect.
    pub(super) fn safe_point(&mut self, facts: Facts<'_>) {
        match self.run.state {
            run::State::Pausing => {
                let in_flight =
                    self.in_progress().is_some_and(|place| self.run.steps[place].state.is_open());
                if in_flight {
                    return;
                }
                if self.run_event(run::Event::SafePoint, facts).is_ok() {
                    let message = "paused by an operator".to_owned();
                    self.held(HoldReason::Paused, message, Actor::engine(), facts);
                }
            }
            run::State::Canceling => {
                if let Some(place) = self.in_progress() {
                    // It settles at once, or it is destructive and in flight; settling comes back here.
                    self.step(&StepInput::bare(place, Event::Cancel), facts);
                    return;
                }
                if self.run_event(run::Event::SafePoint, facts).is_ok() {
                    self.end_or_unwind(facts);
                }
            }
            run::State::Pending
            | run::State::Running
            | run::State::Held
            | run::State::Resuming
            | run::State::Unwinding { .. }
            | run::State::Succeeded
            | run::State::Failed
            | run::State::Canceled => {}
        }
    }

    /// What follows after a step has settled.
    pub(super) fn go_on_after(&mut self, place: usize, input: &StepInput, facts: Facts<'_>) {
        if matches!(self.run.state, run::State::Unwinding { .. }) {
            self.unwind(facts);
            return;
        }
        if self.run.steps[place].state == State::Failed {
            self.run.current_step = Some(place);
            self.run.error = Some(self.step_error(place, input));
            if self.run_event(run::Event::StepFailed, facts).is_ok() {
                self.end_or_unwind(facts);
            }
            return;
        }
        let more = self.run.steps.iter().any(|step| !step.state.is_settled());
        if !more
            && matches!(self.run.state, run::State::Pausing | run::State::Canceling)
            && self
                .run
                .steps
                .iter()
                .all(|step| matches!(step.state, State::Succeeded | State::Skipped))
        {
            // The last step beat the pause or the cancel.
            if self.run_event(run::Event::StepsDone, facts).is_ok() {
                self.succeed(facts);
            }
            return;
        }
        self.safe_point(facts);
        self.advance(facts);
    }

    fn step_error(&self, place: usize, input: &StepInput) -> RunError {
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

    /// Steps that took effect and declare a compensation, newest first.
    pub(super) fn compensations<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = usize> + 'a {
        let done = |place: usize| self.run.steps.iter().any(|step| step.compensates == Some(place));
        (0..plan.steps.len()).rev().filter(move |&place| {
            plan.steps[place].compensation.is_some()
                && self.run.steps.get(place).is_some_and(|step| step.started_at.is_some())
                && !done(place)
        })
    }

    fn end_or_unwind(&mut self, facts: Facts<'_>) {
        match self.run.state {
            run::State::Unwinding { ending } => {
                let places: Vec<_> = self.compensations(facts.plan).collect();
                for place in places {
                    let mut record =
                        StepRecord::waiting(format!("undo {}", self.run.steps[place].name));
                    record.compensates = Some(place);
                    self.run.steps.push(record);
                }
                let why = match ending {
                    Ending::Failed => "a step failed",
                    Ending::Canceled => "a cancel was requested",
                };
                let entry = Entry::new(EntryKind::RunUnwinding, Actor::engine());
                self.note(entry.message(format!("undoing what was done: {why}")));
                self.unwind(facts);
            }
            run::State::Failed => self.fail(facts),
            run::State::Canceled => self.cancel(facts),
            run::State::Pending
            | run::State::Running
            | run::State::Pausing
            | run::State::Held
            | run::State::Resuming
            | run::State::Canceling
            | run::State::Succeeded => {}
        }
    }

    /// Starts the next compensation, or ends the run. A compensation that fails does not stop the others.
    pub(super) fn unwind(&mut self, facts: Facts<'_>) {
        if self.run.steps.iter().any(|step| {
            step.compensates.is_some() && step.state != State::Waiting && !step.state.is_settled()
        }) {
            return;
        }
        let next = self
            .run
            .steps
            .iter()
            .position(|step| step.compensates.is_some() && step.state == State::Waiting);
        if let Some(place) = next {
            if !facts.draining && action(facts.plan, &self.run.steps[place], place).is_some() {
                self.step(&StepInput::bare(place, Event::Start), facts);
            }
            return;
        }
        let failed = self.run.error.as_ref().map(|error| error.step.clone());
        self.run.current_step =
            failed.and_then(|name| self.run.steps.iter().position(|step| step.name == name));
        if self.run_event(run::Event::Unwound, facts).is_ok() {
            self.end_or_unwind(facts);
        }
    }

    /// Every step succeeded or was skipped: sets what the plan declares as its result.
    fn succeed(&mut self, facts: Facts<'_>) {
        self.run.current_step = None;
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
        self.release(EntryKind::RunSucceeded, "run succeeded".to_owned(), Actor::engine(), facts);
    }

    fn fail(&mut self, facts: Facts<'_>) {
        self.close_waiting("not started: the run failed", facts);
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
        let destroyed = (0..self.run.steps.len()).find(|&place| {
            self.run.steps[place].attempt > 0 && self.is_destructive(facts.plan, place)
        });
        let mut why = Vec::new();
        if let Some(place) = destroyed {
            let name = &self.run.steps[place].name;
            why.push(format!("after its destructive step {name} had started"));
        }
        if let Some(left) = self.not_undone() {
            why.push(format!("but {left} did not succeed"));
        }
        if !why.is_empty() && self.machine.blocked_by().is_none() {
            let text = format!("{} was canceled {}", self.run.spec.plan_id, why.join(", "));
            let condition = self.observed(facts.now, true, REASON_RUN_CANCELED, text);
            self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        }
        self.run.current_step = None;
        self.release(EntryKind::RunCanceled, "run canceled".to_owned(), Actor::engine(), facts);
    }

    /// Compensations that did not succeed: something is left behind that the plan says must not be.
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

    /// Ends the run at once: what is in flight is left alone, the fence keeps it from coming through.
    pub(super) fn abort(&mut self, actor: &Actor, reason: &str, facts: Facts<'_>) {
        let in_flight = self.in_progress();
        for place in 0..self.run.steps.len() {
            if self.run.steps[place].state.is_settled() {
                continue;
            }
            let text = if Some(place) == in_flight {
                "aborted; nobody knows whether it took effect"
            } else {
                "not started: the run was aborted"
            };
            self.close(place, Event::Detach, text, facts);
        }
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

    /// Ends a step together with its run: nothing follows for the run from it.
    fn close(&mut self, place: usize, event: Event, why: &str, facts: Facts<'_>) {
        let record = &self.run.steps[place];
        let Some(rules) = super::step::rules(facts.plan, record, place) else { return };
        let step_facts = step::Facts {
            now: facts.now,
            random: facts.random,
            stopping: true,
            unknowns: record.unknowns,
            forgiven: record.forgiven,
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

    /// Ends the run and gives its machine back.
    fn release(&mut self, kind: EntryKind, message: String, actor: Actor, facts: Facts<'_>) {
        self.run.finished_at = Some(facts.now);
        self.run.queued_at = None;
        self.run.hold = None;
        self.note(Entry::new(kind, actor).message(message));
        self.machine_mut().active_run = None;
        self.machine_changed = true;
    }

    /// Takes the run up again after a restart, under the epoch that the actor has just claimed.
    pub fn recover(&mut self, facts: Facts<'_>) {
        let entry = Entry::new(EntryKind::RunRecovered, Actor::engine());
        let message = format!("taken up after a restart under epoch {}", self.machine.epoch);
        self.note(entry.message(message));
        match self.run.state {
            run::State::Pending
            | run::State::Held
            | run::State::Resuming
            | run::State::Succeeded
            | run::State::Failed
            | run::State::Canceled => {}
            run::State::Running | run::State::Pausing | run::State::Canceling => {
                self.recover_step(facts);
                self.safe_point(facts);
                self.advance(facts);
            }
            run::State::Unwinding { .. } => {
                self.recover_step(facts);
                self.unwind(facts);
            }
        }
    }

    fn recover_step(&mut self, facts: Facts<'_>) {
        let Some(place) = self.in_progress() else { return };
        self.bound_waits(place, facts);
        let settled_before = self.run.steps[place].state;
        self.step(&StepInput::bare(place, Event::Recovered), facts);
        let record = &self.run.steps[place];
        // The deadline of an open attempt is kept over the restart.
        if record.state == settled_before
            && let Some(at) = record.deadline_at
        {
            self.effects.push(Effect::Deadline { step: place, at });
        }
        debug_assert!(
            !matches!(record.state, State::Observing { basis: Basis::Fresh, .. })
                || self.effects.iter().any(|e| matches!(e, Effect::Observe { .. })),
            "an open attempt was left without a call"
        );
    }
}
