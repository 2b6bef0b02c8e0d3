//! `-o jsonpath=…`: a small subset of kubectl's.
//!
//! A template is text with expressions in braces: `{.machines[*].machineId}`. An expression is a path of `.name`,
//! `['name']`, `[n]` (from the end if negative), `[*]`, `..name` and `[?(@.path == "text")]`; or a quoted text; or
//! `range path` up to `end`. A template without braces is one path, whose values are printed one per line. Names may
//! be written as in the proto, `machine_id`.

use serde_json::Value;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    /// Whether it is one path, whose values are printed one per line.
    is_bare: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(Vec<Pick>),
    Range(Vec<Pick>, Vec<Part>),
}

/// One piece of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pick {
    Name(String),
    Index(i64),
    All,
    /// The name at any depth.
    Deep(String),
    /// Elements whose value at a path equals, or does not equal, a text.
    Where(Vec<Pick>, bool, String),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("the path is empty".to_owned());
        }
        if !text.contains('{') {
            return Ok(Self { parts: vec![Part::Path(path(text)?)], is_bare: true });
        }
        let mut rest = text;
        let mut open: Vec<(Vec<Pick>, Vec<Part>)> = Vec::new();
        let mut parts = Vec::new();
        while let Some(start) = rest.find('{') {
            let (before, from) = rest.split_at(start);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let end = closing(from).ok_or("a { has no }")?;
            let inner = from[1..end].trim();
            rest = &from[end + 1..];
            if let Some(over) = inner.strip_prefix("range ") {
                open.push((path(over.trim())?, std::mem::take(&mut parts)));
            } else if inner == "end" {
                let (over, before) = open.pop().ok_or("{end} without {range}")?;
                let body = std::mem::replace(&mut parts, before);
                parts.push(Part::Range(over, body));
            } else if inner.starts_with(['"', '\'']) {
                parts.push(Part::Text(literal(inner)?));
            } else {
                parts.push(Part::Path(path(inner)?));
            }
        }
        if !open.is_empty() {
            return Err("{range} without {end}".to_owned());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts, is_bare: false })
    }

    /// What the template makes of a value. It ends with a line feed.
    pub(crate) fn fill(&self, value: &Value) -> String {
        let mut text = String::new();
        if let (true, [Part::Path(path)]) = (self.is_bare, self.parts.as_slice()) {
            for found in picked(value, path) {
                text.push_str(&shown(found));
                text.push('\n');
            }
            return text;
        }
        fill(&self.parts, value, &mut text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

fn fill(parts: &[Part], value: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => {
                let found: Vec<String> = picked(value, path).into_iter().map(shown).collect();
                text.push_str(&found.join(" "));
            }
            Part::Range(path, body) => {
                for found in picked(value, path) {
                    fill(body, found, text);
                }
            }
        }
    }
}

/// The position of the brace that closes the first one; braces in quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (place, c) in text.char_indices() {
        match (quote, c) {
            (None, '}') => return Some(place),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn literal(text: &str) -> Result<String, String> {
    let quote = text.chars().next().unwrap_or('"');
    let inner = text
        .strip_prefix(quote)
        .and_then(|text| text.strip_suffix(quote))
        .ok_or_else(|| format!("{text} is not a text in quotes"))?;
    Ok(inner.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\"))
}

fn path(text: &str) -> Result<Vec<Pick>, String> {
    let mut rest = text.trim();
    rest = rest.strip_prefix('$').or_else(|| rest.strip_prefix('@')).unwrap_or(rest);
    let mut picks = Vec::new();
    // The first name needs no dot.
    if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let (name, after) = name_of(rest);
        picks.push(Pick::Name(name));
        rest = after;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            let (name, after) = name_of(after);
            if name.is_empty() {
                return Err(format!("a name is missing after .. in {text}"));
            }
            picks.push(Pick::Deep(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = bracket(after).ok_or_else(|| format!("a [ has no ] in {text}"))?;
            picks.push(index(after[..end].trim())?);
            rest = &after[end + 1..];
        } else if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = name_of(after);
            match name.as_str() {
                // The value itself.
                "" if after.is_empty() || after.starts_with('[') => {}
                "" => return Err(format!("a name is missing after a dot in {text}")),
                "*" => picks.push(Pick::All),
                _ => picks.push(Pick::Name(name)),
            }
            rest = after;
        } else {
            return Err(format!("{rest:?} cannot stand in the path {text}"));
        }
    }
    Ok(picks)
}

fn name_of(text: &str) -> (String, &str) {
    let end = text.find(['.', '[']).unwrap_or(text.len());
    (text[..end].to_owned(), &text[end..])
}

/// The position of the closing bracket; brackets in quotes and nested ones do not count.
fn bracket(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (place, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') if depth == 0 => return Some(place),
            (None, ']') => depth -= 1,
            (None, '[') => depth += 1,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn index(text: &str) -> Result<Pick, String> {
    if text == "*" {
        return Ok(Pick::All);
    }
    if text.starts_with(['"', '\'']) {
        return literal(text).map(Pick::Name);
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (left, equal, right) = match (condition.split_once("=="), condition.split_once("!=")) {
            (Some((left, right)), _) => (left, true, right),
            (None, Some((left, right))) => (left, false, right),
            (None, None) => return Err(format!("[{text}] has no comparison: use == or !=")),
        };
        let right = right.trim();
        let value = if right.starts_with(['"', '\'']) { literal(right)? } else { right.to_owned() };
        return Ok(Pick::Where(path(left)?, equal, value));
    }
    text.parse().map(Pick::Index).map_err(|_| {
        format!(
            "[{text}] is neither a number, nor *, nor a name in quotes, nor ?(@.path == \"text\")"
        )
    })
}

fn picked<'a>(value: &'a Value, path: &[Pick]) -> Vec<&'a Value> {
    let Some((pick, rest)) = path.split_first() else { return vec![value] };
    let next: Vec<&Value> = match pick {
        Pick::Name(name) => field(value, name).into_iter().collect(),
        Pick::Index(index) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let place = if *index < 0 { length + index } else { *index };
            usize::try_from(place).ok().and_then(|place| items.get(place)).into_iter().collect()
        }
        Pick::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        },
        Pick::Deep(name) => {
            let mut found = Vec::new();
            deep(value, name, &mut found);
            found
        }
        Pick::Where(path, equal, wanted) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let matches = |item: &&Value| {
                picked(item, path).into_iter().any(|found| shown(found) == *wanted) == *equal
            };
            items.iter().filter(matches).collect()
        }
    };
    next.into_iter().flat_map(|value| picked(value, rest)).collect()
}

/// A field by its name in JSON, or as the proto writes it.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| {
        let mut camel = String::new();
        let mut upper = false;
        for c in name.chars() {
            match c {
                '_' => upper = true,
                c if upper => {
                    camel.extend(c.to_uppercase());
                    upper = false;
                }
                c => camel.push(c),
            }
        }
        value.get(&camel)
    })
}

fn deep<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    found.extend(field(value, name));
    match value {
        Value::Array(items) => items.iter().for_each(|item| deep(item, name, found)),
        Value::Object(fields) => fields.values().for_each(|item| deep(item, name, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str) -> Result<String, String> {
        let value = json!({"machines": [
            {"machineId": "a", "labels": {"rack": "r1", "a.b/c": "x"}, "status": {"phase": "PHASE_READY"}, "n": 1},
            {"machineId": "b", "labels": {}, "status": {"phase": "PHASE_RMA"}},
        ]});
        Template::parse(template).map(|template| template.fill(&value))
    }

    #[test]
    fn paths_and_templates() {
        for (template, text) in [
            ("{.machines[*].machineId}", "a b\n"),
            (".machines[*].machineId", "a\nb\n"),
            ("machines[-1].machine_id", "b\n"),
            ("$.machines[0]['labels']['a.b/c']", "x\n"),
            ("..machineId", "a\nb\n"),
            ("{.machines[?(@.status.phase==\"PHASE_RMA\")].machineId}", "b\n"),
            ("{.machines[?(@.labels.rack != 'r1')].machineId}", "b\n"),
            (
                "{range .machines[*]}{.machineId}{\"\\t\"}{.status.phase}{\"\\n\"}{end}",
                "a\tPHASE_READY\nb\tPHASE_RMA\n",
            ),
            ("id={.machines[0].machineId}, n={.machines[0].n}", "id=a, n=1\n"),
            ("{.machines[0].labels}", "{\"a.b/c\":\"x\",\"rack\":\"r1\"}\n"),
            ("{.nothing.here[3]}", "\n"),
            (".nothing", ""),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (template, error) in [
            ("", "the path is empty"),
            ("{.a", "a { has no }"),
            ("{range .a}", "{range} without {end}"),
            ("{end}", "{end} without {range}"),
            (".a[", "a [ has no ]"),
            (".a[x]", "[x] is neither"),
            (".a[?(@.b)]", "has no comparison"),
            (".a..", "a name is missing"),
            (".a[0]b", "cannot stand"),
        ] {
            let found = filled(template);
            assert!(
                found.as_ref().is_err_and(|found| found.contains(error)),
                "{template}: {found:?}"
            );
        }
    }
}
