//! Errors of store calls.

use std::pin::Pin;
use std::sync::Arc;

use super::batch::RequestRecord;
use super::slots::SlotKey;
use crate::ids::{Epoch, MachineId, Revision, RunId};

/// Boxed future of a store call. A commit is never cheaper than one disk flush, so the box is noise.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store call failed. Nothing was written unless the variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another writer was first: read again, decide again. An object that a batch names twice conflicts with itself.
    #[error("{kind} {id} is at revision {stored}, not at the expected {expected}")]
    Conflict {
        /// "machine", "run", or "log of run": then the two numbers are offsets, since a log has no gaps. Or "cursor": then
        /// they are what comes next.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Revision that the writer saw; zero if it expected no record.
        expected: Revision,
        /// Revision that is stored; zero if there is none.
        stored: Revision,
    },
    /// Another run is active on the machine.
    #[error("machine {machine_id} has an active run {run_id}")]
    ActiveRun {
        /// Machine.
        machine_id: MachineId,
        /// The run that owns it.
        run_id: RunId,
    },
    /// A MAC address belongs to another machine.
    #[error("MAC address {mac} belongs to machine {machine_id}")]
    MacTaken {
        /// The address.
        mac: String,
        /// The machine that has it.
        machine_id: MachineId,
    },
    /// The writer's epoch is older than the machine's: another server owns its work. Never retry.
    #[error("fenced: epoch {held} of machine {machine_id} is older than {current}")]
    Fenced {
        /// Machine.
        machine_id: MachineId,
        /// Epoch that the writer holds.
        held: Epoch,
        /// Epoch in force.
        current: Epoch,
    },
    /// The request id was used before.
    #[error("request id {:?} was used before", .0.request_id)]
    RequestUsed(Box<RequestRecord>),
    /// All slots of a key are taken: wait for one to be released.
    #[error("all {max} slots of {key} are taken")]
    NoSlot {
        /// The key.
        key: SlotKey,
        /// The limit of the key.
        max: u64,
    },
    /// The reader's revision is older than what is kept: list again, then watch.
    #[error("history before revision {oldest} has been compacted")]
    Compacted {
        /// Oldest revision from which a reader can continue.
        oldest: Revision,
    },
    /// The disk is full. Writes are refused until there is space; reads still work.
    #[error("the store is full")]
    Full(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// It is unknown whether the write is durable: the store refuses further writes until it is reopened.
    #[error("the outcome of a write is unknown")]
    Unknown(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The backend failed; retrying may help.
    #[error("the store is unavailable")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A stored record cannot be read; it is never dropped or guessed.
    #[error("stored {kind} {id} cannot be read: {message}")]
    Corrupt {
        /// Kind of the record.
        kind: &'static str,
        /// Its key.
        id: String,
        /// What is wrong with it.
        message: String,
    },
}

impl StoreError {
    /// Whether a retry without changes can succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Full(_) | Self::Unknown(_) | Self::Unavailable(_) | Self::NoSlot { .. } => true,
            Self::Conflict { .. }
            | Self::MacTaken { .. }
            | Self::ActiveRun { .. }
            | Self::Fenced { .. }
            | Self::RequestUsed(_)
            | Self::Compacted { .. }
            | Self::Corrupt { .. } => false,
        }
    }
}
