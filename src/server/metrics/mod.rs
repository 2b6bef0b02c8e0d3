//! Prometheus metrics: what was counted since the start, and what is so at the moment of a scrape.
//!
//! Counters are fed by the store's commits, by the calls to providers and by the calls of clients; gauges are read when
//! somebody asks. Labels are bounded: plans, steps, providers and our own methods, never ids.

mod http;
mod providers;
mod runs;
mod snapshot;
mod store;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Clock;
use crate::provider::Provider;
use crate::store::Store;

pub(super) use self::http::serve;
use self::providers::Metered;
use self::runs::Runs;
use self::snapshot::Gauges;
pub(super) use self::snapshot::Sources;
use self::store::{CommitLabels, MeteredStore};

/// A family of histograms of seconds.
type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// From one millisecond to about four and a half hours.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 13))
}

/// From 50 microseconds to about three seconds.
fn commit_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 3.0, 11))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
    call: &'static str,
    outcome: &'static str,
}

/// Everything that is measured.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    runs: Arc<Runs>,
    gauges: Gauges,
    calls: Family<CallLabels, Counter>,
    provider_calls: Family<ProviderLabels, Counter>,
    provider_seconds: Seconds<ProviderLabels>,
    store_commits: Seconds<CommitLabels>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("bmdemo");
        let calls = Family::default();
        registry.register(
            "rpcs",
            "Calls of clients, by method and code of the answer's head",
            calls.clone(),
        );
        let provider_calls = Family::default();
        let help = "Calls to providers; \"dropped\" ones were given up before they answered";
        registry.register("provider_calls", help, provider_calls.clone());
        let provider_seconds: Seconds<ProviderLabels> = Family::new_with_constructor(seconds);
        let help = "Time that providers took to answer";
        registry.register_with_unit("provider_call", help, Unit::Seconds, provider_seconds.clone());
        let store_commits: Seconds<CommitLabels> = Family::new_with_constructor(commit_seconds);
        let help = "Time from asking for a commit to its answer";
        registry.register_with_unit("store_commit", help, Unit::Seconds, store_commits.clone());
        let build = Family::<[(&str, &str); 1], Gauge<i64, AtomicI64>>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build", "The version that is running", build);
        let runs = Arc::new(Runs::new(&mut registry));
        let gauges = Gauges::new(&mut registry);
        Self { registry, runs, gauges, calls, provider_calls, provider_seconds, store_commits }
    }

    /// Measures what goes through a provider and a store: returns the two to be used in their place.
    pub(super) fn around(
        self: &Arc<Self>,
        provider: Arc<dyn Provider>,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
    ) -> (Arc<dyn Provider>, Arc<dyn Store>) {
        store.listen(self.runs.clone());
        let provider = Metered::new(provider, self.clone(), clock.clone());
        let store = MeteredStore::new(store, self.store_commits.clone(), clock.clone());
        (Arc::new(provider), Arc::new(store))
    }

    /// Counts one call of a client. Methods that nobody serves are one: their names are the client's.
    pub(super) fn called(&self, path: &str, code: tonic::Code) {
        let known = code != tonic::Code::Unimplemented;
        let method = if known { path.trim_start_matches('/') } else { "unknown" };
        let labels = CallLabels { method: method.to_owned(), code: code_name(code) };
        self.calls.get_or_create(&labels).inc();
    }

    fn provider_called(
        &self,
        provider: &str,
        call: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        let labels = ProviderLabels { provider: provider.to_owned(), call, outcome };
        self.provider_calls.get_or_create(&labels).inc();
        self.provider_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// The text of a scrape, in OpenMetrics form.
    async fn render(&self, sources: &Sources) -> Result<String, std::fmt::Error> {
        self.gauges.read(sources).await;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Name of a code as in the specification of gRPC.
fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "CANCELLED",
        tonic::Code::Unknown => "UNKNOWN",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::NotFound => "NOT_FOUND",
        tonic::Code::AlreadyExists => "ALREADY_EXISTS",
        tonic::Code::PermissionDenied => "PERMISSION_DENIED",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::FailedPrecondition => "FAILED_PRECONDITION",
        tonic::Code::Aborted => "ABORTED",
        tonic::Code::OutOfRange => "OUT_OF_RANGE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        tonic::Code::Internal => "INTERNAL",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DataLoss => "DATA_LOSS",
        tonic::Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
