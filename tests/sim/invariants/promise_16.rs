use bmdemo::ids::{Revision, RunId};
use bmdemo::lifecycle::run::State;

use super::{Verdict, ensure};
use crate::book::Book;

/// Runs that wait for a slot get it in the order in which commits made them wait, however often the server was killed
/// in between.
///
/// A run that began to wait earlier than one that goes forward now must have its slot too, its commit being under way:
/// with the runs that go forward it is within the limit then. Two incarnations at once count each for itself.
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
            "run {run} has waited since r{since} and goes on with {running} of {runs_max}, before {overtaken:?}"
        )
    })
}
