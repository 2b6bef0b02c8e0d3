//! The syntax tree of a filter, and how it is written.

use std::fmt::{self, Display as _, Write as _};

use super::fields::Field;
use super::grammar::{KEYWORDS, Op, write_escaped};
use crate::clock::Timestamp;

/// `And` never holds an `And`, `Or` never an `Or`, `Not` never a `Not`; `And` and `Or` hold two nodes or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Term(Term),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) field: Field,
    pub(super) op: Op,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(Text),
    /// A name from a closed list.
    Name(&'static str),
    Bool(bool),
    Time(Timestamp),
    Number(u64),
    /// `:*`.
    Any,
}

/// Text to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Literal(String),
    /// The text between the stars: two parts or more, only the first and the last may be empty.
    Glob(Vec<String>),
}

impl Node {
    /// The terms that must all hold.
    pub(super) fn conjunction(&self) -> &[Self] {
        match self {
            Self::And(nodes) => nodes,
            Self::Term(_) | Self::Or(_) | Self::Not(_) => std::slice::from_ref(self),
        }
    }
}

impl Value {
    pub(super) fn as_pin(&self) -> Option<&str> {
        match self {
            Self::Text(Text::Literal(text)) => Some(text),
            Self::Name(name) => Some(name),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Text(Text::Glob(_)) | Self::Time(_) | Self::Number(_) | Self::Any => None,
        }
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

/// Writes parts separated by stars, in quotes unless every character can be bare.
fn write_text(f: &mut fmt::Formatter<'_>, parts: &[String]) -> fmt::Result {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '@');
    let bare = parts.iter().all(|part| part.chars().all(plain))
        && match parts {
            [literal] => !literal.is_empty() && !KEYWORDS.contains(&literal.as_str()),
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
