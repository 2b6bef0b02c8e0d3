//! Filters over machines and runs: `field = value` terms joined by AND.
//!
//! One evaluator serves lists, watches and batch selection. The original API's `machine_id=machine-1` is a term
//! without spaces.

use super::{ConditionKind, Machine, Run};

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;

/// What a filter is about: the fields it may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Machines.
    Machine,
    /// Runs.
    Run,
}

/// A filter that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: expected {expected}, found {found}")]
pub struct FilterError {
    /// Where, counted in characters from 1.
    pub position: usize,
    /// What could have stood there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// A condition on machines or on runs. The default matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    terms: Vec<(String, String)>,
}

impl Filter {
    /// Reads a filter; an empty text matches everything.
    ///
    /// # Errors
    /// [`FilterError`] with the position and what was expected.
    pub fn parse(text: &str, subject: Subject) -> Result<Self, FilterError> {
        let _ = subject;
        let mut terms = Vec::new();
        for term in text.split(" AND ").map(str::trim).filter(|term| !term.is_empty()) {
            let (field, value) = term.split_once('=').ok_or_else(|| FilterError {
                position: 1,
                expected: "field = value".to_owned(),
                found: term.to_owned(),
            })?;
            terms.push((field.trim().to_owned(), value.trim().trim_matches('"').to_owned()));
        }
        Ok(Self { terms })
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that every match must have in `field`, if the filter pins one: what an index can serve.
    #[must_use]
    pub fn pinned(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }

    /// Whether a machine matches.
    #[must_use]
    pub fn matches_machine(&self, machine: &Machine) -> bool {
        self.terms.iter().all(|(field, value)| match field.as_str() {
            "machine_id" => machine.id.as_str() == value,
            "phase" => machine.phase.as_str() == value,
            "effective_state" => machine.effective().0.as_str() == value,
            "provider" => machine.spec.provider == *value,
            other => match other.split_once('.') {
                Some(("labels", key)) => machine.labels.get(key) == Some(value),
                Some(("conditions", kind)) => ConditionKind::parse(kind).is_some_and(|kind| {
                    machine.conditions.get(kind).is_some_and(|c| c.status.to_string() == *value)
                }),
                _ => false,
            },
        })
    }

    /// Whether a run matches.
    #[must_use]
    pub fn matches_run(&self, run: &Run) -> bool {
        self.terms.iter().all(|(field, value)| match field.as_str() {
            "run_id" => run.id.to_string() == *value,
            "machine_id" => run.machine_id.as_str() == value,
            "phase" => run.phase().as_str() == value,
            "type" => run.run_type.as_str() == value,
            "plan_id" => run.plan_id == *value,
            _ => false,
        })
    }
}
