//! Checks steps that the engine performs itself, and on_failure and finally steps.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeTable;

use super::action::ActionSpec;
use super::check_guard;
use super::limits::{PATIENCE_MS_MAX, TIMEOUT_MS_MAX};
use super::names::{Capability, ErrorClass, Role};
use super::nodes::{Node, get, value_of};
use super::read::Reader;
use super::schema::{APPROVE, Action, Arg, Guard, Retry, WAIT};
use super::value::Value;

/// Help for a wait step without a goal, or with two.
const HELP: &str =
    "write `args = { for = \"10m\" }`, or `until = { condition = { Reachable = true } }`";

/// Keys that only apply to calls of a provider.
const OF_PROVIDERS: [&str; 3] = ["retry", "on_unknown", "compensation"];

fn own(spec: Option<&ActionSpec>) -> Option<&ActionSpec> {
    spec.filter(|spec| spec.capability == Capability::Engine)
}

/// Longest timeout of a step with this action, in milliseconds: people may take longer than machines.
pub(super) fn timeout_ms_max(spec: Option<&ActionSpec>) -> u64 {
    own(spec).map_or(TIMEOUT_MS_MAX, |_| PATIENCE_MS_MAX)
}

/// A step of the engine runs once: it cannot fail in a way that is worth a retry.
pub(super) fn retry(spec: Option<&ActionSpec>) -> Option<Retry> {
    own(spec).map(|_| Retry {
        max_attempts: 1,
        on: Cow::Borrowed(&[ErrorClass::Transient]),
        backoff_ms: 0,
        backoff_max_ms: 0,
    })
}

/// Reports keys that have no effect in a step of the engine.
pub(super) fn keys(
    reader: &mut Reader<'_>,
    step: &DeTable<'_>,
    place: &str,
    spec: Option<&ActionSpec>,
) {
    let Some(spec) = own(spec) else { return };
    for key in OF_PROVIDERS {
        if let Some((key, _)) = get(step, key) {
            let message = format!("`{}` of {place} does nothing", key.get_ref());
            let help = format!("remove it: the engine performs `{}` itself", spec.name);
            reader.report("plan::unused", message, key.span(), "has no effect here", help);
        }
    }
}

/// Reads `until`, which only a wait step can have.
pub(super) fn until(
    reader: &mut Reader<'_>,
    node: Node<'_, '_>,
    place: &str,
    spec: Option<&ActionSpec>,
) -> Option<Guard> {
    if spec.is_some_and(|spec| spec.name != WAIT) {
        let message = format!("`until` of {place} does nothing");
        let help = "use it with `action = \"wait\"`; to skip a step by a condition, write `when`";
        reader.report("plan::unused", message, node.span(), "has no effect here", help);
        return None;
    }
    check_guard::until(reader, node, place)
}

/// Timeout and expected duration of a step that waits for a given time, in milliseconds. Such a step must have either
/// a time or `until`, and not both.
pub(super) fn waits(
    reader: &mut Reader<'_>,
    step: &DeTable<'_>,
    place: &str,
    action: Option<&Action>,
    action_at: &Range<usize>,
) -> Option<(u64, u64)> {
    let action = action.filter(|action| action.is_own() && action.name == WAIT)?;
    let until = get(step, "until");
    let duration = action.args.iter().find(|(name, _)| name == "for").map(|(_, arg)| arg);
    let expected_ms = match duration {
        Some(Arg::Literal(Value::DurationMs(0))) | None => None,
        Some(Arg::Literal(Value::DurationMs(ms))) => Some(*ms),
        Some(_) => Some(PATIENCE_MS_MAX),
    };
    match (expected_ms, until) {
        (None, None) => {
            let message = format!("{place} does not say what it waits for");
            reader.report("plan::missing-key", message, action_at.clone(), "waits for what?", HELP);
            None
        }
        (None, Some(_)) => None,
        (Some(_), Some((key, _))) => {
            let message = format!("{place} waits for a time and until a condition");
            reader.report("plan::unused", message, key.span(), "use one of them", HELP);
            None
        }
        (Some(expected_ms), None) => {
            for key in ["timeout", "expected"] {
                if let Some((key, _)) = get(step, key) {
                    let message = format!("`{}` of {place} does nothing", key.get_ref());
                    let help = "remove it: the step takes as long as `for` says";
                    reader.report("plan::unused", message, key.span(), "has no effect here", help);
                }
            }
            Some((PATIENCE_MS_MAX, expected_ms))
        }
    }
}

/// Reports what an on_failure or finally step cannot have: the run is ending, so the step cannot be held, is not
/// repeated, is not undone, and must not be destructive.
pub(super) fn role(
    reader: &mut Reader<'_>,
    step: &DeTable<'_>,
    place: &str,
    role: Role,
    spec: Option<&ActionSpec>,
    action_at: &Range<usize>,
) {
    if role == Role::Main {
        return;
    }
    for key in ["needs", "compensation"] {
        if let Some((key, _)) = get(step, key) {
            let message = format!("{place} cannot have `{}`", key.get_ref());
            let help = format!("remove it: steps in `[[{role}]]` are not repeated and not undone");
            reader.report("plan::unused", message, key.span(), "has no effect here", help);
        }
    }
    let Some(spec) = spec else { return };
    let why = if spec.risk.is_destructive() {
        spec.risk.as_str()
    } else if spec.consumes.is_some() {
        "uses the output of a step"
    } else if spec.name == APPROVE {
        "a run that is ending cannot be held"
    } else {
        return;
    };
    let message = format!("`{}` cannot be used in `[[{role}]]`", spec.name);
    let help = "use an action that informs people or restores something, such as notify or undrain";
    reader.report("plan::bad-action", message, action_at.clone(), why, help);
}

/// Reads `time_limit` of a plan, in milliseconds.
pub(super) fn time_limit(reader: &mut Reader<'_>, plan: &DeTable<'_>) -> Option<u64> {
    let node = value_of(plan, "time_limit")?;
    reader.duration_within(node, "`time_limit`", 1_000, PATIENCE_MS_MAX)
}
