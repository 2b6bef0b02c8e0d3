//! Whether an incarnation of the server lives, and which of its calls still get through.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// One start of the server, from 1. Zero means none.
pub(crate) type Incarnation = u32;

/// What an incarnation can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs.
    Open,
    /// Its process is stopped: nothing leaves it until it is continued.
    Stopped,
    /// It was killed: nothing leaves it any more.
    Dead,
}

/// The gate of every incarnation: each of its calls passes here before it leaves the process and before its answer
/// comes in.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    lives: Mutex<BTreeMap<Incarnation, Life>>,
    changed: Notify,
}

impl Gates {
    pub(crate) fn life(&self, who: Incarnation) -> Life {
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.get(&who).copied().unwrap_or(Life::Dead)
    }

    pub(crate) fn set(&self, who: Incarnation, life: Life) {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).insert(who, life);
        self.changed.notify_waiters();
    }

    /// Resolves while the incarnation runs; never again once it is dead.
    pub(crate) async fn pass(&self, who: Incarnation) {
        self.until(who, Life::Open).await;
    }

    /// Resolves when the incarnation was killed.
    pub(crate) async fn died(&self, who: Incarnation) {
        self.until(who, Life::Dead).await;
    }

    async fn until(&self, who: Incarnation, wanted: Life) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.life(who) == wanted {
                return;
            }
            changed.await;
        }
    }
}
