//! Events of a run that no client requests: slots, results of the provider, and timers.

use super::call::{Called, Outcome};
use super::state::Worker;
use super::timers::Timer;
use crate::executor::decide::StepInput;
use crate::ids::{Epoch, RunId};
use crate::lifecycle::step::Event;

impl Worker {
    /// The scheduler has a slot for the run.
    pub(super) async fn admitted(&mut self, run_id: RunId) {
        let drives =
            |worker: &Self| worker.active.as_ref().is_some_and(|active| active.run.id == run_id);
        if !drives(self) {
            // Its recovery has failed so far, and waits for the store: the run keeps its turn.
            Box::pin(self.find_abandoned()).await;
        }
        if drives(self) {
            // A pause that was handled first has released the slot, and another run may have it. If the run waits
            // again, it will be notified again.
            if self.scheduler.has_slot(run_id) {
                self.drive(|draft, facts| {
                    draft.admit(facts);
                })
                .await;
            }
        } else {
            // It has ended meanwhile.
            self.scheduler.release_slot(run_id);
        }
    }

    /// A provider call has returned.
    pub(super) async fn called(&mut self, called: Called) {
        let Some(active) = &mut self.active else { return };
        if active.call.as_ref().is_none_or(|call| call.serial != called.serial)
            && !(active.call.is_none() && active.provider.is_none())
        {
            return;
        }
        active.call = None;
        match called.outcome {
            Outcome::Step(input) => {
                active.fenced = true;
                self.drive(|draft, facts| draft.step(&input, facts)).await;
            }
            Outcome::NotSent(input) => {
                self.drive(|draft, facts| draft.not_sent(&input, facts)).await;
            }
            Outcome::PutOff { place } => self.put_off(place),
            Outcome::Fenced { current } => self.fenced_out(current).await,
        }
    }

    /// The provider says that a newer epoch owns the machine. The store decides: if it still names us, the provider
    /// remembers work that the store does not (a restored backup, an ephemeral store), and a higher epoch is claimed.
    async fn fenced_out(&mut self, current: Epoch) {
        let Some(run_id) = self.active.as_ref().map(|active| active.run.id) else { return };
        let held = self.machine.as_ref().map(|machine| machine.epoch);
        let stored = loop {
            match self.ports.store.machine(&self.id).await {
                Ok(stored) => break stored,
                Err(error) if error.may_pass() => self.wait_for_store(&error).await,
                Err(error) => return Box::pin(self.quarantine(run_id, &error.into())).await,
            }
        };
        match stored {
            Some(stored) if Some(stored.epoch) == held && stored.active_run == Some(run_id) => {
                tracing::warn!(machine = %self.id, %current, "the provider knows a newer epoch than the store; claiming a higher one");
                self.drive(move |draft, facts| {
                    draft.machine_mut().epoch = draft.machine.epoch.max(current).next();
                    draft.machine_changed = true;
                    draft.recover(facts);
                })
                .await;
            }
            _ => self.relinquish_fenced(current),
        }
    }

    /// Another server owns the machine's work: stop, and change nothing.
    pub(super) fn relinquish_fenced(&mut self, current: Epoch) {
        tracing::warn!(machine = %self.id, %current, "fenced: another server owns the machine's work");
        match self.active.as_ref().map(|active| active.run.id) {
            Some(run_id) => self.relinquish(run_id),
            None => self.forget(),
        }
    }

    /// Handles the timers that are due.
    pub(super) async fn fire_timers(&mut self) {
        let Some(active) = &mut self.active else { return };
        for timer in active.timers.take_due(&*self.ports.clock) {
            match timer {
                Timer::Wake { step } => {
                    let input = StepInput::bare(step, Event::Woken);
                    self.drive(|draft, facts| draft.step(&input, facts)).await;
                }
                Timer::Deadline { step, at } => {
                    let stale = self.active.as_ref().is_none_or(|active| {
                        active.run.steps.get(step).is_none_or(|s| s.deadline_at != Some(at))
                    });
                    if !stale {
                        self.forget_call();
                        let input = StepInput::bare(step, Event::TimedOut);
                        self.drive(|draft, facts| draft.step(&input, facts)).await;
                    }
                }
                Timer::TimeLimit => self.drive(|draft, facts| draft.time_up(facts)).await,
                Timer::FlushLogs => self.flush_logs().await,
                Timer::TakeSlot => {
                    if let Some(run_id) = self.active.as_ref().map(|active| active.run.id) {
                        self.admitted(run_id).await;
                    }
                }
            }
        }
    }
}
