//! The audit: appended by the writer, read by number, deleted from its beginning.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::encoded::EncodedAudit;
use super::error::{failed, int, ms, uint};
use super::row::{for_each, number, text};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::{AuditHash, AuditHead, AuditRow, Chain};
use crate::store::{Retention, StoreError, TRIM_ROWS_MAX};

/// Entries read at a time by the check of the whole audit.
const PAGE: usize = 1_000;

/// Key of the only row of the table `audit_anchor`.
const ANCHOR: i64 = 1;

/// Adds an entry after `head`, and returns the new head.
pub(super) fn append(
    conn: &Connection,
    head: AuditHead,
    revision: Revision,
    at: Timestamp,
    entry: &EncodedAudit,
) -> rusqlite::Result<AuditHead> {
    let next = head.then(revision, at, &entry.digest);
    let sql = "INSERT INTO audit (seq, revision, at, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![int(next.seq), int(revision.0), ms(at), entry.body, next.hash.0];
    conn.prepare_cached(sql)?.execute(values)?;
    Ok(next)
}

/// The newest entry, deleted or not.
pub(super) fn head(conn: &Connection) -> rusqlite::Result<AuditHead> {
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let newest = conn.prepare_cached(sql)?.query_row([], place).optional()?;
    newest.map_or_else(|| anchor(conn), Ok)
}

/// The last entry that was deleted.
pub(super) fn anchor(conn: &Connection) -> rusqlite::Result<AuditHead> {
    let mut query = conn.prepare_cached("SELECT seq, hash FROM audit_anchor")?;
    Ok(query.query_row([], place).optional()?.unwrap_or_default())
}

fn place(row: &Row<'_>) -> rusqlite::Result<AuditHead> {
    // A damaged hash is found by the check: it keeps nothing from being written.
    let hash = row.get_ref(1)?;
    let hash = AuditHash::of_stored(hash.as_blob().unwrap_or_default());
    Ok(AuditHead { seq: uint(row.get(0)?), hash })
}

/// Both ends.
pub(super) fn ends(conn: &Connection) -> Result<(AuditHead, AuditHead), StoreError> {
    Ok((anchor(conn).map_err(failed)?, head(conn).map_err(failed)?))
}

/// Entries after a number, oldest first.
pub(super) fn page(
    conn: &Connection,
    after: u64,
    limit: usize,
) -> Result<Vec<AuditRow>, StoreError> {
    let mut rows = Vec::new();
    let sql =
        "SELECT seq, revision, at, body, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    for_each(conn, sql, params![int(after), limit], |row| {
        let hash = row.get_ref(4).map_err(failed)?;
        rows.push(AuditRow {
            seq: number(row, 0)?,
            revision: Revision(number(row, 1)?),
            at: Timestamp(number(row, 2)?),
            body: text(row, 3)?.into(),
            hash: AuditHash::of_stored(hash.as_blob().unwrap_or_default()),
        });
        Ok(true)
    })?;
    Ok(rows)
}

/// Follows the whole chain; it must lead through `saved`. Returns the number of entries and the head, or what is wrong.
pub(super) fn verify(
    conn: &Connection,
    saved: Option<AuditHead>,
) -> Result<Result<(u64, AuditHead), String>, StoreError> {
    let mut after = anchor(conn).map_err(failed)?;
    let mut chain = match Chain::after(after, saved) {
        Ok(chain) => chain,
        Err(fault) => return Ok(Err(fault.to_string())),
    };
    let mut entries = 0;
    loop {
        let rows = match page(conn, after.seq, PAGE) {
            Ok(rows) => rows,
            // A value of another type.
            Err(StoreError::Corrupt { message, .. }) => return Ok(Err(message)),
            Err(error) => return Err(error),
        };
        for row in &rows {
            if let Err(fault) = chain.follow(row) {
                return Ok(Err(fault.to_string()));
            }
        }
        entries += rows.len() as u64;
        match rows.last() {
            Some(last) => after.seq = last.seq,
            None => break,
        }
    }
    Ok(chain.end().map(|head| (entries, head)).map_err(|fault| fault.to_string()))
}

/// Deletes the oldest entries that the policy does not keep, and remembers the last of them.
pub(super) fn trim(conn: &Connection, retention: Retention) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(max(seq), 0) FROM audit";
    let newest =
        conn.prepare_cached(sql).and_then(|mut query| query.query_row([], |row| row.get(0)));
    let surplus = uint(newest.map_err(failed)?).saturating_sub(retention.audit_max);
    let mut last = None;
    let mut count = 0;
    let sql = "SELECT seq, hash, at FROM audit ORDER BY seq LIMIT ?1";
    for_each(conn, sql, [TRIM_ROWS_MAX as i64], |row| {
        let head = place(row).map_err(failed)?;
        let is_old = head.seq <= surplus || Timestamp(number(row, 2)?) < retention.audit_before;
        if is_old {
            last = Some(head);
            count += 1;
        }
        Ok(is_old)
    })?;
    if let Some(AuditHead { seq, hash }) = last {
        let sql = "INSERT OR REPLACE INTO audit_anchor (id, seq, hash) VALUES (?1, ?2, ?3)";
        let kept = conn.prepare_cached(sql);
        kept.and_then(|mut keep| keep.execute(params![ANCHOR, int(seq), hash.0]))
            .map_err(failed)?;
        let delete = conn.prepare_cached("DELETE FROM audit WHERE seq <= ?1");
        delete.and_then(|mut delete| delete.execute([int(seq)])).map_err(failed)?;
    }
    Ok(count)
}
