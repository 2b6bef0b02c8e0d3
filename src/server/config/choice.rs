//! Settings that are one of a few words, for flags and for the file.

/// Lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum Level {
    /// Everything.
    Debug,
    /// What an operator may want to know.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// Failures.
    Error,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum Format {
    /// One readable line per event, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the fake provider's machines are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum FakeWorld {
    /// In a journal in the data directory: their state survives the server, as with real machines.
    #[default]
    Disk,
    /// In memory: for measuring the engine without the simulator's own flushes.
    Memory,
}

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleName {
    /// Look.
    Viewer,
    /// Also register and change machines, start and control runs.
    Operator,
    /// Everything.
    Admin,
}
