//! The engine: decides by pure state machines, commits what was decided, and only then performs it.

pub mod error;
pub mod request;
