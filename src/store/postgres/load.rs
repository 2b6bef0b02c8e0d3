//! The writer's state, loaded when it gets its place and after a transaction that failed.

use std::collections::HashMap;

use super::connection::Conn;
use super::error::{OpenError, corrupt};
use super::heads::Heads;
use super::rows::{audit_head, number, run_id, text};
use crate::clock::Timestamp;
use crate::ids::{BatchId, Epoch, Revision};
use crate::model::AuditHead;
use crate::store::StoreError;
use crate::store::outcomes::Outcomes;
use crate::store::slots::SlotKey;
use crate::store::taken::Slots;

/// The counters of the store; written once for each transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) machine_ordinal: u64,
    pub(super) run_ordinal: u64,
    /// Time of the last commit.
    pub(super) at: Timestamp,
    /// The newest audit entry.
    pub(super) audit: AuditHead,
}

/// The loaded state.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) counters: Counters,
    pub(super) heads: Heads,
    pub(super) outcomes: Outcomes,
}

/// Keys of `brakes` begin with what a row is.
pub(super) const LOCK: &str = "lock/";
pub(super) const STREAK: &str = "streak/";

impl Loaded {
    pub(super) async fn load(conn: &Conn) -> Result<Self, OpenError> {
        let sql = "SELECT revision, compacted, machine_ordinal, run_ordinal, at, epoch_floor, outcomes FROM meta
            WHERE id = 1";
        let rows = conn.query(sql, &[]).await?;
        let Some(meta) = rows.first() else {
            return Err(OpenError::Damaged("the table meta is empty".to_owned()));
        };
        let sql = "SELECT seq, hash FROM audit_anchor UNION ALL
            (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1) ORDER BY seq DESC LIMIT 1";
        let audit = conn.query(sql, &[]).await?;
        let counters = Counters {
            revision: Revision(number(meta, 0)),
            compacted: Revision(number(meta, 1)),
            machine_ordinal: number(meta, 2),
            run_ordinal: number(meta, 3),
            at: Timestamp(number(meta, 4)),
            audit: audit.first().map(audit_head).unwrap_or_default(),
        };
        let floor = Epoch(number(meta, 5));
        let heads = Heads::new(slots(conn).await?, streaks(conn).await?, floor);
        let outcomes = outcomes(meta.get(6), counters.revision);
        Ok(Self { counters, heads, outcomes })
    }
}

fn damaged(error: StoreError) -> OpenError {
    OpenError::Damaged(error.to_string())
}

/// The slots that runs hold.
async fn slots(conn: &Conn) -> Result<Slots, OpenError> {
    let mut slots = Slots::default();
    for row in conn.query("SELECT run, keys FROM slots", &[]).await? {
        let run = run_id(row.get(0)).map_err(damaged)?;
        let keys = text(&row, 1, corrupt("slots of run", run)).map_err(damaged)?;
        slots.put(run, keys.lines().map(SlotKey::new).collect());
    }
    Ok(slots)
}

/// How often plans have failed in a row.
async fn streaks(conn: &Conn) -> Result<HashMap<String, u32>, OpenError> {
    let sql = "SELECT key, body FROM brakes WHERE key >= 'streak/' AND key < 'streak0'";
    let rows = conn.query(sql, &[]).await?;
    let streak = |row: &tokio_postgres::Row| {
        let (key, body): (&str, &[u8]) = (row.get(0), row.get(1));
        // One that cannot be read counts as none.
        let count = std::str::from_utf8(body).ok()?.parse().ok()?;
        Some((key.strip_prefix(STREAK)?.to_owned(), count))
    };
    Ok(rows.iter().filter_map(streak).collect())
}

/// The outcomes of the last transaction's batches: the revision before it, then the id and the revision of each, as
/// numbers of 8 bytes.
fn outcomes(stored: &[u8], head: Revision) -> Outcomes {
    let mut numbers = stored
        .chunks_exact(8)
        .map(|bytes| bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)));
    let mut outcomes = Outcomes::after(numbers.next().map_or(head, Revision));
    while let (Some(id), Some(revision)) = (numbers.next(), numbers.next()) {
        outcomes.note(BatchId(id), Revision(revision));
    }
    outcomes
}

/// The stored form of the outcomes of a transaction, the first after `since`.
pub(super) fn stored_outcomes(since: Revision, named: &[(BatchId, Revision)]) -> Vec<u8> {
    let numbers = named.iter().flat_map(|(id, revision)| [id.0, revision.0]);
    std::iter::once(since.0).chain(numbers).flat_map(u64::to_be_bytes).collect()
}
