//! Facts for the guards of a run, and the states they lead to.

use super::state::{Ending, State};

/// Facts that the guards depend on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// Some step that took effect declares a compensation.
    pub has_compensations: bool,
    /// The plan has on_failure steps.
    pub has_on_failure: bool,
    /// The plan has finally steps.
    pub has_finally: bool,
    /// The run is held because the outcome of a step is unknown; only resolving the step releases it.
    pub outcome_unknown: bool,
    /// The run was ending when it was held.
    pub suspended: Option<Suspended>,
    /// The run is held because a step asks for approval; only an answer releases it.
    pub asks: bool,
}

impl Facts {
    /// Nothing is left to undo.
    pub(super) const fn unwound(self, ending: Ending) -> State {
        if self.has_finally { State::Closing { ending } } else { ended(ending) }
    }

    /// A step has failed, or the time limit has passed, and nothing is in flight.
    pub(super) const fn failed(self) -> State {
        if self.has_on_failure || self.has_compensations {
            State::Unwinding { ending: Ending::Failed }
        } else {
            self.unwound(Ending::Failed)
        }
    }

    /// A cancel was requested, and nothing is in flight.
    pub(super) const fn canceled(self) -> State {
        if self.has_compensations {
            State::Unwinding { ending: Ending::Canceled }
        } else {
            self.unwound(Ending::Canceled)
        }
    }
}

/// The terminal state of an ending.
pub(super) const fn ended(ending: Ending) -> State {
    match ending {
        Ending::Succeeded => State::Succeeded,
        Ending::Failed => State::Failed,
        Ending::Canceled => State::Canceled,
    }
}

/// What a run that was ending when it was held returns to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspended {
    /// It was being canceled.
    Canceling,
    /// Its compensations were running.
    Unwinding {
        /// How it will end.
        ending: Ending,
    },
    /// A step had failed, or its time limit had passed.
    Stopping,
    /// Its finally steps were running.
    Closing {
        /// How it will end.
        ending: Ending,
    },
}

impl Suspended {
    pub(super) const fn state(self) -> State {
        match self {
            Self::Canceling => State::Canceling,
            Self::Unwinding { ending } => State::Unwinding { ending },
            Self::Stopping => State::Stopping,
            Self::Closing { ending } => State::Closing { ending },
        }
    }
}
