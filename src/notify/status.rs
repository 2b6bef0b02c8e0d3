//! How receivers are doing, for metrics and people.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;

/// How a receiver is doing; shared by its task and those who look.
#[derive(Debug)]
pub struct Status {
    receiver: String,
    standing: Mutex<Standing>,
}

/// How a receiver is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Events that it has taken since the start of the server.
    pub delivered: u64,
    /// Events that were left out, since it refused them or did not take them for too long.
    pub refused: u64,
    /// Attempts that were not the first of their event.
    pub retries: u64,
    /// How often changes were deleted before they were sent.
    pub gaps: u64,
    /// Events known to wait.
    pub waiting: u64,
    /// When the oldest event that waits happened.
    pub oldest: Option<Timestamp>,
    /// When it last took an event.
    pub delivered_at: Option<Timestamp>,
    /// Why the event that waits was not taken; empty if nothing is wrong.
    pub error: String,
}

impl Status {
    /// Of a receiver that was sent nothing yet.
    #[must_use]
    pub fn new(receiver: &str) -> Self {
        Self { receiver: receiver.to_owned(), standing: Mutex::default() }
    }

    /// Its name.
    #[must_use]
    pub fn receiver(&self) -> &str {
        &self.receiver
    }

    /// How it is doing now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        change(&mut self.lock())
    }
}
