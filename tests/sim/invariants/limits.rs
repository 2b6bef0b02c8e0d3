use super::{Verdict, ensure};
use crate::book::Book;

/// No more runs have a slot than the limit says. Two incarnations at once count each for itself.
pub(crate) fn limits_are_exact(book: &Book, runs_max: usize, overlapped: bool) -> Verdict {
    if overlapped {
        return Ok(());
    }
    let active = book.active.values().flatten();
    let running = active.filter(|id| book.runs[id].state.has_slot()).count();
    ensure(running <= runs_max, || {
        format!("{running} runs have a slot, and the limit is {runs_max}")
    })
}
