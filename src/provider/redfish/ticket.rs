//! Who asks a controller, and the right to change something at it.

use std::sync::Arc;

use crate::ids::{Epoch, MachineId};
use crate::provider::ProviderError;
use crate::provider::epochs::Epochs;

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
