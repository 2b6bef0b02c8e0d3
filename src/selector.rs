//! Label selectors, `rack=r1,role!=db,zone in (a,b),gpu,!legacy`, as terms of the filter language.

use std::fmt;

/// A text that is no selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorError {
    /// It has no term.
    Empty,
    /// This is not a term.
    NoTerm(String),
}

impl SelectorError {
    /// What to give instead.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "for example: rack=r1,role=worker",
            Self::NoTerm(_) => {
                "terms are key=value, key!=value, key in (a,b), key notin (a,b), key and !key, joined by commas"
            }
        }
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the label selector is empty"),
            Self::NoTerm(term) => write!(f, "{term:?} is not a term of a label selector"),
        }
    }
}

impl std::error::Error for SelectorError {}

/// The terms of a selector in the language of filters. All of them have to hold.
///
/// # Errors
/// [`SelectorError`] for what is no selector.
pub fn terms(selector: &str) -> Result<Vec<String>, SelectorError> {
    let mut terms = Vec::new();
    let mut rest = selector;
    while !rest.trim().is_empty() {
        // A comma inside parentheses does not end the term.
        let mut depth = 0_i32;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        let (term, after) = end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]));
        let term = term.trim();
        terms.push(translated(term).ok_or_else(|| SelectorError::NoTerm(term.to_owned()))?);
        rest = after;
    }
    if terms.is_empty() { Err(SelectorError::Empty) } else { Ok(terms) }
}

fn translated(term: &str) -> Option<String> {
    if let Some(open) = term.find('(') {
        let values = term[open + 1..].strip_suffix(')')?;
        let (key, word) = term[..open].trim().rsplit_once(char::is_whitespace)?;
        let field = label(key.trim())?;
        let operator = match word {
            "in" => "=",
            "notin" => "!=",
            _ => return None,
        };
        // It would select nothing, silently.
        if values.split(',').any(|value| value.trim().is_empty()) {
            return None;
        }
        let each: Vec<String> = values
            .split(',')
            .map(|value| format!("{field} {operator} {}", quoted(value.trim())))
            .collect();
        let joint = if operator == "=" { " OR " } else { " AND " };
        return Some(format!("({})", each.join(joint)));
    }
    // The language of other tools: they would select nothing, silently.
    if term.contains("=~") || term.contains("!~") {
        return None;
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Some(format!("{} != {}", label(key.trim())?, quoted(value.trim())));
    }
    if let Some((key, value)) = term.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        // Two terms with a blank between them, where a comma is needed.
        if value.trim().contains(char::is_whitespace) && value.contains('=') {
            return None;
        }
        return Some(format!("{} = {}", label(key.trim())?, quoted(value.trim())));
    }
    match term.strip_prefix('!') {
        Some(key) => Some(format!("NOT {}:*", label(key.trim())?)),
        None => Some(format!("{}:*", label(term)?)),
    }
}

/// The field of a label; `None` if the key is not valid for a label.
fn label(key: &str) -> Option<String> {
    if key.is_empty()
        || key.contains(|c: char| c.is_whitespace() || matches!(c, '!' | '(' | ')' | '=' | ','))
    {
        return None;
    }
    let simple = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    Some(if simple { format!("labels.{key}") } else { format!("labels.{}", quoted(key)) })
}

/// A quoted text for a filter.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '*' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_become_terms() {
        for (selector, expected) in [
            ("rack=r1", "labels.rack = \"r1\""),
            ("rack==r1, role!=db", "labels.rack = \"r1\" AND labels.role != \"db\""),
            ("zone in (a, b),gpu", "(labels.zone = \"a\" OR labels.zone = \"b\") AND labels.gpu:*"),
            ("zone notin (a,b)", "(labels.zone != \"a\" AND labels.zone != \"b\")"),
            ("!legacy", "NOT labels.legacy:*"),
            ("example.com/rack=r\"1*", "labels.\"example.com/rack\" = \"r\\\"1\\*\""),
        ] {
            assert_eq!(terms(selector).unwrap().join(" AND "), expected);
        }
        assert_eq!(terms(" "), Err(SelectorError::Empty));
        for (wrong, term) in [(",", ""), ("a=b,c d", "c d"), ("a within (b)", "a within (b)")] {
            assert_eq!(terms(wrong), Err(SelectorError::NoTerm(term.to_owned())));
        }
        // Some of these are of other languages, and would select nothing.
        for wrong in [
            "=b",
            "a in b",
            "a in (b",
            "a b",
            "a=1 b=2",
            "rack=~r1",
            "rack!~r1",
            "rack in ()",
            "rack in (a,)",
        ] {
            assert_eq!(terms(wrong), Err(SelectorError::NoTerm(wrong.to_owned())));
        }
    }
}
