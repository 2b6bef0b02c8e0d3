//! Machines whose controller speaks Redfish: power, boot, and what the controller knows about them.
//!
//! No answer is believed. A controller may accept a request and do nothing, or do it later, or report a state that does not
//! last. Everything is decided by the state that is read afterwards and stays for a settle time, on the injected clock.
//! Reading is lenient; nothing that may have had an effect is sent twice below the engine.

mod adapters;
mod bmc;
mod control;
mod failure;
mod gate;
mod json;
#[cfg(test)]
pub(crate) mod mock;
mod netboot;
mod power;
mod reboot;
mod session;
mod settings;
mod sweep;
mod system;
#[cfg(test)]
mod tests;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use self::adapters::Adapters;
use self::failure::Failure;
use self::netboot::Boot;
use self::power::Waited;
pub use self::settings::{RedfishPorts, RedfishSettings};
use self::sweep::Bmcs;
use self::system::{Remote, System};
use self::ticket::Ticket;
use super::epochs::Epochs;
use super::restart::{Pace, Restarts};
use super::{
    Acted, Call, Capabilities, ErrorCode, Fut, Health, Logs, Observation, Provider, ProviderError,
    Target, Verification,
};
use crate::ids::{Epoch, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::model::MachineFacts;
use crate::outbound::Origin;
use crate::plan::{Capability, Value, Values};

/// Its name.
pub const NAME: &str = "redfish";

/// Longest time for ending the sessions when the server ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// The driver of one class of machines.
#[derive(Debug)]
pub struct Redfish {
    settings: Arc<RedfishSettings>,
    ports: RedfishPorts,
    bmcs: Arc<Bmcs>,
    epochs: Arc<Epochs>,
    restarts: Restarts,
    adapters: Adapters,
}

/// What a call asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Job {
    Reboot { is_graceful: bool },
    Boot(Boot),
    IsUp { settle: Duration },
}

fn unsupported(call: &Call, why: &str) -> ProviderError {
    ProviderError::new(
        ErrorClass::NeedsHuman,
        ErrorCode::Unsupported,
        format!("the redfish driver does not know the action {}: {why}", call.action),
    )
}

impl Redfish {
    /// A driver that has called no one yet.
    #[must_use]
    pub fn new(settings: RedfishSettings, ports: RedfishPorts) -> Self {
        let settings = Arc::new(settings);
        let bmcs = Arc::new(Bmcs::new(settings.clone(), ports.clone()));
        let (epochs, restarts) = (Arc::default(), Restarts::default());
        Self { settings, ports, bmcs, epochs, restarts, adapters: Adapters::default() }
    }

    fn job(&self, call: &Call) -> Result<Job, ProviderError> {
        let text = |name: &str| call.args.get(name).and_then(Value::as_str);
        let ms = |name: &str| call.args.get(name).and_then(Value::as_duration_ms);
        let medium = || self.settings.image.clone().map(Boot::Medium);
        Ok(match call.action.as_str() {
            "reboot" => Job::Reboot { is_graceful: text("mode") != Some("force") },
            "set-netboot" => Job::Boot(match text("target") {
                Some("disk") => Boot::Disk,
                Some("http") => medium().unwrap_or(Boot::Network("UefiHttp")),
                Some("pxe") | None => medium().unwrap_or(Boot::Network("Pxe")),
                Some(other) => {
                    let message = format!("set-netboot cannot boot from {other:?}");
                    return Err(ProviderError::new(
                        ErrorClass::Permanent,
                        ErrorCode::Invalid,
                        message,
                    ));
                }
            }),
            "clear-netboot" => Job::Boot(Boot::Own),
            "verify-up" => {
                let asked = Duration::from_millis(ms("settle").unwrap_or(0));
                Job::IsUp { settle: asked.max(self.settings.settle) }
            }
            "verify" | "verify-connectivity" => {
                let why = "a controller sees neither clusters nor networks; give the class another driver for probe";
                return Err(unsupported(call, why));
            }
            _ => {
                return Err(unsupported(
                    call,
                    "it knows reboot, set-netboot, clear-netboot and verify-up",
                ));
            }
        })
    }

    /// The machine at its controller.
    fn remote(&self, target: &Target) -> Result<Remote, ProviderError> {
        let invalid = |message: String| {
            ProviderError::new(ErrorClass::Permanent, ErrorCode::Invalid, message)
        };
        let spec = &target.spec;
        if spec.bmc_endpoint.is_empty() {
            let message = "the machine names no controller: set spec.bmc_endpoint";
            return Err(invalid(message.to_owned()));
        }
        let (origin, path) = Origin::parse(&spec.bmc_endpoint)
            .map_err(|error| invalid(format!("spec.bmc_endpoint {error}")))?;
        if !["", "/redfish", "/redfish/v1"].contains(&path.strip_suffix('/').unwrap_or(path)) {
            return Err(invalid(format!(
                "spec.bmc_endpoint has the path {path:?}: a controller has its root at {origin}/redfish/v1"
            )));
        }
        if !origin.is_tls && !self.settings.is_insecure {
            return Err(ProviderError::new(
                ErrorClass::Permanent,
                ErrorCode::Tls,
                format!(
                    "{origin} is not called without TLS: use https, or allow it in the class with insecure = true"
                ),
            ));
        }
        let bmc = self.bmcs.get(origin, &spec.bmc_certificate_sha256).map_err(invalid)?;
        self.bmcs.keep_tidy();
        Ok(Remote {
            bmc,
            system_id: spec.bmc_system_id.clone(),
            reference: spec.bmc_credentials.clone(),
        })
    }

    fn ticket(
        &self,
        target: &Target,
        epoch: Epoch,
        operation: &OperationId,
    ) -> Result<Ticket, ProviderError> {
        let ticket = Ticket {
            machine: target.machine_id.clone(),
            epoch,
            reference: target.spec.bmc_credentials.clone(),
            operation: operation.to_string(),
            epochs: self.epochs.clone(),
        };
        ticket.check().map(|()| ticket)
    }

    fn pace(&self) -> Pace {
        Pace { clock: self.ports.clock.clone(), poll: self.settings.poll }
    }

    /// What the controller says about the machine; `fresh` reads its adapters again.
    async fn facts(
        &self,
        target: &Target,
        remote: &Remote,
        system: &System,
        fresh: bool,
    ) -> MachineFacts {
        let mac_addresses = if self.settings.reads_adapters {
            self.adapters.of(&target.machine_id, remote, system, fresh).await
        } else {
            Vec::new()
        };
        MachineFacts { mac_addresses, ..system.facts() }
    }

    async fn looked_at(&self, target: &Target, fresh: bool) -> Result<Health, ProviderError> {
        let remote = self.remote(target)?;
        let system = remote.system(remote.looking(None)).await?;
        let health = match system.health() {
            "" => String::new(),
            health => format!(", health {}", json::plain(health)),
        };
        Ok(Health {
            reachable: true,
            degraded: system.is_degraded(),
            message: format!("{}{health}", system.power_text()),
            facts: self.facts(target, &remote, &system, fresh).await,
        })
    }

    /// Whether an image may be downloaded from where it is.
    async fn check_image(&self, image: &str) -> Result<(), ProviderError> {
        let refused = |why: String| {
            let message = format!("the image {image} is not attached: {why}");
            ProviderError::new(ErrorClass::Permanent, ErrorCode::Precondition, message)
        };
        let (origin, _) = Origin::parse(image).map_err(|error| refused(error.to_string()))?;
        self.ports.images.allowed(&origin.host).await.map(drop).map_err(|error| {
            let error = Failure::from(error).error;
            let message = format!("the image {image} is not attached: {}", error.message);
            ProviderError { message, ..error }
        })
    }

    async fn checked(
        &self,
        target: &Target,
        call: &Call,
        logs: &Logs,
    ) -> Result<Verification, ProviderError> {
        let remote = self.remote(target)?;
        let asking = remote.looking(Some(call.operation.as_str()));
        let settings = &self.settings;
        let settle = match self.job(call)? {
            Job::Boot(boot) => {
                return match remote.until_boots(asking, &boot).await {
                    Ok(evidence) => Ok(Verification::Holds { evidence }),
                    Err(error) if !error.expected.is_empty() => Ok(Verification::Broken {
                        expected: error.expected,
                        observed: error.observed,
                    }),
                    Err(error) => Err(error),
                };
            }
            Job::Reboot { .. } => settings.settle,
            Job::IsUp { settle } => settle,
        };
        let waited = remote.until_power(asking, "On", settings.power, settle, logs).await?;
        let seconds = settle.as_secs();
        Ok(match waited {
            Waited::Held => Verification::Holds { evidence: format!("power On for {seconds} s") },
            Waited::Missed { seen } => Verification::Broken {
                expected: format!("power On for {seconds} s"),
                observed: seen,
            },
        })
    }
}

impl Provider for Redfish {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self, _: &Target) -> Capabilities {
        CAPABILITIES.into_iter().collect()
    }

    fn warning(&self, _: Capability) -> Option<&str> {
        self.settings.is_insecure.then_some("certificates of controllers are not checked")
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        Box::pin(async move {
            self.epochs.raise(&target.machine_id, epoch)?;
            let changes = [Capability::Power, Capability::Netboot];
            if !changes.into_iter().any(|capability| uses.contains(capability)) {
                return Ok(());
            }
            let remote = self.remote(target)?;
            let operation = format!("fence {epoch}");
            remote.bmc.end_others(remote.looking(Some(&operation))).await?;
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
            let remote = self.remote(target)?;
            let asking = remote.looking(Some(call.operation.as_str()));
            match self.job(call)? {
                Job::Reboot { .. } => {
                    let handle = call.handle.as_deref();
                    let machine = &target.machine_id;
                    let look = async {
                        let system = remote.system(asking).await?;
                        Ok((system.facts().power, system.power_text()))
                    };
                    let (id, pace) = (&call.operation, self.pace());
                    self.restarts.observe(machine, id, handle, &pace, &logs, look).await
                }
                Job::Boot(boot) => Ok(match remote.boots(asking, &boot).await? {
                    (true, evidence) => Observation::Done { evidence, output: Values::new() },
                    (false, observed) => Observation::NotDone { observed },
                }),
                // Whether it stays so takes a while to see: that is the action.
                Job::IsUp { .. } => {
                    let observed = remote.system(asking).await?.power_text();
                    Ok(Observation::NotDone { observed })
                }
            }
        })
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(async move {
            let job = self.job(call)?;
            let ticket = self.ticket(target, call.epoch, &call.operation)?;
            let remote = self.remote(target)?;
            let done = |evidence| Ok(Acted::Done { evidence, output: Values::new() });
            match job {
                Job::Reboot { is_graceful } => {
                    let (machine, id, pace) = (&target.machine_id, &call.operation, self.pace());
                    let restart = |logs: Logs, seen_off| async move {
                        reboot::restart(&remote, &ticket, is_graceful, &logs, &seen_off).await
                    };
                    self.restarts.act(machine, id, &pace, &logs, restart).await
                }
                Job::Boot(boot) => {
                    if let Boot::Medium(image) = &boot {
                        self.check_image(image).await?;
                    }
                    done(remote.set_boot(&ticket, &boot, &logs).await?)
                }
                Job::IsUp { settle } => {
                    let asking = remote.looking(Some(call.operation.as_str()));
                    let within = self.settings.power;
                    match remote.until_power(asking, "On", within, settle, &logs).await? {
                        Waited::Held => done(format!("power On for {} s", settle.as_secs())),
                        Waited::Missed { seen } => {
                            let message = format!("the machine is not up: {seen}");
                            let class = ErrorClass::Transient;
                            let error = ProviderError::new(class, ErrorCode::Precondition, message);
                            Err(error.seen("power On", seen))
                        }
                    }
                }
            }
        })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(async move { self.checked(target, call, &logs).await })
    }

    /// Nothing: a machine that was switched off is switched on again by its operation, unless a new owner takes over.
    fn stop<'a>(&'a self, _: &'a Target, _: &'a Call) -> Fut<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(self.looked_at(target, false))
    }

    fn inspect<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(self.looked_at(target, true))
    }

    fn breakers_open(&self) -> Vec<(&'static str, u64)> {
        vec![(NAME, self.bmcs.open.count())]
    }

    fn close(&self) -> super::Closing<'_> {
        Box::pin(async move {
            let late = self.ports.clock.sleep(GOODBYE);
            tokio::select! {
                biased;
                () = self.bmcs.log_out(true) => {}
                () = late => tracing::debug!("sessions of controllers were left open"),
            }
        })
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// What it knows.
pub const CAPABILITIES: [Capability; 3] =
    [Capability::Netboot, Capability::Power, Capability::Probe];
