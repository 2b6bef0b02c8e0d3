//! Actions that a server declares: one file each, with every mistake of every file at once.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeTable;

use super::action::{ActionSpec, Actions, ArgSpec};
use super::check_param::param;
use super::diagnostic::{Diagnostic, SourceFile};
use super::form::Form;
use super::limits::{ACTIONS_MAX, PARAMS_MAX, TEXT_BYTES_MAX, TIMEOUT_MS_MAX};
use super::names::{Capability, Risk, ValueKind};
use super::nodes::{shown, value_of};
use super::parse::{bounded, document};
use super::read::{Read, Reader};
use super::value::Value;

const KEYS: &[&str] = &[
    "name",
    "description",
    "risk",
    "idempotent",
    "interruptible",
    "consumes",
    "timeout",
    "expected",
    "args",
];

/// The actions of these files, besides the built-in ones.
///
/// # Errors
/// Every mistake of every file, by file and position.
pub fn compile_actions(files: &[SourceFile<'_>]) -> Result<Actions, Vec<Diagnostic>> {
    if files.len() > ACTIONS_MAX {
        let message = format!("{} files of actions are too many", files.len());
        let help = format!("give at most {ACTIONS_MAX} files");
        return Err(vec![Diagnostic::new("action::too-many", message, 0, 0..0, "").help(help)]);
    }
    let mut diagnostics = Vec::new();
    let mut read: Vec<(usize, Declared)> = Vec::new();
    for (file, source) in files.iter().enumerate() {
        let mut reader = Reader { file, diagnostics: Vec::new(), actions: Actions::BUILT_IN };
        let help = "an action begins with `name = \"NAME\"` and has a `description`";
        let declared =
            document(&mut reader, source, help).map(|read| action(&mut reader, read.get_ref()));
        diagnostics.append(&mut bounded(file, reader.diagnostics));
        read.extend(declared.map(|declared| (file, declared)));
    }
    names(&read, &mut diagnostics);
    if !diagnostics.is_empty() {
        diagnostics.sort_by_key(Diagnostic::sort_key);
        return Err(diagnostics);
    }
    let mut own: Vec<ActionSpec> = read.into_iter().filter_map(|(_, read)| read.spec).collect();
    own.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Actions::with(own))
}

/// One file; the name is known even if other parts are wrong.
struct Declared {
    spec: Option<ActionSpec>,
    name: Option<Read<String>>,
    consumes: Option<Read<String>>,
}

fn action(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Declared {
    const PLACE: &str = "the action";
    reader.unknown_keys(table, PLACE, KEYS);
    let start = table.keys().map(|key| key.span()).min_by_key(|span| span.start).unwrap_or(0..0);
    let before = reader.diagnostics.len();
    let name = required(reader, table, "name", &start, "\"update-firmware\"").and_then(|node| {
        let text = reader.string(node, "`name`")?;
        reader.name(text, node.span(), "an action")?;
        Some(Read { value: text.to_owned(), span: node.span() })
    });
    let description = required(reader, table, "description", &start, "\"What it does.\"")
        .and_then(|node| reader.text(node, "`description`", TEXT_BYTES_MAX, true));
    let risk =
        required(reader, table, "risk", &start, "\"none\", or \"disruptive\", \"data-destroying\"")
            .and_then(|node| {
                reader.choice(node, ("action::unknown-risk", "risk"), Risk::ALL, Risk::as_str)
            });
    let idempotent =
        required(reader, table, "idempotent", &start, "true if doing it twice is doing it once")
            .and_then(|node| reader.boolean(node, "`idempotent`"));
    let interruptible =
        value_of(table, "interruptible").map(|node| reader.boolean(node, "`interruptible`"));
    let consumes = value_of(table, "consumes").and_then(|node| {
        let value = reader.string(node, "`consumes`")?.to_owned();
        Some(Read { value, span: node.span() })
    });
    let timeout_ms = required(reader, table, "timeout", &start, "\"30m\"")
        .and_then(|node| reader.duration_within(node, "`timeout`", 1, TIMEOUT_MS_MAX));
    let expected_ms = value_of(table, "expected").map_or(timeout_ms, |node| {
        reader.duration_within(node, "`expected`", 1, timeout_ms.unwrap_or(TIMEOUT_MS_MAX))
    });
    let args = args(reader, table);
    let consumed = consumes.as_ref().map(|read| Cow::Owned(read.value.clone()));
    let named = name.as_ref().map(|read| Cow::Owned(read.value.clone()));
    let spec = || {
        let risk = risk?;
        Some(ActionSpec {
            name: named?,
            capability: Capability::Custom,
            risk,
            idempotent: idempotent?,
            interruptible: interruptible.flatten().unwrap_or(!risk.is_destructive()),
            description: description?,
            consumes: consumed,
            args: Cow::Owned(args),
            timeout_ms: timeout_ms?,
            expected_ms: expected_ms?,
        })
    };
    let spec = spec().filter(|_| reader.diagnostics.len() == before);
    Declared { spec, name, consumes }
}

fn required<'a, 'i>(
    reader: &mut Reader<'_>,
    table: &'a DeTable<'i>,
    key: &str,
    start: &Range<usize>,
    example: &str,
) -> Option<super::nodes::Node<'a, 'i>> {
    let found = value_of(table, key);
    if found.is_none() {
        reader.missing("the action", key, start.clone(), &format!("add `{key} = …`: {example}"));
    }
    found
}

/// Reads `[args.NAME]` tables, sorted by name.
fn args(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Vec<ArgSpec> {
    let Some(node) = value_of(table, "args") else { return Vec::new() };
    let Some(table) = reader.table(node, "`args`", "`[args.NAME]`") else { return Vec::new() };
    if table.len() > PARAMS_MAX {
        let message = format!("{} arguments are too many", table.len());
        let help = format!("an action has at most {PARAMS_MAX}");
        reader.report("action::too-many", message, node.span(), "", help);
        return Vec::new();
    }
    let mut args = Vec::new();
    for (key, node) in table {
        let Some(read) = param(reader, "argument", key.get_ref(), key.span(), node) else {
            continue;
        };
        if read.kind != ValueKind::String && !read.one_of.is_empty() {
            let message = format!("argument `{}` of kind {} has `one_of`", read.name, read.kind);
            let help = "remove it, or write `kind = \"string\"`: only texts can be listed";
            reader.report("action::bad-one-of", message, key.span(), "not a text", help);
        }
        let text = |value: &Value| Cow::Owned(value.to_string());
        args.push(ArgSpec {
            name: read.name,
            kind: read.kind,
            default: read.default,
            one_of: Cow::Owned(read.one_of.iter().map(text).collect()),
            form: Form::Any,
            is_optional: false,
            description: read.description,
        });
    }
    args.sort_by(|a, b| a.name.cmp(&b.name));
    args
}

/// Reports names that are taken, and consumed actions that do not exist.
fn names(read: &[(usize, Declared)], diagnostics: &mut Vec<Diagnostic>) {
    let named = |declared: &Declared| declared.name.as_ref().map(|name| name.value.clone());
    for (later, (file, declared)) in read.iter().enumerate() {
        if let Some(name) = &declared.name {
            let built_in = ActionSpec::find(&name.value).is_some();
            let earlier = read[..later].iter().find(|(_, other)| named(other) == named(declared));
            let taken = match (built_in, earlier) {
                (true, _) => Some("a built-in action"),
                (false, Some(_)) => Some("another file"),
                (false, None) => None,
            };
            if let Some(taken) = taken {
                let message = format!("the name `{}` is taken by {taken}", shown(&name.value));
                let diagnostic = Diagnostic::new(
                    "action::name-taken",
                    message,
                    *file,
                    name.span.clone(),
                    "taken",
                );
                diagnostics.push(diagnostic.help("give the action another name"));
            }
        }
        let Some(consumed) = &declared.consumes else { continue };
        let exists = ActionSpec::find(&consumed.value).is_some()
            || read.iter().any(|(_, other)| named(other).as_deref() == Some(&consumed.value));
        if !exists {
            let message = format!("there is no action `{}` to consume", shown(&consumed.value));
            let span = consumed.span.clone();
            let diagnostic =
                Diagnostic::new("action::unknown-action", message, *file, span, "no such action");
            diagnostics.push(diagnostic.help("`bmdemo-cli plan explain` lists the built-in ones"));
        }
    }
}

#[cfg(test)]
mod tests;
