//! State that the store shares with its writer.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::store::stats::Counting;
use crate::store::{Availability, Committed, Listener, StoreError};

/// State that the store shares with its writer.
pub(super) struct Shared {
    pub(super) listeners: Mutex<Vec<Arc<dyn Listener>>>,
    pub(super) stats: Counting,
    pub(super) availability: watch::Sender<Availability>,
    /// Why nothing can be written any more.
    pub(super) ended: watch::Sender<Option<String>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            listeners: Mutex::default(),
            stats: Counting::default(),
            availability: watch::Sender::default(),
            ended: watch::Sender::default(),
            clock,
        }
    }

    /// Changes the availability, unless that is final. Returns whether it has changed.
    pub(super) fn set(&self, state: Availability) -> bool {
        self.availability.send_if_modified(|current| {
            let is_final = matches!(current, Availability::Broken { .. });
            let is_same = std::mem::discriminant(current) == std::mem::discriminant(&state);
            if !is_final && !is_same {
                *current = state;
            }
            !is_final && !is_same
        })
    }

    /// Publishes the commits of a group to the listeners.
    pub(super) fn announce<'a>(
        &self,
        outcomes: impl Iterator<Item = &'a Result<Arc<Committed>, StoreError>>,
    ) {
        use std::sync::atomic::Ordering::Relaxed;
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut commits, mut refused) = (0, 0);
        for outcome in outcomes {
            match outcome {
                Ok(committed) => {
                    commits += 1;
                    for listener in listeners.iter() {
                        listener.committed(committed);
                    }
                }
                Err(_) => refused += 1,
            }
        }
        self.stats.commits.fetch_add(commits, Relaxed);
        self.stats.refused.fetch_add(refused, Relaxed);
        self.stats.group(commits);
    }
}
