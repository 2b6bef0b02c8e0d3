//! Runs, as their rows and the changes after them say they are.
//!
//! The row of an active run may be behind: a commit that leaves its indexed columns as they are appends its change and
//! nothing else, and a reader applies the changes after the revision of its row. The row is written again
//! with every change of its phase, at the latest after [`BEHIND_MAX`] changes, and when the run ends: the rows of runs
//! that have ended are never behind.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::error::{corrupt, failed, int, named, place_after, revision_of, run_after};
use super::row::{first, for_each, number, text};
use super::seal;
use crate::ids::{Revision, RunId};
use crate::model::Run;
use crate::store::StoreError;
use crate::store::codec::{DecodeError, decode_run};

/// Most changes of a run that its row may be behind: each costs a reader about as much as the row.
pub(super) const BEHIND_MAX: u32 = 16;

/// A run as its row has it, from the columns ordinal, revision, body, sum.
pub(super) fn run_row(row: &Row<'_>) -> Result<Run, StoreError> {
    let ordinal = number(row, 0)?;
    // First: a value of another type is damage of this record, not a failure of the store.
    seal::verify(row, 0..3, 3, corrupt("run", ordinal))?;
    let revision = Revision(number(row, 1)?);
    decode_run(text(row, 2)?, ordinal, revision).map_err(corrupt("run", ordinal))
}

/// A run as it is, from the same columns. To be called where the row and the changes belong to one revision of the store.
pub(super) fn current_run(conn: &Connection, row: &Row<'_>) -> Result<Run, StoreError> {
    brought_up(conn, run_row(row)?)
}

/// A run as it is, of one as its row has it.
pub(super) fn brought_up(conn: &Connection, run: Run) -> Result<Run, StoreError> {
    if !run.state.is_active() {
        return Ok(run);
    }
    let (ordinal, after) = (run.ordinal, place_after(run.revision));
    let current = apply(conn, Some(run), ordinal, after, i64::MAX).map_err(of_record)?;
    current.ok_or_else(|| corrupt("run", ordinal)(DecodeError::Missing("the run")))
}

/// A change that cannot be read makes the record unreadable.
fn of_record(mut error: StoreError) -> StoreError {
    if let StoreError::Corrupt { kind, message, .. } = &mut error
        && *kind == "change of run"
    {
        *kind = "run";
        *message = format!("a change of it: {message}");
    }
    error
}

pub(super) fn run(conn: &Connection, id: RunId) -> Result<Option<Arc<Run>>, StoreError> {
    let sql = "SELECT ordinal, revision, body, sum FROM runs WHERE id = ?1";
    let run = first(conn, sql, [id.to_string()], |row| current_run(conn, row));
    Ok(run.map_err(named(id))?.map(Arc::new))
}

pub(super) fn run_at(
    conn: &Connection,
    id: RunId,
    at: Revision,
) -> Result<Option<Arc<Run>>, StoreError> {
    let sql = "SELECT ordinal FROM runs WHERE id = ?1";
    match first(conn, sql, [id.to_string()], |row| number(row, 0))? {
        Some(ordinal) => Ok(fold(conn, ordinal, place_after(at))?.map(Arc::new)),
        None => Ok(None),
    }
}

/// The run after its last change that is not after `to`, by its changes alone.
pub(super) fn fold(conn: &Connection, ordinal: u64, to: i64) -> Result<Option<Run>, StoreError> {
    apply(conn, None, ordinal, -1, to)
}

/// Applies the changes of a run after the place `after`, up to the place `to`.
fn apply(
    conn: &Connection,
    mut run: Option<Run>,
    ordinal: u64,
    after: i64,
    to: i64,
) -> Result<Option<Run>, StoreError> {
    let sql = "SELECT place, body, body_sum FROM changes
        WHERE run = ?1 AND place > ?2 AND place <= ?3 ORDER BY place";
    for_each(conn, sql, params![int(ordinal), after, to], |row| {
        let revision = revision_of(row.get(0).map_err(failed)?);
        seal::verify(row, 1..2, 2, corrupt("change of run", ordinal))?;
        run = Some(run_after(text(row, 1)?, run.take(), ordinal, revision)?);
        Ok(true)
    })?;
    Ok(run)
}
