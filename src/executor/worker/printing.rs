//! When the output of a step is stored: with the next commit of its run, or by itself after a short delay. Either way
//! the record of the run does not change.

use std::time::Duration;

use super::logs::chunks;
use super::state::{Asked, Worker};
use super::timers::Timer;
use crate::executor::limits::LOG_FLUSH_MS;
use crate::ids::RunId;
use crate::store::{Batch, LogHead, Outcome, StoreError};

impl Worker {
    /// Lines have been printed: wait a short time for another commit to carry them.
    pub(super) fn printed(&mut self) {
        let Some(active) = &mut self.active else { return };
        if active.logs.is_empty() {
            return;
        }
        let now = self.ports.clock.monotonic();
        if active.logs.is_large() {
            active.timers.arm(Timer::FlushLogs, now);
        } else if !active.timers.flush_is_armed() {
            active.timers.arm(Timer::FlushLogs, now + Duration::from_millis(LOG_FLUSH_MS));
        }
    }

    /// How much of the output of the active run is stored. Taken out: who stores more says how much that is then, with
    /// [`Worker::set_log_head`], and after a commit that failed it is looked up again.
    pub(super) async fn take_log_head(&mut self) -> Result<LogHead, StoreError> {
        let Some(active) = &mut self.active else { return Ok(LogHead::default()) };
        match active.log_head.take() {
            Some(head) => Ok(head),
            None => self.ports.store.log_head(active.run.id).await,
        }
    }

    /// The same, if there is output to store.
    pub(super) async fn take_log_head_if_printed(&mut self) -> Result<Option<LogHead>, StoreError> {
        if self.active.as_ref().is_none_or(|active| active.logs.is_empty()) {
            return Ok(None);
        }
        self.take_log_head().await.map(Some)
    }

    /// Remembers how much is stored.
    pub(super) fn set_log_head(&mut self, head: LogHead) {
        if let Some(active) = &mut self.active {
            active.log_head = Some(head);
        }
    }

    /// Stores the lines that have waited long enough.
    pub(super) async fn flush_logs(&mut self) {
        loop {
            if self.active.as_ref().is_none_or(|active| active.logs.is_empty()) {
                return;
            }
            let head = match self.take_log_head().await {
                Ok(head) => head,
                Err(error) => {
                    self.wait_for_store(&error).await;
                    continue;
                }
            };
            let (Some(active), Some(machine)) = (&self.active, &self.machine) else { return };
            let (run_id, buffer) = (active.run.id, active.logs.clone());
            let lines = buffer.take();
            let step_bytes_max = self.ports.limits.step_log_bytes_max;
            let (logs, head) = chunks(&active.run, &lines, head, step_bytes_max);
            if logs.is_empty() {
                return self.set_log_head(head);
            }
            let holds = vec![(self.id.clone(), machine.epoch)];
            let asked = self.name_batch();
            let batch = Batch { id: asked.id, holds, logs, ..Batch::default() };
            match self.await_store(self.ports.clone().commit_owned(batch)).await {
                Ok(_) => return self.set_log_head(head),
                Err(StoreError::Unknown(_)) => {
                    if self.chunks_are_stored(asked, run_id, head.chunks).await {
                        return;
                    }
                    buffer.put_back(lines);
                }
                Err(error) => {
                    buffer.put_back(lines);
                    match &error {
                        StoreError::Fenced { current, .. } => {
                            return self.relinquish_fenced(*current);
                        }
                        StoreError::Conflict { .. } => {
                            if !self.reload().await {
                                return;
                            }
                        }
                        StoreError::ActiveRun { .. }
                        | StoreError::MacTaken { .. }
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

    /// Whether a commit in doubt has stored the log of a run up to this many chunks: only this worker writes it.
    async fn chunks_are_stored(&mut self, batch: Asked, run_id: RunId, chunks: u64) -> bool {
        match self.outcome_of(batch).await {
            Outcome::Committed(_) => return true,
            Outcome::NotCommitted => return false,
            Outcome::Forgotten => {}
        }
        loop {
            match self.ports.store.log_head(run_id).await {
                Ok(head) => return head.chunks >= chunks,
                Err(error) => self.wait_for_store(&error).await,
            }
        }
    }
}
