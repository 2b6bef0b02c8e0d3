//! When a worker may leave: nothing is in flight, and the record says what the run waits for.

use std::time::Duration;

use super::message::{Parked, Rest};
use super::state::{Active, Worker};
use crate::executor::planted::Planted;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::Run;

/// A worker stays for what is due within this time, in milliseconds: reading the records again would cost more than
/// waiting.
const LINGER_MS: u64 = 100;

/// Whether the step at `place` waits for its time.
pub(super) fn is_waiting(run: &Run, place: usize) -> bool {
    run.steps
        .get(place)
        .is_some_and(|step| matches!(step.state, State::Polling { .. } | State::BackingOff { .. }))
}

/// Whether a worker that reads `stored` would wait for the same as one that has `run`. The time of the next poll is
/// only in memory: polling the provider earlier repeats nothing.
pub(super) fn waits_as(stored: &Run, run: &Run) -> bool {
    stored.state == run.state
        && stored.steps.len() == run.steps.len()
        && stored.steps.iter().zip(run.steps.iter()).all(|(stored, step)| {
            match (stored.state, step.state) {
                (State::Polling { attempt, .. }, State::Polling { attempt: now, .. }) => {
                    attempt == now && stored.handle == step.handle
                }
                (stored, now) => stored == now,
            }
        })
}

impl Active {
    /// The run as it waits, unless something is in flight or about to be due.
    fn parked(&mut self, now: Duration) -> Option<Parked> {
        if self.call.is_some() || !self.logs.is_empty() || self.timers.slot_is_awaited() {
            return None;
        }
        let mut steps = self.run.steps.iter();
        let place = steps.position(|step| step.state != State::Waiting && !step.state.is_settled());
        let (mut wake_at, mut deadline_at) = (None, None);
        // A deferred run has none, and is due all the same.
        let has_slot = self.run.state.has_slot() || self.run.state == run::State::Deferred;
        // Work in progress of a run that is held or waits for a slot continues when it has its slot again. One that
        // is held for an answer is not answered by its timeout.
        if (has_slot || self.run.asks())
            && let Some(place) = place
        {
            if !is_waiting(&self.run, place) {
                return None;
            }
            (wake_at, deadline_at) = (self.timers.wake_at(), self.timers.deadline_at());
        }
        if !waits_as(&self.stored, &self.run) {
            return None;
        }
        let parked = Parked {
            run_id: self.run.id,
            epoch: Default::default(),
            fenced: self.fenced,
            wake_at,
            deadline_at,
            limit_at: self.timers.limit_at().filter(|_| has_slot),
            spans: None,
        };
        let soon = now + Duration::from_millis(LINGER_MS);
        parked.due_at().is_none_or(|due_at| due_at > soon).then_some(parked)
    }
}

impl Worker {
    /// Leaves, if nothing is left to do now and no message has come meanwhile.
    pub(super) fn leave(&mut self) -> bool {
        let now = self.ports.clock.monotonic();
        let rest = match (&mut self.active, &self.machine, self.lost) {
            (Some(active), Some(machine), _) => {
                let Some(parked) = active.parked(now) else { return false };
                let spans = active.spans.is_enabled().then(|| Box::new(active.spans.take()));
                if self.ports.planted == Some(Planted::LostWorker) && parked.wake_at.is_some() {
                    Rest::Lost(parked.run_id)
                } else {
                    Rest::Parked(Parked { epoch: machine.epoch, spans, ..parked })
                }
            }
            (Some(_), None, _) => return false,
            (None, _, Some(run_id)) => Rest::Lost(run_id),
            (None, _, None) => Rest::Nothing,
        };
        match self.scheduler.leave(&self.id, rest, &|| self.mailbox.is_empty()) {
            Ok(()) => true,
            Err(rest) => {
                if let (Rest::Parked(Parked { spans: Some(spans), .. }), Some(active)) =
                    (rest, &mut self.active)
                {
                    active.spans = *spans;
                }
                false
            }
        }
    }
}
