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
mod disk;
mod effect;
mod faults;
mod journal;
mod ledger;
mod script;
mod state;
mod timing;
mod world;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use chaos::Chaos;
pub use journal::{JOURNAL_FILE, KEY_FILE, WorldError, read_ledger};
pub use ledger::{LedgerEntry, Outcome, repeated_steps, violations};
pub use script::{Fault, RULES_MAX, Script, ScriptError};
pub use timing::{FACTOR_MAX, Timing, TimingError};
pub use world::{MachineView, World};

use self::calls::Decided;
use super::{
    Acted, Call, Capabilities, ErrorCode, Fut, Health, Logs, Observation, Provider, ProviderError,
    Target, Verification,
};
use crate::clock::Clock;
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;

/// Name of the provider in a machine's `spec.provider`.
pub const NAME: &str = "fake";

/// How the simulator behaves.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// How long operations take.
    pub timing: Timing,
    /// What chance is drawn from, and join material too where the world has no key of its own.
    pub seed: u64,
    /// What goes wrong by plan.
    pub script: Script,
    /// What goes wrong by chance, where the script says nothing.
    pub chaos: Chaos,
    /// What really happened to the machines.
    pub world: World,
}

impl Default for FakeOptions {
    /// Default timing, a new world in memory, and nothing goes wrong.
    fn default() -> Self {
        Self {
            timing: Timing::Default,
            seed: 0,
            script: Script::default(),
            chaos: Chaos::default(),
            world: World::in_memory(),
        }
    }
}

/// The simulator as a provider.
pub struct FakeProvider {
    timing: Timing,
    seed: u64,
    /// What join material is made from.
    key: u64,
    script: Script,
    chaos: Chaos,
    world: World,
}

impl FakeProvider {
    /// A provider on a world, whose time passes with `clock` from now on.
    #[must_use]
    pub fn new(options: FakeOptions, clock: Arc<dyn Clock>) -> Self {
        let FakeOptions { timing, seed, script, chaos, world } = options;
        world.attach(clock);
        let key = world.key().unwrap_or(seed);
        Self { timing, seed, key, script, chaos, world }
    }

    /// The world that it drives.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }
}

impl fmt::Debug for FakeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProvider")
            .field("timing", &self.timing)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Provider for FakeProvider {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self, _target: &Target) -> Capabilities {
        Capabilities::all()
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch) -> Fut<'a, ()> {
        Box::pin(async move { answer(self.decide_fence(target, epoch), None).await })
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        Box::pin(async move { answer(self.decide_observe(target, call), Some(logs)).await })
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(async move { answer(self.decide_act(target, call), Some(logs)).await })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(async move { answer(self.decide_verify(target, call), Some(logs)).await })
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        Box::pin(async move { answer(self.decide_stop(target, call), None).await })
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(async move { answer(self.decide_probe(target), None).await })
    }

    fn is_real(&self) -> bool {
        false
    }
}

/// Waits until a decision is durable, prints its lines, and gives its answer, if it has one.
async fn answer<T>(decided: Decided<T>, logs: Option<Logs>) -> Result<T, ProviderError> {
    let Decided { result, lines, durable, hangs } = decided;
    if let Some(durable) = durable {
        let why = match durable.await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_closed) => Some("the world was closed".to_owned()),
        };
        if let Some(why) = why {
            return Err(ProviderError::new(
                ErrorClass::OutcomeUnknown,
                ErrorCode::Unavailable,
                why,
            ));
        }
    }
    if let Some(logs) = logs {
        for (stream, line) in &lines {
            logs.line(*stream, line);
        }
    }
    if hangs {
        std::future::pending::<()>().await;
    }
    result
}
