use super::{Verdict, ensure};
use crate::book::{Book, Object};
use crate::watcher::Seen;

/// A watch, resumed again and again, has told every change after its first revision once and in order.
pub(crate) fn promise_09_a_watch_misses_and_repeats_nothing(
    book: &Book,
    name: &str,
    seen: &Seen,
    wanted: impl Fn(&Object) -> bool,
) -> Verdict {
    let expected: Vec<_> = book
        .feed
        .iter()
        .filter(|(revision, object)| *revision > seen.from && wanted(object))
        .cloned()
        .collect();
    let at = expected.iter().zip(&seen.told).position(|(expected, told)| expected != told);
    ensure(at.is_none(), || {
        let at = at.unwrap_or(0);
        format!("watcher {name} was told {:?} in place of {:?}", seen.told[at], expected[at])
    })?;
    ensure(expected.len() == seen.told.len(), || {
        format!("watcher {name} was told {} changes of {}", seen.told.len(), expected.len())
    })
}
