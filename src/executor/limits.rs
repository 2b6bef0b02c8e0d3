//! Limits of the engine, in one place.

use std::collections::BTreeMap;

/// Limits on what runs at the same time and on what is kept. Every limit has a default that suits one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most runs that have a slot at the same time.
    pub runs_max: usize,
    /// Most runs with a slot, by provider.
    pub runs_max_by_provider: BTreeMap<String, usize>,
    /// Most runs with a slot for each value of these labels: `rack` = 20 means at most 20 runs in any one rack.
    pub runs_max_by_label: BTreeMap<String, usize>,
    /// Loop breaker: most destructive attempts on one machine within the window, before a run is held.
    pub destructive_max: usize,
    /// Window of the loop breaker, in milliseconds.
    pub destructive_window_ms: u64,
    /// Whether the loop breaker also counts on simulated machines.
    pub destructive_on_simulated: bool,
    /// Most log bytes kept per step.
    pub step_log_bytes_max: u64,
}

impl Limits {
    /// Takes the limits on runs in progress from `from`: those that can change while an engine runs.
    pub fn set_runs(&mut self, from: &Self) {
        self.runs_max = from.runs_max;
        self.runs_max_by_provider.clone_from(&from.runs_max_by_provider);
        self.runs_max_by_label.clone_from(&from.runs_max_by_label);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runs_max: 10_000,
            runs_max_by_provider: BTreeMap::new(),
            runs_max_by_label: BTreeMap::new(),
            destructive_max: 10,
            destructive_window_ms: 60 * 60 * 1000,
            destructive_on_simulated: false,
            step_log_bytes_max: 1024 * 1024,
        }
    }
}

/// Longest log chunk, in bytes.
pub const LOG_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Longest line of a log, in bytes; the rest of a longer one is dropped.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;

/// Log bytes of a run that wait for a commit before they are stored at once.
pub const LOG_FLUSH_BYTES: usize = 64 * 1024;

/// Most log bytes of a run that wait for a commit; lines beyond it are dropped and counted.
pub const LOG_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// How long log lines wait for another commit of the run, in milliseconds.
pub const LOG_FLUSH_MS: u64 = 200;
