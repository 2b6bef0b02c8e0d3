//! Conversion of records to messages. The other direction goes through `validate` in the handlers.

pub(super) mod history;
pub(super) mod machine;
pub(super) mod plan;
pub(super) mod run;

use crate::clock::Timestamp;
use crate::ids::Revision;

/// Instant of a message.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    // Below 1000 before the multiplication, below 10^9 after it.
    let nanos = i32::try_from(at.0 % 1000 * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds, nanos }
}

/// Duration of a message, from milliseconds.
pub(super) fn duration(ms: u64) -> prost_types::Duration {
    let timestamp = timestamp(Timestamp(ms));
    prost_types::Duration { seconds: timestamp.seconds, nanos: timestamp.nanos }
}

/// Etag of an object at a revision.
pub(super) fn etag(revision: Revision) -> String {
    format!("\"{revision}\"")
}
