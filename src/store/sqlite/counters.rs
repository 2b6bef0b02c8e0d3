//! The counters of the store.

use rusqlite::{Connection, params};

use super::error::{int, uint};
use crate::ids::Revision;

/// The counters of the store; written once a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) machine_ordinal: u64,
    pub(super) run_ordinal: u64,
}

impl Counters {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT revision, compacted, machine_ordinal, run_ordinal FROM meta";
        conn.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                revision: Revision(uint(row.get(0)?)),
                compacted: Revision(uint(row.get(1)?)),
                machine_ordinal: uint(row.get(2)?),
                run_ordinal: uint(row.get(3)?),
            })
        })
    }

    pub(super) fn save(&self, conn: &Connection) -> rusqlite::Result<()> {
        let sql =
            "UPDATE meta SET revision = ?1, compacted = ?2, machine_ordinal = ?3, run_ordinal = ?4";
        conn.prepare_cached(sql)?.execute(params![
            int(self.revision.0),
            int(self.compacted.0),
            int(self.machine_ordinal),
            int(self.run_ordinal)
        ])?;
        Ok(())
    }
}
