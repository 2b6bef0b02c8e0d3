//! Checks the steps of a plan.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::action::{ActionSpec, Actions};
use super::check_action::{action, compensation};
use super::check_guard::guard;
use super::check_own;
use super::check_param::Params;
use super::check_policy::{expected, on_unknown, retry};
use super::diagnostic::Diagnostic;
use super::limits::{STEPS_MAX, TIMEOUT_MS_MAX};
use super::names::Role;
use super::nodes::{Node, get, shown, value_of};
use super::read::{Read, Reader};
use super::schema::Step;

const STEP_KEYS: &[&str] = &[
    "name",
    "action",
    "args",
    "timeout",
    "expected",
    "retry",
    "on_unknown",
    "when",
    "until",
    "needs",
    "compensation",
    "sets",
];

/// What the steps of a plan need to know of each other: name, position, the action, and the list that contains it.
struct Outline<'a> {
    name: Option<(&'a str, Range<usize>)>,
    spec: Option<&'a ActionSpec>,
    role: Role,
}

/// Reads `[[steps]]`, `[[on_failure]]` and `[[finally]]`. Steps with a mistake are left out; spans are those of the
/// actions.
pub(super) fn steps(
    reader: &mut Reader<'_>,
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
    let mut all: Vec<(&Spanned<DeValue<'_>>, Role)> =
        items.iter().map(|item| (item, Role::Main)).collect();
    for role in [Role::OnFailure, Role::Finally] {
        let Some(node) = value_of(plan, role.as_str()) else { continue };
        let place = format!("`{role}`");
        let items = reader.array(node, &place, &format!("`[[{role}]]`")).unwrap_or_default();
        all.extend(items.iter().map(|item| (item, role)));
    }
    if all.len() > STEPS_MAX {
        let message = format!("{} steps are too many", all.len());
        let help = format!("a plan has at most {STEPS_MAX} steps; split it");
        reader.report("plan::too-many", message, node.span(), "", help);
        return Vec::new();
    }
    let actions = reader.actions;
    let outlines: Vec<Outline<'_>> =
        all.iter().map(|(item, role)| outline(actions, item, *role)).collect();
    duplicates(reader, &outlines);
    all.iter()
        .enumerate()
        .filter_map(|(index, (item, _))| step(reader, item, index, &outlines, params))
        .collect()
}

fn outline<'a>(actions: &'a Actions, item: &'a Spanned<DeValue<'_>>, role: Role) -> Outline<'a> {
    let text = |key| {
        let node = value_of(item.get_ref().as_table()?, key)?;
        Some((node.get_ref().as_str()?, node.span()))
    };
    Outline {
        name: text("name"),
        spec: text("action").and_then(|(text, _)| actions.find(text)),
        role,
    }
}

fn duplicates(reader: &mut Reader<'_>, outlines: &[Outline<'_>]) {
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
    reader: &mut Reader<'_>,
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
    let Outline { spec, role, .. } = outlines[index];
    check_own::role(reader, table, &place, role, spec, &action_at);
    check_own::keys(reader, table, &place, spec);
    let until = value_of(table, "until").map(|node| check_own::until(reader, node, &place, spec));
    let waits_ms = check_own::waits(reader, table, &place, action.as_ref(), &action_at);
    // If the action is unknown its defaults are too; any will do, since the step is dropped.
    let (hint_timeout_ms, hint_expected_ms) = waits_ms.unwrap_or_else(|| {
        spec.map_or((TIMEOUT_MS_MAX, 1), |spec| (spec.timeout_ms, spec.expected_ms))
    });
    let longest_ms = check_own::timeout_ms_max(spec);
    let timeout_ms = value_of(table, "timeout").map_or(Some(hint_timeout_ms), |node| {
        reader.duration_within(node, &format!("`timeout` of {place}"), 1, longest_ms)
    });
    let expected_ms = match waits_ms {
        Some((_, expected_ms)) => Some(expected_ms),
        None => expected(reader, table, &place, timeout_ms, hint_expected_ms),
    };
    let retry = match check_own::retry(spec) {
        Some(once) => Some(once),
        None => retry(reader, table, &place),
    };
    let on_unknown = on_unknown(reader, table, &place, spec, &action_at);
    let earlier = outlines[..index].iter().filter_map(|outline| outline.name.as_ref());
    let earlier: Vec<&str> = earlier.map(|(name, _)| *name).collect();
    let when = value_of(table, "when").map(|node| guard(reader, node, &place, params, &earlier));
    let needs = needs(reader, table, &place, index, outlines, &action_at);
    let compensation =
        value_of(table, "compensation").map(|node| compensation(reader, node, &place, params));
    let sets =
        value_of(table, "sets").map(|node| reader.conditions(node, &format!("`sets` of {place}")));
    let step = Step {
        name: name?,
        role,
        action: action?,
        timeout_ms: timeout_ms?,
        expected_ms: expected_ms?,
        retry: retry?,
        on_unknown: on_unknown?,
        when: when.flatten(),
        until: until.flatten(),
        needs: Cow::Owned(needs),
        compensation: compensation.flatten(),
        sets: Cow::Owned(sets.flatten().unwrap_or_default()),
    };
    Some(Read { value: step, span: action_at })
}

/// Reads `needs`, in the order of the plan, and checks that it contains what the action consumes.
fn needs(
    reader: &mut Reader<'_>,
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
                .help("a step can only need earlier steps");
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
    let consumes =
        outlines[index].spec.and_then(|spec| Some((&spec.name, spec.consumes.as_deref()?)));
    let carries_out =
        |outline: &Outline<'_>, name: &str| outline.spec.is_some_and(|spec| spec.name == name);
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
        let message = format!("{place} does not need a step with `{consumed}`");
        reader.report(
            "plan::missing-needs",
            message,
            action_at.clone(),
            format!("`{name}` uses the output of `{consumed}`"),
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
