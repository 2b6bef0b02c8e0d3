//! Counts what peers were refused, by cause. Causes are a closed list of names, so that the metric is bounded.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

/// What was refused since the start. Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(Family<CauseLabels, Counter>);

impl Refusals {
    /// Counts one.
    pub(super) fn count(&self, cause: &'static str) {
        self.0.get_or_create(&CauseLabels { cause }).inc();
    }

    /// How many there were.
    #[cfg(test)]
    pub(super) fn of(&self, cause: &'static str) -> u64 {
        self.0.get_or_create(&CauseLabels { cause }).get()
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Connections, requests and streams that were refused or ended, by cause";
        registry.register("refusals", help, self.0.clone());
    }
}
