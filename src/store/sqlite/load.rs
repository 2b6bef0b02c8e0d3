//! What the writer knows of the store without asking it: loaded when it is opened.

use rusqlite::{Connection, OptionalExtension as _};

use super::counters::Counters;
use super::error::{int, uint};
use crate::clock::Timestamp;
use crate::ids::{BatchId, Revision, RunId};
use crate::store::outcomes::Outcomes;
use crate::store::slots::SlotKey;
use crate::store::taken::Slots;

/// What is loaded.
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
    let mut query = conn.prepare_cached("SELECT id, keys FROM slots")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let keys: String = row.get(1)?;
        let kind = rusqlite::types::Type::Text;
        let id = RunId::parse(&id)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error)))?;
        slots.put(id, keys.lines().map(SlotKey::new).collect());
    }
    Ok(slots)
}

/// What came of the batches of the last transaction, of which alone an earlier process may not know it.
fn load_outcomes(conn: &Connection, head: Revision) -> rusqlite::Result<Outcomes> {
    let stored: Vec<u8> = conn.query_row("SELECT outcomes FROM meta", [], |row| row.get(0))?;
    let mut numbers = stored
        .chunks_exact(8)
        .map(|bytes| bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)));
    let mut outcomes = Outcomes::after(numbers.next().map_or(head, Revision));
    while let (Some(id), Some(revision)) = (numbers.next(), numbers.next()) {
        outcomes.note(BatchId(id), Revision(revision));
    }
    Ok(outcomes)
}

/// Keeps what comes of the batches of the open transaction, the first after `since`.
pub(super) fn save_outcomes(
    conn: &Connection,
    since: Revision,
    named: &[(BatchId, Revision)],
) -> rusqlite::Result<()> {
    if named.is_empty() {
        // It is still true that no batch is missing after what is stored.
        return Ok(());
    }
    let numbers = named.iter().flat_map(|(id, revision)| [id.0, revision.0]);
    let stored: Vec<u8> =
        std::iter::once(since.0).chain(numbers).flat_map(u64::to_be_bytes).collect();
    conn.prepare_cached("UPDATE meta SET outcomes = ?1")?.execute([stored])?;
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
    let sql = "INSERT OR REPLACE INTO slots (run, id, keys) VALUES (?1, ?2, ?3)";
    let values = rusqlite::params![run_ordinal, run.to_string(), keys.join("\n")];
    conn.prepare_cached(sql)?.execute(values)?;
    Ok(())
}
