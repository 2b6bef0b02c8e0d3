//! The simulator and its options.

use std::fmt;
use std::sync::Arc;

use super::chaos::Chaos;
use super::script::Script;
use super::timing::Timing;
use super::world::World;
use crate::clock::Clock;

/// Name of the provider in a machine's `spec.provider`.
pub const NAME: &str = "fake";

/// How the simulator behaves.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// Duration of operations.
    pub timing: Timing,
    /// Seed of random faults, and of join material if the world has no key of its own.
    pub seed: u64,
    /// Scripted faults.
    pub script: Script,
    /// Random faults, where the script has no rule.
    pub chaos: Chaos,
    /// The real state of the machines.
    pub world: World,
}

impl Default for FakeOptions {
    /// Default timing, a new world in memory, and no faults.
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
    pub(super) timing: Timing,
    pub(super) seed: u64,
    /// Key from which join material is derived.
    pub(super) key: u64,
    pub(super) script: Script,
    pub(super) chaos: Chaos,
    pub(super) world: World,
}

impl FakeProvider {
    /// A provider on a world, whose time runs with `clock` from now on.
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
