//! A simulator: machines that behave like real ones, and fail on request.
//!
//! The *world* is what really happened to each machine. It is not the engine's store and survives the engine: an
//! operation that was accepted continues and ends by itself, in world time, and the engine can be checked against its
//! [ledger](World::ledger). Faults come from a [`Script`], or by [`Chaos`] from a seed; nothing else is random.
//!
//! Simulations in virtual time use a world in memory, where nothing waits except on the clock. The journal of a world
//! on disk is flushed by a thread: a paused runtime that waits for it would advance its clock meanwhile.
//!
//! The result of a call is decided and recorded at once when its future is first polled; a future that is dropped
//! later has happened all the same.

mod action;
mod calls;
mod chaos;
mod decided;
mod disk;
mod effect;
mod errors;
mod faults;
mod hardware;
mod journal;
mod ledger;
mod operation;
mod provider;
mod queue;
mod script;
mod shared;
mod simulator;
mod state;
mod timing;
mod world;

#[cfg(test)]
mod tests;

pub use chaos::Chaos;
pub use journal::{JOURNAL_FILE, KEY_FILE, WorldError, read_ledger};
pub use ledger::{LedgerEntry, Outcome, repeated_steps, violations};
pub use script::{Fault, RULES_MAX, Script, ScriptError};
pub use simulator::{FakeOptions, FakeProvider, NAME};
pub use timing::{FACTOR_MAX, Timing, TimingError};
pub use world::{MachineView, World};
