use bmdemo::plan::OnUnknown;
use bmdemo::provider::fake::LedgerEntry;

use super::{Verdict, ensure};
use crate::book::{Begun, Book, parts};
use crate::oracle::Look;

/// An operation whose rule is verify or hold is sent once: after an unknown outcome it is not sent again.
pub(crate) fn promise_06_unknown_outcomes_are_not_acted_on_blindly(
    book: &Book,
    operation: &str,
) -> Verdict {
    let sent = book.acts_sent.get(operation).copied().unwrap_or(0);
    match book.rule(operation) {
        Some(rule @ (OnUnknown::Verify | OnUnknown::Hold)) => ensure(sent <= 1, || {
            format!(
                "{operation} was sent {sent} times, and its rule for unknown outcomes is {rule:?}"
            )
        }),
        Some(OnUnknown::Retry) | None => Ok(()),
    }
}

/// A step takes effect a second time only after an observation, made when the first effect had started, that it was
/// not done; or after an operator said so.
pub(crate) fn promise_06_no_second_effect_without_evidence(
    book: &Book,
    entry: &LedgerEntry,
    ledger: &[LedgerEntry],
) -> Verdict {
    let operation = entry.operation.as_str();
    let (run, step, _) = parts(operation);
    let key = (run, step);
    let had_effect = |begun: &&Begun| {
        ledger.iter().any(|one| one.operation.as_str() == begun.operation && one.has_effect())
    };
    let begun = book.begun.get(&key);
    let Some(before) = begun.and_then(|begun| begun.iter().rfind(had_effect)) else {
        return Ok(());
    };
    let looks = book.looks.get(&before.operation);
    let seen = looks.into_iter().flatten().any(|looked| {
        looked.sequence > before.sequence && matches!(looked.look, Look::NotDone | Look::Broken)
    });
    let resolved = book.resolved.get(&key).is_some_and(|at| *at > before.sequence);
    ensure(seen || resolved, || {
        format!(
            "{operation} began after {}, which took effect and was not observed as not done",
            before.operation
        )
    })
}
