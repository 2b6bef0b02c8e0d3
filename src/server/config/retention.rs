//! What is deleted, and when.

use std::time::Duration;

use super::file;
use super::span::Span;

/// What is deleted, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Retention {
    /// Runs that ended longer ago are deleted.
    pub(in crate::server) ended_runs: Duration,
    /// Of the ended runs, at most this many newest are kept.
    pub(in crate::server) ended_runs_max: u64,
    /// Of the changes of machines, about this many newest are kept.
    pub(in crate::server) machine_changes_max: u64,
    /// Request ids used longer ago are deleted, unless their object is an active run.
    pub(in crate::server) requests: Duration,
    /// Audit entries that are older are deleted, the oldest first.
    pub(in crate::server) audit: Duration,
    /// Of the audit, at most this many newest entries are kept.
    pub(in crate::server) audit_max: u64,
    /// Time between two rounds.
    pub(in crate::server) interval: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            ended_runs: day * 90,
            ended_runs_max: 1_000_000,
            machine_changes_max: 20_000_000,
            requests: day * 7,
            audit: day * 400,
            audit_max: 10_000_000,
            interval: Duration::from_secs(10 * 60),
        }
    }
}

impl Retention {
    /// The settings of a file, and the defaults of those that it leaves out.
    pub(super) fn of(file: &file::Retention) -> Self {
        let default = Self::default();
        let span = |given: Option<Span>, or: Duration| given.map_or(or, |span| span.0);
        Self {
            ended_runs: span(file.ended_runs, default.ended_runs),
            ended_runs_max: file.ended_runs_max.unwrap_or(default.ended_runs_max),
            machine_changes_max: file.machine_changes_max.unwrap_or(default.machine_changes_max),
            requests: span(file.requests, default.requests),
            audit: span(file.audit, default.audit),
            audit_max: file.audit_max.unwrap_or(default.audit_max),
            interval: span(file.interval, default.interval),
        }
    }
}
