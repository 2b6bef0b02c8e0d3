//! Filters over machines and runs, in the style of AIP-160: one evaluator for lists, watches and batch selection.
//!
//! ```text
//! filter     = [ expression ]
//! expression = factor { "AND" factor }
//! factor     = term { "OR" term }                      OR binds tighter than AND, as in AIP-160
//! term       = [ "NOT" | "-" ] ( comparison | "(" expression ")" )
//! comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value
//! field      = name | "labels." key | "conditions." kind        key may be quoted: labels."a b"
//! value      = bare text | "quoted" | 'quoted'         escapes in quotes: \" \' \\ \* \n \r \t
//! ```
//!
//! So `a OR b AND c` is `(a OR b) AND c`. Two comparisons side by side are refused: AIP-160 would join them with AND,
//! readers disagree about how tightly. AND, OR and NOT are in capitals.
//!
//! - `*` in the text of `=` and `!=` stands for any characters (`serial = "ab*"`); `\*` in quotes is a star.
//! - `!=` is NOT `=`: a machine without the label `rack` matches `labels.rack != "r1"`.
//! - `<`, `<=`, `>` and `>=` compare times (RFC 3339) and numbers; a time that is not set matches none of them.
//! - A time may be relative to the instant at which the filter is read: `created_at > -2h` is the last two hours.
//! - `:` asks what a field has: `labels.rack:*` (the label exists), `conditions.Degraded:*` (ever observed),
//!   `mac_addresses:"02:00:00:00:00:01"` (an element of the list), `finished_at:*` (set).
//! - The labels of a run are those that its machine had when the run was accepted; runs of older versions have none.
//! - A reference to a run that is not set is the empty text: `active_run_id = ""`.
//!
//! The original API's `machine_id=machine-1` is a filter of one comparison.

mod eval;
mod fields;
mod grammar;
mod lexer;
mod node;
mod parser;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::grammar::Op;
pub use self::grammar::{
    FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_TERMS_MAX, FilterError, Subject,
};
use self::node::Node;
use super::{Machine, Run};
use crate::clock::Timestamp;

/// A condition on machines or on runs. The default matches everything.
///
/// `Display` writes the canonical form, which parses to an equal filter: one space around operators, no needless
/// parentheses, quotes only where needed, aliases replaced. It can be longer than the original text, and so exceed
/// [`FILTER_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    root: Option<Node>,
}

impl Filter {
    /// Parses a filter; an empty text matches everything. Relative times are refused.
    ///
    /// # Errors
    /// [`FilterError`] with the position and what was expected.
    pub fn parse(text: &str, subject: Subject) -> Result<Self, FilterError> {
        parser::parse(text, subject, None).map(|root| Self { root })
    }

    /// Parses a filter whose relative times count from `now`.
    ///
    /// # Errors
    /// [`FilterError`] with the position and what was expected.
    pub fn parse_at(text: &str, subject: Subject, now: Timestamp) -> Result<Self, FilterError> {
        parser::parse(text, subject, Some(now)).map(|root| Self { root })
    }

    /// A filter that matches what both match.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (Some(mine), Some(theirs)) = (&self.root, &other.root) else {
            return if self.root.is_some() { self } else { other };
        };
        let mut nodes = mine.conjunction().to_vec();
        for node in theirs.conjunction() {
            // Two equal filters are the same as one.
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        let only = if nodes.len() == 1 { nodes.pop() } else { None };
        Self { root: Some(only.unwrap_or(Node::And(nodes))) }
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The value that every match must have in `field`, if the filter pins one: this is what an index can serve.
    ///
    /// Only a comparison `field = value` without wildcards, at the top level or in its conjunction, pins a field.
    #[must_use]
    pub fn pinned(&self, field: &str) -> Option<&str> {
        self.pinning().find_map(|(term, value)| (term.field.name() == field).then_some(value))
    }

    /// The labels that every match must have, each with its value: [`Filter::pinned`] of all of them.
    pub fn pinned_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pinning().filter_map(|(term, value)| Some((term.field.as_label()?, value)))
    }

    /// The comparisons that pin a field, with its value.
    fn pinning(&self) -> impl Iterator<Item = (&node::Term, &str)> {
        let conjunction = self.root.as_ref().map_or(&[][..], Node::conjunction);
        conjunction.iter().filter_map(|node| match node {
            Node::Term(term) if term.op == Op::Eq => Some((term, term.value.as_pin()?)),
            Node::Term(_) | Node::And(_) | Node::Or(_) | Node::Not(_) => None,
        })
    }

    /// Whether a machine matches.
    #[must_use]
    pub fn matches_machine(&self, machine: &Machine) -> bool {
        self.root
            .as_ref()
            .is_none_or(|root| eval::matches(root, &|field| eval::of_machine(field, machine)))
    }

    /// Whether a run matches.
    #[must_use]
    pub fn matches_run(&self, run: &Run) -> bool {
        self.root.as_ref().is_none_or(|root| eval::matches(root, &|field| eval::of_run(field, run)))
    }
}

/// What a caller's scope adds: conditions on labels alone.
impl Filter {
    /// Whether a machine with these labels matches, as far as labels decide.
    #[must_use]
    pub(super) fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let root = self.root.as_ref();
        root.is_none_or(|root| eval::matches(root, &|field| eval::of_labels(field, labels)))
    }

    /// The keys of the labels that it names.
    #[must_use]
    pub(super) fn label_keys(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let mut nodes: Vec<&Node> = self.root.iter().collect();
        while let Some(node) = nodes.pop() {
            match node {
                Node::And(inner) | Node::Or(inner) => nodes.extend(inner),
                Node::Not(inner) => nodes.push(inner),
                Node::Term(term) => keys.extend(term.field.as_label().map(str::to_owned)),
            }
        }
        keys
    }

    /// The same for records whose labels are known. Those of runs from before labels were kept are not, and a condition
    /// such as `!=` must not take them.
    #[must_use]
    pub(super) fn of_known_labels(self) -> Self {
        let known = Self { root: Some(Node::Term(Self::known_labels())) };
        self.and(known)
    }

    /// Whether it was made by [`Filter::of_known_labels`]: no filter that a client writes is.
    #[must_use]
    pub fn is_scoped(&self) -> bool {
        let known = Node::Term(Self::known_labels());
        self.root.as_ref().is_some_and(|root| root.conjunction().contains(&known))
    }

    fn known_labels() -> node::Term {
        node::Term { field: fields::Field::Labels, op: Op::Has, value: node::Value::Any }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.as_ref().map_or(Ok(()), |root| fmt::Display::fmt(root, f))
    }
}
