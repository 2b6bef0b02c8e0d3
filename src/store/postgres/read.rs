//! Reads of single records, logs, plans and the audit.

use std::sync::Arc;

use super::connection::{Conn, Snapshot};
use super::error::{corrupt, int, named, place_after, revision_of, run_after, unavailable};
use super::load::LOCK;
use super::rows::{
    audit_head, audit_row, cursor_row, log_row, machine_id, machine_row, number, request_row,
    run_row, storable, text,
};
use crate::ids::{MachineId, Revision, RunId};
use crate::model::{
    AuditHead, AuditRow, Cursor, Installation, Lock, LogChunk, Machine, Observed, Run,
};
use crate::store::codec::{decode_installation, decode_lock, decode_machine, decode_observed};
use crate::store::{LogHead, RequestRecord, StoreError};

pub(super) async fn machine(
    conn: &Conn,
    id: &MachineId,
) -> Result<Option<Arc<Machine>>, StoreError> {
    let sql = "SELECT ordinal, revision, body FROM machines WHERE id = $1";
    let row = conn.first(sql, &[&id.as_str()]).await?;
    row.map(|row| machine_row(&row).map(Arc::new)).transpose().map_err(named(id))
}

pub(super) async fn machine_at(
    conn: &Conn,
    id: &MachineId,
    at: Revision,
) -> Result<Option<Arc<Machine>>, StoreError> {
    let snapshot = Snapshot::begin(conn).await?;
    let sql = "SELECT machine, place, body, kind FROM changes
        WHERE machine_id = $1 AND run IS NULL AND place <= $2 ORDER BY place DESC LIMIT 1";
    let row = conn.first(sql, &[&id.as_str(), &place_after(at)]).await?;
    let found = match row {
        Some(row) if row.get::<_, &str>(3) == "deleted" => None,
        Some(row) => {
            let body = text(&row, 2, corrupt("machine", id))?;
            let machine = decode_machine(body, number(&row, 0), revision_of(row.get(1)));
            Some(Arc::new(machine.map_err(corrupt("machine", id))?))
        }
        // No change of it is kept: it is known only if it has not changed since.
        None => machine(conn, id).await?.filter(|machine| machine.revision <= at),
    };
    snapshot.end().await?;
    Ok(found)
}

pub(super) async fn run(conn: &Conn, id: RunId) -> Result<Option<Arc<Run>>, StoreError> {
    let sql = "SELECT ordinal, revision, body FROM runs WHERE id = $1";
    let row = conn.first(sql, &[&id.to_string()]).await?;
    row.map(|row| run_row(&row).map(Arc::new)).transpose().map_err(named(id))
}

pub(super) async fn run_at(
    conn: &Conn,
    id: RunId,
    at: Revision,
) -> Result<Option<Arc<Run>>, StoreError> {
    let sql = "SELECT c.run, c.place, c.body FROM changes c JOIN runs r ON r.ordinal = c.run
        WHERE r.id = $1 AND c.place <= $2 ORDER BY c.place";
    let mut run = None;
    for row in conn.rows(sql, &[&id.to_string(), &place_after(at)]).await? {
        run = Some(changed(&row, run)?);
    }
    Ok(run.map(Arc::new))
}

/// The run after a change of it, from the columns run, place, body, given the run before it.
pub(super) fn changed(row: &tokio_postgres::Row, before: Option<Run>) -> Result<Run, StoreError> {
    let ordinal = number(row, 0);
    let body = text(row, 2, corrupt("change of run", ordinal))?;
    run_after(body, before, ordinal, revision_of(row.get(1)))
}

pub(super) async fn observed(conn: &Conn, id: &MachineId) -> Result<Option<Observed>, StoreError> {
    let row =
        conn.first("SELECT body FROM observed WHERE machine_id = $1", &[&id.as_str()]).await?;
    let of_facts = corrupt("facts of machine", id);
    row.map(|row| decode_observed(text(&row, 0, &of_facts)?).map_err(&of_facts)).transpose()
}

pub(super) async fn installation(
    conn: &Conn,
    id: &MachineId,
) -> Result<Option<Installation>, StoreError> {
    let sql = "SELECT body FROM installations WHERE machine_id = $1";
    let row = conn.first(sql, &[&id.as_str()]).await?;
    let of_installation = corrupt("installation of machine", id);
    row.map(|row| decode_installation(text(&row, 0, &of_installation)?).map_err(&of_installation))
        .transpose()
}

pub(super) async fn mac_owner(conn: &Conn, mac: &str) -> Result<Option<MachineId>, StoreError> {
    let sql =
        "SELECT m.id FROM machine_macs a JOIN machines m ON m.ordinal = a.machine WHERE a.mac = $1";
    let row = conn.first(sql, &[&storable(mac)]).await?;
    row.map(|row| machine_id(row.get(0))).transpose()
}

pub(super) async fn cursor(conn: &Conn, receiver: &str) -> Result<Option<Cursor>, StoreError> {
    let sql = "SELECT owner, next, done FROM cursors WHERE receiver = $1";
    Ok(conn.first(sql, &[&storable(receiver)]).await?.as_ref().map(cursor_row))
}

pub(super) async fn locks(conn: &Conn) -> Result<Vec<Lock>, StoreError> {
    let sql = "SELECT key, body FROM brakes WHERE key >= 'lock/' AND key < 'lock0' ORDER BY key";
    let rows = conn.rows(sql, &[]).await?;
    let lock = |row: &tokio_postgres::Row| {
        let id = row.get::<_, &str>(0).trim_start_matches(LOCK);
        decode_lock(id, text(row, 1, corrupt("lock", id))?).map_err(corrupt("lock", id))
    };
    rows.iter().map(lock).collect()
}

pub(super) async fn plan(conn: &Conn, digest: &str) -> Result<Option<Arc<str>>, StoreError> {
    let sql = "SELECT text FROM plans WHERE digest = $1";
    let row = conn.first(sql, &[&storable(digest)]).await?;
    row.map(|row| text(&row, 0, corrupt("plan", digest)).map(Into::into)).transpose()
}

pub(super) async fn request(
    conn: &Conn,
    scope: &str,
    request_id: &str,
) -> Result<Option<RequestRecord>, StoreError> {
    let sql = "SELECT scope, request_id, body_digest, object_id, at, revision FROM requests
        WHERE request_id = $1 AND scope = $2";
    let row = conn.first(sql, &[&request_id.as_bytes(), &scope.as_bytes()]).await?;
    row.as_ref().map(request_row).transpose()
}

pub(super) async fn logs(
    conn: &Conn,
    run: RunId,
    from: u64,
    limit: usize,
) -> Result<Vec<Arc<LogChunk>>, StoreError> {
    let sql = "SELECT chunk, at, step, attempt, stream, truncated, text FROM logs
        WHERE run = (SELECT ordinal FROM runs WHERE id = $1) AND chunk >= $2 ORDER BY chunk LIMIT $3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = conn.rows(sql, &[&run.to_string(), &int(from), &limit]).await?;
    rows.iter().map(|row| log_row(row, run)).collect()
}

pub(super) async fn log_head(conn: &Conn, run: RunId) -> Result<LogHead, StoreError> {
    let sql = "SELECT step, count(*), sum(octet_length(text))::int8 FROM logs
        WHERE run = (SELECT ordinal FROM runs WHERE id = $1) GROUP BY step";
    let mut head = LogHead::default();
    for row in conn.rows(sql, &[&run.to_string()]).await? {
        head.chunks += number(&row, 1);
        let step = text(&row, 0, corrupt("log of run", run))?;
        head.step_bytes.insert(step.to_owned(), number(&row, 2));
    }
    Ok(head)
}

pub(super) async fn revisions(conn: &Conn) -> Result<(Revision, Revision), StoreError> {
    let row = conn.first("SELECT revision, compacted FROM meta WHERE id = 1", &[]).await?;
    let row = row.ok_or_else(|| unavailable("the table meta is empty"))?;
    Ok((Revision(number(&row, 0)), Revision(number(&row, 1))))
}

pub(super) async fn audit(
    conn: &Conn,
    after: u64,
    limit: usize,
) -> Result<Vec<AuditRow>, StoreError> {
    let sql =
        "SELECT seq, hash, revision, at, body FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = conn.rows(sql, &[&int(after), &limit]).await?;
    rows.iter().map(audit_row).collect()
}

/// Both ends of the audit, in one statement, which sees one revision.
pub(super) async fn audit_ends(conn: &Conn) -> Result<(AuditHead, AuditHead), StoreError> {
    let sql = "SELECT seq, hash FROM audit_anchor UNION ALL (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1)
        ORDER BY seq";
    let rows = conn.rows(sql, &[]).await?;
    let anchor = rows.first().map(audit_head).unwrap_or_default();
    Ok((anchor, rows.last().map_or(anchor, audit_head)))
}
