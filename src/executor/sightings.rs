//! Facts that were observed about machines, on their way to the store.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::ids::MachineId;
use crate::model::{MachineFacts, Observed};
use crate::store::{Batch, Store};

/// Digests of the latest facts that are stored, so that a probe that confirms them need not read them.
#[derive(Debug, Default)]
pub(super) struct Sightings(Mutex<HashMap<MachineId, u64>>);

impl Sightings {
    fn lock(&self) -> MutexGuard<'_, HashMap<MachineId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next facts of the machine are compared with the stored ones.
    pub(super) fn forget(&self, machine: &MachineId) {
        self.lock().remove(machine);
    }

    /// Stores facts that differ from the latest ones; facts that confirm them cost no write.
    pub(super) async fn note(
        &self,
        store: &dyn Store,
        machine: &MachineId,
        facts: &MachineFacts,
        now: Timestamp,
    ) {
        let mut hasher = DefaultHasher::new();
        facts.hash(&mut hasher);
        let digest = hasher.finish();
        if self.lock().get(machine) == Some(&digest) {
            return;
        }
        let stored = match store.observed(machine).await {
            Ok(known) if known.as_ref().is_some_and(|known| known.facts == *facts) => Ok(()),
            Ok(_) => {
                let observed = Observed { facts: facts.clone(), since: now };
                let observed = vec![(machine.clone(), observed)];
                let batch = Batch { observed, ..Batch::default() };
                store.commit(batch).await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(()) => {
                self.lock().insert(machine.clone(), digest);
            }
            // The next probe observes them again.
            Err(error) => tracing::debug!(%machine, %error, "facts were not stored"),
        }
    }
}
