//! Whether a stream waits for its peer, said by its answer to what carries it out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// Whether a stream waits for its peer, and whether it is to end.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Pieces handed over.
    pieces: AtomicU64,
    /// The piece that the peer has not taken, from 1; 0 if there is none.
    waiting: AtomicU64,
    is_ended: AtomicBool,
    task: AtomicWaker,
}

impl Progress {
    /// That of the stream that is being carried out; `None` outside a connection.
    pub(super) fn of_this_stream() -> Option<Arc<Self>> {
        PROGRESS.try_with(Clone::clone).ok()
    }

    /// Has the stream reset.
    pub(super) fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Says that the peer has something to take.
    pub(super) fn handed_over(&self) {
        let piece = self.pieces.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting.store(piece, Ordering::Relaxed);
    }

    /// Says that the peer has taken all there is.
    pub(super) fn waits_for_us(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// The piece that the peer has not taken, 0 if there is none.
    pub(super) fn piece_waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Resolves when the stream is to end.
    pub(super) async fn ended(&self) {
        std::future::poll_fn(|cx| match self.has_ended_at(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// The same as [`Self::has_ended`], for a task that is woken when it changes.
    pub(super) fn has_ended_at(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.has_ended()
    }
}

/// Carries out a stream that its answer can say something of.
pub(super) async fn of<T>(progress: Arc<Progress>, stream: impl Future<Output = T>) -> T {
    PROGRESS.scope(progress, stream).await
}
