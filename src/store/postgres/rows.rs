//! Values of rows.

use std::borrow::Cow;
use std::sync::Arc;

use tokio_postgres::Row;

use super::error::{corrupt, uint};
use crate::clock::Timestamp;
use crate::ids::{Epoch, IdError, MachineId, Revision, RunId};
use crate::model::{AuditHash, AuditHead, AuditRow, Cursor, LogChunk, LogStream, Machine, Run};
use crate::store::codec::{DecodeError, decode_machine, decode_run};
use crate::store::{RequestRecord, StoreError};

/// What marks a character that PostgreSQL's texts cannot have, and itself.
const MARK: char = '\u{1a}';

/// A text as it is in the columns that are only searched, where it stands for every text alone.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', MARK]) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        match c {
            '\0' => stored.extend([MARK, '0']),
            MARK => stored.extend([MARK, MARK]),
            c => stored.push(c),
        }
    }
    Cow::Owned(stored)
}

/// The text of a column of bytes.
pub(super) fn text(
    row: &Row,
    column: usize,
    corrupt: impl FnOnce(DecodeError) -> StoreError,
) -> Result<&str, StoreError> {
    let bytes: &[u8] = row.get(column);
    std::str::from_utf8(bytes).map_err(|error| corrupt(DecodeError::Invalid(error.to_string())))
}

pub(super) fn number(row: &Row, column: usize) -> u64 {
    uint(row.get(column))
}

pub(super) fn machine_id(text: &str) -> Result<MachineId, StoreError> {
    let bad = |error: IdError| DecodeError::Invalid(error.to_string());
    MachineId::parse(text).map_err(bad).map_err(corrupt("machine", text))
}

pub(super) fn run_id(text: &str) -> Result<RunId, StoreError> {
    let bad = |error: IdError| DecodeError::Invalid(error.to_string());
    RunId::parse(text).map_err(bad).map_err(corrupt("run", text))
}

/// A machine from the columns ordinal, revision, body.
pub(super) fn machine_row(row: &Row) -> Result<Machine, StoreError> {
    let ordinal = number(row, 0);
    let body = text(row, 2, corrupt("machine", ordinal))?;
    decode_machine(body, ordinal, Revision(number(row, 1))).map_err(corrupt("machine", ordinal))
}

/// A run from the columns ordinal, revision, body.
pub(super) fn run_row(row: &Row) -> Result<Run, StoreError> {
    let ordinal = number(row, 0);
    let body = text(row, 2, corrupt("run", ordinal))?;
    decode_run(body, ordinal, Revision(number(row, 1))).map_err(corrupt("run", ordinal))
}

/// A cursor from the columns owner, next, done.
pub(super) fn cursor_row(row: &Row) -> Cursor {
    Cursor {
        owner: Epoch(number(row, 0)),
        next: Revision(number(row, 1)),
        done: u32::try_from(number(row, 2)).unwrap_or(u32::MAX),
    }
}

/// The use of a request id, from the columns scope, request_id, body_digest, object_id, at, revision.
pub(super) fn request_row(row: &Row) -> Result<RequestRecord, StoreError> {
    let of_request = corrupt("request", "id");
    Ok(RequestRecord {
        scope: text(row, 0, &of_request)?.to_owned(),
        request_id: text(row, 1, &of_request)?.to_owned(),
        body_digest: row.get(2),
        object_id: row.get(3),
        at: Timestamp(number(row, 4)),
        revision: Revision(number(row, 5)),
    })
}

/// A place in the audit, from the columns seq, hash.
pub(super) fn audit_head(row: &Row) -> AuditHead {
    AuditHead { seq: number(row, 0), hash: AuditHash::of_stored(row.get(1)) }
}

/// An entry of the audit, from the columns seq, hash, revision, at, body.
pub(super) fn audit_row(row: &Row) -> Result<AuditRow, StoreError> {
    let AuditHead { seq, hash } = audit_head(row);
    Ok(AuditRow {
        seq,
        revision: Revision(number(row, 2)),
        at: Timestamp(number(row, 3)),
        body: text(row, 4, corrupt("audit entry", seq))?.into(),
        hash,
    })
}

/// A chunk of a log, from the columns chunk, at, step, attempt, stream, truncated, text.
pub(super) fn log_row(row: &Row, run: RunId) -> Result<Arc<LogChunk>, StoreError> {
    let stream: &str = row.get(4);
    let unknown = || DecodeError::Unknown { what: "log stream", name: stream.to_owned() };
    Ok(Arc::new(LogChunk {
        run_id: run,
        offset: number(row, 0),
        at: Timestamp(number(row, 1)),
        step: text(row, 2, corrupt("log of run", run))?.to_owned(),
        attempt: u32::try_from(number(row, 3)).unwrap_or(u32::MAX),
        stream: LogStream::parse(stream).ok_or_else(unknown).map_err(corrupt("log of run", run))?,
        text: text(row, 6, corrupt("log of run", run))?.to_owned(),
        truncated: row.get(5),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_are_stored_differently() {
        let texts =
            ["", "a", "\0", "\u{1a}", "\u{1a}0", "\u{1a}\u{1a}0", "\0\0", "a\0", "\u{1a}\0"];
        let stored: Vec<_> = texts.iter().map(|text| storable(text)).collect();
        assert!(stored.iter().all(|text| !text.contains('\0')));
        for (place, text) in stored.iter().enumerate() {
            assert!(!stored[..place].contains(text), "{text:?}");
        }
    }
}
