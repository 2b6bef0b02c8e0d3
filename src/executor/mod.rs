//! The engine: decides by pure state machines, commits the decision, and only then performs it.
//!
//! Its rooms, each of which uses only those after it: `requests` ([`Engine`], the handle, and its requests),
//! `scheduler` (which machine is worked on when), `worker` (load, decide, commit, perform) and `decide` (pure: what
//! an event means). Beside them, [`feed`] publishes what was committed.

pub mod admission;
mod audit;
mod brakes;
pub mod decide;
mod denied;
pub mod error;
pub mod feed;
mod idempotency;
pub mod limits;
pub mod names;
mod plans;
pub mod planted;
mod ports;
pub mod request;
mod requests;
pub mod restored;
mod scheduler;
mod sightings;
mod tasks;
pub mod waiting;
mod worker;

#[cfg(test)]
mod tests;

pub use denied::Denied;
pub use error::{EngineError, FieldViolation, Refusal};
pub use limits::{Cap, Limits, RiskLimits};
pub use ports::EngineConfig;
pub use requests::Engine;
pub use scheduler::probes;
