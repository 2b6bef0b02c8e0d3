//! Deletion of a machine's record.

use super::checks::check_etag;
use super::state::Worker;
use crate::executor::audit;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::idempotency::request;
use crate::executor::request::Origin;
use crate::lifecycle::machine::Phase;
use crate::model::{Entry, EntryKind};
use crate::store::{Batch, StoreError, Write};

impl Worker {
    /// Deletes a RETIRED machine. A repetition with the same request id succeeds, even if the id is in use again.
    pub(super) async fn delete(&mut self, origin: &Origin) -> Result<(), EngineError> {
        let scope = origin.key("DeleteMachine", &self.id);
        if self.ports.is_repeated(origin, &scope).await? {
            return Ok(());
        }
        let machine = origin.admits(self.load_machine().await?)?;
        check_etag("machine", self.id.as_str(), origin, machine.revision)?;
        if machine.phase != Phase::Retired {
            return Err(EngineError::Refused {
                refusal: Refusal::NotRetired,
                subject: format!("machines/{}", self.id),
                message: format!("machine {} is {}, not RETIRED", self.id, machine.phase),
                hint: "set its phase to RETIRED first".to_owned(),
            });
        }
        self.ports.in_time(origin)?;
        let entry = Entry::new(EntryKind::MachineDeleted, origin.actor.clone())
            .reason(&origin.reason)
            .message(format!("machine deleted by {}", origin.actor.name));
        let batch = Batch {
            writes: vec![Write::deletion(machine, vec![entry])],
            request: request(origin, &scope, self.id.as_str(), self.now()),
            audit: {
                let objects = vec![format!("machines/{}", self.id)];
                audit::done(origin, audit::rpc_of(&scope), objects, "")
            },
            ..Batch::default()
        };
        let committed = self.ports.commit(batch).await;
        // Deleted, or changed by another writer.
        self.machine = None;
        match committed {
            Ok(_) => Ok(()),
            Err(StoreError::RequestUsed(_)) => {
                self.ports.is_repeated(origin, &scope).await.map(|_| ())
            }
            Err(error) => Err(error.into()),
        }
    }
}
