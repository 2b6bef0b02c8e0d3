//! The events of a step, its rules, and the effects that the engine must perform.

use super::state::State;
use crate::clock::Timestamp;
use crate::lifecycle::backoff::Backoff;

/// What to do when the outcome of an attempt is unknown (plan, `on_unknown`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnUnknown {
    /// Act again with the same operation id.
    Retry,
    /// Observe, and decide by the result.
    Verify,
    /// Hold the run for an operator.
    Hold,
}

/// Class of a failure: what the caller can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// Nothing took effect, and a retry may help.
    Transient,
    /// Nothing took effect, and a retry will not help.
    Permanent,
    /// A person has to look.
    NeedsHuman,
    /// It may or may not have taken effect.
    OutcomeUnknown,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 4] =
        [Self::Transient, Self::Permanent, Self::NeedsHuman, Self::OutcomeUnknown];

    /// Name in TOML and in the history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::NeedsHuman => "needs-human",
            Self::OutcomeUnknown => "outcome-unknown",
        }
    }
}

/// The result of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// It is done.
    Done,
    /// It is not done, and no operation is in progress.
    NotDone,
    /// The operation is in progress; ask again at `until`.
    InProgress {
        /// When to ask again.
        until: Timestamp,
    },
    /// It cannot be determined.
    Unknowable,
}

/// What an operator found out about a step whose outcome was unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// It was done.
    Done,
    /// It was not done: make a new attempt.
    Retry,
    /// It does not matter.
    Skip,
}

/// What can happen to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// It has been reached.
    Start,
    /// It has been reached, and its guard does not hold.
    GuardedOut,
    /// The result of an observation has come.
    Observed(Seen),
    /// The action is reported done.
    Acted,
    /// The provider accepted the action and is working on it.
    Accepted {
        /// When to ask.
        until: Timestamp,
    },
    /// The result of a verification has come: it is done, and stays so.
    Verified,
    /// The result of a verification has come: it is not done.
    NotVerified,
    /// The call in flight failed.
    CallFailed(ErrorClass),
    /// The time that the state waits for has come.
    Woken,
    /// The attempt took longer than its timeout.
    TimedOut,
    /// The server was restarted while this state was stored.
    Recovered,
    /// An operator skips the step.
    Skip,
    /// The run is being canceled.
    Cancel,
    /// The run is aborted: anything in flight is abandoned.
    Detach,
    /// An operator resolves the unknown outcome.
    Resolve(Resolution),
}

/// What the engine must do after the new state is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// A new attempt is open: give it an operation id and a deadline.
    Open {
        /// Attempt.
        attempt: u32,
    },
    /// The open attempt continues under a new deadline.
    Extend,
    /// The outcome of the open attempt has become unknown; it continues by the declared rule under a new deadline.
    Unknown,
    /// A crash of the server interrupted the attempt, which had no effect: it is not counted towards the most
    /// attempts.
    Interrupted,
    /// Ask the machine whether it is done.
    Observe,
    /// Send the action.
    Act,
    /// Check that it is done and stays so.
    Verify,
    /// Wake the step at this time.
    WakeAt(Timestamp),
    /// Ask the provider to stop the operation.
    Stop,
    /// Hold the run: the outcome is unknown.
    Hold,
}

/// Rules of a step that do not change while it runs (from the plan).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Most attempts, at least 1.
    pub attempts_max: u32,
    /// Whether a transient failure opens a new attempt.
    pub retry_transient: bool,
    /// Whether a permanent failure opens a new attempt.
    pub retry_permanent: bool,
    /// Whether a failure that needs a person opens a new attempt.
    pub retry_needs_human: bool,
    /// Delay between attempts.
    pub backoff: Backoff,
    /// What to do when the outcome is unknown.
    pub on_unknown: OnUnknown,
    /// Whether the action must finish once it has been sent: a cancel waits for such a step.
    pub must_settle: bool,
    /// Whether the engine performs the action itself: nothing is ever in flight.
    pub is_own: bool,
}

/// Facts that come in with an event.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Time of the event.
    pub now: Timestamp,
    /// 64 random bits, for the jitter of a backoff.
    pub random: u64,
    /// The run is to end at the next safe point: no new attempt is opened.
    pub stopping: bool,
    /// How often this attempt's outcome has been unknown before.
    pub unknowns: u32,
    /// Attempts of this step that were not counted.
    pub interrupted: u32,
    /// Earliest time of the next attempt requested by the provider, from a call that failed.
    pub retry_at: Option<Timestamp>,
}

/// The event is not possible in this state, or a guard refused it; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No state up to the root handles the event.
    #[error("a step that is {state:?} does not accept {event:?}")]
    Illegal {
        /// State of the step.
        state: State,
        /// The event.
        event: Event,
    },
    /// A guard refused.
    #[error("{0}")]
    Denied(&'static str),
}
