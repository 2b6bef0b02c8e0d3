use super::{Verdict, ensure};
use crate::book::Book;

/// After the last fault every run has ended, with a reason if it did not succeed, and every request was answered.
pub(crate) fn promise_05_nothing_is_stuck(book: &Book, unanswered: &[String]) -> Verdict {
    let stuck: Vec<_> = book
        .active
        .values()
        .flatten()
        .map(|id| {
            let run = &book.runs[id];
            let step = run.current_step.and_then(|place| run.steps.get(place));
            format!("{id} on {} is {:?} in {:?}", run.machine_id, run.state, step.map(|s| s.state))
        })
        .collect();
    ensure(stuck.is_empty(), || format!("stuck: {}", stuck.join("; ")))?;
    for run in book.runs.values() {
        let failed = run.phase() == bmdemo::lifecycle::run::Phase::Failed;
        ensure(!failed || run.error.is_some(), || {
            format!("run {} failed without a reason", run.id)
        })?;
    }
    ensure(unanswered.is_empty(), || format!("never answered: {}", unanswered.join("; ")))
}
