//! Conversions that the stores on disk share: their integers, the keys of changes, and a run after a change.

use super::codec::{DecodeError, decode_delta};
use super::error::StoreError;
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::Run;

/// Number of changes that one commit can hold.
const CHANGES_MAX_LOG2: u32 = 20;

/// A record that cannot be read.
pub(super) fn corrupt(kind: &'static str, id: impl ToString) -> impl Fn(DecodeError) -> StoreError {
    let id = id.to_string();
    move |error| StoreError::Corrupt { kind, id: id.clone(), message: error.to_string() }
}

/// Names an unreadable record by its id instead of its row.
pub(super) fn named<T: ToString>(id: T) -> impl FnOnce(StoreError) -> StoreError {
    move |error| match error {
        StoreError::Corrupt { kind, message, .. } => {
            StoreError::Corrupt { kind, id: id.to_string(), message }
        }
        other @ (StoreError::Conflict { .. }
        | StoreError::MacTaken { .. }
        | StoreError::ActiveRun { .. }
        | StoreError::Fenced { .. }
        | StoreError::RequestUsed(_)
        | StoreError::NoSlot { .. }
        | StoreError::Compacted { .. }
        | StoreError::Full(_)
        | StoreError::Unknown(_)
        | StoreError::Unavailable(_)) => other,
    }
}

/// The integers of a database are signed; ours stay far below the sign bit, except timestamps made up by a client.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored integer that cannot be negative.
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn ms(at: Timestamp) -> i64 {
    int(at.0)
}

/// Key of a change.
pub(super) fn place(revision: Revision, part: u32) -> i64 {
    let revision = revision.0.min((1 << (63 - CHANGES_MAX_LOG2)) - 1);
    int((revision << CHANGES_MAX_LOG2) + u64::from(part))
}

/// Key after the last change of a commit.
pub(super) fn place_after(revision: Revision) -> i64 {
    place(revision, (1 << CHANGES_MAX_LOG2) - 1)
}

/// Revision of the commit that a change belongs to.
pub(super) fn revision_of(place: i64) -> Revision {
    Revision(uint(place) >> CHANGES_MAX_LOG2)
}

/// The run after a change of it, given the run before it.
pub(super) fn run_after(
    body: &str,
    before: Option<Run>,
    ordinal: u64,
    revision: Revision,
) -> Result<Run, StoreError> {
    let id = before.as_ref().map(|run| run.id);
    let delta = decode_delta(body, id, ordinal, revision);
    // What is decoded without a run before it is whole.
    let run = delta.and_then(|delta| delta.apply(before).ok_or(DecodeError::Missing("the run")));
    run.map_err(corrupt("change of run", ordinal))
}
