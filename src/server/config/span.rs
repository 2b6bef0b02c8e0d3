//! Durations of the configuration file.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::plan::duration;

/// A duration as people write it: `30s`, `1h30m`, `90d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// Longest span, in days.
const SPAN_DAYS_MAX: u64 = 3_650;

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The durations of plans end at 30 days; retention is longer.
        if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
            if days > SPAN_DAYS_MAX {
                return Err(serde::de::Error::custom(format!("at most {SPAN_DAYS_MAX}d")));
            }
            return Ok(Self(Duration::from_secs(days * 24 * 60 * 60)));
        }
        duration::parse(&text).map(|ms| Self(Duration::from_millis(ms))).map_err(|error| {
            serde::de::Error::custom(format!("{error}; write it as \"30s\", \"1h30m\" or \"90d\""))
        })
    }
}
