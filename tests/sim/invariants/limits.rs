use bmdemo::ids::RunId;
use bmdemo::lifecycle::run::State;

use super::{Verdict, ensure};
use crate::book::Book;

/// No more runs proceed than the limit allows. A run that is ending does not have to wait, and two simultaneous
/// incarnations count separately.
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
