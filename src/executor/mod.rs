//! The engine: decides by pure state machines, commits what was decided, and only then performs it.

pub mod decide;
pub mod error;
pub mod limits;
pub mod names;
pub mod request;
