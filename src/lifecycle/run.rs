//! Lifecycle of a run. The public phases are the seed's; the states here refine them.

#![expect(missing_docs, reason = "statig generates undocumented items")]
#![allow(unused_qualifications, reason = "in statig's expansion")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an event that a state does not name goes up to its superstate; the table snapshot shows every pair"
)]

use statig::blocking::*;

use super::hsm::{self, Verdict};

/// Public phase of a run (seed, proto).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Accepted, waiting for its turn.
    Pending,
    /// In progress.
    Running,
    /// Every step succeeded or was skipped.
    Succeeded,
    /// A step failed, or the run was aborted.
    Failed,
    /// Ended by a cancel.
    Canceled,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Canceled];

    /// Name in tables and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a run that is being unwound will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
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
    /// Steps are carried out.
    Running,
    /// To be held when the attempt in flight has settled.
    Pausing,
    /// Nothing starts until it is released. Still owns its machine; gives its slot back.
    Held,
    /// Released, waiting for a slot again.
    Resuming,
    /// To be ended when the attempt in flight has settled.
    Canceling,
    /// Compensations are carried out.
    Unwinding {
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
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Running,
        Self::Pausing,
        Self::Held,
        Self::Resuming,
        Self::Canceling,
        Self::Unwinding { ending: Ending::Failed },
        Self::Unwinding { ending: Ending::Canceled },
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
            | Self::Resuming
            | Self::Canceling
            | Self::Unwinding { .. } => Phase::Running,
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

    /// Whether the run takes part in the limits on concurrency.
    #[must_use]
    pub const fn has_slot(self) -> bool {
        matches!(self, Self::Running | Self::Pausing | Self::Canceling | Self::Unwinding { .. })
    }
}

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The scheduler has a slot for it.
    Admit,
    /// Every step succeeded or was skipped.
    StepsDone,
    /// A step gave up.
    StepFailed,
    /// The attempt in flight has settled, or there was none.
    SafePoint,
    /// The engine holds it: an unknown outcome, or the loop breaker.
    Hold,
    /// Its store is restored from a backup: what has happened since is not known.
    Restore,
    /// An operator asks to pause.
    Pause,
    /// An operator asks to go on.
    Resume,
    /// An operator asks to end it at the next safe point.
    Cancel,
    /// An operator ends it now.
    Abort,
    /// Every compensation has settled.
    Unwound,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 11] = [
        Self::Admit,
        Self::StepsDone,
        Self::StepFailed,
        Self::SafePoint,
        Self::Hold,
        Self::Restore,
        Self::Pause,
        Self::Resume,
        Self::Cancel,
        Self::Abort,
        Self::Unwound,
    ];
}

/// Facts that the guards look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// Some step that took effect declares a compensation.
    pub has_compensations: bool,
    /// The run is held because the outcome of a step is unknown; only resolving the step releases it.
    pub outcome_unknown: bool,
    /// The run was ending when it was held.
    pub suspended: Option<Suspended>,
}

/// What a run returns to that was ending when it was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspended {
    /// It was being canceled.
    Canceling,
    /// It was being unwound.
    Unwinding {
        /// How it will end.
        ending: Ending,
    },
}

impl Suspended {
    const fn state(self) -> State {
        match self {
            Self::Canceling => State::Canceling,
            Self::Unwinding { ending } => State::Unwinding { ending },
        }
    }
}

/// Facts in, refusal out.
#[derive(Debug, Default)]
pub struct Context {
    facts: Facts,
    denied: Option<&'static str>,
}

/// The event makes no sense in this state, or a guard said no; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No state up to the root takes the event.
    #[error("a run that is {state:?} does not accept {event:?}")]
    Illegal {
        /// State of the run.
        state: State,
        /// What was asked.
        event: Event,
    },
    /// A guard said no.
    #[error("{0}")]
    Denied(&'static str),
}

/// Applies `event` to `state`. `Ok` with an equal state means that the event was understood and changes nothing.
///
/// # Errors
/// [`Rejected`] if the state does not take the event.
pub fn apply(state: State, event: Event, facts: Facts) -> Result<State, Rejected> {
    let mut next = state;
    let mut context = Context { facts, denied: None };
    let verdict = hsm::dispatch(&mut next, &mut RunMachine, &event, &mut context);
    match (context.denied, verdict) {
        (Some(why), _) => Err(Rejected::Denied(why)),
        (None, Verdict::Unhandled) => Err(Rejected::Illegal { state, event }),
        (None, Verdict::Moved | Verdict::Kept) => Ok(next),
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RunMachine;

#[state_machine(
    initial = "State::Pending",
    state(custom, name = "State"),
    superstate(name = "Group", derive(Debug))
)]
impl RunMachine {
    #[state(superstate = "queued")]
    fn pending(event: &Event) -> Outcome<State> {
        match event {
            Event::Cancel => Transition(State::Canceled),
            _ => Super,
        }
    }

    #[state(superstate = "queued")]
    fn resuming(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            // It is ending already.
            Event::Cancel if context.facts.suspended.is_some() => Handled,
            Event::Cancel => Transition(State::Canceling),
            Event::Resume => Handled,
            _ => Super,
        }
    }

    /// Waiting for a slot.
    #[superstate(superstate = "active")]
    fn queued(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::Admit => {
                Transition(context.facts.suspended.map_or(State::Running, Suspended::state))
            }
            Event::Pause => Transition(State::Held),
            _ => Super,
        }
    }

    #[state(superstate = "live")]
    fn running(event: &Event) -> Outcome<State> {
        match event {
            Event::Pause => Transition(State::Pausing),
            Event::SafePoint => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "live")]
    fn pausing(event: &Event) -> Outcome<State> {
        match event {
            Event::SafePoint => Transition(State::Held),
            Event::Resume => Transition(State::Running),
            Event::Pause => Handled,
            _ => Super,
        }
    }

    /// Steps are carried out.
    #[superstate(superstate = "active")]
    fn live(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::StepsDone => Transition(State::Succeeded),
            Event::StepFailed if context.facts.has_compensations => {
                Transition(State::Unwinding { ending: Ending::Failed })
            }
            Event::StepFailed => Transition(State::Failed),
            Event::Hold => Transition(State::Held),
            Event::Cancel => Transition(State::Canceling),
            _ => Super,
        }
    }

    #[state(superstate = "active")]
    fn held(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::Resume if context.facts.outcome_unknown => {
                context.denied = Some(
                    "the outcome of a step is unknown: resolve the step (done, retry, skip or abort) instead",
                );
                Handled
            }
            Event::Resume => Transition(State::Resuming),
            // It is ending already.
            Event::Cancel if context.facts.suspended.is_some() => Handled,
            Event::Cancel => Transition(State::Canceling),
            Event::Pause => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "active")]
    fn canceling(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            // The last step beat the cancel.
            Event::StepsDone => Transition(State::Succeeded),
            Event::SafePoint | Event::StepFailed if context.facts.has_compensations => {
                Transition(State::Unwinding { ending: Ending::Canceled })
            }
            Event::SafePoint | Event::StepFailed => Transition(State::Canceled),
            Event::Cancel => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "active", local_storage("ending: Ending"))]
    fn unwinding(ending: &Ending, event: &Event) -> Outcome<State> {
        match (event, ending) {
            (Event::Unwound, Ending::Failed) => Transition(State::Failed),
            (Event::Unwound, Ending::Canceled) => Transition(State::Canceled),
            // It is ending already.
            (Event::Cancel, _) => Handled,
            _ => Super,
        }
    }

    #[superstate]
    fn active(event: &Event) -> Outcome<State> {
        match event {
            Event::Abort => Transition(State::Failed),
            Event::Restore => Transition(State::Held),
            _ => Super,
        }
    }

    #[state(superstate = "terminal")]
    fn succeeded() -> Outcome<State> {
        Super
    }

    #[state(superstate = "terminal")]
    fn failed() -> Outcome<State> {
        Super
    }

    #[state(superstate = "terminal")]
    fn canceled() -> Outcome<State> {
        Super
    }

    /// Immutable; a repeated cancel is answered with the run as it ended.
    #[superstate]
    fn terminal(event: &Event) -> Outcome<State> {
        match event {
            Event::Cancel => Handled,
            _ => Super,
        }
    }
}
