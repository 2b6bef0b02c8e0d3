//! Texts with parameters in them: `firmware {version}`.

use std::collections::BTreeMap;

use super::value::Value;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Literal text.
    Literal(&'a str),
    /// The value of the parameter of this name.
    Param(&'a str),
}

/// An unmatched brace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoneBrace;

/// The pieces of a text. A literal brace is doubled.
///
/// # Errors
/// [`LoneBrace`] where a brace is neither doubled nor one of a pair.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, LoneBrace> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = (&rest[..at], &rest[at..=at]);
        if !before.is_empty() {
            pieces.push(Piece::Literal(before));
        }
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            pieces.push(Piece::Literal(brace));
            rest = after;
            continue;
        }
        let (name, after) = rest.split_once('}').ok_or(LoneBrace)?;
        if brace == "}" || name.contains('{') {
            return Err(LoneBrace);
        }
        pieces.push(Piece::Param(name));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

/// The text with parameters filled in. Anything that a checked plan cannot contain is left as written.
pub fn fill(text: &str, params: &BTreeMap<String, Value>) -> String {
    let Ok(pieces) = pieces(text) else { return text.to_owned() };
    pieces
        .into_iter()
        .map(|piece| match piece {
            Piece::Literal(literal) => literal.to_owned(),
            Piece::Param(name) => {
                params.get(name).map_or_else(|| format!("{{{name}}}"), ToString::to_string)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_filled() {
        let params = BTreeMap::from([
            ("version".to_owned(), Value::Str("2.1".into())),
            ("grace".to_owned(), Value::DurationMs(90_000)),
            ("sly".to_owned(), Value::Str("{version}".into())),
        ]);
        for (text, filled) in [
            ("firmware {version}", "firmware 2.1"),
            ("{version}{grace}", "2.11m30s"),
            ("{{version}} }}{{", "{version} }{"),
            ("{sly}", "{version}"),
            ("", ""),
            ("漢{grace}字", "漢1m30s字"),
        ] {
            assert_eq!(fill(text, &params), filled, "{text}");
        }
    }

    #[test]
    fn a_brace_alone_is_a_mistake() {
        for text in ["{", "}", "a {b", "a} b", "{a{b}", "{{}", "{}}"] {
            assert_eq!(pieces(text), Err(LoneBrace), "{text}");
        }
        assert_eq!(pieces("{}"), Ok(vec![Piece::Param("")]));
    }
}
