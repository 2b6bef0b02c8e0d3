//! Checks actions and their arguments against the table of actions.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeTable;

use super::action::{ActionSpec, ArgSpec};
use super::check_param::{Params, fits, in_one_of};
use super::check_policy::{expected, retry};
use super::form::Form;
use super::limits::{TEXT_PARAMS_MAX, TIMEOUT_MS_MAX};
use super::names::ValueKind;
use super::nodes::{Node, did_you_mean, shown, value_of};
use super::read::Reader;
use super::schema::{Action, Arg, Compensation, Traits};
use super::template::{Piece, pieces};
use super::value::Value;

/// Reads `action` and `args` of a step or a compensation; `start` is where a missing key is reported.
pub(super) fn action(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    place: &str,
    start: &Range<usize>,
    params: &mut Params,
) -> Option<Action> {
    let actions = reader.actions;
    let names = actions.names();
    let Some(node) = value_of(table, "action") else {
        let help = format!("add `action = \"...\"`, one of: {}", names.join(", "));
        reader.missing(place, "action", start.clone(), &help);
        refer_all(reader, table, params);
        return None;
    };
    let text = reader.string(node, &format!("`action` of {place}"));
    let Some(spec) = text.and_then(|text| actions.find(text)) else {
        if let Some(text) = text {
            reader.unknown_action(text, node.span(), &names);
        }
        refer_all(reader, table, params);
        return None;
    };
    args(reader, table, spec, node.span(), params)
}

/// Without a known action the arguments cannot be checked, but the parameters they name count as used.
fn refer_all(reader: &mut Reader<'_>, table: &DeTable<'_>, params: &mut Params) {
    let Some(args) = value_of(table, "args").and_then(|node| node.get_ref().as_table()) else {
        return;
    };
    for node in args.values() {
        let text = node.get_ref().as_str().unwrap_or_default();
        for piece in pieces(text).unwrap_or_default() {
            if let Piece::Param(name) = piece {
                params.refer(reader, name, node.span());
            }
        }
        let name = node.get_ref().as_table().and_then(|table| value_of(table, "param"));
        if let Some((node, name)) = name.and_then(|node| Some((node, node.get_ref().as_str()?))) {
            params.refer(reader, name, node.span());
        }
    }
}

fn args(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    spec: &ActionSpec,
    action_at: Range<usize>,
    params: &mut Params,
) -> Option<Action> {
    let empty = DeTable::default();
    let given = match value_of(table, "args") {
        Some(node) => reader.table(node, "`args`", "{ image = \"ubuntu-24.04\" }")?,
        None => &empty,
    };
    let mut complete = true;
    let names: Vec<&str> = spec.args.iter().map(|arg| arg.name.as_ref()).collect();
    for key in given.keys() {
        let name = key.get_ref().as_ref();
        if spec.arg(name).is_none() {
            let help = if names.is_empty() {
                format!("`{}` takes no arguments", spec.name)
            } else {
                did_you_mean(name, &names, "its arguments")
            };
            let message = format!("`{}` has no argument `{}`", spec.name, shown(name));
            reader.report("plan::unknown-argument", message, key.span(), "no such argument", help);
            complete = false;
        }
    }
    let mut args = Vec::new();
    for arg in spec.args.iter() {
        let read = match (value_of(given, &arg.name), &arg.default) {
            (Some(node), _) => argument(reader, spec, arg, node, params),
            (None, Some(default)) => Some(Arg::Literal(default.clone())),
            (None, None) if arg.is_optional => continue,
            (None, None) => {
                let message = format!("`{}` needs the argument `{}`", spec.name, arg.name);
                let help = format!(
                    "add `args = {{ {} = ... }}` ({}): {}",
                    arg.name, arg.kind, arg.description
                );
                reader.report(
                    "plan::missing-argument",
                    message,
                    action_at.clone(),
                    format!("`{}` is missing", arg.name),
                    help,
                );
                None
            }
        };
        match read {
            Some(read) => args.push((arg.name.clone(), read)),
            None => complete = false,
        }
    }
    let traits = Traits {
        capability: spec.capability,
        risk: spec.risk,
        idempotent: spec.idempotent,
        interruptible: spec.interruptible,
    };
    complete.then_some(Action { name: spec.name.clone(), args: Cow::Owned(args), traits })
}

fn argument(
    reader: &mut Reader<'_>,
    spec: &ActionSpec,
    arg: &ArgSpec,
    node: Node<'_, '_>,
    params: &mut Params,
) -> Option<Arg> {
    let place = format!("argument `{}` of `{}`", arg.name, spec.name);
    if let Some(table) = node.get_ref().as_table() {
        let before = reader.diagnostics.len();
        reader.unknown_keys(table, &place, &["param"]);
        let Some(node) = value_of(table, "param") else {
            if reader.diagnostics.len() == before {
                reader.missing(
                    &place,
                    "param",
                    node.span(),
                    "write `{ param = \"NAME\" }` to take the value from a parameter",
                );
            }
            return None;
        };
        let name = reader.string(node, &format!("`param` in {place}"))?;
        let found = params.refer(reader, name, node.span())?;
        let default = found.0.default.as_ref().and_then(Value::as_str).map(str::to_owned);
        let declared = found.1.clone();
        fits(reader, found, arg.kind, &arg.one_of, node.span(), &place);
        if let Some(default) = default {
            in_form(reader, &default, arg, declared, &format!("`default` of parameter `{name}`"));
        }
        return Some(Arg::Param(Cow::Owned(name.to_owned())));
    }
    let value = reader.value(node, &place, arg.kind)?;
    if (arg.is_required() || arg.form == Form::Filled) && value.as_str() == Some("") {
        empty(reader, arg, node.span(), &place);
        return None;
    }
    if arg.kind == ValueKind::String
        && let Some(text) = value.as_str().filter(|text| text.contains(['{', '}']))
    {
        return self::text(reader, text, arg, node, &place, params);
    }
    Some(literal(reader, value, arg, node, &place))
}

/// Reports an empty text where something must be said.
fn empty(reader: &mut Reader<'_>, arg: &ArgSpec, span: Range<usize>, place: &str) {
    let help = format!("say it: {}", arg.description);
    reader.report("plan::missing-argument", format!("{place} is empty"), span, "empty", help);
}

/// A literal value, which must be one that the argument accepts.
fn literal(
    reader: &mut Reader<'_>,
    value: Value,
    arg: &ArgSpec,
    node: Node<'_, '_>,
    place: &str,
) -> Arg {
    let one_of: Vec<Value> = arg.one_of.iter().map(|text| Value::Str(text.clone())).collect();
    in_one_of(reader, &value, &one_of, node.span(), place);
    in_form(reader, value.as_str().unwrap_or_default(), arg, node.span(), place);
    Arg::Literal(value)
}

/// Reports a text that does not look as the argument needs it.
fn in_form(reader: &mut Reader<'_>, text: &str, arg: &ArgSpec, span: Range<usize>, place: &str) {
    if text.is_empty() && arg.form == Form::Filled {
        empty(reader, arg, span, place);
    } else if !arg.form.accepts(text) {
        let message = format!("{place} cannot be `{}`", shown(text));
        let help = format!("expected {}", arg.form.wanted());
        reader.report("plan::not-one-of", message, span, "not accepted", help);
    }
}

/// A text with parameters in it. One that only has doubled braces is a literal text.
fn text(
    reader: &mut Reader<'_>,
    text: &str,
    arg: &ArgSpec,
    node: Node<'_, '_>,
    place: &str,
    params: &mut Params,
) -> Option<Arg> {
    let Ok(pieces) = pieces(text) else {
        let help = "write the name of a parameter between braces: \"firmware {version}\"; double a literal brace: {{";
        let message = format!("{place} has an unmatched brace");
        reader.report("plan::bad-text", message, node.span(), "unmatched brace", help);
        return None;
    };
    let names: Vec<&str> = pieces
        .iter()
        .filter_map(|piece| if let Piece::Param(name) = piece { Some(*name) } else { None })
        .collect();
    if names.is_empty() {
        let plain: String = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) | Piece::Param(text) => *text,
            })
            .collect();
        return Some(literal(reader, Value::Str(plain.into()), arg, node, place));
    }
    if !arg.one_of.is_empty() {
        let help =
            format!("give the whole value as a parameter: {{ param = \"{}\" }}", shown(names[0]));
        let message =
            format!("{place} accepts only certain texts, so it cannot be built from parameters");
        reader.report("plan::bad-text", message, node.span(), "built from parameters", help);
        return None;
    }
    if names.len() > TEXT_PARAMS_MAX {
        let message = format!("{place} names {} parameters", names.len());
        let help = format!("a text names at most {TEXT_PARAMS_MAX}");
        reader.report("plan::too-many", message, node.span(), "", help);
        return None;
    }
    let mut known = true;
    for name in names {
        let before = reader.diagnostics.len();
        params.refer(reader, name, node.span());
        known &= reader.diagnostics.len() == before;
    }
    known.then(|| Arg::Text(Cow::Owned(text.to_owned())))
}

/// Reads `compensation = { action = "...", args = { ... }, sets = { ... } }`.
pub(super) fn compensation(
    reader: &mut Reader<'_>,
    node: Node<'_, '_>,
    place: &str,
    params: &mut Params,
) -> Option<Compensation> {
    let place = format!("`compensation` of {place}");
    let table = reader.table(node, &place, "{ action = \"clear-netboot\" }")?;
    reader.unknown_keys(table, &place, &["action", "args", "timeout", "expected", "retry", "sets"]);
    let sets =
        value_of(table, "sets").map(|node| reader.conditions(node, &format!("`sets` of {place}")));
    let action = action(reader, table, &place, &node.span(), params)?;
    let spec = reader.actions.find(&action.name)?;
    // A compensation has no `on_unknown`, without which neither class of risk is acceptable; and consuming the output
    // of another step makes no sense after a failure.
    let is_own = action.is_own();
    if spec.risk.is_destructive() || spec.consumes.is_some() || is_own {
        let at = value_of(table, "action").map_or(node.span(), |node| node.span());
        let message = format!("`{}` cannot be a compensation", spec.name);
        let label = if spec.risk.is_destructive() {
            spec.risk.as_str()
        } else if is_own {
            "undoes nothing"
        } else {
            "uses the output of a step"
        };
        reader.report(
            "plan::bad-compensation",
            message,
            at,
            label,
            "use an action that undoes something, such as clear-netboot",
        );
        return None;
    }
    let timeout_ms = value_of(table, "timeout").map_or(Some(spec.timeout_ms), |node| {
        reader.duration_within(node, &format!("`timeout` of {place}"), 1, TIMEOUT_MS_MAX)
    });
    let expected_ms = match (value_of(table, "expected"), value_of(table, "timeout")) {
        (None, None) => Some(spec.expected_ms),
        (Some(_), _) | (None, Some(_)) => {
            expected(reader, table, &place, timeout_ms, spec.expected_ms)
        }
    };
    let own_retry = value_of(table, "retry").map(|_| retry(reader, table, &place));
    Some(Compensation {
        action,
        timeout_ms: timeout_ms?,
        expected_ms: expected_ms?,
        sets: Cow::Owned(sets.flatten().unwrap_or_default()),
        retry: own_retry.flatten(),
    })
}
