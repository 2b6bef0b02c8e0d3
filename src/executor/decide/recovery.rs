//! Recovery of a run after a restart: its timers are armed again from its record.

use super::draft::{Draft, Effect, Facts};
use super::step::{StepInput, timeout_ms};
use crate::lifecycle::run;
use crate::lifecycle::step::{Basis, Event, RETRY_AT_MS_MAX, State};
use crate::model::{Actor, Entry, EntryKind};

impl Draft {
    /// Recovers the run after a restart, under the epoch that the worker has just claimed.
    pub fn recover(&mut self, facts: Facts<'_>) {
        let entry = Entry::new(EntryKind::RunRecovered, Actor::engine());
        let message = format!("recovered after a restart under epoch {}", self.machine.epoch);
        self.note(entry.message(message));
        match self.run.state {
            // The operator's time to answer keeps running.
            run::State::Held if self.run.asks() => self.rearm(facts),
            run::State::Pending
            | run::State::Held
            | run::State::Resuming
            | run::State::Succeeded
            | run::State::Failed
            | run::State::Canceled => {}
            run::State::Deferred => {
                self.recover_step(facts);
                if self.backs_off() {
                    self.watch_time(facts);
                } else {
                    self.due(facts);
                }
            }
            run::State::Running
            | run::State::Pausing
            | run::State::Canceling
            | run::State::Stopping => {
                self.recover_step(facts);
                if self.watch_time(facts) {
                    self.safe_point(facts);
                    self.advance(facts);
                }
            }
            run::State::Unwinding { .. } => {
                self.recover_step(facts);
                self.unwind(facts);
            }
            run::State::Closing { .. } => {
                self.recover_step(facts);
                self.finish(facts);
            }
        }
    }

    /// Recovers the open step of a run that was held while it was open: because of a restore, or because the engine
    /// performs the step itself. Its time starts now.
    pub(super) fn recover_held(&mut self, place: usize, facts: Facts<'_>) {
        let timeout_ms = timeout_ms(facts.plan, &self.run.steps[place], place);
        self.run.steps[place].deadline_at = Some(facts.now.plus_ms(timeout_ms));
        // How long the provider wanted is from another time: it is asked at once.
        if facts.plan.own(place).is_none()
            && let State::Polling { until, .. } = &mut self.run.steps[place].state
        {
            *until = facts.now.min(*until);
        }
        self.recover_step(facts);
        // Asks the same question again, or says again until when it waits.
        if let State::Polling { until, .. } = self.run.steps[place].state
            && facts.plan.own(place).is_some()
        {
            self.own_begun(place, until, facts);
        }
    }

    /// Whether the step in progress waits for its next attempt.
    pub(super) fn backs_off(&self) -> bool {
        let waits = |state| matches!(state, State::BackingOff { basis: Basis::Fresh, .. });
        self.in_progress().is_some_and(|place| waits(self.run.steps[place].state))
    }

    fn recover_step(&mut self, facts: Facts<'_>) {
        let Some(place) = self.in_progress() else { return };
        self.bound_waits(place, facts);
        let settled_before = self.run.steps[place].state;
        self.step(&StepInput::bare(place, Event::Recovered), facts);
        let record = &self.run.steps[place];
        // The deadline of an open attempt is kept across the restart.
        if record.state == settled_before
            && let Some(at) = record.deadline_at
        {
            self.effects.push(Effect::Deadline { step: place, at });
        }
        debug_assert!(
            !matches!(record.state, State::Observing { basis: Basis::Fresh, .. })
                || self.effects.iter().any(|e| matches!(e, Effect::Observe { .. })),
            "an open attempt has no call"
        );
    }

    /// Arms the timers of the step in progress again.
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

    /// Bounds what a step waits for: the wall clock may have been set back since its instants were stored. An instant
    /// that is further ahead than it can have been meant is due now; a deadline starts over.
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
            State::BackingOff { until, .. } => {
                // The time requested by the provider may be later than the longest backoff of the plan.
                let asked = record.retry_at.is_some();
                let ms_max = rules.backoff.ms_max.max(if asked { RETRY_AT_MS_MAX } else { 0 });
                (until, facts.now.plus_ms(ms_max))
            }
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
}
