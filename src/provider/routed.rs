//! A class of machines: each capability has a driver of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Acted, Call, Capabilities, Closing, ErrorCode, Fut, Health, Logs, Observation, Provider,
    ProviderError, Target, Verification,
};
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::plan::Capability;

/// A provider that hands each call to the driver that its class names for the capability.
#[derive(Debug)]
pub struct Routed {
    class: String,
    routes: BTreeMap<Capability, Arc<dyn Provider>>,
}

impl Routed {
    /// The class of this name; `routes` says which driver does what.
    #[must_use]
    pub fn new(class: String, routes: BTreeMap<Capability, Arc<dyn Provider>>) -> Self {
        Self { class, routes }
    }

    fn route(&self, capability: Capability) -> Result<&dyn Provider, ProviderError> {
        self.routes.get(&capability).map(|driver| &**driver).ok_or_else(|| {
            ProviderError::new(
                ErrorClass::NeedsHuman,
                ErrorCode::Unsupported,
                format!(
                    "class {} has no driver for {capability}: name one in [machine_classes.{}]",
                    self.class, self.class
                ),
            )
        })
    }

    /// The drivers that these capabilities need, each with those that are its own.
    fn drivers(&self, uses: Capabilities) -> Result<Vec<Fenced<'_>>, ProviderError> {
        let mut drivers: BTreeMap<&str, Fenced<'_>> = BTreeMap::new();
        for capability in uses.iter().filter(|capability| *capability != Capability::Engine) {
            let driver = self.route(capability)?;
            let fenced = drivers.entry(driver.name());
            fenced.or_insert(Fenced { driver, uses: Vec::new() }).uses.push(capability);
        }
        Ok(drivers.into_values().collect())
    }
}

/// A driver to fence, and what it is used for.
struct Fenced<'a> {
    driver: &'a dyn Provider,
    uses: Vec<Capability>,
}

impl Provider for Routed {
    fn name(&self) -> &str {
        &self.class
    }

    fn capabilities(&self, target: &Target) -> Capabilities {
        let offered = |(capability, driver): (&Capability, &Arc<dyn Provider>)| {
            driver.capabilities(target).contains(*capability).then_some(*capability)
        };
        self.routes.iter().filter_map(offered).collect()
    }

    fn driver(&self, capability: Capability) -> &str {
        self.routes.get(&capability).map_or("", |driver| driver.name())
    }

    fn warning(&self, capability: Capability) -> Option<&str> {
        self.routes.get(&capability).and_then(|driver| driver.warning(capability))
    }

    fn performs(&self, capability: Capability, action: &str) -> bool {
        self.routes.get(&capability).is_some_and(|driver| driver.performs(capability, action))
    }

    /// One after the other: where one refuses, nothing has acted yet, and the whole is tried again.
    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        Box::pin(async move {
            for Fenced { driver, uses } in self.drivers(uses)? {
                driver.fence(target, epoch, uses.into_iter().collect()).await?;
            }
            Ok(())
        })
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        Box::pin(async move { self.route(call.capability)?.observe(target, call, logs).await })
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(async move { self.route(call.capability)?.act(target, call, logs).await })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(async move { self.route(call.capability)?.verify(target, call, logs).await })
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        Box::pin(async move { self.route(call.capability)?.stop(target, call).await })
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(async move { self.route(Capability::Probe)?.probe(target).await })
    }

    fn close(&self) -> Closing<'_> {
        let drivers: BTreeMap<&str, &Arc<dyn Provider>> =
            self.routes.values().map(|driver| (driver.name(), driver)).collect();
        Box::pin(async move {
            for driver in drivers.into_values() {
                driver.close().await;
            }
        })
    }

    fn is_real(&self) -> bool {
        self.routes.values().any(|driver| driver.is_real())
    }
}

#[cfg(test)]
mod tests;
