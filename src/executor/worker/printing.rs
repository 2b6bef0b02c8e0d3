//! When what a step prints is stored: with the next commit of its run, or after a moment by itself.

use std::time::Duration;

use super::logs::chunks;
use super::state::{InDoubt, Worker};
use super::timers::Timer;
use crate::executor::limits::LOG_FLUSH_MS;
use crate::store::{Batch, StoreError, Write};

impl Worker {
    /// Lines have been printed: give them a moment to travel with a commit that happens anyway.
    pub(super) fn printed(&mut self) {
        let Some(active) = &mut self.active else { return };
        if !active.logs.is_empty() && !active.timers.flush_is_armed() {
            let clock = &*self.ports.clock;
            let due = clock.monotonic() + Duration::from_millis(LOG_FLUSH_MS);
            active.timers.arm(Timer::FlushLogs, due);
        }
    }

    /// Stores the lines that have waited long enough.
    pub(super) async fn flush_logs(&mut self) {
        loop {
            let moment = self.moment();
            let (Some(active), Some(machine)) = (&mut self.active, &self.machine) else { return };
            if active.logs.is_empty() {
                return;
            }
            let lines = active.logs.take();
            let mut run = active.run.clone();
            let logs = chunks(&mut run, &lines, self.ports.limits.step_log_bytes_max);
            let in_doubt = InDoubt {
                run: run.clone(),
                epoch: machine.epoch,
                effects: Vec::new(),
                moment,
                lines,
            };
            let batch = Batch {
                holds: vec![(self.id.clone(), machine.epoch)],
                writes: vec![Write::new(Some(active.stored.clone()), run, Vec::new())],
                logs,
                ..Batch::default()
            };
            let buffer = active.logs.clone();
            match self.await_store(self.ports.clone().commit_owned(batch)).await {
                Ok(committed) => {
                    self.committed(None, committed.run().cloned());
                    return;
                }
                Err(StoreError::Unknown(_)) => {
                    self.in_doubt = Some(in_doubt);
                    if self.settle_in_doubt().await {
                        return;
                    }
                }
                Err(error) => {
                    buffer.put_back(in_doubt.lines);
                    match &error {
                        StoreError::Fenced { current, .. } => return self.step_down(*current),
                        StoreError::Conflict { .. } => {
                            if !self.reload().await {
                                return;
                            }
                        }
                        StoreError::ActiveRun { .. }
                        | StoreError::RequestUsed(_)
                        | StoreError::NoSlot { .. }
                        | StoreError::Compacted { .. }
                        | StoreError::Full(_)
                        | StoreError::Unknown(_)
                        | StoreError::Unavailable(_)
                        | StoreError::Corrupt { .. } => self.wait_for_store(&error).await,
                    }
                }
            }
        }
    }
}
