//! Runs that a stop, a lock or a pause of their plan holds back: nothing that acts is begun, and nothing fails for it.

use super::draft::{Draft, Effect, Facts};
use super::learn::was_sent;
use super::step::{StepInput, action, timeout_ms};
use crate::lifecycle::run;
use crate::lifecycle::step::{self, Basis, Event, State};
use crate::model::Run;
use crate::plan::{Plan, Risk};

fn destroys(plan: &Plan, run: &Run, place: usize) -> bool {
    action(plan, &run.steps[place], place)
        .is_some_and(|action| action.traits.risk == Risk::DataDestroying)
}

/// Whether a step of a run has begun to destroy data, or may have.
pub(in crate::executor) fn has_destroyed(plan: &Plan, run: &Run) -> bool {
    (0..run.steps.len()).any(|place| destroys(plan, run, place) && was_sent(&run.steps[place]))
}

impl Draft {
    /// Whether a step may not act now.
    pub(super) fn is_braked(&self, place: usize, facts: Facts<'_>) -> bool {
        let first =
            || destroys(facts.plan, &self.run, place) && !has_destroyed(facts.plan, &self.run);
        facts.braking.all || (facts.braking.destroying && first())
    }

    /// Whether an event of a step is put off, since it would make the step act, or fail for having waited. The run
    /// is woken when that may have changed.
    pub(super) fn puts_off(
        &mut self,
        place: usize,
        event: Event,
        effects: &[step::Effect],
        facts: Facts<'_>,
    ) -> bool {
        if !facts.braking.is_on()
            || facts.plan.own(place).is_some()
            || !self.is_braked(place, facts)
        {
            return false;
        }
        let before = self.run.steps[place].state;
        let has_only_looked = matches!(before, State::Observing { basis: Basis::Fresh, .. });
        if effects.contains(&step::Effect::Act) {
            // After a restart it is looked at, at least.
            if has_only_looked && event == Event::Recovered {
                self.effects.push(Effect::Observe { step: place });
            }
        } else if has_only_looked && event == Event::TimedOut {
            self.more_time(place, facts);
        } else {
            return false;
        }
        self.braked = true;
        true
    }

    fn more_time(&mut self, place: usize, facts: Facts<'_>) {
        let at = facts.now.plus_ms(timeout_ms(facts.plan, &self.run.steps[place], place));
        self.run.steps[place].deadline_at = Some(at);
        self.effects.push(Effect::Deadline { step: place, at });
    }

    /// Nothing may hold the run back any more: it continues where it was. `idle` says that no call of its step is in
    /// flight.
    pub fn go_on(&mut self, idle: bool, facts: Facts<'_>) {
        if !self.run.state.has_slot() {
            return;
        }
        if self.run.state == run::State::Running && !self.watch_time(facts) {
            return;
        }
        match self.in_progress() {
            Some(place) if idle && facts.plan.own(place).is_none() => self.again(place, facts),
            Some(_) => {}
            None => self.proceed(facts),
        }
    }

    /// Repeats what was put off.
    fn again(&mut self, place: usize, facts: Facts<'_>) {
        match self.run.steps[place].state {
            State::Observing { .. } => {
                self.more_time(place, facts);
                self.effects.push(Effect::Observe { step: place });
            }
            // Its outcome was unknown when it was to act again.
            State::Acting { .. } | State::Verifying { .. } => {
                self.step(&StepInput::bare(place, Event::TimedOut), facts);
            }
            State::BackingOff { .. } => self.rearm(facts),
            State::Waiting
            | State::Polling { .. }
            | State::Unknown { .. }
            | State::Succeeded
            | State::Failed
            | State::Skipped
            | State::Canceled => {}
        }
    }
}
