//! All metrics.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::api::methods;
use crate::clock::Clock;
use crate::provider::{Meter, Provider};
use crate::server::refusals::Refusals;
use crate::store::Store;

use super::drivers::DriverCalls;
use super::interventions::Interventions;
use super::providers::{Metered, ProviderCalls};
use super::runs::Runs;
use super::seconds::{Seconds, commit_seconds};
use super::snapshot::{Gauges, Sources};
use super::store::{CommitLabels, MeteredStore};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub(in crate::server) struct Metrics {
    registry: Registry,
    runs: Arc<Runs>,
    interventions: Arc<Interventions>,
    gauges: Gauges,
    calls: Family<CallLabels, Counter>,
    providers: Arc<ProviderCalls>,
    drivers: Arc<DriverCalls>,
    store_commits: Seconds<CommitLabels>,
}

impl Metrics {
    pub(in crate::server) fn new(refusals: &Refusals) -> Self {
        let mut registry = Registry::with_prefix("bmdemo");
        refusals.register(&mut registry);
        let calls = Family::default();
        registry.register("rpcs", "Calls of clients, by method and status code", calls.clone());
        let providers = Arc::new(ProviderCalls::new(&mut registry));
        let drivers = Arc::new(DriverCalls::new(&mut registry));
        let store_commits: Seconds<CommitLabels> = Family::new_with_constructor(commit_seconds);
        let help = "Time from the request for a commit to its result";
        registry.register_with_unit("store_commit", help, Unit::Seconds, store_commits.clone());
        let build = Family::<[(&str, &str); 1], Gauge<i64, AtomicI64>>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build", "The version that is running", build);
        let runs = Arc::new(Runs::new(&mut registry));
        let interventions = Arc::new(Interventions::default());
        let gauges = Gauges::new(&mut registry, interventions.clone());
        Self { registry, runs, interventions, gauges, calls, providers, drivers, store_commits }
    }

    /// Wraps providers and a store with measurements: returns those to use instead.
    pub(in crate::server) fn around(
        &self,
        providers: Vec<Arc<dyn Provider>>,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
    ) -> (Vec<Arc<dyn Provider>>, Arc<dyn Store>) {
        store.listen(self.runs.clone());
        store.listen(self.interventions.clone());
        let metered = |provider| -> Arc<dyn Provider> {
            Arc::new(Metered::new(provider, self.providers.clone(), clock.clone()))
        };
        let providers = providers.into_iter().map(metered).collect();
        let store = MeteredStore::new(store, self.store_commits.clone(), clock.clone());
        (providers, Arc::new(store))
    }

    /// Counts calls to the drivers of classes.
    pub(in crate::server) fn meter(&self) -> Arc<dyn Meter> {
        self.drivers.clone()
    }

    /// Reads the figures that only the store knows, once.
    pub(in crate::server) async fn read_once(&self, store: &dyn Store) {
        if let Err(error) = self.interventions.read(store).await {
            tracing::warn!(%error, "metrics: machines that need intervention could not be read");
        }
    }

    /// Counts one call of a client. Unknown methods count as one: their names come from the client.
    pub(in crate::server) fn called(&self, path: &str, code: tonic::Code) {
        let of_others = path.starts_with("/grpc.") && code != tonic::Code::Unimplemented;
        let method = match methods::by_path(path) {
            Some(method) => method.path.trim_start_matches('/'),
            None if of_others => path.trim_start_matches('/'),
            None => "unknown",
        };
        let labels = CallLabels { method: method.to_owned(), code: code_name(code) };
        self.calls.get_or_create(&labels).inc();
    }

    /// The text of a scrape, in OpenMetrics form.
    pub(super) async fn render(&self, sources: &Sources) -> Result<String, std::fmt::Error> {
        self.gauges.read(sources).await;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Name of a code in the gRPC specification.
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
