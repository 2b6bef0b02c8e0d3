//! What the retention policy deletes: found by reading, then deleted in one transaction of the writer. Nothing is written
//! in between, since only the writer writes.

use super::connection::Conn;
use super::error::{int, ms, revision_of};
use super::load::Counters;
use super::rows::{audit_head, number};
use super::statements::Stmt;
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::AuditHead;
use crate::store::{Retention, StoreError, TRIM_ROWS_MAX, Trimmed};

const MOST: i64 = TRIM_ROWS_MAX as i64;

/// What is to be deleted.
#[derive(Debug, Default)]
pub(super) struct Doomed {
    /// Changes of machines.
    changes: Vec<i64>,
    runs: Vec<i64>,
    digests: Vec<String>,
    /// The last audit entry that goes.
    audit: Option<AuditHead>,
    requests_before: i64,
    has_requests: bool,
    /// Readers before this revision must list again.
    compacted: Revision,
}

/// The place of the oldest change of a machine that is kept if `most` are; `None` if there are fewer. Counts that many
/// entries of an index.
pub(super) async fn oldest_kept(conn: &Conn, most: u64) -> Result<Option<i64>, StoreError> {
    let Some(skipped) = most.checked_sub(1) else { return Ok(Some(i64::MAX)) };
    let sql = "SELECT place FROM changes WHERE run IS NULL ORDER BY place DESC LIMIT 1 OFFSET $1";
    Ok(conn.first(sql, &[&int(skipped)]).await?.map(|row| row.get(0)))
}

/// Finds what is to be deleted. Changes of machines before `oldest_kept` are too many.
pub(super) async fn find(
    conn: &Conn,
    counters: &Counters,
    retention: Retention,
    oldest_kept: i64,
) -> Result<Doomed, StoreError> {
    let mut doomed = Doomed {
        compacted: counters.compacted,
        requests_before: ms(retention.requests_before),
        ..Doomed::default()
    };
    // Changes of machines are deleted strictly oldest first: the rest still gives the true state of a machine at a
    // revision.
    let sql = "SELECT place, at FROM changes WHERE run IS NULL ORDER BY place LIMIT $1";
    for row in conn.rows(sql, &[&MOST]).await? {
        let place: i64 = row.get(0);
        if Timestamp(number(&row, 1)) >= retention.ended_before && place >= oldest_kept {
            break;
        }
        doomed.changes.push(place);
        doomed.compacted = doomed.compacted.max(revision_of(place));
    }
    let ended = conn.first("SELECT count(*) FROM runs WHERE NOT active", &[]).await?;
    let ended = ended.map_or(0, |row| number(&row, 0));
    let mut surplus = ended.saturating_sub(retention.ended_runs_max);
    let sql = "SELECT ordinal, revision, digest, ended_at FROM runs WHERE NOT active
        ORDER BY ended_at, ordinal LIMIT $1";
    for row in conn.rows(sql, &[&MOST]).await? {
        if Timestamp(number(&row, 3)) >= retention.ended_before && surplus == 0 {
            break;
        }
        surplus = surplus.saturating_sub(1);
        doomed.runs.push(row.get(0));
        doomed.digests.push(row.get(2));
        doomed.compacted = doomed.compacted.max(Revision(number(&row, 1)));
    }
    let surplus = counters.audit.seq.saturating_sub(retention.audit_max);
    let sql = "SELECT seq, hash, at FROM audit ORDER BY seq LIMIT $1";
    for row in conn.rows(sql, &[&MOST]).await? {
        let head = audit_head(&row);
        if head.seq > surplus && Timestamp(number(&row, 2)) >= retention.audit_before {
            break;
        }
        doomed.audit = Some(head);
    }
    let sql = "SELECT 1 FROM requests WHERE at < $1 LIMIT 1";
    doomed.has_requests = conn.first(sql, &[&doomed.requests_before]).await?.is_some();
    Ok(doomed)
}

impl Doomed {
    /// Whether there is nothing to delete.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.runs.is_empty()
            && self.audit.is_none()
            && !self.has_requests
    }

    /// Readers before this revision must list again.
    pub(super) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The statements that delete it. Their first rows are counted by [`Self::trimmed`].
    pub(super) fn statements(&self) -> Vec<Stmt<'_>> {
        let mut all = vec![
            Stmt::new("DELETE FROM changes WHERE run = ANY($1)").with(&self.runs),
            Stmt::new("DELETE FROM runs WHERE ordinal = ANY($1)").with(&self.runs),
            Stmt::new(
                "DELETE FROM requests q USING (
                    SELECT scope, request_id FROM requests o WHERE o.at < $1
                        AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = o.object_id AND r.active)
                    ORDER BY o.at, o.scope, o.request_id LIMIT $2) AS old
                WHERE q.request_id = old.request_id AND q.scope = old.scope",
            )
            .with(self.requests_before)
            .with(MOST),
            Stmt::new("DELETE FROM audit WHERE seq <= $1")
                .with(self.audit.map_or(0, |head| int(head.seq))),
            // The next change of a machine must have its previous state.
            Stmt::new(
                "UPDATE changes AS n SET prior = o.body
                FROM (SELECT DISTINCT ON (machine_id) machine_id, place, body FROM changes WHERE place = ANY($1)
                    ORDER BY machine_id, place DESC) AS o
                WHERE n.kind = 'machine' AND n.before = o.place >> 20
                    AND n.place = (SELECT c.place FROM changes c
                        WHERE c.machine_id = o.machine_id AND c.run IS NULL AND c.place > o.place
                        ORDER BY c.place LIMIT 1)",
            )
            .with(&self.changes),
            Stmt::new("DELETE FROM changes WHERE place = ANY($1)").with(&self.changes),
            Stmt::new("DELETE FROM logs WHERE run = ANY($1)").with(&self.runs),
            Stmt::new("DELETE FROM run_labels WHERE run = ANY($1)").with(&self.runs),
            Stmt::new(
                "DELETE FROM plans p WHERE p.digest = ANY($1)
                    AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.digest = p.digest)",
            )
            .with(&self.digests),
        ];
        if let Some(head) = &self.audit {
            let sql = "UPDATE audit_anchor SET seq = $1, hash = $2 WHERE id = 1";
            all.push(Stmt::new(sql).with(int(head.seq)).with(&head.hash.0[..]));
        }
        all
    }

    /// What was deleted, from the rows of the statements.
    pub(super) fn trimmed(rows: &[u64]) -> Trimmed {
        let rows = |place: usize| rows.get(place).copied().unwrap_or_default();
        Trimmed { changes: rows(0) + rows(5), runs: rows(1), requests: rows(2), audit: rows(3) }
    }
}
