//! An operation of the simulated world: the request, how it will end, and how it ended.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::effect::Effect;
use super::ledger::{LedgerEntry, Outcome};
use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::provider::{ErrorCode, ProviderError, ProviderErrorKind};

/// How an operation will end, decided when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Planned {
    /// It takes effect.
    Effect,
    /// It reports success, but nothing happened.
    Lie,
    /// It fails without effect.
    Failure(Box<Failure>),
}

/// A failure of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    class: String,
    /// Empty in a journal from before there were codes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    code: String,
    message: String,
    expected: String,
    observed: String,
}

impl Failure {
    pub(super) fn of(error: &ProviderError) -> Self {
        let class = match error.kind {
            ProviderErrorKind::Class(class) => class,
            ProviderErrorKind::Fenced { .. } => ErrorClass::Permanent,
        };
        Self {
            class: class.as_str().to_owned(),
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            expected: error.expected.clone(),
            observed: error.observed.clone(),
        }
    }

    pub(super) fn class(&self) -> ErrorClass {
        let known = ErrorClass::ALL.into_iter().find(|class| class.as_str() == self.class);
        // A class that this version does not know needs a person.
        known.unwrap_or(ErrorClass::NeedsHuman)
    }

    pub(super) fn error(&self) -> ProviderError {
        let code = ErrorCode::parse(&self.code).unwrap_or(ErrorCode::Failed);
        ProviderError::new(self.class(), code, &self.message).seen(&self.expected, &self.observed)
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ending {
    /// As planned.
    AsPlanned,
    /// It was stopped before it took effect.
    Stopped,
}

/// One operation on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Operation {
    pub(super) id: String,
    /// Ordinal of the operation on the machine.
    pub(super) number: u64,
    pub(super) action: Action,
    pub(super) epoch: u64,
    pub(super) started_at_ms: u64,
    pub(super) until_ms: u64,
    pub(super) planned: Planned,
    pub(super) effect: Effect,
    /// Epoch in force at the machine when it started; set when the record is applied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) fence: u64,
    /// Order of starting in the whole world; set when the record is applied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) order: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<(u64, Ending)>,
    /// Number of the record that last changed it, to find out whether that is durable.
    #[serde(skip)]
    pub(super) recorded: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Operation {
    pub(super) fn handle(&self) -> String {
        format!("fake-{}", self.number)
    }

    pub(super) fn ledger_entry(&self, machine: &MachineId) -> LedgerEntry {
        let outcome = match (&self.ended, &self.planned) {
            (None, _) => Outcome::Running { until: Timestamp(self.until_ms) },
            (Some((_, Ending::Stopped)), _) => Outcome::Stopped,
            (Some((_, Ending::AsPlanned)), Planned::Effect) => Outcome::Done,
            (Some((_, Ending::AsPlanned)), Planned::Lie) => Outcome::Lied,
            (Some((_, Ending::AsPlanned)), Planned::Failure(_)) => Outcome::Failed,
        };
        LedgerEntry {
            machine: machine.clone(),
            operation: OperationId::from_stored(&self.id),
            action: self.action.as_str().to_owned(),
            epoch: Epoch(self.epoch),
            fence: Epoch(self.fence),
            started_at: Timestamp(self.started_at_ms),
            finished_at: self.ended.map(|(at_ms, _)| Timestamp(at_ms)),
            outcome,
        }
    }
}
