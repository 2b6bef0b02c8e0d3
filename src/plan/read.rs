//! Reads typed values from a spanned TOML document, with a diagnostic for each value that is wrong.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::action::Actions;
use super::diagnostic::Diagnostic;
use super::duration;
use super::limits::{DURATION_MS_MAX, LINE_BYTES_MAX, NAME_BYTES_MAX};
use super::names::{Condition, Phase, ValueKind};
use super::nodes::{Node, did_you_mean, found, is_name, shown};
use super::value::Value;
use crate::text::is_hidden;

/// A value that was read, and its position.
#[derive(Clone, Debug)]
pub(super) struct Read<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// Collects the mistakes of one file.
pub(super) struct Reader<'a> {
    pub(super) file: usize,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// The actions that steps can use.
    pub(super) actions: &'a Actions,
}

impl Reader<'_> {
    pub(super) fn report(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Range<usize>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Diagnostic::new(code, message, self.file, span, label).help(help));
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Reports every key of `table` that is not in `known`; `place` says whose keys they are.
    pub(super) fn unknown_keys(&mut self, table: &DeTable<'_>, place: &str, known: &[&str]) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let help = did_you_mean(name, known, "known keys");
                let message = format!("unknown key `{}` in {place}", shown(name));
                self.report(
                    "plan::unknown-key",
                    message,
                    key.span(),
                    "not a key of this table",
                    help,
                );
            }
        }
    }

    /// Reports a missing key.
    pub(super) fn missing(&mut self, place: &str, key: &str, span: Range<usize>, help: &str) {
        self.report(
            "plan::missing-key",
            format!("{place} has no `{key}`"),
            span,
            format!("`{key}` is missing"),
            help,
        );
    }

    fn wrong_type(
        &mut self,
        place: &str,
        wanted: &str,
        node: Node<'_, '_>,
        help: impl Into<String>,
    ) {
        let found = found(node);
        let message = format!("{place} must be {wanted}, not {found}");
        self.report("plan::wrong-type", message, node.span(), format!("this is {found}"), help);
    }

    pub(super) fn table<'a, 'i>(
        &mut self,
        node: Node<'a, 'i>,
        place: &str,
        example: &str,
    ) -> Option<&'a DeTable<'i>> {
        let table = node.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(place, "a table", node, format!("write it like {example}"));
        }
        table
    }

    pub(super) fn array<'a, 'i>(
        &mut self,
        node: Node<'a, 'i>,
        place: &str,
        example: &str,
    ) -> Option<&'a [Spanned<DeValue<'i>>]> {
        let array = node.get_ref().as_array();
        if array.is_none() {
            self.wrong_type(place, "a list", node, format!("write it like {example}"));
        }
        array.map(|array| &**array)
    }

    pub(super) fn string<'a>(&mut self, node: Node<'a, '_>, place: &str) -> Option<&'a str> {
        let text = node.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(place, "a string", node, "write one text, in double quotes");
        }
        text
    }

    pub(super) fn boolean(&mut self, node: Node<'_, '_>, place: &str) -> Option<bool> {
        let truth = node.get_ref().as_bool();
        if truth.is_none() {
            self.wrong_type(place, "a boolean", node, "write `true` or `false`, without quotes");
        }
        truth
    }

    pub(super) fn integer(
        &mut self,
        node: Node<'_, '_>,
        place: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let Some(number) = node.get_ref().as_integer() else {
            self.wrong_type(place, "an integer", node, "write a whole number, without quotes");
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| range.contains(number));
        if parsed.is_none() {
            let (low, high) = range.into_inner();
            let message = format!("{place} is out of range");
            self.report(
                "plan::out-of-range",
                message,
                node.span(),
                "",
                format!("give a number from {low} to {high}"),
            );
        }
        parsed
    }

    /// Text of at most `bytes_max` bytes. Only free text may have several lines.
    pub(super) fn text(
        &mut self,
        node: Node<'_, '_>,
        place: &str,
        bytes_max: usize,
        lines: bool,
    ) -> Option<Cow<'static, str>> {
        // A plan saved on another system is the same plan, with the same digest.
        let text = self.string(node, place)?.replace("\r\n", "\n");
        if text.len() > bytes_max {
            let message = format!("{place} is too long");
            let label = format!("{} bytes", text.len());
            self.report(
                "plan::too-long",
                message,
                node.span(),
                label,
                format!("keep it within {bytes_max} bytes"),
            );
            return None;
        }
        if let Some(hidden) = text.chars().find(|c| is_hidden(*c) && !(lines && *c == '\n')) {
            let what =
                if hidden.is_control() { "a control character" } else { "a hidden character" };
            let message = format!("{place} contains {what}");
            let help = if !hidden.is_control() {
                "remove it: it changes what readers see"
            } else if lines {
                "only line breaks are allowed"
            } else {
                "write it in one line, without tabs"
            };
            let label = format!("U+{:04X}", u32::from(hidden));
            self.report("plan::control-character", message, node.span(), label, help);
            return None;
        }
        Some(Cow::Owned(text))
    }

    /// A name of letters, digits and `-`; `what` says what it names.
    pub(super) fn name(
        &mut self,
        text: &str,
        span: Range<usize>,
        what: &str,
    ) -> Option<Cow<'static, str>> {
        if is_name(text) {
            return Some(Cow::Owned(text.to_owned()));
        }
        let mut help = format!(
            "use 1 to {NAME_BYTES_MAX} lower-case letters, digits and `-`, beginning and ending with a letter or digit"
        );
        let fixed = text.to_lowercase().replace(['_', ' '], "-");
        if is_name(&fixed) {
            help = format!("{help}: `{fixed}`");
        }
        self.report(
            "plan::bad-name",
            format!("`{}` is not a name for {what}", shown(text)),
            span,
            "",
            help,
        );
        None
    }

    pub(super) fn duration(&mut self, node: Node<'_, '_>, place: &str) -> Option<u64> {
        let Some(text) = node.get_ref().as_str() else {
            let help = match node.get_ref().as_integer() {
                Some(number) => {
                    format!("a number needs a unit: \"{}s\" or \"{0}ms\"", number.as_str())
                }
                None => duration::FORMAT_HINT.to_owned(),
            };
            self.wrong_type(place, "a duration in quotes", node, help);
            return None;
        };
        match duration::parse(text) {
            Ok(ms) => Some(ms),
            Err(error) => {
                let message = format!("{place} is not a duration: `{}`", shown(text));
                self.report(
                    "plan::bad-duration",
                    message,
                    node.span(),
                    error.to_string(),
                    duration::FORMAT_HINT,
                );
                None
            }
        }
    }

    /// A duration within bounds, in milliseconds.
    pub(super) fn duration_within(
        &mut self,
        node: Node<'_, '_>,
        place: &str,
        min_ms: u64,
        max_ms: u64,
    ) -> Option<u64> {
        let ms = self.duration(node, place)?;
        if (min_ms..=max_ms).contains(&ms) {
            return Some(ms);
        }
        let what = if ms < min_ms { "too short" } else { "too long" };
        let help = format!("give {} to {}", duration::format(min_ms), duration::format(max_ms));
        self.report("plan::out-of-range", format!("{place} is {what}"), node.span(), what, help);
        None
    }

    /// One of a closed set of names; `what` is its noun, such as `phase`, and makes the code `plan::unknown-<what>`.
    pub(super) fn choice<T: Copy>(
        &mut self,
        node: Node<'_, '_>,
        (code, what): (&'static str, &str),
        all: &[T],
        as_str: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.string(node, what)?;
        let found = all.iter().copied().find(|&value| as_str(value) == text);
        if found.is_none() {
            let names: Vec<&str> = all.iter().map(|&value| as_str(value)).collect();
            self.unknown(code, what, text, node.span(), &names);
        }
        found
    }

    /// Reports an action that there is not.
    pub(super) fn unknown_action(&mut self, text: &str, span: Range<usize>, names: &[&str]) {
        let help = format!(
            "{} (actions of your own are declared in files of --actions-dir)",
            did_you_mean(text, names, "one of")
        );
        let message = format!("unknown action `{}`", shown(text));
        self.report("plan::unknown-action", message, span, "no such action", help);
    }

    /// Reports a name that is not in a closed set.
    pub(super) fn unknown(
        &mut self,
        code: &'static str,
        what: &str,
        text: &str,
        span: Range<usize>,
        names: &[&str],
    ) {
        let help = did_you_mean(text, names, "one of");
        self.report(
            code,
            format!("unknown {what} `{}`", shown(text)),
            span,
            format!("no such {what}"),
            help,
        );
    }

    /// A list of names from a closed set, each at most once, sorted.
    pub(super) fn choices<T: Copy + Ord>(
        &mut self,
        node: Node<'_, '_>,
        place: &str,
        code_what: (&'static str, &str),
        all: &[T],
        as_str: impl Fn(T) -> &'static str,
    ) -> Option<Vec<T>> {
        let example = format!("[\"{}\"]", all.first().map_or("", |&value| as_str(value)));
        let mut seen: Vec<Read<T>> = Vec::new();
        for item in self.array(node, place, &example)? {
            let Some(value) = self.choice(item, code_what, all, &as_str) else { continue };
            match seen.iter().find(|earlier| earlier.value == value) {
                Some(earlier) => {
                    let first = earlier.span.clone();
                    self.duplicate(
                        "plan::duplicate-entry",
                        &format!("{place} names `{}` twice", as_str(value)),
                        first,
                        item.span(),
                    );
                }
                None => seen.push(Read { value, span: item.span() }),
            }
        }
        let mut values: Vec<T> = seen.into_iter().map(|read| read.value).collect();
        values.sort();
        Some(values)
    }

    /// Reports something that occurs twice in this file, showing both positions.
    pub(super) fn duplicate(
        &mut self,
        code: &'static str,
        message: &str,
        first: Range<usize>,
        again: Range<usize>,
    ) {
        let diagnostic = Diagnostic::new(code, message, self.file, again, "used again here").and(
            self.file,
            first,
            "first used here",
        );
        self.push(diagnostic.help("remove or rename one of them"));
    }

    /// A list of phases.
    pub(super) fn phases(&mut self, node: Node<'_, '_>, place: &str) -> Option<Vec<Phase>> {
        self.choices(node, place, ("plan::unknown-phase", "phase"), Phase::ALL, Phase::as_str)
    }

    /// `{ Reachable = true }`, sorted by condition.
    pub(super) fn conditions(
        &mut self,
        node: Node<'_, '_>,
        place: &str,
    ) -> Option<Vec<(Condition, bool)>> {
        let names: Vec<&str> = Condition::ALL.iter().map(|condition| condition.as_str()).collect();
        let mut conditions = Vec::new();
        for (key, value) in self.table(node, place, "{ Reachable = true }")? {
            let name = key.get_ref().as_ref();
            let condition = Condition::parse(name);
            if condition.is_none() {
                self.unknown("plan::unknown-condition", "condition", name, key.span(), &names);
            }
            let status = self.boolean(value, &format!("condition `{}`", shown(name)));
            conditions.extend(condition.zip(status));
        }
        conditions.sort();
        Some(conditions)
    }

    /// A literal of the given kind.
    pub(super) fn value(
        &mut self,
        node: Node<'_, '_>,
        place: &str,
        kind: ValueKind,
    ) -> Option<Value> {
        match kind {
            ValueKind::String => self.text(node, place, LINE_BYTES_MAX, false).map(Value::Str),
            ValueKind::Integer => self.integer(node, place, i64::MIN..=i64::MAX).map(Value::Int),
            ValueKind::Boolean => self.boolean(node, place).map(Value::Bool),
            ValueKind::Duration => {
                self.duration_within(node, place, 0, DURATION_MS_MAX).map(Value::DurationMs)
            }
        }
    }
}
