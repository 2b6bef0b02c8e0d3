//! A driver that installs and erases too.

use std::sync::Arc;

use super::installer::Installer;
use crate::ids::Epoch;
use crate::plan::Capability;
use crate::provider::{
    Acted, Asked, Call, Capabilities, Closing, Fut, Health, Logs, Observation, Provider, Target,
    Verification,
};

/// A driver for power and boot, whose machines an [`Installer`] installs and erases.
#[derive(Debug)]
pub struct Installing {
    driver: Arc<dyn Provider>,
    installer: Installer,
}

impl Installing {
    /// `driver`, with the capabilities `imaging` and `wipe` in addition.
    #[must_use]
    pub fn new(driver: Arc<dyn Provider>, installer: Installer) -> Self {
        Self { driver, installer }
    }
}

/// Whether an installer carries it out.
#[must_use]
pub const fn installs(capability: Capability) -> bool {
    matches!(capability, Capability::Imaging | Capability::Wipe)
}

impl Provider for Installing {
    fn name(&self) -> &str {
        self.driver.name()
    }

    fn capabilities(&self, target: &Target) -> Capabilities {
        let own = [Capability::Imaging, Capability::Wipe];
        self.driver.capabilities(target).iter().chain(own).collect()
    }

    fn warning(&self, capability: Capability) -> Option<&str> {
        self.driver.warning(capability)
    }

    fn performs(&self, capability: Capability, action: &str) -> bool {
        installs(capability) || self.driver.performs(capability, action)
    }

    fn objection(&self, target: &Target, action: &Asked<'_>) -> Option<String> {
        match installs(action.capability) {
            true => self.installer.objection(target, action),
            false => self.driver.objection(target, action),
        }
    }

    /// The installer changes power and boot, so the driver is fenced for those.
    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        Box::pin(async move {
            let below = [Capability::Power, Capability::Netboot];
            let needs = below.into_iter().filter(|_| uses.iter().any(installs));
            let all = uses.iter().filter(|capability| !installs(*capability)).chain(needs);
            self.driver.fence(target, epoch, all.collect()).await?;
            self.installer.fence(&target.machine_id, epoch);
            Ok(())
        })
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        if !installs(call.capability) {
            return self.driver.observe(target, call, logs);
        }
        Box::pin(async move { self.installer.observe(target, call, &logs).await })
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        if !installs(call.capability) {
            return self.driver.act(target, call, logs);
        }
        Box::pin(async move { self.installer.act(target, call) })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        if installs(call.capability) {
            return Box::pin(async move { self.installer.verify(target, call).await });
        }
        if call.action != "reboot" {
            return self.driver.verify(target, call, logs);
        }
        // A power state that came back is no proof that a system did.
        Box::pin(async move {
            let verified = self.driver.verify(target, call, logs).await?;
            let Verification::Holds { evidence } = verified else { return Ok(verified) };
            let evidence = match self.installer.rebooted(target, call).await? {
                Some(seen) => format!("{evidence}; {seen}"),
                None => evidence,
            };
            Ok(Verification::Holds { evidence })
        })
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        if !installs(call.capability) {
            return self.driver.stop(target, call);
        }
        Box::pin(async move { self.installer.stop(target, call).await })
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        self.driver.probe(target)
    }

    fn breakers_open(&self) -> Vec<(&'static str, u64)> {
        self.driver.breakers_open()
    }

    fn inspect<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        self.driver.inspect(target)
    }

    fn close(&self) -> Closing<'_> {
        self.driver.close()
    }

    fn is_real(&self) -> bool {
        self.driver.is_real()
    }
}
