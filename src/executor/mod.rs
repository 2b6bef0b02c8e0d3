//! The engine: decides by pure state machines, commits what was decided, and only then performs it.

pub mod error;
pub mod logs;
pub mod request;
mod unfold;
pub mod watch;
