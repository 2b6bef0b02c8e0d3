//! The epochs of machines, as this process knows them: for controllers that know none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::ProviderError;
use crate::ids::{Epoch, MachineId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Epochs(Mutex<HashMap<MachineId, Epoch>>);

impl Epochs {
    /// Raises a machine's epoch.
    ///
    /// # Errors
    /// If a newer one is in force.
    pub(super) fn raise(&self, machine: &MachineId, epoch: Epoch) -> Result<(), ProviderError> {
        let mut epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = epochs.entry(machine.clone()).or_insert(epoch);
        if *known > epoch {
            return Err(fenced(machine, *known));
        }
        *known = epoch;
        Ok(())
    }

    /// # Errors
    /// If a newer epoch than this is in force.
    pub(super) fn check(&self, machine: &MachineId, epoch: Epoch) -> Result<(), ProviderError> {
        let epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match epochs.get(machine) {
            Some(known) if *known > epoch => Err(fenced(machine, *known)),
            Some(_) | None => Ok(()),
        }
    }
}

fn fenced(machine: &MachineId, current: Epoch) -> ProviderError {
    ProviderError::fenced(current, format!("machine {machine} belongs to epoch {current}"))
}
