//! Pages of lists, and counts. Read in one transaction, so that a page and its revision are consistent.
//!
//! As in SQLite, at most one condition is given to the database, one that an index serves in the order of the list; all
//! others are tested on the records, so that the rows examined can be counted and bounded.

use std::borrow::Cow;
use std::sync::Arc;

use tokio_postgres::Row;

use super::connection::{Conn, Param, Snapshot};
use super::error::int;
use super::read::revisions;
use super::rows::{machine_row, number, run_row, storable};
use crate::ids::{MachineId, natural_key};
use crate::model::filter::Filter;
use crate::model::{Machine, Record, Run};
use crate::store::page::Filling;
use crate::store::{Order, Page, Position, Query, SCAN_ROWS_MAX, StoreError, Unreadable};

/// Index rows that are counted at first to find the most selective condition.
const FEW_ROWS: usize = 100;
/// Rows that are read at a time if a page needs more than it returns.
const ROWS: usize = 1_000;

/// A condition that an index serves, in the order of ordinals.
#[derive(Debug, Clone, Copy)]
enum Condition<'a> {
    /// A column has a value that at most one row has.
    Unique { column: &'static str, value: &'a str },
    /// A column has a value.
    Column { column: &'static str, value: &'a str },
    /// A machine has a label, or the machine of a run had it.
    Label { key: &'a str, value: &'a str },
    /// A run is active.
    Active,
}

/// What differs between the two lists.
#[derive(Debug)]
struct Table {
    name: &'static str,
    /// The sort key in the order of ids.
    sort: &'static str,
    /// The column of the machine's id.
    machine_id: &'static str,
    labels: &'static str,
    /// Column of `labels`.
    label_of: &'static str,
}

const MACHINES: Table = Table {
    name: "machines",
    sort: "sort_key",
    machine_id: "id",
    labels: "machine_labels",
    label_of: "machine",
};

const RUNS: Table = Table {
    name: "runs",
    sort: "id",
    machine_id: "machine_id",
    labels: "run_labels",
    label_of: "run",
};

impl Condition<'_> {
    /// The rows to read, with `t` for the table of the objects; their condition; and their ordinal.
    fn sql(&self, table: &Table) -> (String, String, String) {
        let Table { name, labels, label_of, .. } = table;
        let ordinal = "t.ordinal".to_owned();
        match self {
            Self::Unique { column, .. } | Self::Column { column, .. } => {
                (format!("{name} t"), format!("t.{column} = $1"), ordinal)
            }
            Self::Label { .. } => (
                format!("{labels} l JOIN {name} t ON t.ordinal = l.{label_of}"),
                "l.key = $1 AND l.value = $2".to_owned(),
                format!("l.{label_of}"),
            ),
            Self::Active => (format!("{name} t"), "t.active".to_owned(), ordinal),
        }
    }

    /// How many rows meet it, counted up to `max`.
    async fn count(&self, conn: &Conn, table: &Table, max: usize) -> Result<usize, StoreError> {
        let (from, wanted) = match self {
            Self::Label { .. } => (table.labels.to_owned(), "key = $1 AND value = $2".to_owned()),
            Self::Unique { .. } | Self::Column { .. } | Self::Active => {
                let (from, wanted, _) = self.sql(table);
                (from, wanted)
            }
        };
        let values = condition_values(*self);
        let sql =
            format!("SELECT count(*) FROM (SELECT 1 FROM {from} WHERE {wanted} LIMIT {max}) s");
        let params: Vec<Param<'_>> = values.iter().map(|value| value as Param<'_>).collect();
        let row = conn.first(&sql, &params).await?;
        Ok(row.map_or(0, |row| usize::try_from(number(&row, 0)).unwrap_or(usize::MAX)))
    }
}

/// The condition of a field that the filter pins, if it does.
fn column<'a>(filter: &'a Filter, field: &str, column: &'static str) -> Option<Condition<'a>> {
    filter.pinned(field).map(|value| Condition::Column { column, value })
}

fn unique<'a>(filter: &'a Filter, field: &str) -> Option<Condition<'a>> {
    filter.pinned(field).map(|value| Condition::Unique { column: "id", value })
}

fn of_machines(query: &Query) -> Vec<Condition<'_>> {
    let filter = &query.filter;
    let labels = filter.pinned_labels().map(|(key, value)| Condition::Label { key, value });
    unique(filter, "machine_id")
        .into_iter()
        .chain(labels)
        .chain(column(filter, "phase", "phase"))
        .chain(column(filter, "provider", "provider"))
        .collect()
}

fn of_runs(query: &Query) -> Vec<Condition<'_>> {
    let filter = &query.filter;
    let labels = filter.pinned_labels().map(|(key, value)| Condition::Label { key, value });
    unique(filter, "run_id")
        .into_iter()
        .chain(column(filter, "machine_id", "machine_id"))
        .chain(labels)
        .chain(query.active_only.then_some(Condition::Active))
        .chain(column(filter, "phase", "phase"))
        .chain(column(filter, "plan_id", "plan"))
        .chain(column(filter, "type", "type"))
        .collect()
}

/// The most selective of the conditions that every match meets, with the number of its rows as far as counted. If
/// several have more rows than a page examines, the first will do.
async fn narrowest<'a>(
    conn: &Conn,
    table: &Table,
    conditions: &[Condition<'a>],
    counted: bool,
) -> Result<Option<(Condition<'a>, usize)>, StoreError> {
    match conditions {
        [] => return Ok(None),
        [first @ Condition::Unique { .. }, ..] => return Ok(Some((*first, 1))),
        [only] if !counted => return Ok(Some((*only, usize::MAX))),
        _ => {}
    }
    let mut best = None;
    for max in [FEW_ROWS, SCAN_ROWS_MAX + 1] {
        for condition in conditions {
            let count = condition.count(conn, table, max).await?;
            if best.is_none_or(|(_, least)| count < least) {
                best = Some((*condition, count));
            }
        }
        if best.is_some_and(|(_, least)| least < max) {
            break;
        }
        best = None;
    }
    Ok(best.or_else(|| conditions.first().map(|first| (*first, usize::MAX))))
}

/// The rows of a list, in its order, read a few at a time.
struct Rows<'a> {
    conn: &'a Conn,
    sql: String,
    values: Vec<Cow<'a, str>>,
    /// Where to continue.
    after: Option<After>,
    by_id: bool,
    rows: std::vec::IntoIter<Row>,
    /// Rows to read next.
    next: usize,
    ended: bool,
}

#[derive(Debug, Clone)]
enum After {
    Ordinal(i64),
    Key(String),
}

impl<'a> Rows<'a> {
    /// The rows that meet the narrowest condition. `first` of them are likely to be enough.
    async fn begin(
        conn: &'a Conn,
        table: &Table,
        query: &'a Query,
        conditions: Vec<Condition<'a>>,
        first: usize,
    ) -> Result<Self, StoreError> {
        let by_id = query.order == Order::Id;
        let found = narrowest(conn, table, &conditions, by_id).await?;
        // Few enough rows to sort them by id, so that the index of the condition serves nevertheless.
        let sorted = by_id && found.is_some_and(|(_, count)| count <= SCAN_ROWS_MAX);
        let condition = found.map(|(condition, _)| condition).filter(|_| sorted || !by_id);
        let (from, wanted, ordinal) = match &condition {
            Some(condition) => condition.sql(table),
            None => (format!("{} t", table.name), "true".to_owned(), "t.ordinal".to_owned()),
        };
        let values = condition.map(condition_values).unwrap_or_default();
        let (key, kind) = match query.order {
            Order::Created => (ordinal, "int8"),
            // Not a column: the index of the condition is used, and its rows are sorted.
            Order::Id if sorted => (format!("(t.{} || '')", table.sort), "text"),
            Order::Id => (format!("t.{}", table.sort), "text"),
        };
        let place = values.len() + 1;
        let (comes, order) = if query.descending { ('<', " DESC") } else { ('>', "") };
        let after = match (&query.after, query.order) {
            (Some(Position::Ordinal(ordinal)), Order::Created) => {
                Some(After::Ordinal(int(*ordinal)))
            }
            (Some(Position::Id(id)), Order::Id) if table.name == "machines" => {
                Some(After::Key(until_nul(&natural_key(id))))
            }
            (Some(Position::Id(id)), Order::Id) => Some(After::Key(until_nul(id))),
            (Some(Position::Ordinal(_) | Position::Id(_)) | None, _) => None,
        };
        // Without a position from an end of the list.
        let collate = if kind == "text" { " COLLATE \"C\"" } else { "" };
        let sql = format!(
            "SELECT t.ordinal, t.revision, t.body, t.id, t.{}, t.{} FROM {from}
            WHERE {wanted} AND {key} {comes} ${place}::{kind}{collate} ORDER BY {key}{collate}{order} LIMIT ${}",
            table.machine_id,
            table.sort,
            place + 1
        );
        let unplaced = match (query.order, query.descending) {
            (Order::Created, false) => After::Ordinal(-1),
            (Order::Created, true) => After::Ordinal(i64::MAX),
            (Order::Id, false) => After::Key(String::new()),
            (Order::Id, true) => After::Key(char::MAX.to_string()),
        };
        let rows = Vec::new().into_iter();
        let (after, next) = (Some(after.unwrap_or(unplaced)), first);
        Ok(Self { conn, sql, values, after, by_id, rows, next, ended: false })
    }

    async fn next(&mut self) -> Result<Option<Row>, StoreError> {
        if let Some(row) = self.rows.next() {
            return Ok(Some(row));
        }
        if self.ended {
            return Ok(None);
        }
        let Some(after) = self.after.clone() else { return Ok(None) };
        let limit = i64::try_from(self.next).unwrap_or(i64::MAX);
        let mut params: Vec<Param<'_>> =
            self.values.iter().map(|value| value as Param<'_>).collect();
        match &after {
            After::Ordinal(ordinal) => params.push(ordinal),
            After::Key(key) => params.push(key),
        }
        params.push(&limit);
        let rows = self.conn.rows(&self.sql, &params).await?;
        self.ended = rows.len() < self.next;
        self.next = ROWS;
        if let Some(last) = rows.last() {
            self.after = Some(if self.by_id {
                After::Key(last.get(5))
            } else {
                After::Ordinal(last.get(0))
            });
        }
        self.rows = rows.into_iter();
        Ok(self.rows.next())
    }
}

/// The values of the SQL of a condition.
fn condition_values(condition: Condition<'_>) -> Vec<Cow<'_, str>> {
    match condition {
        Condition::Unique { value, .. } | Condition::Column { value, .. } => vec![storable(value)],
        Condition::Label { key, value } => vec![storable(key), storable(value)],
        Condition::Active => Vec::new(),
    }
}

/// What comes before a character that PostgreSQL's texts cannot have: only a position that no page returned has one.
fn until_nul(key: &str) -> String {
    key.split('\0').next().unwrap_or_default().to_owned()
}

/// What a list needs to know about its records.
trait Listed: Record {
    const TABLE: Table;
    fn conditions(query: &Query) -> Vec<Condition<'_>>;
    fn read(row: &Row) -> Result<Self, StoreError>;
    fn is_wanted(&self, query: &Query) -> bool;
}

impl Listed for Machine {
    const TABLE: Table = MACHINES;

    fn conditions(query: &Query) -> Vec<Condition<'_>> {
        of_machines(query)
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        machine_row(row)
    }

    fn is_wanted(&self, query: &Query) -> bool {
        query.filter.matches_machine(self)
    }
}

impl Listed for Run {
    const TABLE: Table = RUNS;

    fn conditions(query: &Query) -> Vec<Condition<'_>> {
        of_runs(query)
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        run_row(row)
    }

    fn is_wanted(&self, query: &Query) -> bool {
        query.filter.matches_run(self) && (!query.active_only || self.state.is_active())
    }
}

async fn page<T: Listed>(conn: &Conn, query: &Query) -> Result<Page<T>, StoreError> {
    let snapshot = Snapshot::begin(conn).await?;
    let mut page = Filling::new(query);
    let conditions = T::conditions(query);
    let first = query.limit.clamp(1, ROWS) + 1;
    let mut rows = Rows::begin(conn, &T::TABLE, query, conditions, first).await?;
    while let Some(row) = rows.next().await? {
        if page.is_full() {
            break;
        }
        match T::read(&row) {
            Ok(record) => {
                let (ordinal, id) = (record.ordinal(), record.id().clone());
                let item = record.is_wanted(query).then(|| Arc::new(record));
                page.push(ordinal, &id, item);
            }
            Err(StoreError::Corrupt { message, .. }) => {
                let machine_id = MachineId::parse(row.get(4)).ok();
                let (kind, id) = (T::KIND.as_str(), row.get(3));
                page.leave_out(number(&row, 0), Unreadable { kind, id, machine_id, message });
            }
            Err(error) => return Err(error),
        }
    }
    let (as_of, _) = revisions(conn).await?;
    snapshot.end().await?;
    Ok(page.finish(as_of))
}

pub(super) async fn machines(conn: &Conn, query: &Query) -> Result<Page<Machine>, StoreError> {
    page(conn, query).await
}

pub(super) async fn runs(conn: &Conn, query: &Query) -> Result<Page<Run>, StoreError> {
    page(conn, query).await
}

async fn count<T: Listed>(conn: &Conn, filter: Filter) -> Result<u64, StoreError> {
    if filter.is_empty() {
        let row = conn.first(&format!("SELECT count(*) FROM {}", T::TABLE.name), &[]).await?;
        return Ok(row.map_or(0, |row| number(&row, 0)));
    }
    let query = Query { filter, ..Query::default() };
    let snapshot = Snapshot::begin(conn).await?;
    let mut count = 0;
    let mut rows = Rows::begin(conn, &T::TABLE, &query, T::conditions(&query), ROWS).await?;
    while let Some(row) = rows.next().await? {
        match T::read(&row) {
            Ok(record) => count += u64::from(record.is_wanted(&query)),
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    snapshot.end().await?;
    Ok(count)
}

pub(super) async fn count_machines(conn: &Conn, filter: Filter) -> Result<u64, StoreError> {
    count::<Machine>(conn, filter).await
}

pub(super) async fn count_runs(conn: &Conn, filter: Filter) -> Result<u64, StoreError> {
    count::<Run>(conn, filter).await
}
