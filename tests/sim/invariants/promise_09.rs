use super::{Verdict, ensure};
use crate::book::Book;
use crate::watcher::{Scope, Seen};

/// A watch, resumed repeatedly, has reported every change after its first revision once and in order; with a filter,
/// the changes of records that matched before or after.
pub(crate) fn promise_09_a_watch_misses_and_repeats_nothing(
    book: &Book,
    name: &str,
    seen: &Seen,
    scope: &Scope,
) -> Verdict {
    let feed = match scope {
        Scope::RunsRunning => &book.running,
        Scope::Runs | Scope::RunsOf(_) | Scope::Machines => &book.feed,
    };
    let expected: Vec<_> = feed
        .iter()
        .filter(|(revision, object)| *revision > seen.from && scope.covers(object))
        .cloned()
        .collect();
    let at = expected.iter().zip(&seen.changes).position(|(expected, changes)| expected != changes);
    ensure(at.is_none(), || {
        let at = at.unwrap_or(0);
        format!("watcher {name} received {:?} in place of {:?}", seen.changes[at], expected[at])
    })?;
    ensure(expected.len() == seen.changes.len(), || {
        format!("watcher {name} received {} changes of {}", seen.changes.len(), expected.len())
    })
}
