//! Histograms of times.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// A family of histograms of seconds.
pub(super) type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// From one millisecond to about four and a half hours.
pub(super) fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 13))
}

/// From 50 microseconds to about three seconds.
pub(super) fn commit_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 3.0, 11))
}
