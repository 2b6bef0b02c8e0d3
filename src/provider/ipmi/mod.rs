//! Machines whose controller speaks IPMI 2.0, by the program `ipmitool`: power, boot device, and how they are.
//!
//! No answer is believed: what is read afterwards, and stays so for a settle time, decides. Controllers of this kind know
//! neither sessions that last nor epochs, so that a former owner of a machine is kept out within one server only.

mod answer;
mod bmc;
mod chassis;
mod control;
mod facts;
mod settings;
#[cfg(test)]
mod tests;
mod tool;

use std::sync::Arc;
use std::time::Duration;

use self::bmc::{Bmcs, Claim};
use self::chassis::{Boot, Chassis, Waited};
use self::facts::Inventories;
pub use self::settings::{IpmiPorts, IpmiSettings};
use super::epochs::Epochs;
use super::restart::{Pace, Restarts};
use super::{
    Acted, Call, Capabilities, ErrorCode, Fut, Health, Logs, Observation, Provider, ProviderError,
    Target, Verification,
};
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::model::Power;
use crate::plan::{Capability, Value, Values};

/// Its name.
pub const NAME: &str = "ipmi";

/// What it knows.
pub const CAPABILITIES: [Capability; 3] =
    [Capability::Netboot, Capability::Power, Capability::Probe];

/// The driver of one class of machines.
#[derive(Debug)]
pub struct Ipmi {
    settings: Arc<IpmiSettings>,
    ports: IpmiPorts,
    bmcs: Bmcs,
    epochs: Arc<Epochs>,
    restarts: Restarts,
    inventories: Inventories,
}

/// What an action asks of a controller.
#[derive(Debug)]
enum Job {
    Reboot { is_graceful: bool },
    Boot(Boot),
    IsUp { settle: Duration },
}

fn unsupported(call: &Call, why: &str) -> ProviderError {
    let message = format!("the driver {NAME} cannot do {}: {why}", call.action);
    ProviderError::new(ErrorClass::NeedsHuman, ErrorCode::Unsupported, message)
}

impl Ipmi {
    /// The driver of a class; it has called no one yet.
    #[must_use]
    pub fn new(settings: IpmiSettings, ports: IpmiPorts) -> Self {
        let settings = Arc::new(settings);
        Self {
            bmcs: Bmcs::new(settings.clone(), ports.clone()),
            settings,
            ports,
            epochs: Arc::default(),
            restarts: Restarts::default(),
            inventories: Inventories::default(),
        }
    }

    fn job(&self, call: &Call) -> Result<Job, ProviderError> {
        let text = |name: &str| call.args.get(name).and_then(Value::as_str);
        let ms = |name: &str| call.args.get(name).and_then(Value::as_duration_ms);
        Ok(match call.action.as_str() {
            "reboot" => Job::Reboot { is_graceful: text("mode") != Some("force") },
            "set-netboot" => Job::Boot(match text("target") {
                Some("disk") => Boot::Disk,
                Some("pxe") | None => Boot::Network,
                Some(other) => {
                    let message = format!(
                        "set-netboot cannot boot from {other:?} over IPMI, which knows pxe and disk"
                    );
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
                let why = "it knows reboot, set-netboot, clear-netboot and verify-up";
                return Err(unsupported(call, why));
            }
        })
    }

    /// The machine at its controller.
    fn chassis(&self, target: &Target) -> Result<Chassis, ProviderError> {
        let invalid = |message: String| {
            ProviderError::new(ErrorClass::Permanent, ErrorCode::Invalid, message)
        };
        let spec = &target.spec;
        if spec.bmc_endpoint.is_empty() {
            let message = "the machine names no controller: set spec.bmc_endpoint";
            return Err(invalid(message.to_owned()));
        }
        let bmc = self
            .bmcs
            .get(&spec.bmc_endpoint)
            .map_err(|error| invalid(format!("spec.bmc_endpoint {error}")))?;
        Ok(Chassis { bmc, reference: spec.bmc_credentials.clone() })
    }

    fn claim(&self, target: &Target, epoch: Epoch) -> Result<Claim, ProviderError> {
        let machine = target.machine_id.clone();
        let claim = Claim { machine, epoch, epochs: self.epochs.clone() };
        claim.check().map(|()| claim)
    }

    fn pace(&self) -> Pace {
        Pace { clock: self.ports.clock.clone(), poll: self.settings.poll }
    }

    /// How the machine is; `fresh` reads its inventory again.
    async fn looked_at(&self, target: &Target, fresh: bool) -> Result<Health, ProviderError> {
        let chassis = self.chassis(target)?;
        let status = chassis.bmc.status(&chassis.reference).await.map_err(|failed| failed.error)?;
        let inventory = self.inventories.of(&target.machine_id, &chassis, fresh).await;
        let facts = inventory.with(status.facts());
        let health = &facts.health;
        Ok(Health {
            reachable: true,
            degraded: !status.faults.is_empty(),
            message: format!("{}, health {health}", status.text()),
            facts,
        })
    }

    async fn stays_on(
        &self,
        chassis: &Chassis,
        settle: Duration,
        logs: &Logs,
    ) -> Result<Waited, ProviderError> {
        chassis.until_power(Power::On, self.settings.power, settle, logs).await
    }
}

impl Provider for Ipmi {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self, _: &Target) -> Capabilities {
        CAPABILITIES.into_iter().collect()
    }

    fn warning(&self, capability: Capability) -> Option<&str> {
        let boots =
            matches!(capability, Capability::Netboot | Capability::Imaging | Capability::Wipe);
        match (self.settings.cipher_suite != 17, boots && !self.settings.reads_boot_device) {
            (true, true) => {
                Some("the cipher suite uses SHA-1 or less; the boot device is not read back")
            }
            (true, false) => Some("the cipher suite uses SHA-1 or less"),
            (false, true) => Some("the boot device is not read back"),
            (false, false) => None,
        }
    }

    /// Within this server only: the protocol has nothing that a former owner could be kept out with.
    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, _: Capabilities) -> Fut<'a, ()> {
        Box::pin(std::future::ready(self.epochs.raise(&target.machine_id, epoch)))
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        Box::pin(async move {
            let chassis = self.chassis(target)?;
            match self.job(call)? {
                Job::Reboot { .. } => {
                    let look = async {
                        let status = chassis.bmc.status(&chassis.reference).await;
                        let status = status.map_err(|failure| failure.error)?;
                        Ok((status.power, status.text()))
                    };
                    let (id, handle) = (&call.operation, call.handle.as_deref());
                    let machine = &target.machine_id;
                    self.restarts.observe(machine, id, handle, &self.pace(), &logs, look).await
                }
                Job::Boot(boot) => Ok(match chassis.boots_already(boot).await? {
                    (true, evidence) => Observation::Done { evidence, output: Values::new() },
                    (false, observed) => Observation::NotDone { observed },
                }),
                // Whether it stays so takes a while to see: that is the action.
                Job::IsUp { .. } => {
                    let status = chassis.bmc.status(&chassis.reference).await;
                    let observed = status.map_err(|failure| failure.error)?.text();
                    Ok(Observation::NotDone { observed })
                }
            }
        })
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(async move {
            let job = self.job(call)?;
            let claim = self.claim(target, call.epoch)?;
            let chassis = self.chassis(target)?;
            let done = |evidence| Ok(Acted::Done { evidence, output: Values::new() });
            match job {
                Job::Reboot { is_graceful } => {
                    let (machine, id, pace) = (&target.machine_id, &call.operation, self.pace());
                    let restart = |logs: Logs, seen_off| async move {
                        chassis.restart(&claim, is_graceful, &logs, &seen_off).await
                    };
                    self.restarts.act(machine, id, &pace, &logs, restart).await
                }
                Job::Boot(boot) => done(chassis.set_boot(&claim, boot, &logs).await?),
                Job::IsUp { settle } => match self.stays_on(&chassis, settle, &logs).await? {
                    Waited::Held => done(format!("power on for {} s", settle.as_secs())),
                    Waited::Missed { seen } => {
                        let message = format!("the machine is not up: {seen}");
                        let class = ErrorClass::Transient;
                        let error = ProviderError::new(class, ErrorCode::Precondition, message);
                        Err(error.seen("power on", seen))
                    }
                },
            }
        })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(async move {
            let chassis = self.chassis(target)?;
            let settle = match self.job(call)? {
                Job::Boot(boot) => {
                    return Ok(match chassis.boots_still(boot).await? {
                        (true, evidence) => Verification::Holds { evidence },
                        (false, observed) => Verification::Broken {
                            expected: format!("{} done", call.action),
                            observed,
                        },
                    });
                }
                Job::Reboot { .. } => self.settings.settle,
                Job::IsUp { settle } => settle,
            };
            let expected = format!("power on for {} s", settle.as_secs());
            Ok(match self.stays_on(&chassis, settle, &logs).await? {
                Waited::Held => Verification::Holds { evidence: expected },
                Waited::Missed { seen } => Verification::Broken { expected, observed: seen },
            })
        })
    }

    /// Nothing: a machine that was switched off is switched on again by its operation, unless a new owner takes over.
    fn stop<'a>(&'a self, _: &'a Target, _: &'a Call) -> Fut<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(self.looked_at(target, false))
    }

    fn breakers_open(&self) -> Vec<(&'static str, u64)> {
        vec![(NAME, self.bmcs.open.count())]
    }

    fn inspect<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(self.looked_at(target, true))
    }

    fn is_real(&self) -> bool {
        true
    }
}
