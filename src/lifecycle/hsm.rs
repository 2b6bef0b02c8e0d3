//! Drives statig's public traits directly, so that the outcome of an event is returned and not dropped.
//!
//! The stock wrapper of statig 0.4.1 silently drops unhandled events and runs entry actions again when a stored state
//! is loaded. Here a state is a plain value: it is loaded as it is, an event is dispatched to it, and an event that
//! no state up to the root handles comes back as [`Verdict::Unhandled`].

use statig::Outcome;
use statig::blocking::{IntoStateMachine, State, StateExt, Superstate};

/// What one event did to one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Left the old state.
    Moved,
    /// Handled without a change: a repeated cancel, or a guard that refused.
    Kept,
    /// No state up to the root handles this event.
    Unhandled,
}

/// Hands `event` to `state`, walking up its superstates, and performs the transition that they return.
pub fn dispatch<M>(
    state: &mut M::State,
    machine: &mut M,
    event: &M::Event<'_>,
    context: &mut M::Context<'_>,
) -> Verdict
where
    M: IntoStateMachine,
    M::State: State<M> + for<'a> StateExt<'a, M>,
    for<'s> M::Superstate<'s>: Superstate<M>,
{
    match state.handle(machine, event, context) {
        Outcome::Super => Verdict::Unhandled,
        Outcome::Handled => Verdict::Kept,
        Outcome::Transition(mut next) => {
            let (exits, entries) = state.transition_path(&mut next);
            state.exit(machine, context, exits);
            std::mem::swap(state, &mut next);
            state.enter(machine, context, entries);
            Verdict::Moved
        }
    }
}
