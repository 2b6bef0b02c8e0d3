//! Checks what a step does when its action fails or its outcome is unknown.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeTable;

use super::action::ActionSpec;
use super::diagnostic::Diagnostic;
use super::limits::{ATTEMPTS_MAX, BACKOFF_MS_MAX, TIMEOUT_MS_MAX};
use super::names::{ErrorClass, OnUnknown};
use super::nodes::value_of;
use super::read::Reader;
use super::schema::Retry;

/// Defaults of a retry policy.
const ATTEMPTS_DEFAULT: u32 = 3;
const BACKOFF_MS_DEFAULT: u64 = 1_000;
const BACKOFF_MS_MAX_DEFAULT: u64 = 30_000;

/// Reads `retry`; missing keys get their defaults.
pub(super) fn retry(reader: &mut Reader<'_>, step: &DeTable<'_>, place: &str) -> Option<Retry> {
    let mut retry = Retry {
        max_attempts: ATTEMPTS_DEFAULT,
        on: Cow::Borrowed(&[ErrorClass::Transient]),
        backoff_ms: BACKOFF_MS_DEFAULT,
        backoff_max_ms: BACKOFF_MS_MAX_DEFAULT,
    };
    let Some(node) = value_of(step, "retry") else { return Some(retry) };
    let before = reader.diagnostics.len();
    let place = format!("`retry` of {place}");
    let table = reader.table(
        node,
        &place,
        "{ max_attempts = 5, on = [\"transient\"], backoff = \"2s\", backoff_max = \"1m\" }",
    )?;
    reader.unknown_keys(table, &place, &["max_attempts", "on", "backoff", "backoff_max"]);
    if let Some(node) = value_of(table, "max_attempts") {
        let attempts = reader.integer(
            node,
            &format!("`max_attempts` in {place}"),
            1..=i64::from(ATTEMPTS_MAX),
        );
        retry.max_attempts =
            attempts.and_then(|number| u32::try_from(number).ok()).unwrap_or(ATTEMPTS_DEFAULT);
    }
    if let Some(node) = value_of(table, "on") {
        let what = ("plan::unknown-error-class", "error class");
        let on = reader.choices(
            node,
            &format!("`on` in {place}"),
            what,
            ErrorClass::ALL,
            ErrorClass::as_str,
        );
        if node.get_ref().as_array().is_some_and(|array| array.is_empty()) {
            let help = "write `max_attempts = 1` for a step that must not be retried";
            reader.report(
                "plan::empty-list",
                "no failure would be retried",
                node.span(),
                "empty",
                help,
            );
        }
        retry.on = Cow::Owned(on.unwrap_or_default());
    }
    if let Some(node) = value_of(table, "backoff") {
        let backoff_ms =
            reader.duration_within(node, &format!("`backoff` in {place}"), 0, BACKOFF_MS_MAX);
        retry.backoff_ms = backoff_ms.unwrap_or(0);
        retry.backoff_max_ms = retry.backoff_max_ms.max(retry.backoff_ms);
    }
    if let Some(node) = value_of(table, "backoff_max") {
        let place = format!("`backoff_max` in {place}");
        let max_ms = reader.duration_within(node, &place, retry.backoff_ms, BACKOFF_MS_MAX);
        retry.backoff_max_ms = max_ms.unwrap_or(BACKOFF_MS_MAX);
    }
    (reader.diagnostics.len() == before).then_some(retry)
}

/// The action's expected duration, but never so long that a normal attempt looks close to its timeout.
pub(super) fn expected(
    reader: &mut Reader<'_>,
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

/// Reads `on_unknown` and checks it against the action; `action_at` is where the action is named.
pub(super) fn on_unknown(
    reader: &mut Reader<'_>,
    step: &DeTable<'_>,
    place: &str,
    spec: Option<&ActionSpec>,
    action_at: &Range<usize>,
) -> Option<OnUnknown> {
    let given = value_of(step, "on_unknown").map(|node| {
        (
            reader.choice(
                node,
                ("plan::unknown-outcome-rule", "outcome rule"),
                OnUnknown::ALL,
                OnUnknown::as_str,
            ),
            node.span(),
        )
    });
    let spec = spec?;
    match given {
        None if spec.risk.is_destructive() => {
            let message = format!("{place} is {} and has no `on_unknown`", spec.risk);
            let help = "say what to do if it is unknown whether it took effect: `on_unknown = \"verify\"` looks at the \
                        machine, \"hold\" asks an operator";
            reader.report(
                "plan::on-unknown-missing",
                message,
                action_at.clone(),
                format!("`{}` is {}", spec.name, spec.risk),
                help,
            );
            None
        }
        None => Some(if spec.idempotent { OnUnknown::Retry } else { OnUnknown::Verify }),
        Some((Some(OnUnknown::Retry), span)) if !spec.idempotent => {
            let message = format!("`{}` cannot be retried when its outcome is unknown", spec.name);
            let diagnostic = Diagnostic::new(
                "plan::on-unknown-retry",
                message,
                reader.file,
                span,
                "could perform it twice",
            )
            .and(reader.file, action_at.clone(), format!("`{}` is not idempotent", spec.name))
            .help("use \"verify\" (look at the machine) or \"hold\" (ask an operator)");
            reader.push(diagnostic);
            None
        }
        Some((given, _)) => given,
    }
}
