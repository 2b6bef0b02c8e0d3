//! TOML syntax errors, without the follow-up errors that one of them causes.

use std::ops::Range;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;

/// Most positions at which parsing restarts; each costs one pass over the file.
const RESTARTS_MAX: usize = 20;

/// The syntax errors of a file, in order.
///
/// After an unclosed bracket or quote the parser complains about everything that follows. So only errors before the
/// next line that looks like the start of a statement are kept, and parsing restarts at that line.
pub(super) fn mistakes(file: usize, text: &str) -> Vec<Diagnostic> {
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    let mut start = 0;
    for _ in 0..RESTARTS_MAX {
        let mut errors: Vec<(Range<usize>, String)> = DeTable::parse_recoverable(&text[start..])
            .1
            .iter()
            .map(|error| {
                let span = error.span().unwrap_or(0..0);
                (start + span.start..start + span.end, shortened(error.message()))
            })
            .collect();
        errors.sort_by_key(|(span, _)| span.start);
        errors.dedup_by_key(|(span, _)| span.start);
        // A key given twice does not confuse the parser; any other error does.
        let confusing = errors
            .iter()
            .find(|(_, message)| !message.contains("duplicate key"))
            .map(|(span, _)| span.start);
        let restart = confusing.and_then(|at| next_statement(text, start, at));
        for (span, message) in errors {
            let trusted =
                restart.is_none_or(|restart| span.start < restart) || Some(span.start) == confusing;
            if trusted && found.iter().all(|(earlier, _)| earlier.start != span.start) {
                found.push((span, message));
            }
        }
        match restart {
            Some(restart) => start = restart,
            None => break,
        }
    }
    found.into_iter().map(|(span, message)| diagnostic(file, text, &message, span)).collect()
}

/// The parser adds what it expected; here that only confuses.
fn shortened(message: &str) -> String {
    const QUOTES: &str = "string values must be quoted";
    // A bare word that begins with `i` or `n` is parsed as `inf` or `nan`.
    let bare_word = message.starts_with("invalid float, expected `inf`")
        || message.starts_with("invalid float, expected `nan`");
    if message.starts_with(QUOTES) || bare_word { QUOTES.to_owned() } else { message.to_owned() }
}

/// Start of the first line after `start`, but not before the one of `at`, that looks like `key =` or `[table]`.
fn next_statement(text: &str, start: usize, at: usize) -> Option<usize> {
    let at = at.min(text.len());
    let line_of_at = text.as_bytes()[..at]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let mut line_start = line_of_at;
    for line in text[line_of_at..].split_inclusive('\n') {
        if line_start > start && begins_statement(line) {
            return Some(line_start);
        }
        line_start += line.len();
    }
    None
}

fn begins_statement(line: &str) -> bool {
    if line.starts_with('[') {
        return true;
    }
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let rest = line.trim_start_matches(is_key);
    rest.len() < line.len() && rest.trim_start().starts_with('=')
}

fn diagnostic(file: usize, text: &str, message: &str, span: Range<usize>) -> Diagnostic {
    let help = if message.contains("duplicate key") {
        "a key may be given once; remove or rename one of them"
    } else if message.contains("must be quoted") {
        "put text and durations in double quotes"
    } else if message.contains("invalid basic string") {
        "text ends with a double quote, in the same line"
    } else if message.contains("missing comma") || message.contains("unclosed array,") {
        "a list is written [\"a\", \"b\"]; look for the bracket that is never closed"
    } else if message.contains("recursion") {
        "reduce the nesting: no plan needs that many levels"
    } else {
        "plan files are TOML: `key = value`, `[table]`, `[[steps]]`"
    };
    // The end of the file cannot be underlined; mark what comes before it.
    let span = if span.start >= text.len() && text.ends_with('\n') {
        text.len() - 1..text.len()
    } else {
        span
    };
    Diagnostic::new("plan::syntax", format!("this is not TOML: {message}"), file, span, "")
        .help(help)
}
