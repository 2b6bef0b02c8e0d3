//! A class of machines: each capability has a driver of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::meter::{Measure, Meter};
use super::{
    Acted, Asked, Call, Capabilities, Closing, ErrorCode, Fut, Health, Logs, Observation, Provider,
    ProviderError, Target, Verification,
};
use crate::clock::Clock;
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::plan::Capability;

/// A provider that hands each call to the driver that its class names for the capability.
#[derive(Debug)]
pub struct Routed {
    class: String,
    routes: BTreeMap<Capability, Arc<dyn Provider>>,
    measure: Measure,
}

impl Routed {
    /// The class of this name; `routes` says which driver does what.
    #[must_use]
    pub fn new(class: String, routes: BTreeMap<Capability, Arc<dyn Provider>>) -> Self {
        Self { class, routes, measure: Measure::default() }
    }

    /// The same, with a meter that is notified of each call to a driver.
    #[must_use]
    pub fn measured(self, meter: Arc<dyn Meter>, clock: Arc<dyn Clock>) -> Self {
        Self { measure: Measure(Some((meter, clock))), ..self }
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

    fn objection(&self, target: &Target, action: &Asked<'_>) -> Option<String> {
        self.routes.get(&action.capability).and_then(|driver| driver.objection(target, action))
    }

    /// One after the other: where one refuses, nothing has acted yet, and the whole is tried again.
    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        Box::pin(async move {
            for Fenced { driver, uses } in self.drivers(uses)? {
                let fenced = driver.fence(target, epoch, uses.into_iter().collect());
                self.measure.of(driver.name(), "fence", "", fenced).await?;
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
        Box::pin(async move {
            let driver = self.route(call.capability)?;
            let answer = driver.observe(target, call, logs);
            self.measure.of(driver.name(), "observe", &call.action, answer).await
        })
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(async move {
            let driver = self.route(call.capability)?;
            let answer = driver.act(target, call, logs);
            self.measure.of(driver.name(), "act", &call.action, answer).await
        })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(async move {
            let driver = self.route(call.capability)?;
            let answer = driver.verify(target, call, logs);
            self.measure.of(driver.name(), "verify", &call.action, answer).await
        })
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        Box::pin(async move {
            let driver = self.route(call.capability)?;
            let answer = driver.stop(target, call);
            self.measure.of(driver.name(), "stop", &call.action, answer).await
        })
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(async move {
            let driver = self.route(Capability::Probe)?;
            self.measure.of(driver.name(), "probe", "", driver.probe(target)).await
        })
    }

    fn breakers_open(&self) -> Vec<(&'static str, u64)> {
        let drivers: BTreeMap<&str, &Arc<dyn Provider>> =
            self.routes.values().map(|driver| (driver.name(), driver)).collect();
        drivers.into_values().flat_map(|driver| driver.breakers_open()).collect()
    }

    fn inspect<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(async move { self.route(Capability::Probe)?.inspect(target).await })
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
