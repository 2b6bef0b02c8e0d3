use bmdemo::ids::{Revision, RunId};
use bmdemo::lifecycle::run::State;

use super::{Verdict, ensure};
use crate::book::Book;

/// Waiting runs get a slot in the order in which commits made them wait, however often the server was killed in
/// between.
///
/// A run that started to wait earlier than one that proceeds now must have its slot too, with its commit in flight:
/// together with the proceeding runs it is within the limit then. Two simultaneous incarnations count separately.
pub(crate) fn promise_16_first_come_first_served(
    book: &Book,
    (run, since): (RunId, Revision),
    runs_max: usize,
    overlapped: bool,
) -> Verdict {
    if overlapped {
        return Ok(());
    }
    let overtaken: Vec<_> = book.queued.iter().filter(|(_, at)| **at < since).collect();
    let active = book.active.values().flatten();
    let forward = |id: &&RunId| matches!(book.runs[*id].state, State::Running | State::Pausing);
    let running = active.filter(forward).count();
    ensure(overtaken.is_empty() || running + overtaken.len() <= runs_max, || {
        format!(
            "run {run} has waited since r{since} and continues with {running} of {runs_max}, before {overtaken:?}"
        )
    })
}
