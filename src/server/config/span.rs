//! Durations as the configuration and flags have them.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::plan::duration;

/// A duration as people write it: `30s`, `1h30m`, `90d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// Longest span, in days.
const SPAN_DAYS_MAX: u64 = 3_650;

impl Span {
    /// The span of a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // The durations of plans end at 30 days; retention is longer.
        if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
            if days > SPAN_DAYS_MAX {
                return Err(format!("at most {SPAN_DAYS_MAX}d"));
            }
            return Ok(Self(Duration::from_secs(days * 24 * 60 * 60)));
        }
        duration::parse(text)
            .map(|ms| Self(Duration::from_millis(ms)))
            .map_err(|error| format!("{error}; write it as \"30s\", \"1h30m\" or \"90d\""))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
