//! The states of a run.

use super::phase::Phase;

/// How a run that is unwinding or closing will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// Every step succeeded or was skipped; only the finally steps are left.
    Succeeded,
    /// A step failed.
    Failed,
    /// A cancel was requested.
    Canceled,
}

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Accepted, waiting for a slot within the limits.
    Pending,
    /// Steps run.
    Running,
    /// To be held when the attempt in flight has ended.
    Pausing,
    /// Nothing starts until it is released. Still owns its machine; gives its slot back.
    Held,
    /// Its step waits for a time that the provider has named. Gives its slot back meanwhile.
    Deferred,
    /// Released, waiting for a slot again.
    Resuming,
    /// To be ended when the attempt in flight has ended.
    Canceling,
    /// Its time limit has passed: to be failed when the attempt in flight has ended.
    Stopping,
    /// On_failure steps and compensations run.
    Unwinding {
        /// How it will end.
        ending: Ending,
    },
    /// Finally steps run; their outcome changes nothing.
    Closing {
        /// How it will end.
        ending: Ending,
    },
    /// Terminal.
    Succeeded,
    /// Terminal.
    Failed,
    /// Terminal.
    Canceled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 16] = [
        Self::Pending,
        Self::Running,
        Self::Pausing,
        Self::Held,
        Self::Deferred,
        Self::Resuming,
        Self::Canceling,
        Self::Stopping,
        Self::Unwinding { ending: Ending::Failed },
        Self::Unwinding { ending: Ending::Canceled },
        Self::Closing { ending: Ending::Succeeded },
        Self::Closing { ending: Ending::Failed },
        Self::Closing { ending: Ending::Canceled },
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// The public phase that this state refines.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::Running
            | Self::Pausing
            | Self::Held
            | Self::Deferred
            | Self::Resuming
            | Self::Canceling
            | Self::Stopping
            | Self::Unwinding { .. }
            | Self::Closing { .. } => Phase::Running,
            Self::Succeeded => Phase::Succeeded,
            Self::Failed => Phase::Failed,
            Self::Canceled => Phase::Canceled,
        }
    }

    /// Whether the run owns its machine.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self.phase(), Phase::Pending | Phase::Running)
    }

    /// Whether the run counts towards the limits on concurrency.
    #[must_use]
    pub const fn has_slot(self) -> bool {
        matches!(self, Self::Running | Self::Pausing) || self.is_stopping() || self.is_ending()
    }

    /// Whether it ends at the next safe point: no new attempt is opened, and nothing is repeated.
    #[must_use]
    pub const fn is_stopping(self) -> bool {
        matches!(self, Self::Canceling | Self::Stopping)
    }

    /// Whether only cleanup after its end is left: it cannot be held, paused or canceled any more.
    #[must_use]
    pub const fn is_ending(self) -> bool {
        matches!(self, Self::Unwinding { .. } | Self::Closing { .. })
    }
}
