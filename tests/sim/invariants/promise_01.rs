use bmdemo::store::Store as _;
use bmdemo::store::memory::MemoryStore;

use super::{Verdict, ensure};
use crate::client::{Answer, Request};

/// Acknowledged means durable: an answer shows what is stored at that revision.
pub(crate) async fn promise_01_acknowledged_is_durable(
    store: &MemoryStore,
    request: &Request,
    answer: &Answer,
) -> Verdict {
    match answer {
        Answer::Run(run) => {
            let stored = store.run_at(run.id, run.revision).await;
            let stored = stored.map_err(|error| error.to_string())?;
            ensure(stored.as_ref() == Some(run), || {
                format!(
                    "{request:?} was answered with run {} at revision {}, but stored is {:?}",
                    run.id,
                    run.revision,
                    stored.map(|run| run.state)
                )
            })
        }
        Answer::Machine(machine) => {
            let stored = store.machine_at(&machine.id, machine.revision).await;
            let stored = stored.map_err(|error| error.to_string())?;
            ensure(stored.as_ref() == Some(machine), || {
                format!("{request:?} was answered with a machine that is not stored like that")
            })
        }
        Answer::Lock(lock) => {
            let stored = store.locks().await.map_err(|error| error.to_string())?;
            // One that has ended may be forgotten, or was lifted since.
            let is_stored = stored.iter().any(|one| one.id == lock.id);
            ensure(is_stored || lock.lifted_at.is_some(), || {
                format!("{request:?} was answered with a lock that is not stored")
            })
        }
        Answer::Refused(_) => Ok(()),
    }
}
