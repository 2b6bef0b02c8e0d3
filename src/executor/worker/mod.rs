//! One worker per machine with work: load, decide, commit, perform.
//!
//! Everything that concerns a machine and its run goes through the mailbox of its worker, so nothing about a machine
//! is ever decided twice at once. A worker is made when something concerns its machine and ends when nothing does:
//! an idle machine costs nothing. The worker is the cache of the records that it owns; the store is the truth.

mod call;
mod calling;
mod caught;
mod checks;
mod commit;
mod delete;
mod effects;
mod events;
mod in_doubt;
mod logs;
mod machine;
mod message;
mod operate;
mod printing;
mod recover;
mod run;
mod spans;
mod start;
mod state;
mod timers;

pub(super) use message::{Message, Reply, Scheduling};
pub(super) use state::Worker;
