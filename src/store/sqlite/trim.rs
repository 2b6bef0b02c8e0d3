//! Deletes what the retention policy says, a bounded amount at a time, on the writer thread.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::audit;
use super::counters::Counters;
use super::error::{failed, int, ms, revision_of, uint};
use super::row::{for_each, number};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::store::{Retention, StoreError, TRIM_ROWS_MAX, Trimmed};

/// The place of the oldest change of a machine that is kept if `most` are; `None` if there are fewer. Counts that many
/// entries of an index, so it is for a reader.
pub(super) fn oldest_kept(conn: &Connection, most: u64) -> Result<Option<i64>, StoreError> {
    let Some(skipped) = most.checked_sub(1) else { return Ok(Some(i64::MAX)) };
    let sql = "SELECT place FROM changes WHERE run IS NULL ORDER BY place DESC LIMIT 1 OFFSET ?1";
    let place = conn
        .prepare_cached(sql)
        .and_then(|mut query| query.query_row([int(skipped)], |row| row.get(0)).optional());
    place.map_err(failed)
}

/// Trims within the open transaction. Changes of machines before `oldest_kept` are too many.
pub(super) fn trim(
    conn: &Connection,
    counters: &mut Counters,
    retention: Retention,
    oldest_kept: i64,
) -> Result<Trimmed, StoreError> {
    let mut trimmed = Trimmed::default();
    trim_machine_changes(conn, counters, (retention.ended_before, oldest_kept), &mut trimmed)?;
    trim_runs(conn, counters, retention, &mut trimmed)?;
    trimmed.requests = execute(
        conn,
        "DELETE FROM requests WHERE place IN (
            SELECT place FROM requests
            WHERE at < ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE id = object_id AND active = 1)
            ORDER BY at, place LIMIT ?2)",
        params![ms(retention.requests_before), TRIM_ROWS_MAX as i64],
    )?;
    trimmed.audit = audit::trim(conn, retention)?;
    Ok(trimmed)
}

fn execute(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<u64, StoreError> {
    let rows = conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
    Ok(rows.map_err(failed)? as u64)
}

/// Changes of machines are deleted strictly oldest first: the rest still gives the true state of a machine at a
/// revision.
fn trim_machine_changes(
    conn: &Connection,
    counters: &mut Counters,
    (before, oldest_kept): (Timestamp, i64),
    trimmed: &mut Trimmed,
) -> Result<(), StoreError> {
    let mut old: Vec<i64> = Vec::new();
    let sql = "SELECT place, at FROM changes WHERE run IS NULL ORDER BY place LIMIT ?1";
    for_each(conn, sql, [TRIM_ROWS_MAX as i64], |row| {
        let place: i64 = row.get(0).map_err(failed)?;
        let is_old = Timestamp(number(row, 1)?) < before || place < oldest_kept;
        if is_old {
            old.push(place);
        }
        Ok(is_old)
    })?;
    for place in old {
        // The next change of the machine must have its previous state.
        let sql = "UPDATE changes SET prior = old.body, prior_sum = old.body_sum
            FROM (SELECT machine_id, body, body_sum FROM changes WHERE place = ?1) AS old
            WHERE kind = 'machine' AND place = (SELECT place FROM changes
                WHERE changes.machine_id = old.machine_id AND run IS NULL AND place > ?1 ORDER BY place LIMIT 1)
            AND before = ?2";
        execute(conn, sql, params![place, int(revision_of(place).0)])?;
        trimmed.changes += execute(conn, "DELETE FROM changes WHERE place = ?1", [place])?;
        compact(counters, revision_of(place));
    }
    Ok(())
}

fn trim_runs(
    conn: &Connection,
    counters: &mut Counters,
    retention: Retention,
    trimmed: &mut Trimmed,
) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM runs WHERE active = 0";
    let ended =
        conn.prepare_cached(sql).and_then(|mut query| query.query_row([], |row| row.get(0)));
    let mut surplus = uint(ended.map_err(failed)?).saturating_sub(retention.ended_runs_max);
    let mut old: Vec<(u64, Revision, String)> = Vec::new();
    let sql = "SELECT ordinal, revision, digest, ended_at FROM runs
        WHERE active = 0 ORDER BY ended_at, ordinal LIMIT ?1";
    for_each(conn, sql, [TRIM_ROWS_MAX as i64], |row| {
        if Timestamp(number(row, 3)?) >= retention.ended_before && surplus == 0 {
            return Ok(false);
        }
        surplus = surplus.saturating_sub(1);
        let digest = row.get(2).map_err(failed)?;
        old.push((number(row, 0)?, Revision(number(row, 1)?), digest));
        Ok(true)
    })?;
    for (ordinal, revision, digest) in old {
        let ordinal = int(ordinal);
        trimmed.changes += execute(conn, "DELETE FROM changes WHERE run = ?1", [ordinal])?;
        execute(conn, "DELETE FROM logs WHERE run = ?1", [ordinal])?;
        let labels = "DELETE FROM run_labels WHERE run = ?1 AND (key, value) IN (
            SELECT label.key, label.value
            FROM runs, json_each(iif(json_valid(body), body, '{}'), '$.labels') AS label
            WHERE runs.ordinal = ?1)";
        execute(conn, labels, [ordinal])?;
        trimmed.runs += execute(conn, "DELETE FROM runs WHERE ordinal = ?1", [ordinal])?;
        let unused = "DELETE FROM plans WHERE digest = ?1
            AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.digest = ?1)";
        execute(conn, unused, [digest])?;
        compact(counters, revision);
    }
    Ok(())
}

/// Readers before `revision` must list again.
fn compact(counters: &mut Counters, revision: Revision) {
    counters.compacted = counters.compacted.max(revision);
}
