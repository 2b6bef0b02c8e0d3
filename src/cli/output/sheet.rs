//! Labelled lines, as used by descriptions.

use std::io::{self, Write};

use super::text::{Look, Meaning, padded, sanitized, shortened, width, wrapped};
use super::time::{elapsed_text, instant, rfc3339};

/// Column at which values begin.
const LABEL_COLUMNS: usize = 16;

/// Writes labelled lines; an empty value is left out.
pub(super) struct Sheet<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) look: Look,
    pub(super) now_ms: u64,
}

impl Sheet<'_> {
    pub(super) fn field(&mut self, label: &str, value: &str) -> io::Result<()> {
        self.painted(label, &sanitized(value))
    }

    /// A value that is already sanitized and may carry colour.
    pub(super) fn painted(&mut self, label: &str, value: &str) -> io::Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        let label = self.look.paint(Meaning::Dim, &padded(&format!("{label}:"), LABEL_COLUMNS));
        // A digest, say: it is not broken, and fits a line of its own.
        let fits = |indent: usize| {
            self.look.columns.is_none_or(|columns| indent + width(value) <= columns)
        };
        if !value.contains(' ') && !fits(LABEL_COLUMNS) && fits(2) {
            return writeln!(self.out, "{}\n  {value}", label.trim_end());
        }
        self.line(&format!("{label}{value}"), LABEL_COLUMNS)
    }

    /// A line, wrapped at the width of the terminal.
    pub(super) fn line(&mut self, text: &str, indent: usize) -> io::Result<()> {
        writeln!(self.out, "{}", wrapped(self.look, text, indent))
    }

    pub(super) fn time(
        &mut self,
        label: &str,
        at: Option<&prost_types::Timestamp>,
    ) -> io::Result<()> {
        let text = self.when(at);
        self.painted(label, &text)
    }

    /// Whether a time is still to come.
    pub(super) fn is_ahead(&self, at: &prost_types::Timestamp) -> bool {
        instant(Some(at)).is_some_and(|ms| ms > i64::try_from(self.now_ms).unwrap_or(i64::MAX))
    }

    /// `2026-11-23T05:00:00.000Z (3m 05s ago)`, empty if absent.
    pub(super) fn when(&self, at: Option<&prost_types::Timestamp>) -> String {
        let Some(ms) = instant(at) else { return String::new() };
        let ahead = ms - i64::try_from(self.now_ms).unwrap_or(i64::MAX);
        let relative = if ahead > 0 {
            format!("in {}", elapsed_text(ahead))
        } else {
            format!("{} ago", elapsed_text(-ahead))
        };
        format!("{} ({relative})", rfc3339(at))
    }

    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "\n{}", self.look.paint(Meaning::Strong, text))
    }

    pub(super) fn next(&mut self, command: &str) -> io::Result<()> {
        let command = shortened(command);
        let line = format!("{} {}", self.look.paint(Meaning::Active, "Next:"), sanitized(&command));
        writeln!(self.out)?;
        self.line(&line, 2)
    }
}
