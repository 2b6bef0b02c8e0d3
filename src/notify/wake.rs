//! Wakes the tasks when something has changed.

use std::sync::Arc;

use tokio::sync::watch;

use crate::store::{Committed, Listener};

/// Notified of every commit: it does no more than to wake.
#[derive(Debug, Default)]
pub(super) struct Wake(watch::Sender<()>);

impl Wake {
    /// Wakes from the next change on.
    pub(super) fn woken(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

impl Listener for Wake {
    fn committed(&self, committed: &Arc<Committed>) {
        // The cursors move by commits too, which change nothing that anyone is notified of.
        if !committed.changes.is_empty() {
            self.0.send_replace(());
        }
    }
}
