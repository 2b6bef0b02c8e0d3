use super::{Verdict, ensure};
use crate::book::Book;

/// At most one run is active on each machine, at every revision, and the machine names it.
pub(crate) fn promise_02_one_active_run(book: &Book) -> Verdict {
    for (id, machine) in &book.machines {
        let runs: Vec<_> = book.active.get(id).into_iter().flatten().copied().collect();
        ensure(runs.len() <= 1, || format!("{id} has {} active runs: {runs:?}", runs.len()))?;
        ensure(machine.active_run == runs.first().copied(), || {
            format!("{id} names {:?} as its active run, and active is {runs:?}", machine.active_run)
        })?;
    }
    Ok(())
}
