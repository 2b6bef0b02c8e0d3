//! Shared parts of filters: limits, subjects, operators, errors.

use std::fmt::{self, Write as _};

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// Most levels of parentheses in a filter.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Most comparisons in a filter.
pub const FILTER_TERMS_MAX: usize = 128;

/// The subject of a filter: it decides which fields are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Machines.
    Machine,
    /// Runs.
    Run,
}

/// A filter that could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: expected {expected}, found {found}")]
pub struct FilterError {
    /// Position, counted in characters from 1.
    pub position: usize,
    /// What was expected there.
    pub expected: String,
    /// What was found there.
    pub found: String,
}

/// Keywords; as a value they need quotes.
pub(super) const KEYWORDS: [&str; 3] = ["AND", "OR", "NOT"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Has,
}

impl Op {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Has => ":",
        }
    }
}

/// Writes text with escapes, for use in quotes.
pub(super) fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '"' | '\\' | '*' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            other => f.write_char(other)?,
        }
    }
    Ok(())
}
