//! Commits in doubt: the store is asked for their outcome, and what is stored decides.

use super::state::{Asked, Worker};
use crate::model::Run;
use crate::store::Outcome;

impl Worker {
    /// Resolves the commit in doubt, if there is one. If it happened its effects are performed and the result is
    /// `true`; if it did not, everything is as before it. A machine that another server owns by now is not touched.
    pub(super) async fn settle_in_doubt(&mut self) -> bool {
        let Some(in_doubt) = self.in_doubt.take() else { return false };
        let outcome = self.outcome_of(in_doubt.batch).await;
        let (machine, run) = loop {
            match self.records(in_doubt.run.id).await {
                Ok(found) => break found,
                Err(error) if error.may_pass() => self.wait_for_store(&error).await,
                Err(error) => {
                    Box::pin(self.quarantine(in_doubt.run.id, &error.into())).await;
                    return false;
                }
            }
        };
        let held = self.machine.as_ref().map(|machine| machine.epoch);
        let is_durable = |run: &Run| match outcome {
            Outcome::Committed(revision) => run.revision == revision,
            Outcome::NotCommitted => false,
            Outcome::Forgotten => in_doubt.is_stored_as(run),
        };
        match (machine, run) {
            (Some(machine), Some(run)) if run.revision == in_doubt.run.revision => {
                if held != Some(machine.epoch) {
                    self.relinquish(run.id);
                    return false;
                }
                self.machine = Some(machine);
                self.withdraw();
                if let Some(active) = &self.active {
                    active.logs.put_back(in_doubt.lines);
                }
                false
            }
            (Some(machine), Some(run)) if machine.epoch == in_doubt.epoch && is_durable(&run) => {
                self.committed(Some(machine), Some(run));
                self.perform(&in_doubt.effects, in_doubt.moment);
                self.finish_if_ended();
                true
            }
            (Some(machine), Some(run)) if machine.active_run == Some(run.id) => {
                self.relinquish(run.id);
                false
            }
            // A run that was not accepted after all, or that another owner has ended.
            _ => {
                self.forget();
                false
            }
        }
    }

    /// The outcome of a batch, as soon as the store knows it. It does not change after that.
    pub(super) async fn outcome_of(&mut self, batch: Asked) -> Outcome {
        loop {
            match self.ports.store.outcome(batch.id, batch.since).await {
                Ok(outcome) => return outcome,
                Err(error) => self.wait_for_store(&error).await,
            }
        }
    }

    /// An id for a batch that is decided on the present records.
    pub(super) fn name_batch(&self) -> Asked {
        let machine = self.machine.as_ref().map(|machine| machine.revision);
        let run = self.active.as_ref().map(|active| active.stored.revision);
        Asked { id: self.ports.next_batch(), since: machine.max(run).unwrap_or_default() }
    }
}
