use bmdemo::lifecycle::step::State;

use super::{Verdict, ensure};
use crate::book::Book;

/// A step that is recorded as SUCCEEDED is never executed again.
pub(crate) fn promise_04_succeeded_is_never_executed_again(
    book: &Book,
    operation: &str,
) -> Verdict {
    let Some((_, step)) = book.step_of(operation) else { return Ok(()) };
    ensure(step.state != State::Succeeded, || {
        format!("{operation} began, and its step is recorded as SUCCEEDED")
    })
}
