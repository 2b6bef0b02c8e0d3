//! Reads of single records and their history, logs and plans. Each runs on one connection, in one transaction if it
//! takes more than one statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::error::{corrupt, failed, int, named, place, place_after, revision_of, run_after, uint};
use super::fold::fold;
use super::row::{first, for_each, number, text};
use super::seal;
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};
use crate::model::{
    Change, Entry, HistoryRow, Images, LogChunk, LogStream, Machine, Record as _, Run,
};
use crate::store::codec::{DecodeError, decode_entries, decode_machine};
use crate::store::{LogHead, RequestRecord, StoreError, Subject};

/// A machine from the columns ordinal, revision, body, sum.
pub(super) fn machine_row(row: &Row<'_>) -> Result<Machine, StoreError> {
    let ordinal = number(row, 0)?;
    // Checked first: a value of another type is damage of this record, not a failure of the store.
    seal::verify(row, 0..3, 3, corrupt("machine", ordinal))?;
    let revision = Revision(number(row, 1)?);
    decode_machine(text(row, 2)?, ordinal, revision).map_err(corrupt("machine", ordinal))
}

pub(super) fn machine(
    conn: &Connection,
    id: &MachineId,
) -> Result<Option<Arc<Machine>>, StoreError> {
    let sql = "SELECT ordinal, revision, body, sum FROM machines WHERE id = ?1";
    Ok(first(conn, sql, [id.as_str()], machine_row).map_err(named(id))?.map(Arc::new))
}

pub(super) fn machine_at(
    conn: &Connection,
    id: &MachineId,
    at: Revision,
) -> Result<Option<Arc<Machine>>, StoreError> {
    let sql = "SELECT kind, place, machine, body, body_sum FROM changes
        WHERE machine_id = ?1 AND run IS NULL AND place <= ?2 ORDER BY place DESC LIMIT 1";
    let image = |row: &Row<'_>| {
        if text(row, 0)? == "deleted" {
            return Ok(None);
        }
        let revision = revision_of(row.get(1).map_err(failed)?);
        seal::verify(row, 3..4, 4, corrupt("machine", id))?;
        let machine = decode_machine(text(row, 3)?, number(row, 2)?, revision);
        machine.map(|machine| Some(Arc::new(machine))).map_err(corrupt("machine", id))
    };
    match first(conn, sql, params![id.as_str(), place_after(at)], image)? {
        Some(image) => Ok(image),
        // No change of it is kept: it is known only if it has not changed since.
        None => Ok(machine(conn, id)?.filter(|machine| machine.revision <= at)),
    }
}

pub(super) fn active_run(
    conn: &Connection,
    machine: &MachineId,
) -> Result<Option<RunId>, StoreError> {
    let sql = "SELECT id FROM runs WHERE machine_id = ?1 AND active = 1";
    first(conn, sql, [machine.as_str()], |row| run_id(text(row, 0)?))
}

/// Whether the index has this label of the machine with this ordinal.
pub(super) fn has_label(
    conn: &Connection,
    key: &str,
    value: &str,
    machine: u64,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM machine_labels WHERE key = ?1 AND value = ?2 AND machine = ?3";
    Ok(first(conn, sql, params![key, value, int(machine)], |_| Ok(()))?.is_some())
}

/// Whether the index has this label of the run with this ordinal.
pub(super) fn has_run_label(
    conn: &Connection,
    key: &str,
    value: &str,
    run: u64,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM run_labels WHERE key = ?1 AND value = ?2 AND run = ?3";
    Ok(first(conn, sql, params![key, value, int(run)], |_| Ok(()))?.is_some())
}

/// Whether the index has this MAC address.
pub(super) fn has_mac(conn: &Connection, mac: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM machine_macs WHERE mac = ?1";
    Ok(first(conn, sql, [mac], |_| Ok(()))?.is_some())
}

fn run_id(text: &str) -> Result<RunId, StoreError> {
    let bad = |error: crate::ids::IdError| DecodeError::Invalid(error.to_string());
    RunId::parse(text).map_err(bad).map_err(corrupt("run", text))
}

pub(super) fn plan(conn: &Connection, digest: &str) -> Result<Option<Arc<str>>, StoreError> {
    let sql = "SELECT digest, text, sum FROM plans WHERE digest = ?1";
    first(conn, sql, [digest], |row| {
        seal::verify(row, 0..2, 2, corrupt("plan", digest))?;
        Ok(text(row, 1)?.into())
    })
}

pub(super) fn request(
    conn: &Connection,
    scope: &str,
    request_id: &str,
) -> Result<Option<RequestRecord>, StoreError> {
    let sql = "SELECT scope, request_id, body_digest, object_id, at, revision, sum FROM requests
        WHERE scope = ?1 AND request_id = ?2";
    first(conn, sql, [scope, request_id], |row| {
        seal::verify(row, 0..6, 6, corrupt("request", request_id))?;
        Ok(RequestRecord {
            scope: scope.to_owned(),
            request_id: request_id.to_owned(),
            body_digest: text(row, 2)?.to_owned(),
            object_id: text(row, 3)?.to_owned(),
            at: Timestamp(number(row, 4)?),
            revision: Revision(number(row, 5)?),
        })
    })
}

pub(super) fn history(
    conn: &Connection,
    subject: &Subject,
    after: Option<(Revision, u32)>,
    limit: usize,
) -> Result<Vec<HistoryRow>, StoreError> {
    // The commit of the cursor may have more.
    let from = after.map_or(0, |(revision, _)| place(revision, 0));
    let mut rows = Vec::new();
    if limit == 0 {
        return Ok(rows);
    }
    let each = |row: &Row<'_>| {
        let revision = revision_of(row.get(0).map_err(failed)?);
        seal::verify(row, 0..10, 10, corrupt("change of revision", revision))?;
        let machine_id = machine_id(text(row, 2)?)?;
        let run = row.get::<_, Option<String>>(11).map_err(failed)?;
        let run_id = run.as_deref().map(run_id).transpose()?;
        let at = Timestamp(number(row, 1)?);
        let first_entry: u32 = row.get(7).map_err(failed)?;
        for (index, entry) in (first_entry..).zip(entries(text(row, 8)?, revision)?) {
            if after.is_none_or(|after| (revision, index) > after) && rows.len() < limit {
                let machine_id = machine_id.clone();
                rows.push(HistoryRow { revision, index, at, machine_id, run_id, entry });
            }
        }
        Ok(rows.len() < limit)
    };
    match subject {
        Subject::Machine(id) => {
            let sql =
                "SELECT c.place, c.at, c.machine_id, c.machine, c.run, c.before, c.kind, c.first_entry, c.entries,
                    c.body_sum, c.sum, r.id FROM changes c
                LEFT JOIN runs r ON r.ordinal = c.run
                WHERE c.place IN (
                    SELECT place FROM changes WHERE machine_id = ?1 AND run IS NULL AND place >= ?2
                    UNION ALL
                    SELECT own.place FROM runs JOIN changes own ON own.run = runs.ordinal
                    WHERE runs.machine_id = ?1 AND (runs.active = 1 OR runs.revision >= ?3) AND own.place >= ?2)
                ORDER BY c.place";
            let revision = int(revision_of(from).0);
            for_each(conn, sql, params![id.as_str(), from, revision], each)?;
        }
        Subject::Run(id) => {
            let sql = "SELECT c.place, c.at, c.machine_id, c.machine, c.run, c.before, c.kind, c.first_entry, c.entries,
                    c.body_sum, c.sum, r.id FROM runs r
                JOIN changes c ON c.run = r.ordinal WHERE r.id = ?1 AND c.place >= ?2 ORDER BY c.place";
            for_each(conn, sql, params![id.to_string(), from], each)?;
        }
    }
    Ok(rows)
}

fn machine_id(text: &str) -> Result<MachineId, StoreError> {
    let bad = |error: crate::ids::IdError| DecodeError::Invalid(error.to_string());
    MachineId::parse(text).map_err(bad).map_err(corrupt("machine", text))
}

fn entries(text: &str, revision: Revision) -> Result<Vec<Entry>, StoreError> {
    decode_entries(text).map_err(corrupt("entries of revision", revision))
}

pub(super) fn revisions(conn: &Connection) -> Result<(Revision, Revision), StoreError> {
    let sql = "SELECT revision, compacted FROM meta";
    let revisions = conn.prepare_cached(sql).and_then(|mut query| {
        query.query_row([], |row| Ok((Revision(uint(row.get(0)?)), Revision(uint(row.get(1)?)))))
    });
    revisions.optional().map_err(failed)?.ok_or_else(|| StoreError::Corrupt {
        kind: "table",
        id: "meta".to_owned(),
        message: "it is empty".to_owned(),
    })
}

/// Changes of all objects; called in a transaction.
pub(super) fn changes(
    conn: &Connection,
    after: Revision,
    limit: usize,
) -> Result<Vec<Change>, StoreError> {
    let (_, oldest) = revisions(conn)?;
    if after < oldest {
        return Err(StoreError::Compacted { oldest });
    }
    let mut reader = ChangeReader { conn, machines: BTreeMap::new(), runs: BTreeMap::new() };
    let mut changes: Vec<Change> = Vec::new();
    let sql = "SELECT place, at, machine_id, machine, run, before, kind, first_entry, entries, body_sum, sum,
            body, prior, prior_sum FROM changes
        WHERE place > ?1 ORDER BY place";
    for_each(conn, sql, [place_after(after)], |row| {
        let revision = revision_of(row.get(0).map_err(failed)?);
        let commit_ended = changes.last().is_some_and(|last| last.revision != revision);
        if commit_ended && changes.len() >= limit {
            return Ok(false);
        }
        changes.push(reader.change(row)?);
        Ok(true)
    })?;
    Ok(changes)
}

/// Reads changes in their order, with the records before and after each.
struct ChangeReader<'a> {
    conn: &'a Connection,
    /// Records after their last change that has been read, by ordinal.
    machines: BTreeMap<u64, Arc<Machine>>,
    runs: BTreeMap<u64, Arc<Run>>,
}

impl ChangeReader<'_> {
    /// The change in a row of the columns place, at, machine_id, machine, run, before, kind, first_entry, entries,
    /// body_sum, sum, body, prior, prior_sum.
    fn change(&mut self, row: &Row<'_>) -> Result<Change, StoreError> {
        let place: i64 = row.get(0).map_err(failed)?;
        let revision = revision_of(place);
        seal::verify(row, 0..10, 10, corrupt("change of revision", revision))?;
        seal::verify(row, 11..12, 9, corrupt("change of revision", revision))?;
        let at = Timestamp(number(row, 1)?);
        let ordinal = row.get::<_, Option<i64>>(3).map_err(failed)?;
        let ordinal = ordinal.map_or_else(|| number(row, 4), |machine| Ok(uint(machine)))?;
        let before = Revision(number(row, 5)?);
        let machine = |revision| image(text(row, 11)?, ordinal, revision);
        let mut before_is_gone = false;
        let object = match text(row, 6)? {
            "machine" => {
                let after = machine(revision)?;
                let mut known = self.machines.insert(ordinal, after.clone());
                if known.is_none() && before > Revision(0) {
                    seal::verify(row, 12..13, 13, corrupt("change of revision", revision))?;
                    let prior = row.get::<_, Option<String>>(12).map_err(failed)?;
                    known = match prior {
                        Some(prior) => Some(image(&prior, ordinal, before)?),
                        None => self.machine_after(text(row, 2)?, before)?,
                    };
                }
                before_is_gone = before > Revision(0) && known.is_none();
                Machine::object(Images { before: known, after: Some(after) })
            }
            "deleted" => {
                self.machines.remove(&ordinal);
                Machine::object(Images { before: Some(machine(before)?), after: None })
            }
            "run" => {
                let known = match self.runs.remove(&ordinal) {
                    None if before > Revision(0) => {
                        fold(self.conn, ordinal, place - 1)?.map(Arc::new)
                    }
                    known => known,
                };
                let after =
                    run_after(text(row, 11)?, known.as_deref().cloned(), ordinal, revision)?;
                let after = Arc::new(after);
                self.runs.insert(ordinal, after.clone());
                Run::object(Images { before: known, after: Some(after) })
            }
            other => {
                let error = DecodeError::Unknown { what: "kind of change", name: other.to_owned() };
                return Err(corrupt("change of revision", revision)(error));
            }
        };
        let entries = entries(text(row, 8)?, revision)?.into();
        Ok(Change { revision, at, object, before_is_gone, entries })
    }

    /// The machine after its change at `revision`, if that change is kept.
    fn machine_after(
        &self,
        id: &str,
        revision: Revision,
    ) -> Result<Option<Arc<Machine>>, StoreError> {
        let sql = "SELECT machine, body, body_sum FROM changes
            WHERE machine_id = ?1 AND run IS NULL AND place BETWEEN ?2 AND ?3 AND kind = 'machine'";
        let places = params![id, place(revision, 0), place_after(revision)];
        first(self.conn, sql, places, |row| {
            seal::verify(row, 1..2, 2, corrupt("change of revision", revision))?;
            image(text(row, 1)?, number(row, 0)?, revision)
        })
    }
}

/// The machine of an image in a change.
fn image(body: &str, ordinal: u64, revision: Revision) -> Result<Arc<Machine>, StoreError> {
    let machine = decode_machine(body, ordinal, revision);
    machine.map(Arc::new).map_err(corrupt("change of machine", ordinal))
}

pub(super) fn logs(
    conn: &Connection,
    run: RunId,
    from: u64,
    limit: usize,
) -> Result<Vec<Arc<LogChunk>>, StoreError> {
    let sql = "SELECT run, chunk, at, step, attempt, stream, truncated, text, sum FROM logs
        WHERE run = (SELECT ordinal FROM runs WHERE id = ?1) AND chunk >= ?2 ORDER BY chunk LIMIT ?3";
    let mut chunks = Vec::new();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    for_each(conn, sql, params![run.to_string(), int(from), limit], |row| {
        seal::verify(row, 0..8, 8, corrupt("log of run", run))?;
        let stream = text(row, 5)?;
        let unknown = || DecodeError::Unknown { what: "log stream", name: stream.to_owned() };
        chunks.push(Arc::new(LogChunk {
            run_id: run,
            offset: number(row, 1)?,
            at: Timestamp(number(row, 2)?),
            step: text(row, 3)?.to_owned(),
            attempt: row.get(4).map_err(failed)?,
            stream: LogStream::parse(stream)
                .ok_or_else(unknown)
                .map_err(corrupt("log of run", run))?,
            text: text(row, 7)?.to_owned(),
            truncated: row.get(6).map_err(failed)?,
        }));
        Ok(true)
    })?;
    Ok(chunks)
}

pub(super) fn log_head(conn: &Connection, run: RunId) -> Result<LogHead, StoreError> {
    let sql = "SELECT step, count(*), sum(octet_length(text)) FROM logs
        WHERE run = (SELECT ordinal FROM runs WHERE id = ?1) GROUP BY step";
    let mut head = LogHead::default();
    for_each(conn, sql, [run.to_string()], |row| {
        head.chunks += number(row, 1)?;
        head.step_bytes.insert(text(row, 0)?.to_owned(), number(row, 2)?);
        Ok(true)
    })?;
    Ok(head)
}
