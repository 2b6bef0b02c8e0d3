//! Checks the steps of a plan.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::action::ActionSpec;
use super::check_action::{action, compensation};
use super::check_param::{Params, in_one_of};
use super::check_policy::{on_unknown, retry};
use super::diagnostic::Diagnostic;
use super::limits::{STEPS_MAX, TIMEOUT_MS_MAX};
use super::nodes::{Node, get, shown, value_of};
use super::read::{Read, Reader};
use super::schema::{Guard, Step};

const STEP_KEYS: &[&str] = &[
    "name",
    "action",
    "args",
    "timeout",
    "expected",
    "retry",
    "on_unknown",
    "when",
    "needs",
    "compensation",
    "sets",
];

/// What the steps of a plan have to know of each other: name, where it stands, and the action.
struct Outline<'a> {
    name: Option<(&'a str, Range<usize>)>,
    spec: Option<&'static ActionSpec>,
}

/// Reads `[[steps]]`. Steps with a mistake are left out; spans are those of the actions.
pub(super) fn steps(
    reader: &mut Reader,
    plan: &DeTable<'_>,
    start: &Range<usize>,
    params: &mut Params,
) -> Vec<Read<Step>> {
    const EXAMPLE: &str = "add `[[steps]]` with `name` and `action`";
    let Some(node) = value_of(plan, "steps") else {
        reader.report(
            "plan::no-steps",
            "the plan has no steps",
            start.clone(),
            "this plan does nothing",
            EXAMPLE,
        );
        return Vec::new();
    };
    let Some(items) = reader.array(node, "`steps`", "`[[steps]]`") else { return Vec::new() };
    if items.is_empty() {
        reader.report(
            "plan::no-steps",
            "the plan has no steps",
            node.span(),
            "this plan does nothing",
            EXAMPLE,
        );
    }
    if items.len() > STEPS_MAX {
        let message = format!("{} steps are too many", items.len());
        let help = format!("a plan has at most {STEPS_MAX} steps; split it");
        reader.report("plan::too-many", message, node.span(), "", help);
        return Vec::new();
    }
    let outlines: Vec<Outline<'_>> = items.iter().map(outline).collect();
    duplicates(reader, &outlines);
    items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| step(reader, item, index, &outlines, params))
        .collect()
}

fn outline<'a>(item: &'a Spanned<DeValue<'_>>) -> Outline<'a> {
    let text = |key| {
        let node = value_of(item.get_ref().as_table()?, key)?;
        Some((node.get_ref().as_str()?, node.span()))
    };
    Outline {
        name: text("name"),
        spec: text("action").and_then(|(text, _)| ActionSpec::find(text)),
    }
}

fn duplicates(reader: &mut Reader, outlines: &[Outline<'_>]) {
    for (later, outline) in outlines.iter().enumerate() {
        let Some((name, again)) = &outline.name else { continue };
        let first = outlines[..later]
            .iter()
            .filter_map(|earlier| earlier.name.as_ref())
            .find(|(earlier, _)| earlier == name);
        if let Some((_, first)) = first {
            let message = format!("two steps are named `{}`", shown(name));
            reader.duplicate("plan::duplicate-step", &message, first.clone(), again.clone());
        }
    }
}

fn step(
    reader: &mut Reader,
    item: Node<'_, '_>,
    index: usize,
    outlines: &[Outline<'_>],
    params: &mut Params,
) -> Option<Read<Step>> {
    let table = reader.table(item, "a step", "`[[steps]]`")?;
    let place = match &outlines[index].name {
        Some((name, _)) => format!("step `{}`", shown(name)),
        None => format!("step {}", index + 1),
    };
    let start =
        table.keys().map(|key| key.span()).min_by_key(|span| span.start).unwrap_or(item.span());
    reader.unknown_keys(table, &place, STEP_KEYS);
    let name = match value_of(table, "name") {
        Some(node) => reader
            .string(node, &format!("`name` of {place}"))
            .and_then(|text| reader.name(text, node.span(), "a step")),
        None => {
            reader.missing(
                &place,
                "name",
                start.clone(),
                "add `name = \"...\"`, unique in the plan",
            );
            None
        }
    };
    let action_at = value_of(table, "action").map_or(start.clone(), |node| node.span());
    let action = action(reader, table, &place, &start, params);
    let spec = outlines[index].spec;
    // Where the action is unknown its defaults are too; any will do, as the step is dropped.
    let (hint_timeout_ms, hint_expected_ms) =
        spec.map_or((TIMEOUT_MS_MAX, 1), |spec| (spec.timeout_ms, spec.expected_ms));
    let timeout_ms = value_of(table, "timeout").map_or(Some(hint_timeout_ms), |node| {
        reader.duration_within(node, &format!("`timeout` of {place}"), 1, TIMEOUT_MS_MAX)
    });
    let expected_ms = expected(reader, table, &place, timeout_ms, hint_expected_ms);
    let retry = retry(reader, table, &place);
    let on_unknown = on_unknown(reader, table, &place, spec, &action_at);
    let when = value_of(table, "when").map(|node| guard(reader, node, &place, params));
    let needs = needs(reader, table, &place, index, outlines, &action_at);
    let compensation =
        value_of(table, "compensation").map(|node| compensation(reader, node, &place, params));
    let sets =
        value_of(table, "sets").map(|node| reader.conditions(node, &format!("`sets` of {place}")));
    let step = Step {
        name: name?,
        action: action?,
        timeout_ms: timeout_ms?,
        expected_ms: expected_ms?,
        retry: retry?,
        on_unknown: on_unknown?,
        when: when.flatten(),
        needs: Cow::Owned(needs),
        compensation: compensation.flatten(),
        sets: Cow::Owned(sets.flatten().unwrap_or_default()),
    };
    Some(Read { value: step, span: action_at })
}

/// The action's usual duration, but never so long that an ordinary attempt looks close to its timeout.
fn expected(
    reader: &mut Reader,
    table: &DeTable<'_>,
    place: &str,
    timeout_ms: Option<u64>,
    hint_ms: u64,
) -> Option<u64> {
    let Some(node) = value_of(table, "expected") else {
        return timeout_ms.map(|timeout_ms| hint_ms.min(timeout_ms / 2).max(1));
    };
    let place = format!("`expected` of {place}");
    reader.duration_within(node, &place, 1, timeout_ms.unwrap_or(TIMEOUT_MS_MAX))
}

fn guard(
    reader: &mut Reader,
    node: Node<'_, '_>,
    place: &str,
    params: &mut Params,
) -> Option<Guard> {
    let place = format!("`when` of {place}");
    let example = "{ param = { wipe = true }, condition = { InCustomerCluster = true }, phase = [\"READY\"] }";
    let table = reader.table(node, &place, example)?;
    reader.unknown_keys(table, &place, &["param", "condition", "phase"]);
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
    let conditions = value_of(table, "condition")
        .and_then(|node| reader.conditions(node, &format!("`condition` in {place}")));
    let phases = value_of(table, "phase")
        .and_then(|node| reader.phases(node, &format!("`phase` in {place}")));
    let says_nothing = ["param", "condition", "phase"].iter().all(|key| {
        value_of(table, key).is_none_or(|node| {
            node.get_ref().as_table().is_some_and(|table| table.is_empty())
                || node.get_ref().as_array().is_some_and(|array| array.is_empty())
        })
    });
    if says_nothing {
        let help = format!("write it like {example}, or leave `when` out");
        reader.report("plan::empty-list", format!("{place} says nothing"), node.span(), "", help);
    }
    Some(Guard {
        params: Cow::Owned(wanted),
        conditions: Cow::Owned(conditions.unwrap_or_default()),
        phases: Cow::Owned(phases.unwrap_or_default()),
    })
}

/// Reads `needs`, in the order of the plan, and checks that what the action consumes is among it.
fn needs(
    reader: &mut Reader,
    step: &DeTable<'_>,
    place: &str,
    index: usize,
    outlines: &[Outline<'_>],
    action_at: &Range<usize>,
) -> Vec<Cow<'static, str>> {
    let mut found: Vec<(usize, Range<usize>)> = Vec::new();
    let before = reader.diagnostics.len();
    let node = get(step, "needs").map(|(_, node)| node);
    let items =
        node.and_then(|node| reader.array(node, &format!("`needs` of {place}"), "[\"mint-join\"]"));
    for item in items.unwrap_or_default() {
        let Some(name) = reader.string(item, &format!("an entry in `needs` of {place}")) else {
            continue;
        };
        let at =
            |outline: &Outline<'_>| outline.name.as_ref().is_some_and(|(other, _)| *other == name);
        match outlines.iter().position(at) {
            Some(needed) if needed < index => match found
                .iter()
                .find(|(earlier, _)| *earlier == needed)
            {
                Some((_, first)) => {
                    let message = format!("`needs` of {place} names `{}` twice", shown(name));
                    reader.duplicate("plan::duplicate-entry", &message, first.clone(), item.span());
                }
                None => found.push((needed, item.span())),
            },
            Some(needed) => {
                let what = if needed == index { "itself" } else { "a later step" };
                let there = outlines[needed].name.as_ref().map_or(0..0, |(_, span)| span.clone());
                let message = format!("{place} needs {what}: `{}`", shown(name));
                let diagnostic = Diagnostic::new(
                    "plan::needs-later",
                    message,
                    reader.file,
                    item.span(),
                    "needed here",
                )
                .and(reader.file, there, "this step")
                .help("a step can only need steps that stand before it");
                reader.push(diagnostic);
            }
            None => {
                let names: Vec<&str> = outlines[..index]
                    .iter()
                    .filter_map(|outline| outline.name.as_ref())
                    .map(|(name, _)| *name)
                    .collect();
                reader.unknown("plan::unknown-step", "step", name, item.span(), &names);
            }
        }
    }
    let consumes = outlines[index].spec.and_then(|spec| Some((spec.name, spec.consumes?)));
    let carries_out =
        |outline: &Outline<'_>, name| outline.spec.is_some_and(|spec| spec.name == name);
    if let Some((name, consumed)) = consumes
        && reader.diagnostics.len() == before
        && !found.iter().any(|(needed, _)| carries_out(&outlines[*needed], consumed))
    {
        let named = outlines[..index]
            .iter()
            .rfind(|outline| carries_out(outline, consumed))
            .and_then(|outline| outline.name.as_ref());
        let help = match named {
            Some((name, _)) => format!("add `needs = [\"{}\"]`", shown(name)),
            None => format!(
                "put a step with `action = \"{consumed}\"` before it and name it in `needs`"
            ),
        };
        let message = format!("{place} does not need a step that carries out `{consumed}`");
        reader.report(
            "plan::missing-needs",
            message,
            action_at.clone(),
            format!("`{name}` uses the result of `{consumed}`"),
            help,
        );
    }
    found.sort_by_key(|(needed, _)| *needed);
    found
        .into_iter()
        .filter_map(|(needed, _)| outlines[needed].name.as_ref())
        .map(|(name, _)| Cow::Owned((*name).to_owned()))
        .collect()
}
