//! The providers of a server: the simulator, and one for each class of machines.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{Config, ConfigError, Driver, MachineClass};
use super::programs::Programs;
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::outbound::TcpDial;
use crate::plan::suggest::nearest;
use crate::plan::{Actions, Capability};
use crate::provider::boot::{Control, Desk, Installer, Installing};
use crate::provider::ipmi::{Ipmi, IpmiPorts};
use crate::provider::redfish::{Redfish, RedfishPorts};
use crate::provider::routed::Routed;
use crate::provider::webhook::{Webhook, WebhookPorts};
use crate::provider::{Meter, Provider};

/// Every provider that a machine can name. Looks at files: blocks the calling thread.
///
/// # Errors
/// [`ConfigError`] for a class whose programs cannot be run, or are for an action that does not exist.
pub(super) fn all(
    config: &Config,
    fake: &Arc<dyn Provider>,
    programs: &Programs,
    desk: Option<&Arc<Desk>>,
    clock: &Arc<dyn Clock>,
    actions: &Actions,
    meter: Option<&Arc<dyn Meter>>,
) -> Result<Vec<Arc<dyn Provider>>, ConfigError> {
    let ports = RedfishPorts {
        dial: Arc::new(TcpDial::new(config.networks.bmc.clone())),
        images: TcpDial::new(config.networks.image.clone()),
        credentials: Credentials::new(config.credentials_dir.clone()),
        clock: clock.clone(),
    };
    let ipmi_ports = IpmiPorts {
        networks: TcpDial::new(config.networks.bmc.clone()),
        credentials: Credentials::new(config.credentials_dir.clone()),
        clock: clock.clone(),
    };
    let mut providers = vec![fake.clone()];
    for (name, class) in &config.machine_classes {
        let exec = known(class, actions)
            .and_then(|()| programs.driver(name, class, desk))
            .map_err(|why| ConfigError::Setting(format!("machine_classes.{name}.{why}")))?;
        // One for all capabilities of the class: they share the sessions and turns of its controllers.
        let redfish = Redfish::new(class.redfish.clone().unwrap_or_default(), ports.clone());
        let redfish = installing(Arc::new(redfish), class, desk, clock);
        let ipmi = Ipmi::new(class.ipmi.clone().unwrap_or_default(), ipmi_ports.clone());
        let ipmi = installing(Arc::new(ipmi), class, desk, clock);
        let webhook = match &class.webhook {
            Some(webhook) => {
                let settings = webhook.settings(name).map_err(ConfigError::Setting)?;
                let dial = Arc::new(TcpDial::new(config.networks.webhook.clone()));
                let credentials = Credentials::new(config.credentials_dir.clone());
                let ports = WebhookPorts { dial, credentials, clock: clock.clone() };
                Some(Arc::new(Webhook::new(settings, ports)) as Arc<dyn Provider>)
            }
            None => None,
        };
        let routes = routes(class, fake, exec.as_ref(), [&redfish, &ipmi], webhook.as_ref());
        let routed = Routed::new(name.clone(), routes);
        providers.push(match meter {
            Some(meter) => Arc::new(routed.measured(meter.clone(), clock.clone())),
            None => Arc::new(routed),
        });
    }
    Ok(providers)
}

/// A driver of controllers, which installs too if its class's machines are installed.
fn installing<D: Provider + Control>(
    driver: Arc<D>,
    class: &MachineClass,
    desk: Option<&Arc<Desk>>,
    clock: &Arc<dyn Clock>,
) -> Arc<dyn Provider> {
    let Some(desk) = desk.filter(|_| class.installs().is_some()) else { return driver };
    let options = class.installer.clone().unwrap_or_default();
    let installer = Installer::new(desk.clone(), driver.clone(), options, clock.clone());
    Arc::new(Installing::new(driver, installer))
}

/// Refuses programs for actions that are neither built in nor declared.
fn known(class: &MachineClass, actions: &Actions) -> Result<(), String> {
    let programs = class.exec.iter().flat_map(|exec| exec.actions.keys());
    let posted = class.webhook.iter().flat_map(|webhook| webhook.actions.iter().flatten());
    let mut named = programs.map(|name| ("exec", name)).chain(posted.map(|name| ("webhook", name)));
    let unknown = named.find(|(_, name)| actions.find(name).is_none());
    let Some((driver, unknown)) = unknown else { return Ok(()) };
    let meant = match nearest(unknown, actions.names()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "declare it in a file of --actions-dir".to_owned(),
    };
    Err(format!("{driver}.actions.{unknown} is no action: {meant}"))
}

fn routes(
    class: &MachineClass,
    fake: &Arc<dyn Provider>,
    exec: Option<&Arc<dyn Provider>>,
    [redfish, ipmi]: [&Arc<dyn Provider>; 2],
    webhook: Option<&Arc<dyn Provider>>,
) -> BTreeMap<Capability, Arc<dyn Provider>> {
    let driver = |driver: &Driver| match driver {
        Driver::Fake => Some(fake.clone()),
        // The configuration has been refused if its class names no programs.
        Driver::Exec => exec.cloned(),
        Driver::Redfish => Some(redfish.clone()),
        Driver::Ipmi => Some(ipmi.clone()),
        Driver::Webhook => webhook.cloned(),
    };
    let routes = class.routes.iter().filter_map(|(at, named)| Some((*at, driver(named)?)));
    routes.collect()
}
