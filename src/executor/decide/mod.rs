//! Decisions about one run and its machine: pure functions from state, event and facts to a new state and effects.
//!
//! Nothing here waits, reads a clock or draws a random number. The worker commits a decision in one store call and
//! only then performs its effects; an effect must be safe to perform twice, since a crash may fall between the two.

mod accept;
mod advance;
mod around;
mod braked;
mod draft;
mod ending;
mod fault;
mod follow;
mod learn;
mod own;
mod recovery;
mod roles;
pub(super) mod step;
mod verbs;

#[cfg(test)]
mod tests;

pub use advance::Admission;
pub use around::Surroundings;
pub(super) use braked::has_destroyed;
pub use draft::{Braking, Draft, Effect, Facts};
pub(super) use follow::REASON_DUE;
pub(super) use step::action;
pub use step::{Answer, StepInput};
