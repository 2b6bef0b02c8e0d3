//! What runs after the steps of a plan: on_failure steps, compensations, finally steps; and the time limit.

use super::draft::{Draft, Effect, Facts};
use super::step::{StepInput, action};
use crate::clock::Timestamp;
use crate::lifecycle::run::{self, Ending};
use crate::lifecycle::step::{Event, State};
use crate::model::{Actor, Entry, EntryKind, RunError, RunErrorCode};
use crate::plan::{Risk, Role, duration};

impl Draft {
    /// Role of the step at `place`; `None` for a compensation.
    pub(super) fn role(&self, place: usize, facts: Facts<'_>) -> Option<Role> {
        facts.plan.steps.get(place).map(|step| step.role)
    }

    /// The first step of a role that is not reached yet.
    pub(super) fn waiting(&self, role: Role, facts: Facts<'_>) -> Option<usize> {
        (0..facts.plan.steps.len()).find(|&place| {
            facts.plan.steps[place].role == role
                && self.run.steps.get(place).is_some_and(|step| step.state == State::Waiting)
        })
    }

    /// Starts the next on_failure step, then the next compensation, or ends the run. If one fails, the others still
    /// run.
    pub(super) fn unwind(&mut self, facts: Facts<'_>) {
        let run::State::Unwinding { ending } = self.run.state else { return };
        if self.in_progress().is_some() {
            return;
        }
        if ending == Ending::Failed
            && let Some(place) = self.waiting(Role::OnFailure, facts)
        {
            return self.begin(place, facts);
        }
        let next = self
            .run
            .steps
            .iter()
            .position(|step| step.compensates.is_some() && step.state == State::Waiting);
        if let Some(place) = next {
            if action(facts.plan, &self.run.steps[place], place).is_some() {
                self.begin_ending(place, facts);
            }
            return;
        }
        self.point_at_failure();
        if self.run_event(run::Event::Unwound, facts).is_ok() {
            self.end_or_unwind(facts);
        }
    }

    /// Starts the next finally step, or ends the run.
    pub(super) fn finish(&mut self, facts: Facts<'_>) {
        if !matches!(self.run.state, run::State::Closing { .. }) || self.in_progress().is_some() {
            return;
        }
        if let Some(place) = self.waiting(Role::Finally, facts) {
            return self.begin(place, facts);
        }
        self.point_at_failure();
        if self.run_event(run::Event::Closed, facts).is_ok() {
            self.end_or_unwind(facts);
        }
    }

    /// Starts a step of a run that is ending, unless its guard does not hold. Its end comes back for the next one.
    fn begin(&mut self, place: usize, facts: Facts<'_>) {
        if !self.guard_agrees(place, facts) {
            let mut input = StepInput::bare(place, Event::GuardedOut);
            "its guard does not hold".clone_into(&mut input.answer.message);
            self.step(&input, facts);
        } else {
            self.begin_ending(place, facts);
        }
    }

    /// Starts a step of a run that is ending. Such a run cannot be held: what would destroy the data of a machine that is
    /// not the registered one is left out.
    fn begin_ending(&mut self, place: usize, facts: Facts<'_>) {
        if facts.draining {
            return;
        }
        if self.is_braked(place, facts) {
            self.braked = true;
            return;
        }
        let mut input = StepInput::bare(place, Event::Start);
        if let Some(why) = self.wrong_hardware(place, facts) {
            input = StepInput::bare(place, Event::Cancel);
            input.answer.message = why;
        }
        self.step(&input, facts);
    }

    /// Why a step must not destroy the data of the machine: the hardware is not the registered one.
    pub(super) fn wrong_hardware(&self, place: usize, facts: Facts<'_>) -> Option<String> {
        let condition = self.machine.wrong_hardware().filter(|_| !facts.trusts_hardware)?;
        let action = action(facts.plan, &self.run.steps[place], place)?;
        let destroys = action.traits.risk == Risk::DataDestroying;
        destroys.then(|| {
            format!(
                "the hardware of {} is not what is registered, and {} would destroy its data: {}",
                self.machine.id, self.run.steps[place].name, condition.message
            )
        })
    }

    /// Points the run at the failed step again, whatever has run since.
    fn point_at_failure(&mut self) {
        let failed = self.run.error.as_ref().map(|error| error.step.clone());
        self.run.current_step =
            failed.and_then(|name| self.run.steps.iter().position(|step| step.name == name));
    }

    /// When the time limit of the run passes, if its plan has one and it has started.
    fn time_limit(&self, facts: Facts<'_>) -> Option<Timestamp> {
        let limit_ms = facts.plan.time_limit_ms?.saturating_add(facts.braking.spared_ms);
        // The wall clock may have been set back since: the limit is never further away than it is long.
        Some(self.run.started_at?.plus_ms(limit_ms).min(facts.now.plus_ms(limit_ms)))
    }

    /// Whether the time limit has passed, whether or not the timer has fired yet.
    pub(super) fn is_time_up(&self, facts: Facts<'_>) -> bool {
        // What waits because it is held back does not fail for it.
        !facts.braking.is_on() && self.time_limit(facts).is_some_and(|at| at <= facts.now)
    }

    /// Arms the time limit of a run that continues, or ends it if the limit has passed. `false` if it does not
    /// continue.
    pub(super) fn watch_time(&mut self, facts: Facts<'_>) -> bool {
        let Some(at) = self.time_limit(facts) else { return true };
        if facts.braking.is_on() {
            self.braked = true;
            return true;
        }
        if at > facts.now {
            self.effects.push(Effect::TimeLimit { at });
            return true;
        }
        self.time_up(facts);
        matches!(self.run.state, run::State::Running | run::State::Pausing)
    }

    /// The time limit has passed: the run fails at the next safe point. A run that is ending already, or does not
    /// continue now, is not affected.
    pub fn time_up(&mut self, facts: Facts<'_>) {
        if facts.braking.is_on() {
            // It is armed again when nothing holds the run back.
            self.braked = true;
            return;
        }
        // The timer did not know of the time in which the run was held back.
        if facts.braking.spared_ms > 0
            && let Some(at) = self.time_limit(facts).filter(|at| *at > facts.now)
        {
            self.effects.push(Effect::TimeLimit { at });
            return;
        }
        let step = self.in_progress().or_else(|| self.waiting(Role::Main, facts));
        if self.run_event(run::Event::TimeUp, facts).is_err() {
            return;
        }
        let limit = duration::format(facts.plan.time_limit_ms.unwrap_or_default());
        let message = format!("the run did not end within its time limit of {limit}");
        let name = step.map_or_else(String::new, |place| self.run.steps[place].name.clone());
        let entry = Entry::new(EntryKind::RunTimeUp, Actor::engine()).reason("TIME_LIMIT");
        self.note(entry.message(&message));
        self.run.error =
            Some(RunError { code: RunErrorCode::TimedOut, message, retryable: true, step: name });
        self.run.current_step = step;
        self.safe_point(facts);
    }
}
