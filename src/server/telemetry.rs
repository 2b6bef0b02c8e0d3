//! Logs: on stderr, as text for people or as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Everything.
    Debug,
    /// What an operator may want to know.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// What does not work.
    Error,
}

/// Shape of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// One readable line an event, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Level {
    /// Directives: the libraries below us stay quiet unless something is wrong.
    fn directives(self) -> &'static str {
        match self {
            Self::Debug => "info,bmdemo=debug",
            Self::Info => "warn,bmdemo=info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Sends the log of this process to stderr. The first call wins: a process has one log.
pub(super) fn start(level: Level, format: Format) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level.directives()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "the log is set up already");
    }
}
