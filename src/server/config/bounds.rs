//! Bounds of settings: names that exist, and sensible numbers.

use std::time::Duration;

use crate::api::validate::wrong_label_key;
use crate::plan::suggest::nearest;
use crate::text::{escaped, is_hidden};

/// Most connections, runs or probes at a time that one server could ever serve.
pub(super) const MANY: u64 = 1_000_000;
/// Most log bytes of one step that are sensible to keep.
pub(super) const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// An hour.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// Ten years: longer than anything waits.
pub(super) const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Refuses the name of a provider that a server does not have.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn provider(family: &str, name: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&name) {
        return Ok(());
    }
    let meant = match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there is {}", known.join(", ")),
    };
    Err(format!("{family}.{} is not a provider of this server: {meant}", escaped(name)))
}

/// Refuses an invalid label key.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn label(family: &str, name: &str) -> Result<(), String> {
    match wrong_label_key(name) {
        Some(wrong) => Err(format!("{family}.{} is not a valid label: {wrong}", escaped(name))),
        None => Ok(()),
    }
}

/// Refuses what can be no name of a host.
///
/// # Errors
/// What is wrong, naming the key.
pub(in crate::server) fn host_name(key: &str, name: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.len() <= 253 && bare.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "{key}: {} is no name of a host: give it as in \"bmdemo.example.com\", without scheme and port",
        escaped(name)
    ))
}

/// Refuses a text that is too long or has characters that cannot be shown, such as line feeds.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn printable(key: &str, text: &str, most: usize) -> Result<(), String> {
    if text.chars().count() > most {
        return Err(format!("{key} is too long: give at most {most} characters"));
    }
    match text.chars().find(|c| is_hidden(*c)) {
        Some(hidden) => Err(format!(
            "{key} has the character {}, which cannot be shown",
            hidden.escape_unicode()
        )),
        None => Ok(()),
    }
}

/// Refuses zero, saying what it would mean, and absurdly large values.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn number(key: &str, value: u64, most: u64, if_zero: &str) -> Result<(), String> {
    let key = escaped(key);
    if value == 0 {
        return Err(format!("{key} is 0: {if_zero}; give at least 1"));
    }
    if value > most {
        return Err(format!("{key} is {value}: give 1 to {most}"));
    }
    Ok(())
}

/// Refuses fewer bytes than what they are for takes.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn bytes(key: &str, value: u64, least: u64) -> Result<(), String> {
    match value < least {
        true => {
            Err(format!("{key} is {value}: give at least {least}, or large answers have no room"))
        }
        false => Ok(()),
    }
}

/// Refuses a duration that is too short or absurdly long.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn span(
    key: &str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), String> {
    if value < least || value > most {
        let (key, least, most) = (escaped(key), words(least), words(most));
        return Err(format!("{key} must be {least} to {most}"));
    }
    Ok(())
}

/// A duration as the file writes it, in its largest whole unit.
fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    match () {
        () if span < SECOND && !span.is_zero() => format!("{}ms", span.as_millis()),
        () if seconds >= 86_400 && seconds.is_multiple_of(86_400) => {
            format!("{}d", seconds / 86_400)
        }
        () if seconds >= 3_600 && seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        () => format!("{seconds}s"),
    }
}

/// The parser's message without the names of Rust types, and with a suggestion.
pub(super) fn in_words(message: &str) -> String {
    let mut text = message.to_owned();
    for (kind, words) in [
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected struct Server", "expected a table"),
        ("expected socket address", "expected an address and a port, such as \"127.0.0.1:9464\""),
        ("invalid socket address syntax", "expected an address and a port, such as 127.0.0.1:9464"),
        ("expected path string", "expected a path in quotes"),
        ("wanted string or table", "expected the name of a driver in quotes"),
        ("expected a map", "expected a table"),
        ("expected a sequence", "expected a list, as in [\"a\", \"b\"]"),
    ] {
        text = text.replace(kind, words);
    }
    if let Some(at) = text.find("expected struct ") {
        let end = text[at + 16..]
            .find(|c: char| !c.is_alphanumeric())
            .map_or(text.len(), |end| at + 16 + end);
        text.replace_range(at..end, "expected a table");
    }
    for unknown in ["unknown field `", "unknown variant `"] {
        let Some((name, rest)) = text.strip_prefix(unknown).and_then(|rest| rest.split_once('`'))
        else {
            continue;
        };
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        if let Some(meant) = nearest(name, known.iter().copied()) {
            return format!("{text}; did you mean `{meant}`?");
        }
    }
    text
}
