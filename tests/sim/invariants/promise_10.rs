use bmdemo::model::{Change, EntryKind, Machine, Run};
use bmdemo::provider::fake::{self, LedgerEntry};

use super::{Verdict, ensure};
use crate::book::Book;
use crate::gate::Incarnation;

/// An executor writes to a run only while the newest claim on the machine is its own.
pub(crate) fn promise_10_fenced_executor_cannot_write(
    book: &Book,
    by: Incarnation,
    change: &Change,
) -> Verdict {
    let Some(run) = change.after::<Run>() else { return Ok(()) };
    let claims = change.entries.iter().any(|entry| is_claim(entry.kind));
    let Some(claim) = book.claims.get(&run.machine_id) else { return Ok(()) };
    ensure(claims || claim.by == by, || {
        format!(
            "incarnation {by} wrote run {}, and incarnation {} has claimed {} under epoch {}",
            run.id, claim.by, run.machine_id, claim.epoch
        )
    })
}

/// Epochs of a machine never go down, and every claim raises them.
pub(crate) fn promise_10_claims_raise_the_epoch(
    book: &Book,
    change: &Change,
    changes: &[Change],
) -> Verdict {
    let Some(machine) = change.after::<Machine>() else { return Ok(()) };
    let Some(before) = book.machines.get(&machine.id) else { return Ok(()) };
    ensure(machine.epoch >= before.epoch, || {
        format!("the epoch of {} fell from {} to {}", machine.id, before.epoch, machine.epoch)
    })?;
    let claims = changes.iter().any(|change| {
        change.after::<Run>().is_some_and(|run| run.machine_id == machine.id)
            && change.entries.iter().any(|entry| is_claim(entry.kind))
    });
    ensure(!claims || machine.epoch > before.epoch, || {
        format!("{} was claimed without a new epoch: it stays {}", machine.id, before.epoch)
    })
}

fn is_claim(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::RunCreated | EntryKind::RunRecovered)
}

/// Once a machine was read back under an epoch, nothing starts on it under an older one.
pub(crate) fn promise_10_no_effect_behind_a_newer_reader(
    book: &Book,
    entry: &LedgerEntry,
) -> Verdict {
    let read = book.read_under.get(&entry.machine).copied().unwrap_or_default();
    ensure(entry.epoch >= read, || {
        format!(
            "{} began under epoch {}, and {} had been read back under epoch {read}",
            entry.operation, entry.epoch, entry.machine
        )
    })
}

/// The world's own account breaks no rule of the provider contract.
pub(crate) fn promise_10_the_world_agrees(ledger: &[LedgerEntry]) -> Verdict {
    let violations = fake::violations(ledger);
    ensure(violations.is_empty(), || violations.join("; "))
}
