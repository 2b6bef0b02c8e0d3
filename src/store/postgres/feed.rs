//! The history of an object, and the changes of all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Row;

use super::connection::{Conn, Snapshot};
use super::error::{corrupt, place, place_after, revision_of, run_after};
use super::read::{changed, revisions};
use super::rows::{machine_id, number, run_id, text};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::{Change, Entry, HistoryRow, Images, Machine, Record as _, Run};
use crate::store::codec::{DecodeError, decode_entries, decode_machine};
use crate::store::{StoreError, Subject};

/// Most changes of an object's history that are read at a time.
const ROWS: usize = 500;

fn entries(row: &Row, column: usize, revision: Revision) -> Result<Vec<Entry>, StoreError> {
    let of_entries = corrupt("entries of revision", revision);
    decode_entries(text(row, column, &of_entries)?).map_err(of_entries)
}

pub(super) async fn history(
    conn: &Conn,
    subject: &Subject,
    after: Option<(Revision, u32)>,
    limit: usize,
) -> Result<Vec<HistoryRow>, StoreError> {
    // The commit of the cursor may have more.
    let mut from = after.map_or(0, |(revision, _)| place(revision, 0));
    let (sql, id) = match subject {
        Subject::Machine(id) => (
            "SELECT c.place, c.at, c.machine_id, c.first_entry, c.entries, r.id FROM changes c
            LEFT JOIN runs r ON r.ordinal = c.run
            WHERE c.place IN (
                (SELECT place FROM changes WHERE machine_id = $1 AND run IS NULL AND place >= $2
                    ORDER BY place LIMIT $3)
                UNION ALL
                (SELECT own.place FROM runs JOIN changes own ON own.run = runs.ordinal
                    WHERE runs.machine_id = $1 AND (runs.active OR runs.revision >= $2 >> 20) AND own.place >= $2
                    ORDER BY own.place LIMIT $3))
            ORDER BY c.place LIMIT $3",
            id.to_string(),
        ),
        Subject::Run(id) => (
            "SELECT c.place, c.at, c.machine_id, c.first_entry, c.entries, r.id FROM runs r
            JOIN changes c ON c.run = r.ordinal WHERE r.id = $1 AND c.place >= $2 ORDER BY c.place LIMIT $3",
            id.to_string(),
        ),
    };
    let mut found = Vec::new();
    let most = limit.clamp(1, ROWS);
    let snapshot = Snapshot::begin(conn).await?;
    while found.len() < limit {
        let rows = conn.rows(sql, &[&id, &from, &i64::try_from(most).unwrap_or(i64::MAX)]).await?;
        for row in &rows {
            let place: i64 = row.get(0);
            let revision = revision_of(place);
            let machine_id = machine_id(row.get(2))?;
            let run_id = row.get::<_, Option<&str>>(5).map(run_id).transpose()?;
            let at = Timestamp(number(row, 1));
            let first = u32::try_from(number(row, 3)).unwrap_or(u32::MAX);
            for (index, entry) in (first..).zip(entries(row, 4, revision)?) {
                if after.is_none_or(|after| (revision, index) > after) && found.len() < limit {
                    let machine_id = machine_id.clone();
                    found.push(HistoryRow { revision, index, at, machine_id, run_id, entry });
                }
            }
            from = place + 1;
        }
        if rows.len() < most {
            break;
        }
    }
    snapshot.end().await?;
    Ok(found)
}

/// Changes of all objects after a revision.
pub(super) async fn changes(
    conn: &Conn,
    after: Revision,
    limit: usize,
) -> Result<Vec<Change>, StoreError> {
    let snapshot = Snapshot::begin(conn).await?;
    let (_, oldest) = revisions(conn).await?;
    if after < oldest {
        snapshot.end().await?;
        return Err(StoreError::Compacted { oldest });
    }
    // Whole commits: up to the end of the one with the last change that is wanted.
    let sql = "SELECT place, at, machine_id, machine, run, before, kind, entries, body, prior FROM changes
        WHERE place > $1 AND place <= coalesce((
            SELECT place | 1048575 FROM changes WHERE place > $1 ORDER BY place LIMIT 1 OFFSET $2), 9223372036854775807)
        ORDER BY place";
    let skipped = i64::try_from(limit.max(1) - 1).unwrap_or(i64::MAX);
    let rows = conn.rows(sql, &[&place_after(after), &skipped]).await?;
    let mut known = Known::look_up(conn, &rows, after).await?;
    snapshot.end().await?;
    rows.iter().map(|row| known.change(row)).collect()
}

/// Records as of the last change that has been read.
#[derive(Debug, Default)]
struct Known {
    machines: BTreeMap<u64, Arc<Machine>>,
    runs: BTreeMap<u64, Arc<Run>>,
    /// Machines of which a change has been read.
    read: BTreeSet<u64>,
}

impl Known {
    /// The records before the first change of each in these rows, which come after a revision.
    async fn look_up(conn: &Conn, rows: &[Row], after: Revision) -> Result<Self, StoreError> {
        let mut known = Self::default();
        let (mut ids, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut runs: BTreeMap<u64, bool> = BTreeMap::new();
        let mut machines = BTreeSet::new();
        for row in rows {
            let before = Revision(number(row, 5));
            if let Some(run) = row.get::<_, Option<i64>>(4) {
                runs.entry(u64::try_from(run).unwrap_or_default()).or_insert(before > Revision(0));
                continue;
            }
            let machine = number(row, 3);
            if !machines.insert(machine) {
                continue;
            }
            let is_deleted = row.get::<_, &str>(6) == "deleted";
            if before > Revision(0) && !is_deleted && row.get::<_, Option<&[u8]>>(9).is_none() {
                ids.push(row.get::<_, &str>(2));
                first.push(place(before, 0));
                last.push(place_after(before));
            }
        }
        if !ids.is_empty() {
            let sql = "SELECT c.machine, c.place, c.body
                FROM unnest($1::text[], $2::int8[], $3::int8[]) AS w(id, first, last)
                JOIN changes c ON c.machine_id = w.id AND c.run IS NULL AND c.place BETWEEN w.first AND w.last
                WHERE c.kind = 'machine'";
            for row in &conn.rows(sql, &[&ids, &first, &last]).await? {
                let machine = image(row, 2, number(row, 0), revision_of(row.get(1)))?;
                known.machines.insert(machine.ordinal, machine);
            }
        }
        let runs: Vec<i64> = runs
            .into_iter()
            .filter(|(_, has_before)| *has_before)
            .map(|(run, _)| i64::try_from(run).unwrap_or(i64::MAX))
            .collect();
        if !runs.is_empty() {
            let sql = "SELECT run, place, body FROM changes WHERE run = ANY($1) AND place <= $2 ORDER BY run, place";
            let mut folded: BTreeMap<u64, Run> = BTreeMap::new();
            for row in &conn.rows(sql, &[&runs, &place_after(after)]).await? {
                let before = folded.remove(&number(row, 0));
                let run = changed(row, before)?;
                folded.insert(run.ordinal, run);
            }
            known.runs.extend(folded.into_iter().map(|(ordinal, run)| (ordinal, Arc::new(run))));
        }
        Ok(known)
    }

    /// The change in a row of the columns place, at, machine_id, machine, run, before, kind, entries, body, prior.
    fn change(&mut self, row: &Row) -> Result<Change, StoreError> {
        let revision = revision_of(row.get(0));
        let at = Timestamp(number(row, 1));
        let before = Revision(number(row, 5));
        let mut before_is_gone = false;
        let object = match row.get::<_, &str>(6) {
            "machine" => {
                let ordinal = number(row, 3);
                let after = image(row, 8, ordinal, revision)?;
                let mut known = self.machines.insert(ordinal, after.clone());
                if self.read.insert(ordinal)
                    && row.get::<_, Option<&[u8]>>(9).is_some()
                    && before > Revision(0)
                {
                    known = Some(image(row, 9, ordinal, before)?);
                }
                let known = known.filter(|_| before > Revision(0));
                before_is_gone = before > Revision(0) && known.is_none();
                Machine::object(Images { before: known, after: Some(after) })
            }
            "deleted" => {
                let ordinal = number(row, 3);
                self.machines.remove(&ordinal);
                let machine = image(row, 8, ordinal, before)?;
                Machine::object(Images { before: Some(machine), after: None })
            }
            "run" => {
                let ordinal = number(row, 4);
                let known = self.runs.remove(&ordinal);
                let body = text(row, 8, corrupt("change of run", ordinal))?;
                let after = run_after(body, known.as_deref().cloned(), ordinal, revision)?;
                let after = Arc::new(after);
                self.runs.insert(ordinal, after.clone());
                Run::object(Images { before: known, after: Some(after) })
            }
            other => {
                let error = DecodeError::Unknown { what: "kind of change", name: other.to_owned() };
                return Err(corrupt("change of revision", revision)(error));
            }
        };
        let entries = entries(row, 7, revision)?.into();
        Ok(Change { revision, at, object, before_is_gone, entries })
    }
}

/// The machine of an image in a change.
fn image(
    row: &Row,
    column: usize,
    ordinal: u64,
    revision: Revision,
) -> Result<Arc<Machine>, StoreError> {
    let of_machine = corrupt("change of machine", ordinal);
    let machine = decode_machine(text(row, column, &of_machine)?, ordinal, revision);
    machine.map(Arc::new).map_err(of_machine)
}
