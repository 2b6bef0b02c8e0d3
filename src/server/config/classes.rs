//! Classes of machines: which driver has which capability.

use std::collections::BTreeMap;

use super::exec::ExecClass;
use super::webhook::WebhookClass;
use super::{installer, ipmi, redfish};
use crate::plan::Capability;
use crate::provider::boot::{InstallerOptions, installs};
use crate::provider::ipmi::{self as driver_ipmi, IpmiSettings};
use crate::provider::redfish::{CAPABILITIES, NAME, RedfishSettings};
use crate::text::escaped;

/// Longest name of a class, in characters.
const NAME_CHARS_MAX: usize = 63;

/// What carries out the actions of a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum Driver {
    /// The simulator.
    Fake,
    /// Programs of the operator's own.
    Exec,
    /// The machine's controller, over Redfish.
    Redfish,
    /// The machine's controller, over IPMI.
    Ipmi,
    /// A receiver of signed messages.
    Webhook,
}

impl Driver {
    /// Every driver.
    #[cfg(test)]
    pub(in crate::server) const ALL: [Self; 5] =
        [Self::Fake, Self::Exec, Self::Redfish, Self::Ipmi, Self::Webhook];

    /// Its name: also that of the provider that needs no class.
    pub(in crate::server) const fn as_str(self) -> &'static str {
        match self {
            Self::Fake => "fake",
            Self::Exec => "exec",
            Self::Redfish => NAME,
            Self::Ipmi => driver_ipmi::NAME,
            Self::Webhook => "webhook",
        }
    }

    /// Whether it knows the actions of this capability.
    fn offers(self, capability: Capability) -> bool {
        match self {
            Self::Fake | Self::Exec => !matches!(capability, Capability::Engine),
            Self::Redfish => CAPABILITIES.contains(&capability) || installs(capability),
            Self::Ipmi => driver_ipmi::CAPABILITIES.contains(&capability) || installs(capability),
            // A message cannot look at a machine.
            Self::Webhook => !matches!(capability, Capability::Engine | Capability::Probe),
        }
    }
}

/// The machines that are driven in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct MachineClass {
    /// Which driver does what.
    pub(in crate::server) routes: BTreeMap<Capability, Driver>,
    /// The programs of the driver `exec`.
    pub(in crate::server) exec: Option<ExecClass>,
    /// How the driver `redfish` calls the controllers; `None` if the file says nothing of it.
    pub(in crate::server) redfish: Option<RedfishSettings>,
    /// How the driver `ipmi` calls the controllers; `None` if the file says nothing of it.
    pub(in crate::server) ipmi: Option<IpmiSettings>,
    /// The receiver of the driver `webhook`.
    pub(in crate::server) webhook: Option<WebhookClass>,
    /// How its machines are installed; `None` if the file says nothing of it.
    pub(in crate::server) installer: Option<InstallerOptions>,
}

impl MachineClass {
    /// A class with these drivers, and nothing said about them.
    pub(super) fn new(routes: impl IntoIterator<Item = (Capability, Option<Driver>)>) -> Self {
        let named =
            routes.into_iter().filter_map(|(capability, driver)| Some((capability, driver?)));
        let routes = named.collect();
        Self { routes, exec: None, redfish: None, ipmi: None, webhook: None, installer: None }
    }

    /// Whether a capability is by this driver.
    pub(super) fn uses(&self, driver: Driver) -> bool {
        self.routes.values().any(|used| *used == driver)
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// What is wrong, naming the key.
    pub(super) fn check(&self, name: &str) -> Result<(), String> {
        let key = format!("machine_classes.{}", escaped(name));
        if name == Driver::Fake.as_str() {
            return Err(format!("{key}: fake is the simulator's own class; take another name"));
        }
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = (1..=NAME_CHARS_MAX).contains(&name.len())
            && name.chars().all(inside)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !is_name {
            return Err(format!(
                "{key} can be no class: a name has 1 to {NAME_CHARS_MAX} lower-case letters, digits and, inside, '-'"
            ));
        }
        if self.routes.is_empty() {
            return Err(format!(
                "{key} names no driver, so its machines could do nothing; give at least one, such as power = \"fake\""
            ));
        }
        match self.routes.iter().find(|(capability, driver)| !driver.offers(**capability)) {
            Some((capability, driver)) => {
                let known = Capability::ALL.iter().filter(|at| driver.offers(**at));
                let known: Vec<&str> = known.map(|at| at.as_str()).collect();
                Err(format!(
                    "{key}.{capability} is {:?}, which does not do that: it does {}",
                    driver.as_str(),
                    known.join(", ")
                ))
            }
            None => self
                .check_exec(&key)
                .and_then(|()| self.check_redfish(&key))
                .and_then(|()| self.check_ipmi(&key))
                .and_then(|()| self.check_webhook(name))
                .and_then(|()| self.check_installer(&key)),
        }
    }

    fn check_webhook(&self, name: &str) -> Result<(), String> {
        let by_webhook = self.routes.iter().filter(|(_, driver)| **driver == Driver::Webhook);
        let needed: Vec<Capability> = by_webhook.map(|(capability, _)| *capability).collect();
        match &self.webhook {
            None if needed.is_empty() => Ok(()),
            None => Err(format!(
                "machine_classes.{name}.{} is \"webhook\", and no receiver is named: add [machine_classes.{name}.webhook] with url and secret",
                needed[0]
            )),
            Some(webhook) => webhook.check(name, &needed),
        }
    }

    fn check_redfish(&self, key: &str) -> Result<(), String> {
        match &self.redfish {
            Some(_) if !self.uses(Driver::Redfish) => Err(format!(
                "{key}.redfish has no effect: no capability of the class is by redfish, as with power = \"redfish\""
            )),
            Some(settings) => redfish::check(key, settings),
            None => Ok(()),
        }
    }

    fn check_ipmi(&self, key: &str) -> Result<(), String> {
        match &self.ipmi {
            Some(_) if !self.uses(Driver::Ipmi) => Err(format!(
                "{key}.ipmi has no effect: no capability of the class is by ipmi, as with power = \"ipmi\""
            )),
            Some(settings) => ipmi::check(key, settings),
            None if self.uses(Driver::Ipmi) => ipmi::check(key, &IpmiSettings::default()),
            None => Ok(()),
        }
    }

    /// The capability for which its machines boot an installer, if there is one.
    pub(in crate::server) fn installs(&self) -> Option<Capability> {
        let by_installer = |(capability, driver): (&Capability, &Driver)| {
            let by_controller = matches!(driver, Driver::Redfish | Driver::Ipmi);
            (by_controller && installs(*capability)).then_some(*capability)
        };
        self.routes.iter().find_map(by_installer)
    }

    fn check_installer(&self, key: &str) -> Result<(), String> {
        match &self.installer {
            Some(_) if self.installs().is_none() => Err(format!(
                "{key}.installer has no effect: nothing of the class is by an installer, as with imaging = \"redfish\""
            )),
            Some(options) => installer::check(key, options),
            None => Ok(()),
        }
    }

    fn check_exec(&self, key: &str) -> Result<(), String> {
        let by_exec = self.routes.iter().filter(|(_, driver)| **driver == Driver::Exec);
        let needed: Vec<Capability> = by_exec.map(|(capability, _)| *capability).collect();
        match &self.exec {
            None if needed.is_empty() => Ok(()),
            None => Err(format!(
                "{key}.{} is \"exec\", and no program is named: add [{key}.exec.actions.ACTION] with act = [\"/a/program\"]",
                needed[0]
            )),
            Some(exec) => match exec.reports() {
                Some(action) if self.installs().is_none() => Err(format!(
                    "{key}.exec.actions.{}.material is \"report\", but no machine of the class would have a token to report with: \
                     machines get one with imaging = \"redfish\" or \"ipmi\"; take \"input\" otherwise",
                    escaped(action)
                )),
                Some(_) | None => exec.check(key, &needed),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn drivers_are_read_by_their_names() {
        for driver in Driver::ALL {
            let read: Driver = serde_json::from_value(driver.as_str().into()).unwrap();
            assert_eq!(read, driver);
        }
    }

    /// A new capability is a new key of a class.
    #[test]
    fn a_class_has_a_key_for_every_capability_of_a_provider() {
        let routes = file::MachineClass::default().routes();
        let mut keys: Vec<Capability> = routes.iter().map(|(capability, _)| *capability).collect();
        keys.push(Capability::Engine);
        assert_eq!(keys, Capability::ALL);
        for (capability, _) in routes {
            let text = format!("{capability} = \"fake\"");
            let class: file::MachineClass = toml::from_str(&text).unwrap();
            let class = MachineClass::new(class.routes());
            assert_eq!(class.routes, BTreeMap::from([(capability, Driver::Fake)]));
        }
    }
}
