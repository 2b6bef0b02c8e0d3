//! Who asks a controller, and the right to change something at it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::{Epoch, MachineId};
use crate::provider::ProviderError;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    /// The reference of the credentials.
    pub(super) reference: &'a str,
    /// The operation it is for, if any.
    pub(super) operation: Option<&'a str>,
    /// Whether it is part of a change: then it opens no session.
    pub(super) is_acting: bool,
}

/// The epochs of the machines, as this process knows them.
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

    fn check(&self, machine: &MachineId, epoch: Epoch) -> Result<(), ProviderError> {
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

/// The right to change something at a machine's controller, until the machine has a new owner.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) machine: MachineId,
    pub(super) epoch: Epoch,
    pub(super) reference: String,
    pub(super) operation: String,
    pub(super) epochs: Arc<Epochs>,
}

impl Ticket {
    /// # Errors
    /// If the machine has a new owner.
    pub(super) fn check(&self) -> Result<(), ProviderError> {
        self.epochs.check(&self.machine, self.epoch)
    }

    /// Its requests.
    pub(super) fn asking(&self) -> Asking<'_> {
        Asking { reference: &self.reference, operation: Some(&self.operation), is_acting: true }
    }
}
