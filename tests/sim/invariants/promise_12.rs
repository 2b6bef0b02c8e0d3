use super::{Verdict, ensure};
use crate::book::{Book, Object};
use crate::watcher::Seen;

/// A watcher that has read nothing all the time blocked nothing, and reads everything when it reads again.
pub(crate) fn promise_12_a_slow_watcher_catches_up(book: &Book, seen: &Seen) -> Verdict {
    let runs = |object: &Object| matches!(object, Object::Run(..));
    let later = book.feed.iter().filter(|(revision, object)| *revision > seen.from && runs(object));
    let expected = later.count();
    ensure(seen.changes.len() == expected, || {
        format!("the slow watcher received {} changes of {expected}", seen.changes.len())
    })
}
