//! The world's own record of what happened, to check the engine against.

use std::collections::BTreeMap;

use super::action::Action;
use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, OperationId};

/// One operation as the world saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Machine that it was done to.
    pub machine: MachineId,
    /// Its id: run/step/attempt.
    pub operation: OperationId,
    /// Action, for example "repave".
    pub action: String,
    /// Epoch under which it was sent.
    pub epoch: Epoch,
    /// Epoch in force at the machine when it began.
    pub fence: Epoch,
    /// When it began, in world time.
    pub started_at: Timestamp,
    /// When it ended; `None` if the world has not noticed an end yet.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No end has been recorded: it ends by itself at `until`.
    Running {
        /// When it ends.
        until: Timestamp,
    },
    /// It took effect.
    Done,
    /// It was reported done and had no effect.
    Lied,
    /// It failed without effect.
    Failed,
    /// It was asked to stop, and had no effect.
    Stopped,
}

impl LedgerEntry {
    /// Whether something happened to the machine, or is happening.
    #[must_use]
    pub fn has_effect(&self) -> bool {
        matches!(self.outcome, Outcome::Done | Outcome::Running { .. })
    }

    /// When it ended, or will end.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        match (self.finished_at, self.outcome) {
            (Some(at), _) => at,
            (None, Outcome::Running { until }) => until,
            (None, _) => self.started_at,
        }
    }
}

/// Violations of the provider contract in the ledger, in order of start; empty if there are none.
///
/// - No operation id was executed twice.
/// - No two operations overlapped on one machine.
/// - Nothing started under an epoch older than the fence, or than an epoch that had already acted on the machine:
///   otherwise a late call of a former owner got through.
#[must_use]
pub fn violations(ledger: &[LedgerEntry]) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<&OperationId, usize> = BTreeMap::new();
    // The entry that ends last, and the newest epoch, by machine.
    let mut latest: BTreeMap<&MachineId, (&LedgerEntry, Epoch)> = BTreeMap::new();
    for entry in ledger {
        let LedgerEntry { machine, operation, action, epoch, fence, .. } = entry;
        let times = seen.entry(operation).or_default();
        *times += 1;
        if *times > 1 {
            found
                .push(format!("operation {operation} ({action} on {machine}) began {times} times"));
        }
        if epoch < fence {
            found.push(format!(
                "operation {operation} began on {machine} under epoch {epoch}, behind the fence {fence}"
            ));
        }
        if let Some((before, newest)) = latest.get(machine) {
            if entry.started_at < before.ends_at() {
                found.push(format!(
                    "operation {operation} began on {machine} at {} while {} ran until {}",
                    entry.started_at.0,
                    before.operation,
                    before.ends_at().0
                ));
            }
            if epoch < newest {
                found.push(format!(
                    "operation {operation} began on {machine} under epoch {epoch} after epoch {newest} had acted"
                ));
            }
        }
        let (before, newest) = latest.get(machine).copied().unwrap_or((entry, *epoch));
        let last = if entry.ends_at() >= before.ends_at() { entry } else { before };
        latest.insert(machine, (last, newest.max(*epoch)));
    }
    found
}

/// Destructive steps that took effect in more than one attempt: the engine repeated what it should have observed.
///
/// Not a violation by itself: an operator who resolves an unknown outcome with "retry" asks for it, and so does a
/// plan that retries after a check of the result failed.
#[must_use]
pub fn repeated_steps(ledger: &[LedgerEntry]) -> Vec<String> {
    let mut effects: BTreeMap<(&MachineId, &str), Vec<&OperationId>> = BTreeMap::new();
    for entry in ledger.iter().filter(|entry| entry.has_effect()) {
        if !Action::parse(&entry.action).is_some_and(Action::is_destructive) {
            continue;
        }
        let step = entry.operation.as_str().rsplit_once('/').map_or("", |(step, _)| step);
        effects.entry((&entry.machine, step)).or_default().push(&entry.operation);
    }
    effects
        .into_iter()
        .filter(|(_, operations)| operations.len() > 1)
        .map(|((machine, step), operations)| {
            let names: Vec<_> = operations.iter().map(|one| one.as_str()).collect();
            format!("step {step} took effect on {machine} more than once: {}", names.join(", "))
        })
        .collect()
}
