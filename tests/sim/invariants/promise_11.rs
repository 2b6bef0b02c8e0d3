use bmdemo::ids::RunId;
use bmdemo::lifecycle::run::State;
use bmdemo::plan::Role;
use bmdemo::provider::fake::LedgerEntry;

use super::{Verdict, ensure};
use crate::book::{Book, parts};
use crate::plans::role;

/// Once a cancel is acknowledged no step starts whose action had not been sent by then. Compensations may; so may an
/// action that a former owner of the machine sends until the fence of the present one is raised, since it cannot be
/// informed: then the outcome of the step is unknown, and the present owner observes before it decides.
pub(crate) fn promise_11_no_new_step_after_a_cancel(book: &Book, entry: &LedgerEntry) -> Verdict {
    let operation = entry.operation.as_str();
    let (run, step, _) = parts(operation);
    let claim = book.claims.get(&entry.machine);
    if claim.is_some_and(|claim| entry.epoch < claim.epoch && entry.fence < claim.epoch) {
        return Ok(());
    }
    let Ok(run) = RunId::parse(&run) else { return Ok(()) };
    let Some(sent) = book.canceled.get(&run) else { return Ok(()) };
    let undoes = book.step_of(operation).is_some_and(|(run, record)| {
        record.compensates.is_some() || role(&run.spec.plan_id, &record.name) != Role::Main
    });
    ensure(undoes || sent.contains(&step), || {
        format!("{operation} began, and a cancel of its run had been acknowledged")
    })
}

/// A run whose cancel was acknowledged ends CANCELED, or as the event that came before the cancel requires.
pub(crate) fn promise_11_a_cancel_is_never_lost(book: &Book) -> Verdict {
    for id in book.canceled.keys() {
        let Some(run) = book.runs.get(id) else { continue };
        let beaten = match run.state {
            State::Canceled => true,
            // The step in flight was the last one.
            State::Succeeded => run.cancel_requested_at.is_some(),
            State::Failed => book.aborted.contains(id),
            State::Pending
            | State::Running
            | State::Pausing
            | State::Held
            | State::Deferred
            | State::Resuming
            | State::Canceling
            | State::Stopping
            | State::Unwinding { .. }
            | State::Closing { .. } => false,
        };
        ensure(beaten, || format!("run {id} was to be canceled, and is {:?}", run.state))?;
    }
    Ok(())
}
