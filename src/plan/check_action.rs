//! Checks actions and their arguments against the table of actions.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeTable;

use super::action::{ActionSpec, ArgSpec};
use super::check_param::{Params, fits, in_one_of};
use super::nodes::{Node, did_you_mean, shown, value_of};
use super::read::Reader;
use super::schema::{Action, Arg, Compensation, Traits};
use super::value::Value;

/// Reads `action` and `args` of a step or a compensation; `start` is where a missing key is reported.
pub(super) fn action(
    reader: &mut Reader,
    table: &DeTable<'_>,
    place: &str,
    start: &Range<usize>,
    params: &mut Params,
) -> Option<Action> {
    let names: Vec<&str> = ActionSpec::all().iter().map(|spec| spec.name).collect();
    let Some(node) = value_of(table, "action") else {
        let help = format!("add `action = \"...\"`, one of: {}", names.join(", "));
        reader.missing(place, "action", start.clone(), &help);
        refer_all(reader, table, params);
        return None;
    };
    let text = reader.string(node, &format!("`action` of {place}"));
    let Some(spec) = text.and_then(ActionSpec::find) else {
        if let Some(text) = text {
            reader.unknown("plan::unknown-action", "action", text, node.span(), &names);
        }
        refer_all(reader, table, params);
        return None;
    };
    args(reader, table, spec, node.span(), params)
}

/// Without a known action nothing can be said about its arguments, but the parameters they name count as used.
fn refer_all(reader: &mut Reader, table: &DeTable<'_>, params: &mut Params) {
    let Some(args) = value_of(table, "args").and_then(|node| node.get_ref().as_table()) else {
        return;
    };
    for node in args.values() {
        let name = node.get_ref().as_table().and_then(|table| value_of(table, "param"));
        if let Some((node, name)) = name.and_then(|node| Some((node, node.get_ref().as_str()?))) {
            params.refer(reader, name, node.span());
        }
    }
}

fn args(
    reader: &mut Reader,
    table: &DeTable<'_>,
    spec: &'static ActionSpec,
    action_at: Range<usize>,
    params: &mut Params,
) -> Option<Action> {
    let empty = DeTable::default();
    let given = match value_of(table, "args") {
        Some(node) => reader.table(node, "`args`", "{ image = \"ubuntu-24.04\" }")?,
        None => &empty,
    };
    let mut complete = true;
    let names: Vec<&str> = spec.args.iter().map(|arg| arg.name).collect();
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
    for arg in spec.args {
        let read = match (value_of(given, arg.name), &arg.default) {
            (Some(node), _) => argument(reader, spec, arg, node, params),
            (None, Some(default)) => Some(Arg::Literal(default.clone())),
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
            Some(read) => args.push((Cow::Borrowed(arg.name), read)),
            None => complete = false,
        }
    }
    let traits = Traits {
        capability: spec.capability,
        risk: spec.risk,
        idempotent: spec.idempotent,
        interruptible: spec.interruptible,
    };
    complete.then_some(Action { name: Cow::Borrowed(spec.name), args: Cow::Owned(args), traits })
}

fn argument(
    reader: &mut Reader,
    spec: &'static ActionSpec,
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
        fits(reader, found, arg.kind, arg.one_of, node.span(), &place);
        return Some(Arg::Param(Cow::Owned(name.to_owned())));
    }
    let value = reader.value(node, &place, arg.kind)?;
    if arg.default.is_none() && value.as_str() == Some("") {
        let help = format!("say it: {}", arg.description);
        reader.report(
            "plan::missing-argument",
            format!("{place} is empty"),
            node.span(),
            "empty",
            help,
        );
        return None;
    }
    let one_of: Vec<Value> =
        arg.one_of.iter().map(|&text| Value::Str(Cow::Borrowed(text))).collect();
    in_one_of(reader, &value, &one_of, node.span(), &place);
    Some(Arg::Literal(value))
}

/// Reads `compensation = { action = "...", args = { ... }, sets = { ... } }`.
pub(super) fn compensation(
    reader: &mut Reader,
    node: Node<'_, '_>,
    place: &str,
    params: &mut Params,
) -> Option<Compensation> {
    let place = format!("`compensation` of {place}");
    let table = reader.table(node, &place, "{ action = \"clear-netboot\" }")?;
    reader.unknown_keys(table, &place, &["action", "args", "sets"]);
    let sets =
        value_of(table, "sets").map(|node| reader.conditions(node, &format!("`sets` of {place}")));
    let action = action(reader, table, &place, &node.span(), params)?;
    let spec = ActionSpec::find(&action.name)?;
    // A compensation says no `on_unknown`, which is what makes either class of risk bearable; and consuming the result of another
    // step makes no sense after a failure.
    if spec.risk.is_destructive() || spec.consumes.is_some() {
        let at = value_of(table, "action").map_or(node.span(), |node| node.span());
        let message = format!("`{}` cannot be a compensation", spec.name);
        let label = if spec.risk.is_destructive() {
            spec.risk.as_str()
        } else {
            "uses the result of a step"
        };
        reader.report(
            "plan::bad-compensation",
            message,
            at,
            label,
            "use an action that takes something back, such as clear-netboot",
        );
        return None;
    }
    Some(Compensation {
        action,
        timeout_ms: spec.timeout_ms,
        expected_ms: spec.expected_ms,
        sets: Cow::Owned(sets.flatten().unwrap_or_default()),
    })
}
