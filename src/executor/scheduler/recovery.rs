//! After a start: every active run is taken up.

use tokio::sync::oneshot;

use super::dispatch::Scheduler;
use crate::executor::error::EngineError;
use crate::executor::worker::Message;
use crate::store::Query;

/// Most runs read at once.
const BATCH_MAX: usize = 500;

impl Scheduler {
    /// Takes up every active run.
    ///
    /// # Errors
    /// [`EngineError`] of the first that could not be.
    pub(in crate::executor) async fn recover(&self) -> Result<(), EngineError> {
        let mut after = None;
        let mut recovered = 0_usize;
        loop {
            let page = self
                .ports()
                .store
                .runs(Query { after, limit: BATCH_MAX, active_only: true, ..Query::default() })
                .await?;
            let waits: Vec<_> = page
                .items
                .iter()
                .map(|run| {
                    let (done, wait) = oneshot::channel();
                    let message = Message::Recover { run_id: run.id, done };
                    self.send(&run.machine_id, message);
                    (run.id, wait)
                })
                .collect();
            for (run_id, wait) in waits {
                match wait.await {
                    Ok(Ok(())) => recovered += 1,
                    Ok(Err(error)) => {
                        tracing::error!(%run_id, %error, "a run could not be taken up");
                        return Err(error);
                    }
                    Err(_) => return Err(EngineError::ShuttingDown),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.open_slots();
        if recovered > 0 {
            tracing::info!(runs = recovered, "took active runs up again");
        }
        Ok(())
    }
}
