//! The tasks of an engine: they end with it, and it can wait for provider calls that are in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// See the module.
#[derive(Default)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    draining: AtomicBool,
    calls: AtomicUsize,
    call_ended: Notify,
}

/// Counts a provider call while it is in flight.
pub(super) struct CallGuard(Arc<Tasks>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
        self.0.call_ended.notify_waiters();
    }
}

impl Tasks {
    /// Runs a task until it ends or the engine does.
    pub(super) fn spawn<F>(&self, task: F) -> tokio::task::AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        // Boxed, since each future that wraps another one makes room for it again.
        let task = Box::pin(task);
        self.tracker
            .spawn(async move {
                // `None` if the engine ended first: what the task had not done yet stays undone.
                let _ = token.run_until_cancelled(task).await;
            })
            .abort_handle()
    }

    /// Whether no more runs are accepted and no more attempts opened.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(super) fn call_started(self: &Arc<Self>) -> CallGuard {
        self.calls.fetch_add(1, Ordering::SeqCst);
        CallGuard(self.clone())
    }

    /// Whether a provider call is in flight.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > 0
    }

    /// Resolves when no provider call is in flight.
    pub(super) async fn without_calls(&self) {
        loop {
            let ended = self.call_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !self.has_calls() {
                return;
            }
            ended.await;
        }
    }

    /// Ends every task at its next await.
    pub(super) fn stop(&self) {
        self.begin_draining();
        self.token.cancel();
        self.tracker.close();
    }

    pub(super) async fn stopped(&self) {
        self.tracker.wait().await;
    }
}
