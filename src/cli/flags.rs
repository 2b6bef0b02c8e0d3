//! Options that many commands have, and how their values are read.

use clap::{Args, ValueEnum};

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Server address [default: localhost:50051] [env: BMDEMO_SERVER]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Context that names the server; see the command context [env: BMDEMO_CONTEXT]
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// Your name in the audit trail [env: BMDEMO_ACTOR, USER]
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// Wait up to a minute for the server to listen
    #[arg(long, global = true)]
    pub(crate) wait_for_server: bool,
    /// Deadline of one call, for example 30s
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_ms)]
    pub(crate) request_timeout: u64,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Print ASCII instead of ✓, → and boxes
    #[arg(long, global = true)]
    pub(crate) ascii: bool,
}

/// When to colour.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
}

/// How to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// Output form
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub(crate) output: Format,
}

/// Milliseconds of a length of time: `30s`, `5m`, `1h30m`, `500ms`.
pub(crate) fn parse_ms(text: &str) -> Result<u64, String> {
    crate::plan::duration::parse(text)
        .map_err(|error| format!("{error}, for example 30s, 5m or 1h30m"))
}

/// A `key=value` pair.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        assert_eq!(parse_ms("1h30m"), Ok(5_400_000));
        assert_eq!(
            parse_ms("30").unwrap_err(),
            "a number in a duration needs a unit, for example 30s, 5m or 1h30m"
        );
    }

    #[test]
    fn pairs() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("a").is_err());
    }
}
