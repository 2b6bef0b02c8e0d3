//! Lexer of filters: it reads one token at a time, since the kind of a token depends on its context.

use super::grammar::{FilterError, KEYWORDS, Op};

/// Longest excerpt of the filter in an error, in characters.
const FOUND_CHARS_MAX: usize = 40;

/// A value as written: the text between its stars, one part if it has none.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) parts: Vec<String>,
}

impl Raw {
    pub(super) fn is_star(&self) -> bool {
        self.parts.len() == 2 && self.parts.iter().all(String::is_empty)
    }
}

/// A field as written.
#[derive(Debug)]
pub(super) struct RawField {
    /// The path up to a quoted part, for example `phase`, `labels.rack` or `labels.`.
    pub(super) path: String,
    /// The quoted part.
    pub(super) quoted: Option<String>,
}

#[derive(Debug)]
pub(super) struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    pub(super) fn new(text: &str) -> Self {
        Self { chars: text.chars().collect(), at: 0 }
    }

    /// Position of the next token, counted from 0.
    pub(super) fn place(&mut self) -> usize {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.at
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    pub(super) fn error_at(&self, place: usize, expected: impl Into<String>) -> FilterError {
        FilterError { position: place + 1, expected: expected.into(), found: self.found(place) }
    }

    /// The text at a position, for people.
    fn found(&self, place: usize) -> String {
        let rest = self.chars.get(place..).unwrap_or_default();
        let Some(first) = rest.first() else { return "the end".to_owned() };
        let shown = |c: char| is_field(c) || matches!(c, ':' | '*' | '+' | '@');
        let quoted = || -> String {
            rest.iter().skip(1).take_while(|c| *c != first).take(FOUND_CHARS_MAX).collect()
        };
        let word: String = match *first {
            c if is_field(c) => {
                rest.iter().copied().take_while(|c| shown(*c)).take(FOUND_CHARS_MAX).collect()
            }
            '"' | '\'' if !quoted().is_empty() => quoted(),
            c => c.to_string(),
        };
        format!("{word:?}")
    }

    /// The word at the present position, without consuming it.
    pub(super) fn word(&self) -> String {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        rest.iter().take_while(|c| is_field(**c)).collect()
    }

    /// Consumes a keyword if it is next.
    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        self.place();
        let found = self.word() == keyword;
        if found {
            self.at += keyword.len();
        }
        found
    }

    /// Consumes a character if it is next.
    pub(super) fn take(&mut self, wanted: char) -> bool {
        self.place();
        let found = self.peek() == Some(wanted);
        if found {
            self.at += 1;
        }
        found
    }

    /// The field that a comparison starts with; `None` if there is something else.
    pub(super) fn field(&mut self) -> Result<Option<RawField>, FilterError> {
        let start = self.place();
        let mut path = String::new();
        while let Some(c) = self.peek().filter(|c| is_field(*c)) {
            path.push(c);
            self.at += 1;
        }
        let quoted = match self.peek() {
            Some(quote @ ('"' | '\'')) if path.ends_with('.') => {
                let place = self.at;
                match self.quoted(quote)?.parts.as_slice() {
                    [key] => Some(key.clone()),
                    _ => {
                        return Err(self.error_at(place, r"a key without wildcards (a star is \*)"));
                    }
                }
            }
            _ => None,
        };
        if path.is_empty() || path.starts_with('-') {
            self.at = start;
            return Ok(None);
        }
        Ok(Some(RawField { path, quoted }))
    }

    /// The operator that follows a field.
    pub(super) fn op(&mut self) -> Option<Op> {
        self.place();
        let op = match (self.peek()?, self.chars.get(self.at + 1)) {
            ('=', _) => Op::Eq,
            (':', _) => Op::Has,
            ('!', Some('=')) => Op::Ne,
            ('<', Some('=')) => Op::Le,
            ('>', Some('=')) => Op::Ge,
            ('<', _) => Op::Lt,
            ('>', _) => Op::Gt,
            _ => return None,
        };
        self.at += op.as_str().len();
        Some(op)
    }

    /// The value that follows an operator.
    pub(super) fn value(&mut self, field: &str) -> Result<Raw, FilterError> {
        let start = self.place();
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            return self.quoted(quote);
        }
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| is_bare(*c)) {
            text.push(c);
            self.at += 1;
        }
        if text.is_empty() {
            return Err(self.error_at(start, format!("a value for {field}")));
        }
        if KEYWORDS.contains(&text.as_str()) {
            let expected =
                format!("a value for {field} (write \"{text}\" in quotes if you mean the text)");
            return Err(self.error_at(start, expected));
        }
        Ok(Raw { parts: merge_stars(text.split('*').map(str::to_owned).collect()) })
    }

    fn quoted(&mut self, quote: char) -> Result<Raw, FilterError> {
        let open = self.at;
        self.at += 1;
        let mut parts = vec![String::new()];
        loop {
            let place = self.at;
            let Some(c) = self.next() else {
                let expected = format!("a closing {quote} for the one at character {}", open + 1);
                return Err(self.error_at(place, expected));
            };
            let literal = match c {
                c if c == quote => return Ok(Raw { parts: merge_stars(parts) }),
                '*' => {
                    parts.push(String::new());
                    continue;
                }
                '\\' => match self.next() {
                    Some(c @ ('"' | '\'' | '\\' | '*')) => c,
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(_) | None => {
                        let expected = r#"one of the escapes \" \' \\ \* \n \r \t"#;
                        return Err(self.error_at(place, expected));
                    }
                },
                other => other,
            };
            if let Some(part) = parts.last_mut() {
                part.push(literal);
            }
        }
    }
}

/// Two stars in a row are one.
fn merge_stars(parts: Vec<String>) -> Vec<String> {
    let last = parts.len() - 1;
    parts
        .into_iter()
        .enumerate()
        .filter(|(place, part)| *place == 0 || *place == last || !part.is_empty())
        .map(|(_, part)| part)
        .collect()
}

fn is_field(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

fn is_bare(c: char) -> bool {
    !c.is_whitespace()
        && !c.is_control()
        && !matches!(c, '(' | ')' | '"' | '\'' | '=' | '<' | '>' | '!' | ',' | '\\')
}
