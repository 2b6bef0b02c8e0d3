//! What is known about an action, whichever plan uses it.

use std::borrow::Cow;

use super::form::Form;
use super::names::{Capability, Risk, ValueKind};
use super::value::Value;

/// Everything known about an action, independent of any plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSpec {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What the machine's provider must offer.
    pub capability: Capability,
    /// What it puts at risk: if anything, a step must declare `on_unknown`.
    pub risk: Risk,
    /// Whether doing it twice has the same effect as doing it once: only then may `on_unknown` be `retry`.
    pub idempotent: bool,
    /// Whether a cancel may stop it midway, because that leaves nothing half done.
    pub interruptible: bool,
    /// What it does, for plan authors.
    pub description: Cow<'static, str>,
    /// The action whose output it consumes: a step must name, in `needs`, an earlier step with that action.
    pub consumes: Option<Cow<'static, str>>,
    /// Its arguments, sorted by name.
    pub args: Cow<'static, [ArgSpec]>,
    /// Timeout of a step that gives none, and of the action as a compensation; in milliseconds.
    pub timeout_ms: u64,
    /// Expected duration of a step that gives none, in milliseconds.
    pub expected_ms: u64,
}

/// An argument of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgSpec {
    /// Name.
    pub name: Cow<'static, str>,
    /// Type of its values.
    pub kind: ValueKind,
    /// Value used when the plan gives none; `None`: the plan must give one, unless it is optional.
    pub default: Option<Value>,
    /// The only texts accepted; empty means any.
    pub one_of: Cow<'static, [Cow<'static, str>]>,
    /// What its texts must look like.
    pub form: Form,
    /// Whether it can be left out, and then is absent: what it means to be absent is up to the provider.
    pub is_optional: bool,
    /// What it is for.
    pub description: Cow<'static, str>,
}

impl ActionSpec {
    /// The argument of this name.
    pub fn arg(&self, name: &str) -> Option<&ArgSpec> {
        self.args.iter().find(|arg| arg.name == name)
    }
}

impl ArgSpec {
    /// Whether a plan must give it.
    pub const fn is_required(&self) -> bool {
        self.default.is_none() && !self.is_optional
    }
}
