//! The change feed: every commit, published to its watchers, and the output of steps for those who follow it.
//!
//! Top down: [`watch_runs`](WatchHub::watch_runs) and [`follow_logs`] are streams (`stream`, `logs`) over a
//! subscription of the hub (`hub`), which takes commits from its `inbox`, judges them for `groups` of watchers and
//! puts them into the bounded queues of those concerned (`queue`). Lagging watchers read the change feed of the store
//! together (`backlog`). `watched` says what can be watched, `event` what happened to it, `item` what a watch sends.

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
