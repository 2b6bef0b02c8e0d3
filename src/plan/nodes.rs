//! Nodes of a TOML document, and helpers for messages about them.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::limits::NAME_BYTES_MAX;
use super::suggest::nearest;
use crate::text::is_hidden;

/// A value with its position.
pub(super) type Node<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// The key and value of this name.
pub(super) fn get<'a, 'i>(
    table: &'a DeTable<'i>,
    name: &str,
) -> Option<(&'a Spanned<DeString<'i>>, Node<'a, 'i>)> {
    table.iter().find(|(key, _)| key.get_ref().as_ref() == name)
}

/// The value of this name.
pub(super) fn value_of<'a, 'i>(table: &'a DeTable<'i>, name: &str) -> Option<Node<'a, 'i>> {
    get(table, name).map(|(_, value)| value)
}

/// Whether the text is a name of a plan (after `plan/`), step or parameter.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Text of a file for a message: without control characters, and truncated.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut shown: String = text
        .chars()
        .take(CHARS_MAX)
        .flat_map(|c| if is_hidden(c) { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The nearest known name, or all of them.
pub(super) fn did_you_mean(name: &str, known: &[&str], intro: &str) -> String {
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "there is none yet".to_owned(),
        None => format!("{intro}: {}", known.join(", ")),
    }
}

/// What was found, with its article.
pub(super) fn found(node: Node<'_, '_>) -> &'static str {
    match node.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
