use bmdemo::model::{Change, Run};
use bmdemo::store::Store as _;
use bmdemo::store::memory::MemoryStore;

use super::{Verdict, ensure};
use crate::book::Book;

/// Nothing is written to a run that has ended.
pub(crate) fn promise_08_terminal_is_immutable(book: &Book, change: &Change) -> Verdict {
    let Some(run) = change.after::<Run>() else { return Ok(()) };
    ensure(!book.ended.contains_key(&run.id), || {
        format!("run {} has ended, and was written as {:?}", run.id, run.state)
    })
}

/// At the end every run that has ended is stored as it was when it ended.
pub(crate) async fn promise_08_ended_runs_are_as_they_ended(
    book: &Book,
    store: &MemoryStore,
) -> Verdict {
    for (id, ended) in &book.ended {
        let stored = store.run(*id).await.map_err(|error| error.to_string())?;
        ensure(stored.as_ref() == Some(ended), || {
            format!("run {id} is not as it was when it ended")
        })?;
    }
    Ok(())
}
