//! Counts and times the calls to a provider.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::seconds::{Seconds, seconds};
use crate::clock::Clock;
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::plan::Capability;
use crate::provider::{
    Acted, Call, Capabilities, Closing, ErrorCode, Fut, Health, Logs, Observation, Provider,
    ProviderError, ProviderErrorKind, Target, Verification,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    provider: String,
    call: &'static str,
    code: &'static str,
}

/// Calls to every provider.
#[derive(Debug)]
pub(super) struct ProviderCalls {
    calls: Family<ProviderLabels, Counter>,
    seconds: Seconds<ProviderLabels>,
    errors: Family<ErrorLabels, Counter>,
}

impl ProviderCalls {
    /// Empty counters.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let calls = Family::default();
        let help = "Calls to providers; \"dropped\" ones were dropped before they returned";
        registry.register("provider_calls", help, calls.clone());
        let seconds: Seconds<ProviderLabels> = Family::new_with_constructor(seconds);
        let help = "Duration of calls to providers";
        registry.register_with_unit("provider_call", help, Unit::Seconds, seconds.clone());
        let errors = Family::default();
        let help = "Calls to providers that failed, by what went wrong";
        registry.register("provider_errors", help, errors.clone());
        Self { calls, seconds, errors }
    }

    fn failed(&self, provider: &str, call: &'static str, code: ErrorCode) {
        let labels = ErrorLabels { provider: provider.to_owned(), call, code: code.as_str() };
        self.errors.get_or_create(&labels).inc();
    }

    fn called(&self, provider: &str, call: &'static str, outcome: &'static str, took: Duration) {
        let labels = ProviderLabels { provider: provider.to_owned(), call, outcome };
        self.calls.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// A provider whose calls are measured.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Arc<dyn Provider>,
    calls: Arc<ProviderCalls>,
    clock: Arc<dyn Clock>,
}

impl Metered {
    /// The same provider, measured.
    pub(super) fn new(
        inner: Arc<dyn Provider>,
        calls: Arc<ProviderCalls>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { inner, calls, clock }
    }

    fn measured<'a, T: 'a>(&'a self, call: &'static str, answer: Fut<'a, T>) -> Fut<'a, T> {
        Box::pin(async move {
            let mut timer =
                Timer { metered: self, call, outcome: "dropped", begun: self.clock.monotonic() };
            let answer = answer.await;
            timer.outcome = match &answer {
                Ok(_) => "ok",
                Err(error) => {
                    self.calls.failed(self.inner.name(), call, error.code);
                    outcome(error)
                }
            };
            answer
        })
    }
}

fn outcome(error: &ProviderError) -> &'static str {
    match error.kind {
        ProviderErrorKind::Fenced { .. } => "fenced",
        ProviderErrorKind::Class(class) => ErrorClass::as_str(class),
    }
}

/// Counts when dropped, so that a dropped call is counted too.
struct Timer<'a> {
    metered: &'a Metered,
    call: &'static str,
    outcome: &'static str,
    begun: Duration,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let Metered { inner, calls, clock } = self.metered;
        let took = clock.monotonic().saturating_sub(self.begun);
        calls.called(inner.name(), self.call, self.outcome, took);
    }
}

impl Provider for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self, target: &Target) -> Capabilities {
        self.inner.capabilities(target)
    }

    fn driver(&self, capability: Capability) -> &str {
        self.inner.driver(capability)
    }

    fn warning(&self, capability: Capability) -> Option<&str> {
        self.inner.warning(capability)
    }

    fn performs(&self, capability: Capability, action: &str) -> bool {
        self.inner.performs(capability, action)
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        self.measured("fence", self.inner.fence(target, epoch, uses))
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        self.measured("observe", self.inner.observe(target, call, logs))
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        self.measured("act", self.inner.act(target, call, logs))
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        self.measured("verify", self.inner.verify(target, call, logs))
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        self.measured("stop", self.inner.stop(target, call))
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        self.measured("probe", self.inner.probe(target))
    }

    fn breakers_open(&self) -> Vec<(&'static str, u64)> {
        self.inner.breakers_open()
    }

    fn close(&self) -> Closing<'_> {
        self.inner.close()
    }

    fn is_real(&self) -> bool {
        self.inner.is_real()
    }
}
