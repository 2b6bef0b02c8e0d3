//! Checks guards: what must hold when a step is reached, and what a step waits for.

use std::borrow::Cow;

use toml::de::DeTable;

use super::check_param::{Params, in_one_of};
use super::limits::{GUARD_ENTRIES_MAX, LINE_BYTES_MAX};
use super::names::ValueKind;
use super::nodes::{Node, found, shown, value_of};
use super::read::Reader;
use super::schema::{Guard, Output};
use super::value::Value;

const KEYS: &[&str] = &["param", "condition", "phase", "label", "provider", "output"];
/// What a step can wait for: facts that change while its run is active.
const UNTIL_KEYS: &[&str] = &["condition", "label"];

/// Reads `when`; `earlier` are the names of the steps before this one.
pub(super) fn guard(
    reader: &mut Reader<'_>,
    node: Node<'_, '_>,
    place: &str,
    params: &mut Params,
    earlier: &[&str],
) -> Option<Guard> {
    let place = format!("`when` of {place}");
    let example = "{ param = { wipe = true }, condition = { InCustomerCluster = true }, phase = [\"READY\"] }";
    let table = reader.table(node, &place, example)?;
    reader.unknown_keys(table, &place, KEYS);
    let mut wanted = Vec::new();
    if let Some(node) = value_of(table, "param")
        && let Some(table) = reader.table(node, &format!("`param` in {place}"), "{ wipe = true }")
    {
        for (key, node) in table {
            let name = key.get_ref().as_ref();
            let Some((param, _)) = params.refer(reader, name, key.span()) else { continue };
            let place = format!("parameter `{}` in {place}", param.name);
            let Some(value) = reader.value(node, &place, param.kind) else { continue };
            in_one_of(reader, &value, &param.one_of, node.span(), &place);
            wanted.push((Cow::Owned(name.to_owned()), value));
        }
    }
    let phases = value_of(table, "phase")
        .and_then(|node| reader.phases(node, &format!("`phase` in {place}")));
    let around = around(reader, table, &place);
    let providers = value_of(table, "provider").and_then(|node| providers(reader, node, &place));
    let outputs = value_of(table, "output").map(|node| outputs(reader, node, &place, earlier));
    says_something(reader, table, node, KEYS, &place, "when", example);
    Some(Guard {
        params: Cow::Owned(wanted),
        phases: Cow::Owned(phases.unwrap_or_default()),
        providers: Cow::Owned(providers.unwrap_or_default()),
        outputs: Cow::Owned(outputs.unwrap_or_default()),
        ..around
    })
}

/// Reads `until` of a wait step.
pub(super) fn until(reader: &mut Reader<'_>, node: Node<'_, '_>, place: &str) -> Option<Guard> {
    let place = format!("`until` of {place}");
    let example = "{ condition = { Reachable = true }, label = { burn-in = \"passed\" } }";
    let table = reader.table(node, &place, example)?;
    reader.unknown_keys(table, &place, UNTIL_KEYS);
    says_something(reader, table, node, UNTIL_KEYS, &place, "until", example);
    Some(around(reader, table, &place))
}

/// Conditions and labels of the machine.
fn around(reader: &mut Reader<'_>, table: &DeTable<'_>, place: &str) -> Guard {
    let conditions = value_of(table, "condition")
        .and_then(|node| reader.conditions(node, &format!("`condition` in {place}")));
    let labels = value_of(table, "label").and_then(|node| labels(reader, node, place));
    Guard {
        conditions: Cow::Owned(conditions.unwrap_or_default()),
        labels: Cow::Owned(labels.unwrap_or_default()),
        ..Guard::default()
    }
}

fn says_something(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    node: Node<'_, '_>,
    keys: &[&str],
    place: &str,
    key: &str,
    example: &str,
) {
    let says_nothing = keys.iter().all(|key| {
        value_of(table, key).is_none_or(|node| {
            node.get_ref().as_table().is_some_and(|table| table.is_empty())
                || node.get_ref().as_array().is_some_and(|array| array.is_empty())
        })
    });
    if says_nothing {
        let help = format!("write it like {example}, or leave `{key}` out");
        reader.report("plan::empty-list", format!("{place} is empty"), node.span(), "", help);
    }
}

type Labels = Vec<(Cow<'static, str>, Cow<'static, str>)>;

fn labels(reader: &mut Reader<'_>, node: Node<'_, '_>, place: &str) -> Option<Labels> {
    let place = format!("`label` in {place}");
    let mut labels = Vec::new();
    let table = reader.table(node, &place, "{ rack = \"r1\" }")?;
    fits(reader, table.len(), node, &place);
    for (key, node) in table {
        let name = key.get_ref().as_ref();
        let said = format!("label `{}` in {place}", shown(name));
        if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let help = "write the key as machines have it: { rack = \"r1\" }";
            reader.report(
                "plan::bad-name",
                format!("{said} is not a label key"),
                key.span(),
                "",
                help,
            );
        }
        let Some(value) = reader.text(node, &said, LINE_BYTES_MAX, false) else { continue };
        labels.push((Cow::Owned(name.to_owned()), value));
    }
    labels.sort();
    Some(labels)
}

fn providers(
    reader: &mut Reader<'_>,
    node: Node<'_, '_>,
    place: &str,
) -> Option<Vec<Cow<'static, str>>> {
    let place = format!("`provider` in {place}");
    let items = reader.array(node, &place, "[\"redfish\"]")?;
    fits(reader, items.len(), node, &place);
    let mut providers: Vec<Cow<'static, str>> = Vec::new();
    for item in items {
        let Some(text) = reader.string(item, &format!("an entry in {place}")) else { continue };
        let Some(name) = reader.name(text, item.span(), "a provider") else { continue };
        if providers.contains(&name) {
            let message = format!("{place} names `{name}` twice");
            reader.report("plan::duplicate-entry", message, item.span(), "", "remove one of them");
        } else {
            providers.push(name);
        }
    }
    providers.sort();
    Some(providers)
}

/// `{ inspect = { model = "x1" } }`: step, name of its output, value.
fn outputs(
    reader: &mut Reader<'_>,
    node: Node<'_, '_>,
    place: &str,
    earlier: &[&str],
) -> Vec<Output> {
    let place = format!("`output` in {place}");
    let example = "{ inspect = { model = \"x1\" } }";
    let mut outputs = Vec::new();
    let Some(table) = reader.table(node, &place, example) else { return outputs };
    for (key, node) in table {
        let step = key.get_ref().as_ref();
        if !earlier.contains(&step) {
            reader.unknown("plan::unknown-step", "earlier step", step, key.span(), earlier);
        }
        let place = format!("`{}` in {place}", shown(step));
        let Some(wanted) = reader.table(node, &place, "{ model = \"x1\" }") else { continue };
        fits(reader, outputs.len() + wanted.len(), node, &place);
        for (key, node) in wanted {
            let name = key.get_ref().as_ref();
            let kind = match found(node) {
                "an integer" => ValueKind::Integer,
                "a boolean" => ValueKind::Boolean,
                _ => ValueKind::String,
            };
            let place = format!("`{}` of {place}", shown(name));
            let value: Option<Value> = reader.value(node, &place, kind);
            let (step, name) = (step.to_owned(), name.to_owned());
            outputs.extend(value.map(|value| Output {
                step: step.into(),
                name: name.into(),
                value,
            }));
        }
    }
    outputs.sort();
    outputs
}

fn fits(reader: &mut Reader<'_>, count: usize, node: Node<'_, '_>, place: &str) {
    if count > GUARD_ENTRIES_MAX {
        let message = format!("{count} entries in {place} are too many");
        let help = format!("a guard has at most {GUARD_ENTRIES_MAX}");
        reader.report("plan::too-many", message, node.span(), "", help);
    }
}
