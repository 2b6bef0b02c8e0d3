//! Which connections are in use, and since when the others are not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

#[derive(Debug)]
struct Use {
    streams: usize,
    idle_since: Duration,
}

/// The use of one connection. Clones are of the same one.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    clock: Arc<dyn Clock>,
    of: Arc<Mutex<Use>>,
}

impl Activity {
    /// A connection that begins, idle.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let idle_since = clock.monotonic();
        Self { clock, of: Arc::new(Mutex::new(Use { streams: 0, idle_since })) }
    }

    /// A stream that begins; it ends when what is returned is dropped.
    pub(super) fn begin(&self) -> Open {
        self.lock().streams += 1;
        Open(self.clone())
    }

    /// How long the connection has had no stream.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let of = self.lock();
        (of.streams == 0).then(|| now.saturating_sub(of.idle_since))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Use> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is open.
#[derive(Debug)]
pub(super) struct Open(Activity);

impl Drop for Open {
    fn drop(&mut self) {
        let now = self.0.clock.monotonic();
        let mut of = self.0.lock();
        of.streams -= 1;
        of.idle_since = now;
    }
}
