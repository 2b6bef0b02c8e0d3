//! Commits whose outcome is unknown: what is stored decides, not a guess.

use super::state::Worker;
use crate::ids::RunId;
use crate::model::{Machine, Run};
use crate::store::{Batch, StoreError};
use std::sync::Arc;

impl Worker {
    /// Finds out about the commit in doubt, if there is one. If it happened its effects are performed and the answer is
    /// `true`; if it did not, everything is as before it. A machine that somebody else owns by now is left alone.
    pub(super) async fn settle_in_doubt(&mut self) -> bool {
        let Some(in_doubt) = self.in_doubt.take() else { return false };
        let (machine, run) = loop {
            match self.durable_records(in_doubt.run.id).await {
                Ok(found) => break found,
                Err(error) => self.wait_for_store(&error).await,
            }
        };
        let held = self.machine.as_ref().map(|machine| machine.epoch);
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
            (Some(machine), Some(run))
                if machine.epoch == in_doubt.epoch && in_doubt.is_stored_as(&run) =>
            {
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

    /// The records as they are durable: a store that takes a write has settled every earlier one.
    async fn durable_records(
        &self,
        run: RunId,
    ) -> Result<(Option<Arc<Machine>>, Option<Arc<Run>>), StoreError> {
        self.ports.commit(Batch::default()).await?;
        let machine = self.ports.store.machine(&self.id).await?;
        let run = self.ports.store.run(run).await?;
        Ok((machine, run))
    }
}
