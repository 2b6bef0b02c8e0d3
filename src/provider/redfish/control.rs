//! Power and boot source of machines that an installer installs.

use std::sync::Arc;
use std::time::Duration;

use super::Redfish;
use super::netboot::Boot;
use super::power::Waited;
use crate::model::{LogStream, MachineFacts, Power};
use crate::provider::boot::{Control, Grant};
use crate::provider::{Fut, LogSink, Logs, ProviderError, Target};

/// What is sent goes to the server's log: an installation is no call whose output a step has.
struct ServerLog;

impl LogSink for ServerLog {
    fn line(&self, _: LogStream, text: &str) {
        tracing::debug!("{text}");
    }
}

impl Redfish {
    /// Brings the machine to a power state that stays.
    async fn bring(
        &self,
        target: &Target,
        by: &Grant,
        wanted: &str,
        kinds: &[&str],
    ) -> Result<(), ProviderError> {
        let ticket = self.ticket(target, by.epoch, &by.operation)?;
        let remote = self.remote(target)?;
        let (asking, logs): (_, Logs) = (ticket.asking(), Arc::new(ServerLog));
        let (power, settle) = (self.settings.power, self.settings.settle);
        // An installation waits for longer than an unused session is kept, and only a look opens one.
        if !remote.bmc.has_sessions().await {
            remote.system(remote.looking(Some(&ticket.operation))).await?;
        }
        let system = remote.system(asking).await?;
        let is_so = system.power() == wanted
            && matches!(
                remote.until_power(asking, wanted, Duration::ZERO, settle, &logs).await?,
                Waited::Held
            );
        if is_so {
            return Ok(());
        }
        let system = remote.system(asking).await?;
        let sent = remote.reset(&ticket, &system, kinds, &logs).await?;
        match remote.until_power(asking, wanted, power, settle, &logs).await? {
            Waited::Held => Ok(()),
            Waited::Missed { seen } => {
                Err(remote.missed(asking, sent, &format!("power {wanted}"), &seen).await)
            }
        }
    }

    async fn boot_from(
        &self,
        target: &Target,
        by: &Grant,
        boot: Boot,
    ) -> Result<(), ProviderError> {
        let ticket = self.ticket(target, by.epoch, &by.operation)?;
        if let Boot::Medium(image) = &boot {
            self.check_image(image).await?;
        }
        let (remote, logs): (_, Logs) = (self.remote(target)?, Arc::new(ServerLog));
        remote.set_boot(&ticket, &boot, &logs).await.map(drop)
    }
}

impl Control for Redfish {
    fn power<'a>(&'a self, target: &'a Target) -> Fut<'a, Power> {
        Box::pin(async move {
            let remote = self.remote(target)?;
            Ok(remote.system(remote.looking(None)).await?.facts().power)
        })
    }

    fn facts<'a>(&'a self, target: &'a Target) -> Fut<'a, MachineFacts> {
        Box::pin(async move { Ok(self.looked_at(target, true).await?.facts) })
    }

    fn switch_on<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        Box::pin(self.bring(target, by, "On", &["On", "ForceOn"]))
    }

    fn switch_off<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        Box::pin(self.bring(target, by, "Off", &["ForceOff"]))
    }

    fn boot_installer<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        let medium = self.settings.image.clone().map(Boot::Medium);
        Box::pin(self.boot_from(target, by, medium.unwrap_or(Boot::Network("Pxe"))))
    }

    fn boot_disk<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        Box::pin(self.boot_from(target, by, Boot::Disk))
    }
}
