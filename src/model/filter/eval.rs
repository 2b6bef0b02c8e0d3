//! Whether a machine or a run matches.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::fields::Field;
use super::grammar::Op;
use super::node::{Node, Text, Value};
use crate::clock::Timestamp;
use crate::lifecycle::run::State;
use crate::model::{Machine, Run};

/// The value of a field of a machine or a run.
pub(super) enum Held<'a> {
    /// The record has no such field; no comparison but `!=` holds.
    Absent,
    Text(Cow<'a, str>),
    /// A value of a map: it is present even if it is empty.
    Entry(&'a str),
    List(&'a [String]),
    Bool(bool),
    Time(Timestamp),
    Number(u64),
}

impl<'a> Held<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    fn time(at: Option<Timestamp>) -> Self {
        at.map_or(Self::Absent, Self::Time)
    }

    /// A missing reference is the empty text.
    fn reference(id: Option<impl ToString>) -> Self {
        Self::Text(Cow::Owned(id.map_or_else(String::new, |id| id.to_string())))
    }
}

pub(super) fn matches<'a>(node: &Node, get: &impl Fn(&Field) -> Held<'a>) -> bool {
    match node {
        Node::And(nodes) => nodes.iter().all(|node| matches(node, get)),
        Node::Or(nodes) => nodes.iter().any(|node| matches(node, get)),
        Node::Not(node) => !matches(node, get),
        Node::Term(term) => compare(&get(&term.field), term.op, &term.value),
    }
}

fn compare(held: &Held<'_>, op: Op, value: &Value) -> bool {
    match op {
        Op::Eq => equals(held, value),
        Op::Ne => !equals(held, value),
        Op::Has => has(held, value),
        Op::Lt | Op::Le | Op::Gt | Op::Ge => order(held, value).is_some_and(|order| match op {
            Op::Lt => order.is_lt(),
            Op::Le => order.is_le(),
            Op::Gt => order.is_gt(),
            Op::Ge => order.is_ge(),
            Op::Eq | Op::Ne | Op::Has => false,
        }),
    }
}

fn equals(held: &Held<'_>, value: &Value) -> bool {
    match (held, value) {
        (Held::Text(held), Value::Text(text)) => text.matches(held),
        (Held::Entry(held), Value::Text(text)) => text.matches(held),
        (Held::Text(held), Value::Name(name)) => held == name,
        (Held::Bool(held), Value::Bool(value)) => held == value,
        (Held::Time(_) | Held::Number(_), Value::Time(_) | Value::Number(_)) => {
            order(held, value).is_some_and(std::cmp::Ordering::is_eq)
        }
        _ => false,
    }
}

fn order(held: &Held<'_>, value: &Value) -> Option<std::cmp::Ordering> {
    match (held, value) {
        (Held::Time(held), Value::Time(value)) => Some(held.cmp(value)),
        (Held::Number(held), Value::Number(value)) => Some(held.cmp(value)),
        _ => None,
    }
}

fn has(held: &Held<'_>, value: &Value) -> bool {
    match (held, value) {
        (Held::Absent, _) => false,
        (Held::List(items), Value::Text(text)) => items.iter().any(|item| text.matches(item)),
        (Held::List(items), _) => !items.is_empty(),
        (Held::Text(held), Value::Any) => !held.is_empty(),
        _ => true,
    }
}

impl Text {
    pub(super) fn matches(&self, held: &str) -> bool {
        match self {
            Self::Literal(text) => text == held,
            Self::Glob(parts) => glob(parts, held),
        }
    }
}

/// Whether `held` consists of the parts with anything between them: the first at the start, the last at the end, the
/// others at their first match, which leaves the most room for the rest.
fn glob(parts: &[String], held: &str) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = held.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        let Some(at) = rest.find(part.as_str()) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last.as_str())
}

pub(super) fn of_machine<'a>(field: &Field, machine: &'a Machine) -> Held<'a> {
    match field {
        Field::MachineId => Held::text(machine.id.as_str()),
        Field::MachinePhase => Held::text(machine.phase.as_str()),
        Field::EffectiveState => Held::text(machine.effective().0.as_str()),
        Field::Provider => Held::text(&machine.spec.provider),
        Field::Label(key) => machine.labels.get(key).map_or(Held::Absent, |text| Held::Entry(text)),
        Field::Labels => Held::Bool(true),
        Field::Condition(kind) => {
            machine.conditions.get(*kind).map_or(Held::Absent, |c| Held::Bool(c.status))
        }
        Field::ActiveRunId => Held::reference(machine.active_run),
        Field::TargetCluster => Held::text(&machine.spec.target_cluster),
        Field::Serial => Held::text(&machine.spec.serial),
        Field::MacAddresses => Held::List(&machine.spec.mac_addresses),
        Field::CreatedAt => Held::Time(machine.created_at),
        Field::UpdatedAt => Held::Time(machine.updated_at),
        Field::Revision => Held::Number(machine.revision.0),
        Field::RunId
        | Field::RunPhase
        | Field::Type
        | Field::PlanId
        | Field::RequestId
        | Field::RetryOf
        | Field::CurrentStep
        | Field::CancelRequested
        | Field::Held
        | Field::ErrorCode
        | Field::StartedAt
        | Field::FinishedAt => Held::Absent,
    }
}

pub(super) fn of_run<'a>(field: &Field, run: &'a Run) -> Held<'a> {
    match field {
        Field::RunId => Held::reference(Some(run.id)),
        Field::MachineId => Held::text(run.machine_id.as_str()),
        Field::RunPhase => Held::text(run.phase().as_str()),
        Field::Type => Held::text(run.spec.run_type.as_str()),
        Field::PlanId => Held::text(&run.spec.plan_id),
        Field::Provider => Held::text(&run.spec.provider),
        Field::Label(key) => {
            let labels = run.spec.labels.as_ref();
            labels.and_then(|labels| labels.get(key)).map_or(Held::Absent, |text| Held::Entry(text))
        }
        Field::Labels => run.spec.labels.as_ref().map_or(Held::Absent, |_| Held::Bool(true)),
        Field::RequestId => Held::text(&run.spec.request_id),
        Field::RetryOf => Held::reference(run.spec.retry_of),
        Field::CurrentStep => {
            let step = run.current_step.and_then(|place| run.steps.get(place));
            Held::text(step.map_or("", |step| &step.name))
        }
        Field::CancelRequested => Held::Bool(run.cancel_requested_at.is_some()),
        Field::Held => Held::Bool(run.state == State::Held),
        Field::ErrorCode => {
            run.error.as_ref().map_or(Held::Absent, |error| Held::text(error.code.as_str()))
        }
        Field::CreatedAt => Held::Time(run.created_at),
        Field::StartedAt => Held::time(run.started_at),
        Field::FinishedAt => Held::time(run.finished_at),
        Field::Revision => Held::Number(run.revision.0),
        Field::MachinePhase
        | Field::EffectiveState
        | Field::Condition(_)
        | Field::ActiveRunId
        | Field::TargetCluster
        | Field::Serial
        | Field::MacAddresses
        | Field::UpdatedAt => Held::Absent,
    }
}

/// Of a machine that has only labels.
pub(super) fn of_labels<'a>(field: &Field, labels: &'a BTreeMap<String, String>) -> Held<'a> {
    if *field == Field::Labels {
        return Held::Bool(true);
    }
    let value = field.as_label().and_then(|key| labels.get(key));
    value.map_or(Held::Absent, |text| Held::Entry(text))
}
