//! The counters of the store.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::audit;
use super::error::{int, uint};
use super::seal::{self, sealed};
use crate::ids::{Epoch, Revision};
use crate::model::AuditHead;

/// Key of the only row.
const ID: i64 = 1;

/// The counters of the store; written once per transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) machine_ordinal: u64,
    pub(super) run_ordinal: u64,
    /// No machine is registered below this epoch.
    pub(super) epoch_floor: Epoch,
    /// The newest audit entry: its row is where it is stored.
    pub(super) audit: AuditHead,
}

impl Counters {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let audit = audit::head(conn)?;
        let sql = "SELECT id, revision, compacted, machine_ordinal, run_ordinal, epoch_floor, sum FROM meta";
        conn.prepare_cached(sql)?.query_row([], |row| {
            sealed(row, 0..6, 6)?;
            Ok(Self {
                revision: Revision(uint(row.get(1)?)),
                compacted: Revision(uint(row.get(2)?)),
                machine_ordinal: uint(row.get(3)?),
                run_ordinal: uint(row.get(4)?),
                epoch_floor: Epoch(uint(row.get(5)?)),
                audit,
            })
        })
    }

    pub(super) fn save(&self, conn: &Connection) -> rusqlite::Result<()> {
        let numbers = [
            ID,
            int(self.revision.0),
            int(self.compacted.0),
            int(self.machine_ordinal),
            int(self.run_ordinal),
            int(self.epoch_floor.0),
        ];
        let [_, revision, compacted, machine_ordinal, run_ordinal, epoch_floor] = numbers;
        let sum = seal::of(&numbers.map(ValueRef::Integer));
        let sql =
            "UPDATE meta SET revision = ?1, compacted = ?2, machine_ordinal = ?3, run_ordinal = ?4,
            epoch_floor = ?5, sum = ?6";
        let values = [revision, compacted, machine_ordinal, run_ordinal, epoch_floor, sum];
        conn.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}
