//! Prometheus metrics: counters since the start, and gauges read at a scrape.
//!
//! Counters are fed by the store's commits, by the calls to providers and by the calls of clients; gauges are read on
//! demand. Labels are bounded: plans, steps, providers and our own methods, never ids.

mod drivers;
pub(super) mod http;
mod interventions;
mod measured;
mod providers;
mod receivers;
mod runs;
mod seconds;
mod snapshot;
mod store;

pub(super) use self::measured::Metrics;
pub(super) use self::snapshot::Sources;
