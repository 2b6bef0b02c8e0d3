//! A simulator: machines that behave like real ones, and misbehave when told to.
//!
//! The *world* is what really happened to each machine. It is not the engine's store and survives the engine: an
//! operation that was taken goes on and ends by itself, in world time, and its [ledger](World::ledger) can accuse the
//! engine of what it did. Faults come from a [`Script`], or by [`Chaos`] from a seed; nothing else is random.
//!
//! Simulations in virtual time use a world in memory, where nothing waits but on the clock. The journal of a world on
//! disk is flushed by a thread: a paused runtime that waits for it moves its clock on meanwhile.
//!
//! What a call comes to is decided and recorded in one go when its future is first polled; a future that is dropped
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
