//! The simulator of a server, from its settings.

use std::sync::Arc;

use super::config::{Config, ConfigError};
use crate::clock::{Clock, Random};
use crate::provider::fake::{Chaos, FakeOptions, FakeProvider, Script, Timing, World};

/// Its settings from the flags.
///
/// # Errors
/// [`ConfigError`] for a text that cannot be read.
pub(super) fn behaviour(config: &Config) -> Result<(Timing, Script), ConfigError> {
    let timing = config
        .fake_timing
        .parse()
        .map_err(|error| ConfigError::Setting(format!("fake.timing (--fake-timing): {error}")))?;
    let script = Script::parse(&config.fake_script)
        .map_err(|error| ConfigError::Setting(format!("fake.script (--fake-script): {error}")))?;
    Ok((timing, script))
}

/// The simulator with these settings.
pub(super) fn provider(
    config: &Config,
    timing: Timing,
    script: Script,
    world: World,
    random: &dyn Random,
    clock: &Arc<dyn Clock>,
) -> FakeProvider {
    let seed = config.seed.unwrap_or_else(|| random.next_u64());
    let options = FakeOptions { timing, seed, script, chaos: Chaos::default(), world };
    FakeProvider::new(options, clock.clone())
}
