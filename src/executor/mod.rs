//! The engine: decides by pure state machines, commits what was decided, and only then performs it.

pub mod admission;
pub mod decide;
pub mod error;
pub mod limits;
pub mod logs;
pub mod names;
pub mod request;
pub(crate) mod unfold;
pub mod waiting;
pub mod watch;

mod standin;
pub use standin::{Engine, EngineConfig};
