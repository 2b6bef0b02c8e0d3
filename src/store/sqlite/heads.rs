//! The writer's cache of the rows that it writes repeatedly: those of active runs and their machines.
//!
//! Only the writer's connection writes, so what it wrote last is what is stored. A row is cached while its run is
//! active, so that memory is bounded by the work in progress; other rows are looked up.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _};

use super::error::{corrupt, failed, uint};
use super::seal;
use super::{cursors, read};
use crate::ids::{Epoch, IdError, MachineId, Revision, RunId};
use crate::model::Cursor;
use crate::store::check::{MachineHead, RunHead, View};
use crate::store::taken::Slots;
use crate::store::{RequestRecord, StoreError};

/// Most plans known to be stored: more than a fleet uses at a time.
pub(super) const PLANS_MAX: usize = 256;

/// The cached row of an active run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunRow {
    pub(super) head: RunHead,
    /// Name of its phase.
    pub(super) phase: &'static str,
    /// Changes since its row was written.
    pub(super) behind: u32,
    /// Number of stored log chunks, if it has been looked up.
    pub(super) chunks: Option<u64>,
}

/// The rows, by id. Dropped as a whole when a transaction is rolled back.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Machines whose run is active.
    pub(super) machines: HashMap<MachineId, MachineHead>,
    pub(super) runs: HashMap<RunId, RunRow>,
    /// Digests of plans that are stored, at most [`PLANS_MAX`]. Forgotten when rows are trimmed, which may take some away.
    pub(super) plans: HashSet<String>,
    /// Reloaded when a transaction is rolled back.
    pub(super) slots: Slots,
}

/// The state that the open transaction sees.
pub(super) struct Stored<'a> {
    pub(super) conn: &'a Connection,
    pub(super) rows: &'a Rows,
    /// No machine is registered below this epoch.
    pub(super) epoch_floor: Epoch,
}

impl View for Stored<'_> {
    fn request(&self, scope: &str, request_id: &str) -> Result<Option<RequestRecord>, StoreError> {
        read::request(self.conn, scope, request_id)
    }

    fn machine(&self, id: &MachineId) -> Result<Option<MachineHead>, StoreError> {
        if let Some(head) = self.rows.machines.get(id) {
            return Ok(Some(*head));
        }
        let sql = "SELECT ordinal, revision, epoch FROM machines WHERE id = ?1";
        let head = |row: &rusqlite::Row<'_>| {
            Ok(MachineHead {
                ordinal: uint(row.get(0)?),
                revision: Revision(uint(row.get(1)?)),
                epoch: Epoch(uint(row.get(2)?)),
            })
        };
        let mut query = self.conn.prepare_cached(sql).map_err(failed)?;
        query.query_row([id.as_str()], head).optional().map_err(failed)
    }

    fn gone(&self, id: &MachineId) -> Result<Option<Epoch>, StoreError> {
        // After a restore, a provider may know machines whose deletion this store has not seen.
        let floor = self.epoch_floor;
        let sql = "SELECT id, epoch, sum FROM gone WHERE id = ?1";
        let mut query = self.conn.prepare_cached(sql).map_err(failed)?;
        let mut rows = query.query([id.as_str()]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else {
            return Ok((floor > Epoch(0)).then_some(floor));
        };
        seal::verify(row, 0..2, 2, corrupt("epoch of deleted machine", id))?;
        Ok(Some(floor.max(Epoch(uint(row.get(1).map_err(failed)?)))))
    }

    fn mac_owner(&self, mac: &str) -> Result<Option<MachineId>, StoreError> {
        mac_owner(self.conn, mac)
    }

    fn run(&self, id: RunId) -> Result<Option<RunHead>, StoreError> {
        if let Some(row) = self.rows.runs.get(&id) {
            return Ok(Some(row.head));
        }
        // The row may be behind the newest change.
        let sql = "SELECT ordinal, max(revision, coalesce(
                (SELECT place >> 20 FROM changes WHERE run = ordinal ORDER BY place DESC LIMIT 1), 0)), active
            FROM runs WHERE id = ?1";
        let head = |row: &rusqlite::Row<'_>| {
            Ok(RunHead {
                ordinal: uint(row.get(0)?),
                revision: Revision(uint(row.get(1)?)),
                active: row.get(2)?,
            })
        };
        let mut query = self.conn.prepare_cached(sql).map_err(failed)?;
        query.query_row([id.to_string()], head).optional().map_err(failed)
    }

    fn active_run(&self, machine: &MachineId) -> Result<Option<RunId>, StoreError> {
        read::active_run(self.conn, machine)
    }

    fn log_chunks(&self, run: RunId) -> Result<Option<u64>, StoreError> {
        if let Some(chunks) = self.rows.runs.get(&run).and_then(|row| row.chunks) {
            return Ok(Some(chunks));
        }
        let sql = "SELECT coalesce((SELECT chunk + 1 FROM logs WHERE run = ordinal ORDER BY chunk DESC LIMIT 1), 0)
            FROM runs WHERE id = ?1";
        let mut query = self.conn.prepare_cached(sql).map_err(failed)?;
        let count = query.query_row([run.to_string()], |row| row.get(0)).optional();
        Ok(count.map_err(failed)?.map(uint))
    }

    fn slots(&self) -> &Slots {
        &self.rows.slots
    }
    fn cursor(&self, receiver: &str) -> Result<Option<Cursor>, StoreError> {
        cursors::load(self.conn, receiver)
    }
}

/// The machine that has a MAC address.
pub(super) fn mac_owner(conn: &Connection, mac: &str) -> Result<Option<MachineId>, StoreError> {
    let sql = "SELECT m.id FROM machine_macs a JOIN machines m ON m.ordinal = a.machine
        WHERE a.mac = ?1";
    let mut query = conn.prepare_cached(sql).map_err(failed)?;
    let id = query.query_row([mac], |row| row.get::<_, String>(0)).optional();
    let Some(id) = id.map_err(failed)? else { return Ok(None) };
    let unreadable = |error: IdError| {
        let message = error.to_string();
        StoreError::Corrupt { kind: "machine", id: id.clone(), message }
    };
    MachineId::parse(&id).map(Some).map_err(unreadable)
}
