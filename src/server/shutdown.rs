//! Signals: SIGTERM and SIGINT end the server, SIGHUP reloads the configuration.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of this process. While this exists they do not end the process by themselves.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

#[cfg(unix)]
impl Signals {
    /// Takes over the signals.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves when the process is asked to end, with the signal and the exit code for it.
    pub(super) async fn end(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }

    /// Resolves when the process is asked to end (`Some`) or to reload its configuration (`None`).
    pub(super) async fn next(&mut self) -> Option<&'static str> {
        tokio::select! {
            _ = self.terminate.recv() => Some("SIGTERM"),
            _ = self.interrupt.recv() => Some("SIGINT"),
            _ = self.hang_up.recv() => None,
        }
    }
}

/// Ctrl-C, where there are no Unix signals.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Signals(());

#[cfg(not(unix))]
impl Signals {
    /// Nothing to take over before the first wait.
    ///
    /// # Errors
    /// None.
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self(()))
    }

    /// Resolves when the process is asked to end, with the signal and the exit code for it.
    pub(super) async fn end(&mut self) -> (&'static str, i32) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        ("Ctrl-C", 130)
    }

    /// Resolves when the process is asked to end.
    pub(super) async fn next(&mut self) -> Option<&'static str> {
        Some(self.end().await.0)
    }
}
