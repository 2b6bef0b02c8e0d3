//! Advances a run from step to step.

use super::draft::{Draft, Facts};
use super::step::StepInput;
use crate::lifecycle::run;
use crate::lifecycle::step::{Event, State};
use crate::model::{Actor, Entry, EntryKind, HoldReason};
use crate::plan::Role;

/// The result of offering a slot to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The run was not waiting for a slot.
    NotWaiting,
    /// It has its slot and continues.
    Admitted,
}

impl Draft {
    /// Gives the run its slot: it starts, or continues where it was held.
    pub fn admit(&mut self, facts: Facts<'_>) -> Admission {
        if self.run_event(run::Event::Admit, facts).is_err() {
            return Admission::NotWaiting;
        }
        self.run.queued_at = None;
        let entry = if self.run.started_at.is_none() {
            self.run.started_at = Some(facts.now);
            Entry::new(EntryKind::RunStarted, Actor::engine()).message("run started")
        } else {
            Entry::new(EntryKind::RunResumed, Actor::engine()).message("run resumed")
        };
        self.note(entry);
        if self.run.state == run::State::Running && !self.watch_time(facts) {
            return Admission::Admitted;
        }
        match self.in_progress() {
            // Held by a restore, not at a safe point; or a step of the engine, which a pause does not wait for.
            Some(place) if self.run.steps[place].state.is_open() => {
                self.recover_held(place, facts);
            }
            Some(_) => self.rearm(facts),
            None => {}
        }
        self.proceed(facts);
        Admission::Admitted
    }

    /// Does what comes next in the state that the run is in: no step is in progress that would continue by itself.
    pub(super) fn proceed(&mut self, facts: Facts<'_>) {
        match self.run.state {
            run::State::Canceling | run::State::Stopping | run::State::Pausing => {
                self.safe_point(facts);
            }
            run::State::Unwinding { .. } => self.unwind(facts),
            run::State::Closing { .. } => self.finish(facts),
            run::State::Pending
            | run::State::Running
            | run::State::Held
            | run::State::Deferred
            | run::State::Resuming
            | run::State::Succeeded
            | run::State::Failed
            | run::State::Canceled => self.advance(facts),
        }
    }

    /// Index of the step whose public phase is RUNNING.
    #[must_use]
    pub fn in_progress(&self) -> Option<usize> {
        self.run
            .steps
            .iter()
            .position(|step| step.state != State::Waiting && !step.state.is_settled())
    }

    /// Starts the next step whose guard holds, or ends the run.
    pub(super) fn advance(&mut self, facts: Facts<'_>) {
        if self.run.state != run::State::Running || self.in_progress().is_some() {
            return;
        }
        let Some(place) = self.waiting(Role::Main, facts) else {
            if self.run_event(run::Event::StepsDone, facts).is_ok() {
                self.end_or_unwind(facts);
            }
            return;
        };
        if !self.guard_agrees(place, facts) {
            let mut input = StepInput::bare(place, Event::GuardedOut);
            "its guard does not hold".clone_into(&mut input.answer.message);
            // Ending a step calls back into `advance`; that terminates because each call uses up a step.
            self.step(&input, facts);
            return;
        }
        if !self.may_open(place, facts) {
            return;
        }
        self.step(&StepInput::bare(place, Event::Start), facts);
    }

    pub(super) fn guard_agrees(&self, place: usize, facts: Facts<'_>) -> bool {
        let Some(guard) = facts.plan.steps.get(place).and_then(|step| step.when.as_ref()) else {
            return true;
        };
        guard.holds(&self.surroundings(facts))
    }

    /// Whether a new attempt of a step may be opened now; trips the loop breaker if there were too many.
    pub(super) fn may_open(&mut self, place: usize, facts: Facts<'_>) -> bool {
        if facts.draining {
            return false;
        }
        let unwinding = self.run.state.is_ending();
        if self.run.state != run::State::Running && !unwinding {
            return false;
        }
        if self.is_braked(place, facts) {
            self.braked = true;
            return false;
        }
        if !unwinding && self.is_time_up(facts) {
            self.time_up(facts);
            return false;
        }
        if !unwinding && let Some(why) = self.wrong_hardware(place, facts) {
            if self.run_event(run::Event::Hold, facts).is_ok() {
                self.held(HoldReason::WrongHardware, why, Actor::engine(), facts);
            }
            return false;
        }
        let Some((most, window_ms)) = facts.loop_breaker else { return true };
        if unwinding || !self.must_settle(facts.plan, place) {
            return true;
        }
        let oldest = facts.now.0.saturating_sub(window_ms);
        self.machine_mut().destructive_at.retain(|at| at.0 > oldest);
        if self.machine.destructive_at.len() < most {
            return true;
        }
        let message = format!(
            "{} destructive attempts on {} within {} s; resume the run if that is intended",
            self.machine.destructive_at.len(),
            self.machine.id,
            window_ms / 1000
        );
        if self.run_event(run::Event::Hold, facts).is_ok() {
            self.held(HoldReason::LoopBreaker, message, Actor::engine(), facts);
        }
        false
    }

    /// Nothing of the step is in flight: a pending pause or cancel takes effect.
    pub(super) fn safe_point(&mut self, facts: Facts<'_>) {
        match self.run.state {
            run::State::Pausing => {
                if self.is_in_flight(facts) {
                    return;
                }
                if self.run_event(run::Event::SafePoint, facts).is_ok() {
                    let message = "paused by an operator".to_owned();
                    self.held(HoldReason::Paused, message, Actor::engine(), facts);
                }
            }
            run::State::Canceling | run::State::Stopping => {
                if let Some(place) = self.in_progress() {
                    // It ends at once, or it is destructive and in flight; its end comes back here.
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
            | run::State::Deferred
            | run::State::Resuming
            | run::State::Unwinding { .. }
            | run::State::Closing { .. }
            | run::State::Succeeded
            | run::State::Failed
            | run::State::Canceled => {}
        }
    }

    /// Whether a step has something in flight, so that a pause must wait. A step of the engine itself never has.
    pub(super) fn is_in_flight(&self, facts: Facts<'_>) -> bool {
        self.in_progress().is_some_and(|place| {
            self.run.steps[place].state.is_open() && facts.plan.own(place).is_none()
        })
    }

    /// Continues after a step has ended.
    pub(super) fn continue_after(&mut self, place: usize, input: &StepInput, facts: Facts<'_>) {
        if matches!(self.run.state, run::State::Unwinding { .. }) {
            self.unwind(facts);
            return;
        }
        if matches!(self.run.state, run::State::Closing { .. }) {
            self.finish(facts);
            return;
        }
        if self.run.steps[place].state == State::Failed {
            // The time limit explains more than how the step that it interrupted ended.
            if self.run.state != run::State::Stopping {
                self.run.current_step = Some(place);
                self.run.error = Some(self.step_error(place, input));
            }
            if self.run_event(run::Event::StepFailed, facts).is_ok() {
                self.run.hold = None;
                self.end_or_unwind(facts);
            }
            return;
        }
        let done = (0..facts.plan.steps.len())
            .filter(|&place| facts.plan.steps[place].role == Role::Main)
            .all(|place| matches!(self.run.steps[place].state, State::Succeeded | State::Skipped));
        if done && (self.run.state == run::State::Pausing || self.run.state.is_stopping()) {
            // The last step finished before the pause, the cancel or the limit.
            if self.run_event(run::Event::StepsDone, facts).is_ok() {
                self.run.error = None;
                self.end_or_unwind(facts);
            }
            return;
        }
        self.safe_point(facts);
        self.advance(facts);
    }
}
