//! One worker per machine with work: load, decide, commit, perform.
//!
//! Everything that concerns a machine and its run goes through the mailbox of its worker, so nothing about a machine
//! is ever decided twice at once. A worker is created when something concerns its machine and leaves when nothing is
//! in flight: a run that only waits is a small entry of the scheduler, and its record is read again when it is due.
//! The worker caches the records that it owns; the store is the source of truth.

mod braked;
mod call;
mod calling;
mod caught;
mod changes;
mod checks;
mod commit;
mod delete;
mod effects;
mod events;
mod fault;
mod in_doubt;
mod logs;
mod machine;
mod message;
mod observing;
mod operate;
mod printing;
mod recover;
mod rest;
mod run;
mod spans;
mod start;
mod state;
mod timers;

pub(super) use caught::Caught;
pub(super) use changes::apply_changes;
pub(super) use checks::{FAULTS_MAX, check_etag};
pub(super) use message::{Message, Parked, Reply, Rest, Scheduling};
pub(super) use state::Worker;
