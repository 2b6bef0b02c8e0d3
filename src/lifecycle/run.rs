//! Lifecycle of a run. The public phases are the seed's; the states here refine them.

#![expect(missing_docs, reason = "statig generates undocumented items")]
#![allow(unused_qualifications, reason = "in statig's expansion")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an event that a state does not name goes up to its superstate; the table snapshot shows every pair"
)]

mod facts;
mod phase;
mod state;

use statig::blocking::*;

use self::facts::ended;
pub use self::facts::{Facts, Suspended};
pub use self::phase::Phase;
pub use self::state::{Ending, State};
use super::hsm::{self, Verdict};

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The scheduler has a slot for it.
    Admit,
    /// Every step succeeded or was skipped.
    StepsDone,
    /// A step failed for good.
    StepFailed,
    /// The attempt in flight has ended, or there was none.
    SafePoint,
    /// The engine holds it: an unknown outcome, or the loop breaker.
    Hold,
    /// Its store was restored from a backup: what happened since is unknown.
    Restore,
    /// Its step waits for a time that the provider has named.
    Defer,
    /// That time has come, or its step does not wait any more.
    Due,
    /// An operator asks to pause.
    Pause,
    /// An operator asks to resume.
    Resume,
    /// An operator asks to end it at the next safe point.
    Cancel,
    /// An operator ends it now.
    Abort,
    /// Every on_failure step and every compensation has ended.
    Unwound,
    /// Every finally step has ended.
    Closed,
    /// The time limit of the run has passed.
    TimeUp,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 15] = [
        Self::Admit,
        Self::StepsDone,
        Self::StepFailed,
        Self::SafePoint,
        Self::Hold,
        Self::Restore,
        Self::Defer,
        Self::Due,
        Self::Pause,
        Self::Resume,
        Self::Cancel,
        Self::Abort,
        Self::Unwound,
        Self::Closed,
        Self::TimeUp,
    ];
}

/// Facts in, refusal out.
#[derive(Debug, Default)]
pub struct Context {
    facts: Facts,
    denied: Option<&'static str>,
}

/// The event is not possible in this state, or a guard refused it; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No state up to the root handles the event.
    #[error("a run that is {state:?} does not accept {event:?}")]
    Illegal {
        /// State of the run.
        state: State,
        /// The event.
        event: Event,
    },
    /// A guard refused.
    #[error("{0}")]
    Denied(&'static str),
}

/// Applies `event` to `state`. `Ok` with an equal state means that the event was handled and changes nothing.
///
/// # Errors
/// [`Rejected`] if the state does not handle the event.
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
            Event::Defer => Transition(State::Deferred),
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

    /// Steps run.
    #[superstate(superstate = "active")]
    fn live(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::StepsDone => Transition(context.facts.unwound(Ending::Succeeded)),
            Event::StepFailed => Transition(context.facts.failed()),
            Event::TimeUp => Transition(State::Stopping),
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
            Event::Resume if context.facts.asks => {
                context.denied = Some("a step asks for approval: approve or reject it instead");
                Handled
            }
            Event::Resume => Transition(State::Resuming),
            // It is ending already.
            Event::Cancel if context.facts.suspended.is_some() => Handled,
            // The answer was no.
            Event::StepFailed if context.facts.asks => Transition(context.facts.failed()),
            Event::Cancel => Transition(State::Canceling),
            // The run continues with the answer, so a pause would be lost without a word.
            Event::Pause if context.facts.outcome_unknown => {
                context.denied = Some(
                    "it is held until the outcome of a step is resolved, and continues then: resolve the step or cancel the run instead",
                );
                Handled
            }
            Event::Pause if context.facts.asks => {
                context.denied = Some(
                    "it is held until an approval is answered, and continues then: answer with no or cancel the run instead",
                );
                Handled
            }
            Event::Pause => Handled,
            _ => Super,
        }
    }

    /// It has no slot, and needs none until its step is due.
    #[state(superstate = "active")]
    fn deferred(event: &Event) -> Outcome<State> {
        match event {
            Event::Due => Transition(State::Resuming),
            Event::Pause | Event::Hold => Transition(State::Held),
            Event::Cancel => Transition(State::Canceling),
            Event::TimeUp => Transition(State::Stopping),
            _ => Super,
        }
    }

    #[state(superstate = "active")]
    fn canceling(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            // The last step finished before the cancel.
            Event::StepsDone => Transition(context.facts.unwound(Ending::Succeeded)),
            Event::SafePoint | Event::StepFailed => Transition(context.facts.canceled()),
            Event::Cancel => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "active")]
    fn stopping(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            // The last step finished before the limit.
            Event::StepsDone => Transition(context.facts.unwound(Ending::Succeeded)),
            Event::SafePoint | Event::StepFailed => Transition(context.facts.failed()),
            // It is ending already.
            Event::Cancel | Event::TimeUp => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "active", local_storage("ending: Ending"))]
    fn unwinding(ending: &Ending, context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::Unwound => Transition(context.facts.unwound(*ending)),
            // It is ending already.
            Event::Cancel => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "active", local_storage("ending: Ending"))]
    fn closing(ending: &Ending, event: &Event) -> Outcome<State> {
        match event {
            Event::Closed => Transition(ended(*ending)),
            // It is ending already.
            Event::Cancel => Handled,
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

    /// Immutable; a repeated cancel is answered with the ended run.
    #[superstate]
    fn terminal(event: &Event) -> Outcome<State> {
        match event {
            Event::Cancel => Handled,
            _ => Super,
        }
    }
}
