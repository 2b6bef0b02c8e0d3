//! Options that many commands share, and how their values are parsed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::error::Error;
use super::output::Template;
use crate::text::escaped;

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Server address: HOST:PORT, or https://HOST:PORT [default: localhost:50051] [env: BMDEMO_SERVER]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Context that names the server; see the command context [env: BMDEMO_CONTEXT]
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// Your name in the audit trail [env: BMDEMO_ACTOR, USER]
    // With an id of its own: a command with an argument `actor` would give its value to this one too.
    #[arg(id = "as", long = "as", global = true, value_name = "NAME", value_parser = parse_actor)]
    pub(crate) actor: Option<String>,
    /// Authority that signed the certificate of the server, in PEM, for an address with https [env: BMDEMO_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Your certificate, in PEM [env: BMDEMO_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its private key, in PEM; only you may be able to read the file [env: BMDEMO_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// File with your token; only you may be able to read it [env: BMDEMO_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Wait up to a minute for the server to listen
    #[arg(long, global = true)]
    pub(crate) wait_for_server: bool,
    /// Deadline of one call, for example 30s
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    pub(crate) request_timeout: u64,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Print ASCII instead of ✓, → and boxes
    #[arg(long, global = true)]
    pub(crate) ascii: bool,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Form of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// Canonical protobuf JSON, one document
    Json,
    /// Canonical protobuf JSON, one object a line
    Jsonl,
    /// The same value as YAML
    Yaml,
    /// Ids only
    Name,
    /// Comma-separated values with a header
    Csv,
    /// The JSON rendered by a template
    JsonPath(Template),
}

/// Forms of output by their names, with what they are.
pub(crate) const FORMS: [(&str, &str); 8] = [
    ("table", "Columns for people"),
    ("wide", "More columns"),
    ("json", "Canonical protobuf JSON, one document"),
    ("jsonl", "Canonical protobuf JSON, one object a line"),
    ("yaml", "The same value as YAML"),
    ("name", "Ids only"),
    ("csv", "Comma-separated values with a header"),
    ("jsonpath=", "The JSON rendered by a template, for example jsonpath={.machines[*].machineId}"),
];

impl Format {
    /// Whether the form is for programs rather than people.
    pub(crate) fn is_data(&self) -> bool {
        !matches!(self, Self::Table | Self::Wide)
    }
}

fn parse_format(text: &str) -> Result<Format, String> {
    Ok(match text {
        "table" => Format::Table,
        "wide" => Format::Wide,
        "json" => Format::Json,
        "jsonl" => Format::Jsonl,
        "yaml" => Format::Yaml,
        "name" => Format::Name,
        "csv" => Format::Csv,
        _ => match text.split_once('=') {
            Some(("jsonpath", text)) => {
                let template = Template::parse(text);
                Format::JsonPath(template.map_err(|error| {
                    format!("{error}; for example jsonpath={{.machines[*].machineId}}")
                })?)
            }
            _ => {
                let names: Vec<&str> = FORMS.iter().map(|(name, _)| *name).collect();
                return Err(format!("the forms are {}", names.join(", ")));
            }
        },
    })
}

/// How to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// Output form: table, wide, json, jsonl, yaml, name, csv, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORM", default_value = "table", value_parser = parse_format)]
    pub(crate) output: Format,
    /// Columns of a table or of CSV, for example machine_id,phase; a name that is none lists them
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
}

/// Longest name of an actor, in characters; the server has the same limit.
const ACTOR_CHARS_MAX: usize = 64;

/// Names that servers refuse, since they are parts of them.
const RESERVED: [&str; 3] = ["engine", "probe", "system"];

/// A name for the audit trail. Invisible characters are refused, so that no name looks like another.
pub(crate) fn parse_actor(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Err("it is empty: give a name".to_owned());
    }
    if let Some(hidden) = crate::text::hidden_in(name) {
        let code = u32::from(hidden);
        return Err(format!("it has the character U+{code:04X}, which is invisible: leave it out"));
    }
    if name.chars().count() > ACTOR_CHARS_MAX {
        return Err(format!("it is longer than {ACTOR_CHARS_MAX} characters"));
    }
    if RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        return Err("it is that of a part of the server: give another one".to_owned());
    }
    Ok(name.to_owned())
}

/// Milliseconds of a length of time: `30s`, `5m`, `1h30m`, `500ms`.
pub(crate) fn parse_ms(text: &str) -> Result<u64, String> {
    crate::plan::duration::parse(text)
        .map_err(|error| format!("{error}, for example 30s, 5m or 1h30m"))
}

/// As [`parse_ms`], and not zero: nothing is answered in no time.
fn parse_timeout(text: &str) -> Result<u64, String> {
    match parse_ms(text)? {
        0 => Err("it must be longer than 0s, for example 30s".to_owned()),
        ms => Ok(ms),
    }
}

/// An instant, or a length of time before now, as filters write it: `2026-01-31T08:00:00Z`, `-2h`. A date alone means
/// its beginning in UTC.
pub(crate) fn parse_moment(text: &str) -> Result<String, String> {
    let ago = text.strip_prefix('-').unwrap_or(text);
    if ago_ms(ago).is_some() {
        return Ok(format!("-{ago}"));
    }
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    match full.parse::<jiff::Timestamp>() {
        Ok(at) if at.as_millisecond() >= 0 => Ok(format!("{at:.3}")),
        Ok(_) | Err(_) => Err(format!(
            "{text:?} is not a time: give an age (90s, 2h, 1d12h), a date or a time like 2026-01-31T08:00:00Z"
        )),
    }
}

/// Milliseconds of `90s`, `2h`, `1d12h`, as filters take them.
pub(crate) fn ago_ms(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let (mut rest, mut sum, mut before) = (text, 0_u64, None);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let place = UNITS.iter().position(|(name, _)| *name == &rest[..end])?;
        if before.is_some_and(|before| place <= before) {
            return None;
        }
        before = Some(place);
        sum = sum.checked_add(count.checked_mul(UNITS[place].1)?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}

/// A `key=value` pair.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form key=value")),
    }
}

/// The pairs of a repeatable option by their keys. A key that is given twice is refused: otherwise one of the two
/// values would be dropped silently.
///
/// # Errors
/// Usage.
pub(crate) fn by_key(
    option: &str,
    pairs: &[(String, String)],
) -> Result<BTreeMap<String, String>, Error> {
    let mut found = BTreeMap::new();
    for (key, value) in pairs {
        if let Some(before) = found.insert(key.clone(), value.clone()) {
            return Err(twice(option, key, &before, value));
        }
    }
    Ok(found)
}

/// The error for a key with two values.
fn twice(option: &str, key: &str, first: &str, second: &str) -> Error {
    let key = escaped(key);
    Error::usage(
        format!("{option}{key} is given twice: \"{}\" and \"{}\"", escaped(first), escaped(second)),
        "give it once",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_value() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let good = by_key("--set ", &[pair("b", "1"), pair("a", "2")]).unwrap();
        assert_eq!(good.into_iter().collect::<Vec<_>>(), [pair("a", "2"), pair("b", "1")]);
        let error = by_key("--set ", &[pair("wipe", "quick"), pair("wipe", "quick")]).unwrap_err();
        assert_eq!(error.to_string(), "--set wipe is given twice: \"quick\" and \"quick\"");
        assert_eq!(error.code(), 2);
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(parse_ms("1h30m"), Ok(5_400_000));
        assert_eq!(
            parse_ms("30").unwrap_err(),
            "a number in a duration needs a unit, for example 30s, 5m or 1h30m"
        );
    }

    #[test]
    fn every_form_is_read() {
        for (name, _) in FORMS {
            let text = if name == "jsonpath=" { "jsonpath=.a" } else { name };
            assert!(parse_format(text).is_ok(), "{name}");
        }
        let template = Template::parse("{.a=b}").unwrap();
        assert_eq!(parse_format("jsonpath={.a=b}"), Ok(Format::JsonPath(template)));
        for wrong in ["xml", "jsonpath=", "jsonpath={.a"] {
            assert!(parse_format(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments() {
        for (typed, read) in [
            ("2h", "-2h"),
            ("-1d12h", "-1d12h"),
            ("2026-01-31", "2026-01-31T00:00:00.000Z"),
            ("2026-01-31T08:00:00+01:00", "2026-01-31T07:00:00.000Z"),
        ] {
            assert_eq!(parse_moment(typed).unwrap(), read);
        }
        for wrong in ["", "yesterday", "2", "1h1h", "1950-01-01", "-"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("a").is_err());
    }
}
