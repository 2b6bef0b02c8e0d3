//! A machine as its controller describes it.

use std::sync::Arc;

use serde_json::Value as Json;

use super::bmc::Bmc;
use super::failure::Failure;
use super::json;
use super::ticket::Asking;
use crate::lifecycle::step::ErrorClass;
use crate::model::{MachineFacts, Power};
use crate::provider::{ErrorCode, ProviderError};

/// A machine at its controller.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) bmc: Arc<Bmc>,
    /// Id of its system; empty if the controller has one alone.
    pub(super) system_id: String,
    /// Reference of the credentials.
    pub(super) reference: String,
}

/// Its system, as it was read.
#[derive(Debug, Clone)]
pub(super) struct System {
    pub(super) path: String,
    pub(super) json: Json,
}

impl Remote {
    /// One who only looks, for an operation or for none.
    pub(super) fn looking<'a>(&'a self, operation: Option<&'a str>) -> Asking<'a> {
        Asking { reference: &self.reference, operation, is_acting: false }
    }

    /// Reads its system.
    pub(super) async fn system(&self, asking: Asking<'_>) -> Result<System, Failure> {
        let collection = self.bmc.collection("Systems").await?;
        let path = if self.system_id.is_empty() {
            self.only_member(asking, &collection).await?
        } else {
            format!("{}/{}", collection.trim_end_matches('/'), self.system_id)
        };
        let read = self.bmc.get(asking, &path).await;
        let json = match read {
            // Some know a system only after its collection was read.
            Err(failure) if failure.is(&[404]) => {
                self.bmc.get(asking, &collection).await?;
                self.bmc.get(asking, &path).await.map_err(|failure| self.unknown(failure))?
            }
            other => other?,
        };
        Ok(System { path, json })
    }

    fn unknown(&self, mut failure: Failure) -> Failure {
        if failure.is(&[404]) {
            failure.error.message = format!(
                "{} has no system {:?}: see spec.bmc_system_id",
                self.bmc.channel.origin(),
                self.system_id
            );
        }
        failure
    }

    async fn only_member(&self, asking: Asking<'_>, collection: &str) -> Result<String, Failure> {
        let list = self.bmc.get(asking, collection).await?;
        match json::links(&list, &["Members"])[..] {
            [one] => Ok(one.to_owned()),
            ref several => {
                let message = format!(
                    "{} has {} systems: name the machine's own in spec.bmc_system_id",
                    self.bmc.channel.origin(),
                    several.len()
                );
                Err(ProviderError::new(ErrorClass::Permanent, ErrorCode::Invalid, message).into())
            }
        }
    }

    /// The paths of the managers of a system.
    pub(super) fn managers(system: &System) -> Vec<String> {
        let linked = json::links(&system.json, &["Links", "ManagedBy"]);
        linked.into_iter().map(str::to_owned).collect()
    }
}

impl System {
    /// Its power state in the controller's own word; empty if it gives none.
    pub(super) fn power(&self) -> &str {
        json::text(&self.json, &["PowerState"])
    }

    /// Its power state for people.
    pub(super) fn power_text(&self) -> String {
        match self.power() {
            "" => "no power state".to_owned(),
            power => format!("power {}", json::plain(power)),
        }
    }

    /// Where it takes resets.
    pub(super) fn reset_path(&self) -> String {
        let named = json::link(&self.json, &["Actions", "#ComputerSystem.Reset", "target"]);
        named.map_or_else(
            || format!("{}/Actions/ComputerSystem.Reset", self.path.trim_end_matches('/')),
            str::to_owned,
        )
    }

    /// The resets that it says it knows; empty if it does not say.
    pub(super) fn resets(&self) -> Vec<&str> {
        let path = ["Actions", "#ComputerSystem.Reset", "ResetType@Redfish.AllowableValues"];
        json::texts(&self.json, &path)
    }

    /// Where it says which resets it knows, if not in itself.
    pub(super) fn reset_info(&self) -> Option<&str> {
        let path = ["Actions", "#ComputerSystem.Reset", "@Redfish.ActionInfo"];
        json::link(&self.json, &path).filter(|_| self.resets().is_empty())
    }

    /// Its boot override: whether one is set, and to what.
    pub(super) fn boot_override(&self) -> (&str, &str) {
        let of = |name| json::text(&self.json, &["Boot", name]);
        (of("BootSourceOverrideEnabled"), of("BootSourceOverrideTarget"))
    }

    /// The sources that a boot override may name; empty if it does not say.
    pub(super) fn boot_targets(&self) -> Vec<&str> {
        json::texts(&self.json, &["Boot", "BootSourceOverrideTarget@Redfish.AllowableValues"])
    }

    /// The health of its parts, if it reports one.
    pub(super) fn health(&self) -> &str {
        let of = |name| json::text(&self.json, &["Status", name]);
        match of("HealthRollup") {
            "" => of("Health"),
            rollup => rollup,
        }
    }

    /// Whether it reports that a part is not well.
    pub(super) fn is_degraded(&self) -> bool {
        ["Warning", "Critical"].contains(&self.health())
    }

    /// Its serial number; empty if it reports none.
    pub(super) fn serial(&self) -> &str {
        json::text(&self.json, &["SerialNumber"])
    }

    /// What it says about the machine itself.
    pub(super) fn facts(&self) -> MachineFacts {
        let of = |name: &str| json::plain(json::text(&self.json, &[name]));
        let power = match self.power() {
            "On" => Power::On,
            "Off" => Power::Off,
            _ => Power::Unknown,
        };
        let bios = of("BiosVersion");
        let model = [of("Manufacturer"), of("Model")].join(" ");
        MachineFacts {
            power,
            firmware: if bios.is_empty() { bios } else { format!("BIOS {bios}") },
            serial: json::plain(self.serial()),
            health: json::plain(self.health()),
            model: model.trim().to_owned(),
            power_word: match power {
                Power::Unknown => json::plain(self.power()),
                Power::On | Power::Off => String::new(),
            },
            // Each adapter is a resource of its own.
            mac_addresses: Vec::new(),
        }
    }
}
