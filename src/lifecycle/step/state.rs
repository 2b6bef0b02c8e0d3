//! The states of a step, and the public state of each.

use crate::clock::Timestamp;

/// Public state of a step (proto).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Not reached yet.
    Waiting,
    /// An attempt is open, or the next one is due later.
    Running,
    /// Done.
    Succeeded,
    /// Failed for good.
    Failed,
    /// Not needed.
    Skipped,
    /// Ended by a cancel.
    Canceled,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
        Self::Canceled,
    ];

    /// Name in tables and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::Canceled => "CANCELED",
        }
    }
}

/// Why the machine is being observed, and so what a result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// A new attempt: nothing has been sent.
    Fresh,
    /// The provider has the operation and was working on it when last asked.
    Poll,
    /// The outcome of the attempt is unknown. `checks` counts the observations that failed.
    Unknown {
        /// Observations that failed so far.
        checks: u32,
        /// A crash of the server interrupted the attempt; there is no other sign that the operation failed.
        cut_off: bool,
    },
}

/// State of a step. Attempts count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not reached yet.
    Waiting,
    /// Asking the machine whether it is done.
    Observing {
        /// Attempt.
        attempt: u32,
        /// Why.
        basis: Basis,
    },
    /// The action has been, or is being, sent.
    Acting {
        /// Attempt.
        attempt: u32,
    },
    /// The provider is working on it; asked again at `until`.
    Polling {
        /// Attempt.
        attempt: u32,
        /// When to ask again.
        until: Timestamp,
    },
    /// The action is reported done; verifying it.
    Verifying {
        /// Attempt.
        attempt: u32,
        /// Checks that could not be made so far.
        checks: u32,
    },
    /// Waiting for the next try. With [`Basis::Fresh`] that is the next attempt, otherwise another observation.
    BackingOff {
        /// Attempt that failed.
        attempt: u32,
        /// When to continue.
        until: Timestamp,
        /// What to do then.
        basis: Basis,
    },
    /// The outcome is unknown and only an operator can resolve it.
    Unknown {
        /// Attempt.
        attempt: u32,
    },
    /// Terminal: done.
    Succeeded,
    /// Terminal: failed for good.
    Failed,
    /// Terminal: not needed.
    Skipped,
    /// Terminal: ended by a cancel.
    Canceled,
}

impl State {
    /// The public phase.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self {
            Self::Waiting => Phase::Waiting,
            Self::Observing { .. }
            | Self::Acting { .. }
            | Self::Polling { .. }
            | Self::Verifying { .. }
            | Self::BackingOff { .. }
            | Self::Unknown { .. } => Phase::Running,
            Self::Succeeded => Phase::Succeeded,
            Self::Failed => Phase::Failed,
            Self::Skipped => Phase::Skipped,
            Self::Canceled => Phase::Canceled,
        }
    }

    /// Whether nothing more will happen to the step.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        !matches!(self.phase(), Phase::Waiting | Phase::Running)
    }

    /// Whether an attempt is open: its action may be happening.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Observing { .. }
            | Self::Acting { .. }
            | Self::Polling { .. }
            | Self::Verifying { .. } => true,
            Self::BackingOff { basis, .. } => !matches!(basis, Basis::Fresh),
            Self::Waiting
            | Self::Unknown { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Skipped
            | Self::Canceled => false,
        }
    }

    /// The attempt in progress, if any.
    #[must_use]
    pub const fn attempt(self) -> Option<u32> {
        match self {
            Self::Observing { attempt, .. }
            | Self::Acting { attempt }
            | Self::Polling { attempt, .. }
            | Self::Verifying { attempt, .. }
            | Self::BackingOff { attempt, .. }
            | Self::Unknown { attempt } => Some(attempt),
            Self::Waiting | Self::Succeeded | Self::Failed | Self::Skipped | Self::Canceled => None,
        }
    }
}
