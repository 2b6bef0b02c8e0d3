//! Commits of which nobody can tell whether they are durable: what is stored decides, not a guess.

use super::Actor;
use super::logs::Line;
use crate::executor::decide::Effect;
use crate::ids::{Epoch, RunId};
use crate::model::{Machine, Run};
use crate::store::{Batch, StoreError};
use std::sync::Arc;

/// A decision whose commit may or may not have happened.
pub(super) struct Doubt {
    /// The run as it was to be written, with the revision that the writer saw.
    pub(super) run: Run,
    /// The machine's epoch after the commit.
    pub(super) epoch: Epoch,
    /// What was to be done once the commit is durable.
    pub(super) effects: Vec<Effect>,
    /// When that was decided.
    pub(super) moment: super::Moment,
    /// Lines that the commit was to store.
    pub(super) lines: Vec<Line>,
}

impl Doubt {
    /// Whether `stored` is what the commit was to write.
    fn is_stored_as(&self, stored: &Run) -> bool {
        let Run { revision, ordinal, .. } = *stored;
        Run { revision, ordinal, ..self.run.clone() } == *stored
    }
}

impl Actor {
    /// Finds out about the commit in doubt, if there is one. If it happened its effects are performed and the answer is
    /// `true`; if it did not, everything is as before it. A machine that somebody else owns by now is left alone.
    pub(super) async fn settle_doubt(&mut self) -> bool {
        let Some(doubt) = self.doubt.take() else { return false };
        let (machine, run) = loop {
            match self.durable_records(doubt.run.id).await {
                Ok(found) => break found,
                Err(error) => self.wait_for_store(&error).await,
            }
        };
        let held = self.machine.as_ref().map(|machine| machine.epoch);
        match (machine, run) {
            (Some(machine), Some(run)) if run.revision == doubt.run.revision => {
                if held != Some(machine.epoch) {
                    self.forget();
                    return false;
                }
                self.machine = Some(machine);
                if let Some(active) = &self.active {
                    active.logs.put_back(doubt.lines);
                }
                false
            }
            (Some(machine), Some(run))
                if machine.epoch == doubt.epoch && doubt.is_stored_as(&run) =>
            {
                self.committed(Some(machine), Some(run));
                self.perform(&doubt.effects, doubt.moment);
                self.finish_if_ended();
                true
            }
            // A run that was not accepted after all, or a machine with another owner.
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
        self.core.commit(Batch { at: self.now(), ..Batch::default() }).await?;
        let machine = self.core.store.machine(&self.id).await?;
        let run = self.core.store.run(run).await?;
        Ok((machine, run))
    }
}
