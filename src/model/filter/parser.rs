//! Recursive-descent parser of bounded depth.

use super::fields::{Field, Kind, expected_field, expected_name};
use super::grammar::{
    FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_TERMS_MAX, FilterError, Op, Subject,
};
use super::lexer::{Lexer, Raw, RawField};
use super::node::{Node, Term, Text, Value};
use crate::clock::Timestamp;
use crate::ids::{MachineId, RunId};
use crate::model::ConditionKind;

pub(super) fn parse(
    text: &str,
    subject: Subject,
    now: Option<Timestamp>,
) -> Result<Option<Node>, FilterError> {
    if text.len() > FILTER_BYTES_MAX {
        let kept = text.char_indices().take_while(|(at, _)| *at < FILTER_BYTES_MAX).count();
        return Err(FilterError {
            position: kept + 1,
            expected: format!("at most {FILTER_BYTES_MAX} bytes"),
            found: format!("{} bytes", text.len()),
        });
    }
    let mut parser = Parser { lexer: Lexer::new(text), subject, now, terms: 0 };
    parser.lexer.place();
    if parser.lexer.peek().is_none() {
        return Ok(None);
    }
    let root = parser.expression(0)?;
    let place = parser.lexer.place();
    if parser.lexer.peek().is_some() {
        return Err(parser.not_joined(place, "the end"));
    }
    Ok(Some(root))
}

struct Parser {
    lexer: Lexer,
    subject: Subject,
    /// The instant that relative times count from.
    now: Option<Timestamp>,
    terms: usize,
}

impl Parser {
    fn expression(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = Vec::new();
        loop {
            match self.factor(depth)? {
                Node::And(inner) => nodes.extend(inner),
                node @ (Node::Or(_) | Node::Not(_) | Node::Term(_)) => nodes.push(node),
            }
            if !self.lexer.take_keyword("AND") {
                return Ok(single_or(nodes, Node::And));
            }
        }
    }

    fn factor(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = Vec::new();
        loop {
            match self.term(depth)? {
                Node::Or(inner) => nodes.extend(inner),
                node @ (Node::And(_) | Node::Not(_) | Node::Term(_)) => nodes.push(node),
            }
            if !self.lexer.take_keyword("OR") {
                return Ok(single_or(nodes, Node::Or));
            }
        }
    }

    fn term(&mut self, depth: usize) -> Result<Node, FilterError> {
        let negated = self.lexer.take_keyword("NOT") || self.lexer.take('-');
        let place = self.lexer.place();
        let node = if self.lexer.take('(') {
            if depth == FILTER_DEPTH_MAX {
                let expected = format!("at most {FILTER_DEPTH_MAX} levels of parentheses");
                return Err(self.lexer.error_at(place, expected));
            }
            let inner = self.expression(depth + 1)?;
            let end = self.lexer.place();
            if !self.lexer.take(')') {
                let closing = format!("')' for the '(' at character {}", place + 1);
                return Err(self.not_joined(end, &closing));
            }
            inner
        } else {
            self.comparison(place)?
        };
        Ok(match (negated, node) {
            (false, node) => node,
            (true, Node::Not(inner)) => *inner,
            (true, node) => Node::Not(Box::new(node)),
        })
    }

    /// The error for something other than an operator or `end`.
    fn not_joined(&self, place: usize, end: &str) -> FilterError {
        let word = self.lexer.word();
        let expected = match word.to_uppercase().as_str() {
            upper @ ("AND" | "OR" | "NOT") if word != upper => {
                format!("{upper} in capital letters")
            }
            "" => format!("AND, OR or {end}"),
            _ => format!("AND, OR or {end} (two comparisons need AND or OR between them)"),
        };
        self.lexer.error_at(place, expected)
    }

    fn comparison(&mut self, place: usize) -> Result<Node, FilterError> {
        let operand = "a comparison such as phase = READY, NOT or '('";
        if matches!(self.lexer.word().as_str(), "AND" | "OR" | "NOT") {
            return Err(self.lexer.error_at(place, operand));
        }
        let Some(raw) = self.lexer.field()? else {
            return Err(self.lexer.error_at(place, operand));
        };
        self.terms += 1;
        if self.terms > FILTER_TERMS_MAX {
            return Err(self
                .lexer
                .error_at(place, format!("at most {FILTER_TERMS_MAX} comparisons")));
        }
        match (raw.path.as_str(), &raw.quoted, self.subject) {
            ("labels", None, _) => self.has_key(place, Family::Labels),
            ("conditions", None, Subject::Machine) => self.has_key(place, Family::Conditions),
            _ => {
                let field = self.field(place, raw)?;
                self.field_comparison(field)
            }
        }
    }

    fn field(&self, place: usize, raw: RawField) -> Result<Field, FilterError> {
        let path = raw.path.as_str();
        let key = |rest: &str| match (&raw.quoted, rest) {
            (Some(quoted), "") if !quoted.is_empty() => Ok(quoted.clone()),
            (None, rest) if !rest.is_empty() => Ok(rest.to_owned()),
            _ => Err(self.lexer.error_at(place, "one key after the dot, bare or in quotes")),
        };
        if let Some(rest) = path.strip_prefix("labels.") {
            return key(rest).map(Field::Label);
        }
        if self.subject == Subject::Machine
            && let Some(rest) = path.strip_prefix("conditions.")
        {
            return key(rest).and_then(|name| self.condition(place, &name));
        }
        Field::of_name(path, self.subject)
            .filter(|_| raw.quoted.is_none())
            .ok_or_else(|| self.lexer.error_at(place, expected_field(path, self.subject)))
    }

    fn condition(&self, place: usize, name: &str) -> Result<Field, FilterError> {
        ConditionKind::parse(name)
            .or_else(|| condition_of_json(name))
            .map(Field::Condition)
            .ok_or_else(|| {
                let names = ConditionKind::ALL.map(ConditionKind::as_str);
                self.lexer.error_at(place, format!("a condition: {}", expected_name(name, &names)))
            })
    }

    /// `labels:rack` is `labels.rack:*`.
    fn has_key(&mut self, place: usize, family: Family) -> Result<Node, FilterError> {
        let (name, op_place) = (family.name(), self.lexer.place());
        if self.lexer.op() != Some(Op::Has) {
            let expected = format!("'.' and a key ({name}.<key>), or ':' and a key");
            return Err(self.lexer.error_at(op_place, expected));
        }
        let value_place = self.lexer.place();
        let mut raw = self.lexer.value(name)?;
        let key = match (raw.parts.pop(), raw.parts.is_empty()) {
            (Some(key), true) if !key.is_empty() => key,
            _ => return Err(self.lexer.error_at(value_place, "a key without wildcards")),
        };
        let field = match family {
            Family::Labels => Field::Label(key),
            Family::Conditions => self.condition(place, &key)?,
        };
        Ok(Node::Term(Term { field, op: Op::Has, value: Value::Any }))
    }

    fn field_comparison(&mut self, field: Field) -> Result<Node, FilterError> {
        let name = field.name();
        let kind = field.kind();
        let op_place = self.lexer.place();
        let operators = match kind {
            Kind::Macs => "':' (the field is a list)",
            Kind::Time | Kind::Number => "one of = != < <= > >= :",
            Kind::Text
            | Kind::MachineId
            | Kind::RunId
            | Kind::PlanId
            | Kind::Name { .. }
            | Kind::Bool => "one of = != :",
        };
        let expected_op = || format!("{operators} after {name}");
        let Some(op) = self.lexer.op() else {
            return Err(self.lexer.error_at(op_place, expected_op()));
        };
        let allowed = match op {
            Op::Has => true,
            Op::Eq | Op::Ne => kind != Kind::Macs,
            Op::Lt | Op::Le | Op::Gt | Op::Ge => matches!(kind, Kind::Time | Kind::Number),
        };
        if !allowed {
            return Err(self.lexer.error_at(op_place, expected_op()));
        }
        let value_place = self.lexer.place();
        let raw = self.lexer.value(&name)?;
        let (op, value) = match (op, &kind) {
            (Op::Has, _) if raw.is_star() => (Op::Has, Ok(Value::Any)),
            (Op::Has, Kind::Macs) => (Op::Has, value_of(&kind, raw, self.now)),
            // AIP-160: a map has a value at a key if they are equal.
            (Op::Has, Kind::Text) if matches!(field, Field::Label(_)) => {
                (Op::Eq, value_of(&kind, raw, self.now))
            }
            (Op::Has, _) => (Op::Has, Err(format!("'*' ({name}:* asks whether it is set)"))),
            (op, kind) => (op, value_of(kind, raw, self.now)),
        };
        let value = value.map_err(|expected| self.lexer.error_at(value_place, expected))?;
        Ok(Node::Term(Term { field, op, value }))
    }
}

#[derive(Clone, Copy)]
enum Family {
    Labels,
    Conditions,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Conditions => "conditions",
        }
    }
}

fn single_or(mut nodes: Vec<Node>, join: impl Fn(Vec<Node>) -> Node) -> Node {
    match (nodes.pop(), nodes.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            nodes.push(last);
            join(nodes)
        }
        (None, _) => join(nodes),
    }
}

/// The value of a field, or what was expected.
fn value_of(kind: &Kind, mut raw: Raw, now: Option<Timestamp>) -> Result<Value, String> {
    let literal = match raw.parts.as_slice() {
        [literal] => Some(literal.as_str()),
        _ => None,
    };
    match (kind, literal) {
        (Kind::MachineId, Some(text)) => {
            MachineId::parse(text).map_err(|error| format!("a machine id, which {error}"))?;
        }
        (Kind::RunId, Some(text)) if !text.is_empty() => {
            let id = RunId::parse(text).map_err(|error| format!("a run id, which {error}"))?;
            raw.parts = vec![id.to_string()];
        }
        (Kind::PlanId, _) => {
            if let Some(first) = raw.parts.first_mut()
                && !first.is_empty()
                && !first.starts_with("plan/")
            {
                first.insert_str(0, "plan/");
            }
        }
        (Kind::Macs, _) => {
            for part in &mut raw.parts {
                part.make_ascii_lowercase();
            }
        }
        (Kind::Name { names, prefix }, literal) => {
            let given = literal.unwrap_or("*");
            let short = given.strip_prefix(prefix).unwrap_or(given);
            return names
                .iter()
                .find(|name| **name == short)
                .map(|name| Value::Name(name))
                .ok_or_else(|| expected_name(short, names));
        }
        (Kind::Bool, literal) => {
            return match literal {
                Some("true") => Ok(Value::Bool(true)),
                Some("false") => Ok(Value::Bool(false)),
                _ => Err("true or false".to_owned()),
            };
        }
        (Kind::Time, literal) => {
            return literal.and_then(|text| time(text, now)).map(Value::Time).ok_or_else(|| {
                let relative =
                    if now.is_some() { ", or one before now, such as -2h or -1d" } else { "" };
                format!("a time in RFC 3339 from 1970 on, such as 2026-01-31T08:00:00Z{relative}")
            });
        }
        (Kind::Number, literal) => {
            return literal
                .and_then(|text| text.parse().ok())
                .map(Value::Number)
                .ok_or_else(|| "a whole number from 0 on".to_owned());
        }
        (Kind::Text | Kind::MachineId | Kind::RunId, _) => {}
    }
    Ok(Value::Text(match raw.parts.len() {
        1 => Text::Literal(raw.parts.swap_remove(0)),
        _ => Text::Glob(raw.parts),
    }))
}

/// An instant, or one relative to `now`.
fn time(text: &str, now: Option<Timestamp>) -> Option<Timestamp> {
    if let (Some(ago), Some(now)) = (text.strip_prefix('-'), now) {
        return Some(Timestamp(now.0.saturating_sub(ago_ms(ago)?)));
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}

/// Milliseconds of `90s`, `2h`, `1d12h`: whole numbers, each with its unit, the largest unit first.
fn ago_ms(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let (mut rest, mut sum, mut largest) = (text, 0_u64, UNITS.len());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_chars = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let place = UNITS.iter().position(|(name, _)| *name == &rest[..unit_chars])?;
        // The first unit may be any, each further one must be smaller.
        if largest < UNITS.len() && place <= largest {
            return None;
        }
        largest = place;
        sum = sum.checked_add(count.checked_mul(UNITS[place].1)?)?;
        rest = &rest[unit_chars..];
    }
    (!text.is_empty()).then_some(sum)
}

/// The condition with a name from protobuf JSON: `CONDITION_TYPE_NEEDS_INTERVENTION`.
fn condition_of_json(name: &str) -> Option<ConditionKind> {
    let short: String = name.strip_prefix("CONDITION_TYPE_")?.split('_').collect();
    ConditionKind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(&short))
}
