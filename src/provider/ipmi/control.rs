//! Power and boot device of machines that an installer installs.

use std::sync::Arc;

use super::Ipmi;
use super::chassis::Boot;
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

impl Ipmi {
    async fn bring(&self, target: &Target, by: &Grant, wanted: Power) -> Result<(), ProviderError> {
        let (claim, logs): (_, Logs) = (self.claim(target, by.epoch)?, Arc::new(ServerLog));
        self.chassis(target)?.bring(&claim, wanted, &logs).await
    }

    async fn boot_from(
        &self,
        target: &Target,
        by: &Grant,
        boot: Boot,
    ) -> Result<(), ProviderError> {
        let (claim, logs): (_, Logs) = (self.claim(target, by.epoch)?, Arc::new(ServerLog));
        self.chassis(target)?.set_boot(&claim, boot, &logs).await.map(drop)
    }
}

impl Control for Ipmi {
    fn power<'a>(&'a self, target: &'a Target) -> Fut<'a, Power> {
        Box::pin(async move {
            let chassis = self.chassis(target)?;
            let status = chassis.bmc.status(&chassis.reference).await;
            Ok(status.map_err(|failure| failure.error)?.power)
        })
    }

    fn facts<'a>(&'a self, target: &'a Target) -> Fut<'a, MachineFacts> {
        Box::pin(async move { Ok(self.looked_at(target, true).await?.facts) })
    }

    fn switch_on<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        Box::pin(self.bring(target, by, Power::On))
    }

    fn switch_off<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        Box::pin(self.bring(target, by, Power::Off))
    }

    fn boot_installer<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        Box::pin(self.boot_from(target, by, Boot::Network))
    }

    fn boot_disk<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()> {
        Box::pin(self.boot_from(target, by, Boot::Disk))
    }
}
