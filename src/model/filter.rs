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
//! - `:` asks what a field has: `labels.rack:*` (the label exists), `conditions.Degraded:*` (ever observed),
//!   `mac_addresses:"02:00:00:00:00:01"` (an element of the list), `finished_at:*` (set).
//! - A reference to a run that is not set is the empty text: `active_run_id = ""`.
//!
//! The original API's `machine_id=machine-1` is a filter of one comparison.

mod eval;
mod fields;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display as _, Write as _};

use self::fields::Field;
use super::{Machine, Run};
use crate::clock::Timestamp;

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

/// A condition on machines or on runs. The default matches everything.
///
/// `Display` writes the canonical form, which reads back as an equal filter: one space around operators, no needless
/// parentheses, quotes only where needed, aliases replaced. It can be longer than the text it came from, and so
/// exceed [`FILTER_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    root: Option<Node>,
}

/// `And` never holds an `And`, `Or` never an `Or`, `Not` never a `Not`; `And` and `Or` hold two nodes or more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Term(Term),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: Field,
    op: Op,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Has,
}

impl Op {
    const fn as_str(self) -> &'static str {
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

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(Text),
    /// A name out of a closed list.
    Name(&'static str),
    Bool(bool),
    Time(Timestamp),
    Number(u64),
    /// `:*`.
    Any,
}

/// Text to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Literal(String),
    /// The text between the stars: two parts or more, only the first and the last may be empty.
    Glob(Vec<String>),
}

impl Filter {
    /// Reads a filter; an empty text matches everything.
    ///
    /// # Errors
    /// [`FilterError`] with the position and what was expected.
    pub fn parse(text: &str, subject: Subject) -> Result<Self, FilterError> {
        parser::parse(text, subject).map(|root| Self { root })
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The value that every match must have in `field`, if the filter pins one: what an index can serve.
    ///
    /// Only a comparison `field = value` without wildcards at the top level, or in its conjunction, pins.
    #[must_use]
    pub fn pinned(&self, field: &str) -> Option<&str> {
        let conjunction = match self.root.as_ref()? {
            Node::And(nodes) => nodes.as_slice(),
            node @ (Node::Term(_) | Node::Or(_) | Node::Not(_)) => std::slice::from_ref(node),
        };
        conjunction.iter().find_map(|node| match node {
            Node::Term(term) if term.op == Op::Eq && term.field.name() == field => {
                term.value.as_pin()
            }
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

impl Value {
    fn as_pin(&self) -> Option<&str> {
        match self {
            Self::Text(Text::Literal(text)) => Some(text),
            Self::Name(name) => Some(name),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Text(Text::Glob(_)) | Self::Time(_) | Self::Number(_) | Self::Any => None,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.as_ref().map_or(Ok(()), |root| root.fmt(f))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(nodes) => join(f, nodes, " AND ", |_| false),
            Self::Or(nodes) => join(f, nodes, " OR ", |node| matches!(node, Self::And(_))),
            Self::Not(node) => match node.as_ref() {
                Self::Term(term) => write!(f, "NOT {term}"),
                inner @ (Self::And(_) | Self::Or(_) | Self::Not(_)) => write!(f, "NOT ({inner})"),
            },
            Self::Term(term) => term.fmt(f),
        }
    }
}

fn join(
    f: &mut fmt::Formatter<'_>,
    nodes: &[Node],
    operator: &str,
    needs_parentheses: impl Fn(&Node) -> bool,
) -> fmt::Result {
    for (place, node) in nodes.iter().enumerate() {
        if place > 0 {
            f.write_str(operator)?;
        }
        if needs_parentheses(node) {
            write!(f, "({node})")?;
        } else {
            node.fmt(f)?;
        }
    }
    Ok(())
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, op, value } = self;
        match op {
            Op::Has => write!(f, "{field}:{value}"),
            Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                write!(f, "{field} {} {value}", op.as_str())
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(Text::Literal(text)) => write_text(f, std::slice::from_ref(text)),
            Self::Text(Text::Glob(parts)) => write_text(f, parts),
            Self::Name(name) => f.write_str(name),
            Self::Bool(value) => value.fmt(f),
            Self::Time(at) => at.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Writes parts joined by stars, in quotes unless every character can stand bare.
fn write_text(f: &mut fmt::Formatter<'_>, parts: &[String]) -> fmt::Result {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '@');
    let bare = parts.iter().all(|part| part.chars().all(plain))
        && match parts {
            [literal] => !literal.is_empty() && !lexer::KEYWORDS.contains(&literal.as_str()),
            _ => true,
        };
    if bare {
        return f.write_str(&parts.join("*"));
    }
    f.write_char('"')?;
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            f.write_char('*')?;
        }
        write_escaped(f, part)?;
    }
    f.write_char('"')
}

fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
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
