//! Rows that are written once: changes, requests and chunks of logs.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::error::{int, ms, place};
use super::heads::Rows;
use super::seal;
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision};
use crate::model::LogChunk;
use crate::store::{Committed, RequestRecord};

/// The effects of a batch.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) committed: Committed,
    /// Rows written: a transaction without any needs no flush.
    pub(super) rows: u64,
}

/// A batch in progress.
pub(super) struct Writing<'a> {
    pub(super) conn: &'a Connection,
    pub(super) rows: &'a mut Rows,
    pub(super) revision: Revision,
    pub(super) at: Timestamp,
    /// Changes up to here may have been trimmed.
    pub(super) compacted: Revision,
    /// Entries numbered so far.
    pub(super) entries: u32,
    pub(super) applied: Applied,
}

/// The columns that the rows of all changes share.
pub(super) struct ChangeRow<'a> {
    pub(super) machine_id: &'a MachineId,
    /// Ordinal of the machine that changed.
    pub(super) machine: Option<u64>,
    /// Ordinal of the run that changed.
    pub(super) run: Option<u64>,
    pub(super) before: Revision,
    pub(super) kind: &'static str,
    pub(super) entries: &'a str,
    pub(super) body: &'a str,
    /// The machine before the change, if no change that is kept has it.
    pub(super) prior: Option<String>,
}

impl Writing<'_> {
    pub(super) fn change(&mut self, row: &ChangeRow<'_>) -> rusqlite::Result<()> {
        let part = u32::try_from(self.applied.committed.changes.len()).unwrap_or(u32::MAX);
        let (place, at, before) = (place(self.revision, part), ms(self.at), int(row.before.0));
        let (machine, run) = (row.machine.map(int), row.run.map(int));
        let machine_id = row.machine_id.as_str();
        let body_sum = seal::of(&[seal::text(row.body)]);
        let prior = row.prior.as_deref();
        let prior_sum = seal::of(&[prior.map_or(seal::number(None), seal::text)]);
        let sum = seal::of(&[
            seal::number(Some(place)),
            seal::number(Some(at)),
            seal::text(machine_id),
            seal::number(machine),
            seal::number(run),
            seal::number(Some(before)),
            seal::text(row.kind),
            seal::number(Some(self.entries.into())),
            seal::text(row.entries),
            seal::number(Some(body_sum)),
        ]);
        let sql = "INSERT INTO changes (place, at, machine_id, machine, run, before, kind, first_entry, entries, body,
            prior, body_sum, prior_sum, sum)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        self.conn.prepare_cached(sql)?.execute(params![
            place,
            at,
            machine_id,
            machine,
            run,
            before,
            row.kind,
            self.entries,
            row.entries,
            row.body,
            prior,
            body_sum,
            prior_sum,
            sum,
        ])?;
        self.applied.rows += 1;
        Ok(())
    }

    pub(super) fn request(&mut self, request: &RequestRecord) -> rusqlite::Result<()> {
        let (at, revision) = (ms(request.at), int(self.revision.0));
        let sum = seal::of(&[
            seal::text(&request.scope),
            seal::text(&request.request_id),
            seal::text(&request.body_digest),
            seal::text(&request.object_id),
            seal::number(Some(at)),
            seal::number(Some(revision)),
        ]);
        let sql =
            "INSERT INTO requests (scope, request_id, body_digest, object_id, at, revision, sum)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.conn.prepare_cached(sql)?.execute(params![
            request.scope,
            request.request_id,
            request.body_digest,
            request.object_id,
            at,
            revision,
            sum,
        ])?;
        self.applied.rows += 1;
        Ok(())
    }

    pub(super) fn log(&mut self, chunk: Arc<LogChunk>) -> rusqlite::Result<()> {
        let run = int(self.ordinal_of(chunk.run_id)?);
        let (offset, at, stream) = (int(chunk.offset), ms(chunk.at), chunk.stream.as_str());
        let sum = seal::of(&[
            seal::number(Some(run)),
            seal::number(Some(offset)),
            seal::number(Some(at)),
            seal::text(&chunk.step),
            seal::number(Some(chunk.attempt.into())),
            seal::text(stream),
            seal::number(Some(chunk.truncated.into())),
            seal::text(&chunk.text),
        ]);
        let sql = "INSERT INTO logs (run, chunk, at, step, attempt, stream, truncated, text, sum)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.conn.prepare_cached(sql)?.execute(params![
            run,
            offset,
            at,
            chunk.step,
            chunk.attempt,
            stream,
            chunk.truncated,
            chunk.text,
            sum,
        ])?;
        if let Some(row) = self.rows.runs.get_mut(&chunk.run_id) {
            row.chunks = Some(chunk.offset + 1);
        }
        self.applied.committed.logs.push(chunk);
        self.applied.rows += 1;
        Ok(())
    }
}
