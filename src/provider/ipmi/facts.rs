//! What a controller knows of its machine besides its state: serial number, model, firmware.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::answer;
use super::chassis::Chassis;
use crate::ids::MachineId;
use crate::model::MachineFacts;

/// How long probes believe what was read: it changes only by hand, and some controllers take seconds for it.
const READ_AGAIN: Duration = Duration::from_secs(3_600);

/// What was read of one machine; empty where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    serial: String,
    model: String,
    firmware: String,
}

impl Inventory {
    /// Facts with these in addition.
    pub(super) fn with(self, facts: MachineFacts) -> MachineFacts {
        let Self { serial, model, firmware } = self;
        MachineFacts { serial, model, firmware, ..facts }
    }
}

/// What was read last, by machine, and when. Of another controller it is of another machine.
#[derive(Debug, Default)]
pub(super) struct Inventories(Mutex<HashMap<MachineId, (Duration, String, Inventory)>>);

impl Inventories {
    /// The inventory of a machine; `fresh` reads it whatever was read before.
    pub(super) async fn of(
        &self,
        machine: &MachineId,
        chassis: &Chassis,
        fresh: bool,
    ) -> Inventory {
        let (now, name) = (chassis.bmc.ports.clock.monotonic(), chassis.bmc.name());
        let known = self.lock().get(machine).filter(|(_, of, _)| *of == name).cloned();
        if let Some((at, _, known)) = &known
            && !fresh
            && now.saturating_sub(*at) < READ_AGAIN
        {
            return known.clone();
        }
        let read = async |words: &[&str]| chassis.bmc.ask(&chassis.reference, None, words).await;
        // A machine without an inventory is none without power.
        let fru = read(&["fru", "print", "0"]).await.unwrap_or_default();
        let mc = read(&["mc", "info"]).await.unwrap_or_default();
        let (serial, model) = answer::identity(&fru);
        let mut found = Inventory { serial, model, firmware: answer::firmware(&mc) };
        if let Some((_, _, before)) = known {
            // What cannot be read now has not changed for that.
            let keep = |new: &mut String, old: String| {
                if new.is_empty() {
                    *new = old;
                }
            };
            keep(&mut found.serial, before.serial);
            keep(&mut found.model, before.model);
            keep(&mut found.firmware, before.firmware);
        }
        self.lock().insert(machine.clone(), (now, name, found.clone()));
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MachineId, (Duration, String, Inventory)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
