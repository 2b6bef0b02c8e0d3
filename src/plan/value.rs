//! Values of parameters, arguments and outputs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::names::ValueKind;

/// Value of a parameter or an argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Text.
    Str(Cow<'static, str>),
    /// Integer.
    Int(i64),
    /// Boolean.
    Bool(bool),
    /// Duration in milliseconds.
    DurationMs(u64),
}

/// Values by name: the arguments of an action, or the outputs of a step.
pub type Values = BTreeMap<String, Value>;

impl Value {
    /// The kind of this value.
    pub const fn kind(&self) -> ValueKind {
        match self {
            Self::Str(_) => ValueKind::String,
            Self::Int(_) => ValueKind::Integer,
            Self::Bool(_) => ValueKind::Boolean,
            Self::DurationMs(_) => ValueKind::Duration,
        }
    }

    /// The text, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The integer, if this is one.
    pub const fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The boolean, if this is one.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// The duration in milliseconds, if this is one.
    pub const fn as_duration_ms(&self) -> Option<u64> {
        if let Self::DurationMs(ms) = self { Some(*ms) } else { None }
    }
}

/// As a plan author or an operator would write it, without quotes.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::DurationMs(ms) => f.write_str(&super::duration::format(*ms)),
        }
    }
}
