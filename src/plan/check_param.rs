//! Checks the parameters of a plan and every reference to them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::limits::{ONE_OF_MAX, PARAMS_MAX, TEXT_BYTES_MAX};
use super::names::ValueKind;
use super::nodes::{Node, did_you_mean, shown, value_of};
use super::read::Reader;
use super::schema::Param;
use super::value::Value;

const PARAM_KEYS: &[&str] = &["kind", "default", "one_of", "description"];

/// The declared parameters, and which of them are used.
pub(super) struct Params {
    declared: BTreeMap<String, Declared>,
    used: BTreeSet<String>,
}

struct Declared {
    span: Range<usize>,
    /// `None` if the declaration has a mistake: references to it are then accepted.
    param: Option<Param>,
}

impl Params {
    /// Reads `[params.NAME]` tables.
    pub(super) fn read(reader: &mut Reader<'_>, plan: &DeTable<'_>) -> Self {
        let mut params = Self { declared: BTreeMap::new(), used: BTreeSet::new() };
        let Some(node) = value_of(plan, "params") else { return params };
        let Some(table) = reader.table(node, "`params`", "`[params.NAME]`") else { return params };
        if table.len() > PARAMS_MAX {
            let message = format!("{} parameters are too many", table.len());
            reader.report(
                "plan::too-many",
                message,
                node.span(),
                "",
                format!("a plan has at most {PARAMS_MAX}"),
            );
            return params;
        }
        for (key, node) in table {
            let before = reader.diagnostics.len();
            let name = key.get_ref().as_ref();
            let param = param(reader, "parameter", name, key.span(), node)
                .filter(|_| reader.diagnostics.len() == before);
            params.declared.insert(name.to_owned(), Declared { span: key.span(), param });
        }
        params
    }

    /// Looks up a reference; reports it if there is no such parameter. `None` also if the declaration itself is
    /// wrong.
    pub(super) fn refer(
        &mut self,
        reader: &mut Reader<'_>,
        name: &str,
        span: Range<usize>,
    ) -> Option<(&Param, Range<usize>)> {
        let Some(declared) = self.declared.get(name) else {
            let names: Vec<&str> = self.declared.keys().map(String::as_str).collect();
            if names.is_empty() {
                let help =
                    format!("the plan has no parameters; declare it: `[params.{}]`", shown(name));
                reader.report(
                    "plan::unknown-param",
                    format!("unknown parameter `{}`", shown(name)),
                    span,
                    "no such parameter",
                    help,
                );
            } else {
                reader.unknown("plan::unknown-param", "parameter", name, span, &names);
            }
            return None;
        };
        self.used.insert(name.to_owned());
        declared.param.as_ref().map(|param| (param, declared.span.clone()))
    }

    /// An unused parameter would be given in the belief that it has an effect.
    pub(super) fn report_unused(&self, reader: &mut Reader<'_>) {
        for (name, declared) in &self.declared {
            if !self.used.contains(name) {
                let message = format!("parameter `{}` is never used", shown(name));
                let help = format!(
                    "use it in `args` as `{{ param = \"{}\" }}` or in `when`, or remove it",
                    shown(name)
                );
                reader.report(
                    "plan::unused",
                    message,
                    declared.span.clone(),
                    "declared here",
                    help,
                );
            }
        }
    }

    /// The parameters, sorted by name.
    pub(super) fn into_values(self) -> Vec<Param> {
        self.declared.into_values().filter_map(|declared| declared.param).collect()
    }
}

/// Reads a `[params.NAME]` or `[args.NAME]` table; `what` is parameter or argument.
pub(super) fn param(
    reader: &mut Reader<'_>,
    what: &str,
    name: &str,
    span: Range<usize>,
    node: Node<'_, '_>,
) -> Option<Param> {
    let place = format!("{what} `{}`", shown(name));
    let article = if what.starts_with('a') { "an" } else { "a" };
    let checked_name = reader.name(name, span.clone(), &format!("{article} {what}"));
    let table = reader.table(node, &place, "`[params.NAME]`")?;
    reader.unknown_keys(table, &place, PARAM_KEYS);
    let description = value_of(table, "description").and_then(|node| {
        reader.text(node, &format!("`description` of {place}"), TEXT_BYTES_MAX, true)
    });
    let Some(node) = value_of(table, "kind") else {
        reader.missing(
            &place,
            "kind",
            span,
            "add `kind = \"string\"` (or integer, boolean, duration)",
        );
        return None;
    };
    let kind =
        reader.choice(node, ("plan::unknown-kind", "kind"), ValueKind::ALL, ValueKind::as_str)?;
    let one_of = value_of(table, "one_of").map(|node| one_of(reader, node, &place, kind));
    let default = value_of(table, "default").and_then(|node| {
        let value = reader.value(node, &format!("`default` of {place}"), kind)?;
        if let Some(Some(one_of)) = &one_of {
            in_one_of(reader, &value, one_of, node.span(), &format!("`default` of {place}"));
        }
        Some(value)
    });
    Some(Param {
        name: checked_name?,
        kind,
        default,
        one_of: Cow::Owned(one_of.flatten().unwrap_or_default()),
        description: description.unwrap_or_default(),
    })
}

fn one_of(
    reader: &mut Reader<'_>,
    node: Node<'_, '_>,
    place: &str,
    kind: ValueKind,
) -> Option<Vec<Value>> {
    let place = format!("`one_of` of {place}");
    let items = reader.array(node, &place, "[\"a\", \"b\"]")?;
    if items.is_empty() || items.len() > ONE_OF_MAX {
        let message = format!("{place} has {} values", items.len());
        let help = format!("give 1 to {ONE_OF_MAX} values, or leave `one_of` out to accept any");
        reader.report("plan::empty-list", message, node.span(), "", help);
        return None;
    }
    let mut values: Vec<(Value, Range<usize>)> = Vec::new();
    for item in items {
        let Some(value) = reader.value(item, &format!("a value in {place}"), kind) else {
            continue;
        };
        match values.iter().find(|(earlier, _)| *earlier == value) {
            Some((_, first)) => {
                let first = first.clone();
                reader.duplicate(
                    "plan::duplicate-entry",
                    &format!("{place} has a value twice"),
                    first,
                    item.span(),
                );
            }
            None => values.push((value, item.span())),
        }
    }
    Some(values.into_iter().map(|(value, _)| value).collect())
}

/// Reports a value that is not in a non-empty list of accepted ones.
pub(super) fn in_one_of(
    reader: &mut Reader<'_>,
    value: &Value,
    one_of: &[Value],
    span: Range<usize>,
    place: &str,
) {
    if one_of.is_empty() || one_of.contains(value) {
        return;
    }
    let texts: Vec<String> = one_of.iter().map(Value::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let text = value.to_string();
    let help = did_you_mean(&text, &texts, "one of");
    reader.report(
        "plan::not-one-of",
        format!("{place} cannot be `{}`", shown(&text)),
        span,
        "not accepted",
        help,
    );
}

/// Reports a parameter that does not fit where it is used; `one_of` lists the values accepted there.
pub(super) fn fits(
    reader: &mut Reader<'_>,
    (param, declared): (&Param, Range<usize>),
    kind: ValueKind,
    one_of: &[Cow<'static, str>],
    span: Range<usize>,
    place: &str,
) {
    let problem = if param.kind != kind {
        Some((
            "plan::param-type",
            format!("{place} is of kind {kind}, parameter `{}` of kind {}", param.name, param.kind),
            format!(
                "write `kind = \"{kind}\"` in `[params.{}]`, or use another parameter",
                param.name
            ),
        ))
    } else if !one_of.is_empty()
        && (param.one_of.is_empty()
            || !param.one_of.iter().all(|value| {
                value.as_str().is_some_and(|text| one_of.iter().any(|one| one == text))
            }))
    {
        Some((
            "plan::param-type",
            format!("parameter `{}` can take values that {place} does not accept", param.name),
            format!("write `one_of = {one_of:?}` in `[params.{}]`", param.name),
        ))
    } else {
        None
    };
    if let Some((code, message, help)) = problem {
        let diagnostic = Diagnostic::new(code, message, reader.file, span, "used here");
        reader.push(diagnostic.and(reader.file, declared, "declared here").help(help));
    }
}
