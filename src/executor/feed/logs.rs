//! Follows the log of a run: replay from the store, then live, without gap or repetition.
//!
//! The store is the only source; the hub only signals when to read again. So there is no seam between replay and
//! live.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::unfold;
use tokio_stream::{Stream, StreamExt as _};

use super::hub::{Follower, WatchHub};
use crate::executor::error::EngineError;
use crate::ids::RunId;
use crate::model::LogChunk;
use crate::store::Store;

/// Chunks read from the store at a time.
const CHUNKS_PER_READ: usize = 64;

/// Which part of a log to send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// First offset.
    pub from: u64,
    /// Instead of `from`: this many chunks from the end of what is stored.
    pub tail: Option<u64>,
    /// Continue until the run has ended and everything it printed was sent.
    pub follow: bool,
    /// Only this step, empty for all.
    pub step: String,
}

/// The log of `run`. Ends at the end of what is stored, or with `follow` after the end of the run.
///
/// A failed item is the last one; [`EngineError::NotFound`] if there is no such run.
pub fn follow_logs(
    store: Arc<dyn Store>,
    hub: WatchHub,
    run: RunId,
    query: LogQuery,
) -> impl Stream<Item = Result<Arc<LogChunk>, EngineError>> + Send + 'static {
    let reader = Reader {
        store,
        hub,
        run,
        query,
        follower: None,
        pending: VecDeque::new(),
        stage: Stage::Opening,
    };
    unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), reader)),
            Err(error) => {
                reader.stage = Stage::Over;
                Some((Err(error), reader))
            }
        }
    })
    .fuse()
}

enum Stage {
    /// Nothing was read yet.
    Opening,
    /// Reading chunks. `last` if the run had ended before this pass started, or the log is not followed.
    Reading { last: bool },
    /// Everything stored was sent.
    Waiting,
    /// The end.
    Over,
}

struct Reader {
    store: Arc<dyn Store>,
    hub: WatchHub,
    run: RunId,
    query: LogQuery,
    follower: Option<Follower>,
    pending: VecDeque<Arc<LogChunk>>,
    stage: Stage,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Arc<LogChunk>>, EngineError> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Ok(Some(chunk));
            }
            match self.stage {
                Stage::Opening => {
                    if self.query.follow {
                        // Subscribe before the first read, so that nothing is missed between the two.
                        self.follower = Some(self.hub.follow(self.run)?);
                    }
                    self.begin_pass().await?;
                }
                Stage::Reading { last } => self.read(last).await?,
                Stage::Waiting => {
                    if self.hub.is_closed() {
                        return Err(EngineError::ShuttingDown);
                    }
                    if let Some(follower) = &self.follower {
                        follower.woken().await;
                    }
                    self.begin_pass().await?;
                }
                Stage::Over => return Ok(None),
            }
        }
    }

    /// Checks whether the run has ended before reading what it printed: everything it printed is stored by then.
    async fn begin_pass(&mut self) -> Result<(), EngineError> {
        let last = match self.store.run(self.run).await? {
            Some(run) => {
                if let Some(tail) = self.query.tail.take() {
                    let head = self.store.log_head(self.run).await?;
                    self.query.from = head.chunks.saturating_sub(tail);
                }
                !self.query.follow || !run.state.is_active()
            }
            None if matches!(self.stage, Stage::Opening) => {
                return Err(EngineError::NotFound { kind: "run", id: self.run.to_string() });
            }
            // Deleted since it ended.
            None => true,
        };
        self.stage = Stage::Reading { last };
        Ok(())
    }

    async fn read(&mut self, last: bool) -> Result<(), EngineError> {
        let chunks = self.store.logs(self.run, self.query.from, CHUNKS_PER_READ).await?;
        match chunks.last() {
            Some(chunk) => self.query.from = chunk.offset + 1,
            None if last => self.stage = Stage::Over,
            None => self.stage = Stage::Waiting,
        }
        let step = &self.query.step;
        self.pending.extend(chunks.into_iter().filter(|c| step.is_empty() || c.step == *step));
        Ok(())
    }
}
