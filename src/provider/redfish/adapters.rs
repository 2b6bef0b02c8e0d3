//! The network adapters of a machine, as its controller lists them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;

use super::failure::Failure;
use super::json;
use super::system::{Remote, System};
use super::ticket::Asking;
use crate::ids::MachineId;
use crate::model::identity::normal_mac;

/// Most adapters of a machine that are read.
const ADAPTERS_MAX: usize = 32;
/// How long probes believe what was read: adapters change only by hand, and reading them takes a request for each.
const READ_AGAIN: Duration = Duration::from_secs(3_600);

/// What was read last, by machine.
#[derive(Debug, Default)]
pub(super) struct Adapters(Mutex<HashMap<MachineId, Known>>);

#[derive(Debug, Clone)]
struct Known {
    at: Duration,
    /// The system that they were read of, and its serial number: of another board the addresses are others.
    of: (String, String),
    addresses: Vec<String>,
}

impl Adapters {
    /// The MAC addresses of a machine; empty if they are not known. `fresh` reads them whatever was read before.
    pub(super) async fn of(
        &self,
        machine: &MachineId,
        remote: &Remote,
        system: &System,
        fresh: bool,
    ) -> Vec<String> {
        let now = remote.bmc.clock.monotonic();
        let origin = remote.bmc.channel.origin();
        let of = (format!("{origin}{}", system.path), system.serial().to_owned());
        let known = self.lock().get(machine).filter(|known| known.of == of).cloned();
        if let Some(known) = &known
            && !fresh
            && now.saturating_sub(known.at) < READ_AGAIN
        {
            return known.addresses.clone();
        }
        match remote.addresses(remote.looking(None), system).await {
            Ok(addresses) => {
                let known = Known { at: now, of, addresses: addresses.clone() };
                self.lock().insert(machine.clone(), known);
                addresses
            }
            // What cannot be read now has not changed for that.
            Err(failure) => {
                tracing::debug!(%machine, error = %failure.error, "its adapters were not read");
                known.map(|known| known.addresses).unwrap_or_default()
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MachineId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    /// The MAC addresses of the system's adapters, sorted; empty where the controller lists none.
    async fn addresses(&self, asking: Asking<'_>, system: &System) -> Result<Vec<String>, Failure> {
        let Some(path) = json::link(&system.json, &["EthernetInterfaces"]) else {
            return Ok(Vec::new());
        };
        let list = match self.bmc.get(asking, path).await {
            // It links to what it does not have.
            Err(failure) if failure.is(&[400, 404, 405, 501]) => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = BTreeSet::new();
        let members = json::at(&list, &["Members"]).and_then(Json::as_array);
        for member in members.into_iter().flatten().take(ADAPTERS_MAX) {
            // Some send the members themselves.
            if add(&mut found, member) {
                continue;
            }
            let Some(path) = json::link(member, &[]) else { continue };
            match self.bmc.get(asking, path).await {
                Err(failure) if failure.is(&[400, 404, 405, 501]) => {}
                other => {
                    add(&mut found, &other?);
                }
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// Adds the addresses of one adapter; `false` if it has none.
fn add(found: &mut BTreeSet<String>, adapter: &Json) -> bool {
    let of = |name| normal_mac(json::text(adapter, &[name]));
    let addresses = [of("PermanentMACAddress"), of("MACAddress")];
    let any = addresses.iter().any(Option::is_some);
    found.extend(addresses.into_iter().flatten());
    any
}
