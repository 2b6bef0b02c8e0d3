//! What every part of a filter is made with: bounds, subjects, operators, errors.

use std::fmt::{self, Write as _};

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// Most levels of parentheses in a filter.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Most comparisons in a filter.
pub const FILTER_TERMS_MAX: usize = 128;

/// What a filter is about: the fields it may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Machines.
    Machine,
    /// Runs.
    Run,
}

/// A filter that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: expected {expected}, found {found}")]
pub struct FilterError {
    /// Where, counted in characters from 1.
    pub position: usize,
    /// What could have stood there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// Words that join and negate; as a value they need quotes.
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

/// Writes text as it stands in quotes.
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
