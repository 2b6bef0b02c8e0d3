//! The change feed: every commit, published to those who watch, and the output of steps to those who follow it.
//!
//! Top down: [`watch_runs`](WatchHub::watch_runs) and [`follow_logs`] are streams (`stream`, `logs`) over a place in
//! the hub (`hub`), which takes commits from its `inbox`, judges them for `groups` of watchers and puts what concerns
//! them into their bounded queues (`queue`). Watchers that lag read the change feed of the store together (`backlog`).
//! What can be watched is in `watched`, what happened to it in `event`, what a watch sends in `item`.

mod backlog;
mod event;
mod groups;
mod hub;
mod inbox;
mod item;
mod logs;
mod queue;
mod stream;
#[cfg(test)]
mod tests;
mod watched;

pub use event::Event;
pub use hub::{WatchHub, WatchLimits};
pub use item::{Start, WatchItem};
pub use logs::{LogQuery, follow_logs};
