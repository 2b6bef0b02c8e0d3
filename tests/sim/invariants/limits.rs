use bmdemo::ids::RunId;
use bmdemo::lifecycle::run::State;

use super::{Verdict, ensure};
use crate::book::Book;

/// No more runs go forward than the limit says. One that is being ended is not made to wait, and two incarnations at
/// once count each for itself.
pub(crate) fn limits_are_exact(book: &Book, runs_max: usize, overlapped: bool) -> Verdict {
    if overlapped {
        return Ok(());
    }
    let active = book.active.values().flatten();
    let forward = |id: &&RunId| matches!(book.runs[*id].state, State::Running | State::Pausing);
    let running = active.filter(forward).count();
    ensure(running <= runs_max, || {
        format!("{running} runs have a slot, and the limit is {runs_max}")
    })
}
