//! Limits of the engine, in one place.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::Risk;

/// Most runs of a kind: a number, or a share of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// This many.
    Number(usize),
    /// This many percent of the machines, rounded down, and at least one.
    Percent(u8),
}

impl Cap {
    /// The number among this many machines. While they are not counted, a share is one.
    #[must_use]
    pub fn among(self, machines: Option<u64>) -> usize {
        match self {
            Self::Number(number) => number,
            Self::Percent(percent) => {
                let share = machines.unwrap_or(0).saturating_mul(u64::from(percent)) / 100;
                usize::try_from(share).unwrap_or(usize::MAX).max(1)
            }
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Limits on the runs of plans that put something at risk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RiskLimits {
    /// Most in all.
    pub max: Option<Cap>,
    /// Most for each value of these labels.
    pub max_by_label: BTreeMap<String, Cap>,
}

impl RiskLimits {
    fn is_empty(&self) -> bool {
        self.max.is_none() && self.max_by_label.is_empty()
    }
}

/// Limits on what runs at the same time and on what is kept. Every limit has a default that suits one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most runs that have a slot at the same time.
    pub runs_max: usize,
    /// Most runs with a slot, by provider.
    pub runs_max_by_provider: BTreeMap<String, usize>,
    /// Most runs with a slot for each value of these labels: `rack` = 20 means at most 20 runs in any one rack.
    pub runs_max_by_label: BTreeMap<String, usize>,
    /// Blast radius: limits on runs that take their machine out of service, which those that destroy data do too.
    pub disruptive: RiskLimits,
    /// Blast radius: limits on runs that destroy data.
    pub data_destroying: RiskLimits,
    /// Loop breaker: most destructive attempts on one machine within the window, before a run is held.
    pub destructive_max: usize,
    /// Window of the loop breaker, in milliseconds.
    pub destructive_window_ms: u64,
    /// Whether the loop breaker also counts on simulated machines.
    pub destructive_on_simulated: bool,
    /// Runs of the same plan in a row that fail after they have begun to destroy data, before the plan is paused; 0
    /// never pauses one.
    pub pause_plan_after: u32,
    /// Most log bytes kept per step.
    pub step_log_bytes_max: u64,
}

impl Limits {
    /// Takes the limits on runs in progress from `from`: those that can change while an engine runs.
    pub fn set_runs(&mut self, from: &Self) {
        self.runs_max = from.runs_max;
        self.runs_max_by_provider.clone_from(&from.runs_max_by_provider);
        self.runs_max_by_label.clone_from(&from.runs_max_by_label);
        self.disruptive.clone_from(&from.disruptive);
        self.data_destroying.clone_from(&from.data_destroying);
    }

    /// Whether the risk of a plan matters for how many of its runs proceed.
    #[must_use]
    pub fn count_risk(&self) -> bool {
        !self.disruptive.is_empty() || !self.data_destroying.is_empty()
    }

    /// Whether labels of machines matter.
    #[must_use]
    pub fn count_labels(&self) -> bool {
        let by_label = [&self.disruptive.max_by_label, &self.data_destroying.max_by_label];
        !self.runs_max_by_label.is_empty() || by_label.iter().any(|limits| !limits.is_empty())
    }

    /// The limits that a run of a plan with this risk counts against, each with the class of risk that it is on.
    pub fn on_risk(&self, risk: Risk) -> impl Iterator<Item = (Risk, &RiskLimits)> {
        let all =
            [(Risk::Disruptive, &self.disruptive), (Risk::DataDestroying, &self.data_destroying)];
        all.into_iter().filter(move |(least, _)| risk >= *least)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runs_max: 10_000,
            runs_max_by_provider: BTreeMap::new(),
            runs_max_by_label: BTreeMap::new(),
            disruptive: RiskLimits::default(),
            data_destroying: RiskLimits::default(),
            destructive_max: 10,
            destructive_window_ms: 60 * 60 * 1000,
            destructive_on_simulated: false,
            pause_plan_after: 3,
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
