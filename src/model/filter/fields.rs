//! The fields that filters may name, and the form of their values.

use std::borrow::Cow;
use std::fmt;

use super::grammar::{Subject, write_escaped};
use crate::lifecycle::effective::EffectiveState;
use crate::lifecycle::{machine, run};
use crate::model::{ConditionKind, RunErrorCode, RunType};

/// A field of a machine or a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    MachineId,
    MachinePhase,
    EffectiveState,
    Provider,
    Label(String),
    /// Whether the labels are known; only for conditions that the server adds.
    Labels,
    Condition(ConditionKind),
    ActiveRunId,
    TargetCluster,
    Serial,
    MacAddresses,
    CreatedAt,
    UpdatedAt,
    Revision,
    RunId,
    RunPhase,
    Type,
    PlanId,
    RequestId,
    RetryOf,
    CurrentStep,
    CancelRequested,
    Held,
    ErrorCode,
    StartedAt,
    FinishedAt,
}

/// The form of a field's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Free text.
    Text,
    /// Id of a machine.
    MachineId,
    /// Id of a run; empty text if there is none.
    RunId,
    /// Id of a plan, with or without `plan/`.
    PlanId,
    /// A name from a closed list, with or without the prefix of the proto.
    Name { names: Vec<&'static str>, prefix: &'static str },
    /// true or false.
    Bool,
    /// RFC 3339.
    Time,
    /// Unsigned.
    Number,
    /// MAC addresses.
    Macs,
}

/// Canonical names and aliases.
type Row = (Field, &'static str, &'static [&'static str]);

const MACHINE: &[Row] = &[
    (Field::MachineId, "machine_id", &[]),
    (Field::MachinePhase, "phase", &["status.phase"]),
    (Field::EffectiveState, "effective_state", &["status.effective_state"]),
    (Field::Provider, "provider", &["spec.provider"]),
    (Field::ActiveRunId, "active_run_id", &["status.active_run_id"]),
    (Field::TargetCluster, "target_cluster", &["spec.target_cluster"]),
    (Field::Serial, "serial", &["spec.serial"]),
    (Field::MacAddresses, "mac_addresses", &["spec.mac_addresses"]),
    (Field::CreatedAt, "created_at", &[]),
    (Field::UpdatedAt, "updated_at", &[]),
    (Field::Revision, "revision", &[]),
];

const RUN: &[Row] = &[
    (Field::RunId, "run_id", &[]),
    (Field::MachineId, "machine_id", &[]),
    (Field::RunPhase, "phase", &[]),
    (Field::Type, "type", &[]),
    (Field::PlanId, "plan_id", &[]),
    (Field::Provider, "provider", &[]),
    (Field::RequestId, "request_id", &[]),
    (Field::RetryOf, "retry_of", &[]),
    (Field::CurrentStep, "current_step", &[]),
    (Field::CancelRequested, "cancel_requested", &[]),
    (Field::Held, "held", &[]),
    (Field::ErrorCode, "error.code", &["error"]),
    (Field::CreatedAt, "created_at", &[]),
    (Field::StartedAt, "started_at", &[]),
    (Field::FinishedAt, "finished_at", &[]),
    (Field::Revision, "revision", &[]),
];

impl Field {
    /// The field with a plain name.
    pub(super) fn of_name(name: &str, subject: Subject) -> Option<Self> {
        rows(subject)
            .iter()
            .find(|(_, canonical, aliases)| *canonical == name || aliases.contains(&name))
            .map(|(field, ..)| field.clone())
    }

    /// Canonical name.
    pub(super) fn name(&self) -> Cow<'static, str> {
        if let Self::Label(key) = self {
            return Cow::Owned(format!("labels.{key}"));
        }
        if *self == Self::Labels {
            return Cow::Borrowed("labels");
        }
        if let Self::Condition(kind) = self {
            return Cow::Owned(format!("conditions.{}", kind.as_str()));
        }
        let row = MACHINE.iter().chain(RUN).find(|(field, ..)| field == self);
        Cow::Borrowed(row.map_or("", |(_, name, _)| name))
    }

    /// The key, if it is a label.
    pub(super) fn as_label(&self) -> Option<&str> {
        if let Self::Label(key) = self { Some(key) } else { None }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::MachineId => Kind::MachineId,
            Self::MachinePhase => Kind::Name {
                names: machine::Phase::ALL.map(machine::Phase::as_str).to_vec(),
                prefix: "PHASE_",
            },
            Self::EffectiveState => Kind::Name {
                names: EffectiveState::ALL.map(EffectiveState::as_str).to_vec(),
                prefix: "EFFECTIVE_STATE_",
            },
            Self::RunPhase => Kind::Name {
                names: run::Phase::ALL.map(run::Phase::as_str).to_vec(),
                prefix: "RUN_PHASE_",
            },
            Self::Type => Kind::Name {
                names: RunType::ALL.map(RunType::as_str).to_vec(),
                prefix: "RUN_TYPE_",
            },
            Self::ErrorCode => Kind::Name {
                names: RunErrorCode::ALL.map(RunErrorCode::as_str).to_vec(),
                prefix: "",
            },
            Self::ActiveRunId | Self::RunId | Self::RetryOf => Kind::RunId,
            Self::PlanId => Kind::PlanId,
            Self::MacAddresses => Kind::Macs,
            Self::Condition(_) | Self::CancelRequested | Self::Held | Self::Labels => Kind::Bool,
            Self::CreatedAt | Self::UpdatedAt | Self::StartedAt | Self::FinishedAt => Kind::Time,
            Self::Revision => Kind::Number,
            Self::Provider
            | Self::Label(_)
            | Self::TargetCluster
            | Self::Serial
            | Self::RequestId
            | Self::CurrentStep => Kind::Text,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Label(key) = self
            && !is_plain_key(key)
        {
            f.write_str("labels.\"")?;
            write_escaped(f, key)?;
            return f.write_str("\"");
        }
        f.write_str(&self.name())
    }
}

fn is_plain_key(key: &str) -> bool {
    !key.is_empty()
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-'))
}

fn rows(subject: Subject) -> &'static [Row] {
    match subject {
        Subject::Machine => MACHINE,
        Subject::Run => RUN,
    }
}

/// The valid names of a field, for an error about `name`.
pub(super) fn expected_field(name: &str, subject: Subject) -> String {
    let names: Vec<&str> = rows(subject).iter().map(|(_, name, _)| *name).collect();
    let families = match subject {
        Subject::Machine => ", labels.<key>, conditions.<kind>",
        Subject::Run => ", labels.<key>",
    };
    format!("a field: one of {}{families}{}", names.join(", "), did_you_mean(name, &names))
}

/// The valid names, for an error about `given`.
pub(super) fn expected_name(given: &str, names: &[&str]) -> String {
    let near = if given.eq_ignore_ascii_case("ABORTED") && names.contains(&"CANCELED") {
        " (a run that was aborted has phase FAILED and error.code = ABORTED)".to_owned()
    } else {
        did_you_mean(given, names)
    };
    format!("one of {}{near}", names.join(", "))
}

/// ` (did you mean X?)`, or nothing if no name is close.
fn did_you_mean(given: &str, names: &[&str]) -> String {
    let given: Vec<char> = given.to_lowercase().chars().take(64).collect();
    let near = names
        .iter()
        .map(|name| {
            let name_chars: Vec<char> = name.to_lowercase().chars().collect();
            (edits(&given, &name_chars), name)
        })
        .filter(|(distance, name)| *distance <= name.len().div_ceil(4).max(1))
        .min_by_key(|(distance, _)| *distance);
    near.map_or_else(String::new, |(_, name)| format!(" (did you mean {name}?)"))
}

/// Levenshtein distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Every plain name and alias with the form of its values: for the test of the documentation.
#[cfg(test)]
pub(super) fn documented(subject: Subject) -> Vec<(&'static str, Kind)> {
    rows(subject)
        .iter()
        .flat_map(|(field, name, aliases)| {
            std::iter::once(name).chain(*aliases).map(|name| (*name, field.kind()))
        })
        .collect()
}
