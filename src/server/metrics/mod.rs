//! Prometheus metrics: what was counted since the start, and what is so at the moment of a scrape.
//!
//! Counters are fed by the store's commits, by the calls to providers and by the calls of clients; gauges are read when
//! somebody asks. Labels are bounded: plans, steps, providers and our own methods, never ids.

pub(super) mod http;
mod interventions;
mod measured;
mod providers;
mod runs;
mod seconds;
mod snapshot;
mod store;

pub(super) use self::measured::Metrics;
pub(super) use self::snapshot::Sources;
