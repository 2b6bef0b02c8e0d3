//! Settings of the engine: limits and probes.

use std::collections::BTreeMap;

use super::file;
use super::run_limits::Cap;
use super::span::Span;
use crate::executor::limits::{Limits, RiskLimits};
use crate::executor::probes::ProbePolicy;

/// The limits of the engine.
pub(super) fn limits(file: file::Limits, breaker: &file::LoopBreaker) -> Limits {
    let default = Limits::default();
    Limits {
        runs_max: file.runs_max.unwrap_or(default.runs_max),
        runs_max_by_provider: file.runs_max_by_provider.unwrap_or_default(),
        runs_max_by_label: file.runs_max_by_label.unwrap_or_default(),
        disruptive: risk_limits(file.disruptive_max, file.disruptive_max_by_label),
        data_destroying: risk_limits(file.data_destroying_max, file.data_destroying_max_by_label),
        pause_plan_after: file.pause_plan_after.unwrap_or(default.pause_plan_after),
        step_log_bytes_max: file.step_log_bytes_max.unwrap_or(default.step_log_bytes_max),
        destructive_max: breaker.destructive_max.unwrap_or(default.destructive_max),
        destructive_window_ms: breaker.window.map_or(default.destructive_window_ms, |window| {
            u64::try_from(window.0.as_millis()).unwrap_or(u64::MAX)
        }),
        destructive_on_simulated: breaker.simulated.unwrap_or(default.destructive_on_simulated),
    }
}

fn risk_limits(max: Option<Cap>, by_label: Option<BTreeMap<String, Cap>>) -> RiskLimits {
    let by_label = by_label.unwrap_or_default().into_iter();
    RiskLimits {
        max: max.map(|Cap(cap)| cap),
        max_by_label: by_label.map(|(label, Cap(cap))| (label, cap)).collect(),
    }
}

/// How machines are probed.
pub(super) fn probe_policy(file: &file::Probe) -> ProbePolicy {
    let default = ProbePolicy::default();
    let ms = |span: Option<Span>, default| {
        span.map_or(default, |span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX))
    };
    ProbePolicy {
        interval_ms: ms(file.interval, default.interval_ms),
        timeout_ms: ms(file.timeout, default.timeout_ms),
        concurrent_max: file.concurrent_max.unwrap_or(default.concurrent_max),
    }
}
