//! The engine: decides by pure state machines, commits what was decided, and only then performs it.
//!
//! [`Engine`] is the handle. Behind it there is one actor per machine with work (`actor`), which asks `decide` what an
//! event means, commits the answer to the store in one batch, and performs the effects once that is durable.

mod actor;
pub mod admission;
mod core;
pub mod decide;
mod engine;
pub mod error;
pub mod limits;
pub mod logs;
pub mod names;
pub mod planted;
pub mod probes;
pub mod request;
pub mod slots;
pub(crate) mod unfold;
pub mod waiting;
pub mod watch;

#[cfg(test)]
mod tests;

pub use engine::{Engine, EngineConfig};
pub use error::{EngineError, FieldViolation, Refusal};
pub use limits::Limits;
