//! The writer's state that is loaded when the store is opened.

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::counters::Counters;
use super::error::{int, uint};
use super::seal::{self, sealed};
use crate::clock::Timestamp;
use crate::ids::{BatchId, Revision, RunId};
use crate::store::outcomes::Outcomes;
use crate::store::slots::SlotKey;
use crate::store::taken::Slots;

/// `format` of the table `meta`, which has never changed: the version of the schema is sufficient.
const FORMAT: i64 = 1;

/// The loaded state.
pub(super) struct Loaded {
    pub(super) counters: Counters,
    /// Time of the last commit.
    pub(super) at: Timestamp,
    pub(super) slots: Slots,
    pub(super) outcomes: Outcomes,
}

impl Loaded {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let counters = Counters::load(conn)?;
        Ok(Self {
            counters,
            at: last_at(conn)?,
            slots: load_slots(conn)?,
            outcomes: load_outcomes(conn, counters.revision)?,
        })
    }
}

/// Time of the newest change; zero if there is none.
fn last_at(conn: &Connection) -> rusqlite::Result<Timestamp> {
    let sql = "SELECT at FROM changes ORDER BY place DESC LIMIT 1";
    let at = conn.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(at.map_or(Timestamp(0), |at| Timestamp(uint(at))))
}

/// The slots that runs hold.
pub(super) fn load_slots(conn: &Connection) -> rusqlite::Result<Slots> {
    let mut slots = Slots::default();
    let mut query = conn.prepare_cached("SELECT run, id, keys, sum FROM slots")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        sealed(row, 0..3, 3)?;
        let id: String = row.get(1)?;
        let keys: String = row.get(2)?;
        let kind = Type::Text;
        let id = RunId::parse(&id)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error)))?;
        slots.put(id, keys.lines().map(SlotKey::new).collect());
    }
    Ok(slots)
}

/// The outcomes of the last transaction's batches, the only ones that an earlier process may not know.
fn load_outcomes(conn: &Connection, head: Revision) -> rusqlite::Result<Outcomes> {
    let stored: Vec<u8> =
        conn.query_row("SELECT format, outcomes, outcomes_sum FROM meta", [], |row| {
            sealed(row, 0..2, 2)?;
            row.get(1)
        })?;
    let mut numbers = stored
        .chunks_exact(8)
        .map(|bytes| bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)));
    let mut outcomes = Outcomes::after(numbers.next().map_or(head, Revision));
    while let (Some(id), Some(revision)) = (numbers.next(), numbers.next()) {
        outcomes.note(BatchId(id), Revision(revision));
    }
    Ok(outcomes)
}

/// Stores the outcomes of the open transaction's batches, the first after `since`.
pub(super) fn save_outcomes(
    conn: &Connection,
    since: Revision,
    named: &[(BatchId, Revision)],
) -> rusqlite::Result<()> {
    if named.is_empty() {
        // No batch is missing after the stored ones.
        return Ok(());
    }
    let numbers = named.iter().flat_map(|(id, revision)| [id.0, revision.0]);
    let stored: Vec<u8> =
        std::iter::once(since.0).chain(numbers).flat_map(u64::to_be_bytes).collect();
    let sum = seal::of(&[ValueRef::Integer(FORMAT), ValueRef::Blob(&stored)]);
    let sql = "UPDATE meta SET outcomes = ?1, outcomes_sum = ?2";
    conn.prepare_cached(sql)?.execute(params![stored, sum])?;
    Ok(())
}

/// Writes what a run holds after a batch.
pub(super) fn save_slots(
    conn: &Connection,
    ordinal: u64,
    run: RunId,
    keys: &[SlotKey],
) -> rusqlite::Result<()> {
    let run_ordinal = int(ordinal);
    if keys.is_empty() {
        conn.prepare_cached("DELETE FROM slots WHERE run = ?1")?.execute([run_ordinal])?;
        return Ok(());
    }
    let keys: Vec<_> = keys.iter().map(SlotKey::as_str).collect();
    let (id, keys) = (run.to_string(), keys.join("\n"));
    let sum = seal::of(&[seal::number(Some(run_ordinal)), seal::text(&id), seal::text(&keys)]);
    let sql = "INSERT OR REPLACE INTO slots (run, id, keys, sum) VALUES (?1, ?2, ?3, ?4)";
    let values = params![run_ordinal, id, keys, sum];
    conn.prepare_cached(sql)?.execute(values)?;
    Ok(())
}
