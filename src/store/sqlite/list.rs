//! Pages of lists, and counts. Called in a transaction, so that a page and its revision are consistent.

use std::sync::Arc;

use rusqlite::{Connection, ToSql};

use super::error::{failed, int, uint};
use super::fold::current_run;
use super::read::{self, machine_row};
use super::row::{for_each, number};
use crate::ids::{MachineId, natural_key};
use crate::model::filter::Filter;
use crate::model::{Machine, Run};
use crate::store::page::Filling;
use crate::store::{Order, Page, Position, Query, SCAN_ROWS_MAX, StoreError, Unreadable};

/// Index rows that are counted at first to find the most selective condition.
const FEW_ROWS: usize = 100;

/// A condition that an index serves, in the order of ordinals.
#[derive(Debug, Clone, Copy)]
enum Condition<'a> {
    /// A column has a value.
    Column { column: &'static str, index: &'static str, value: &'a str },
    /// A machine has a label, or the machine of a run had it.
    Label { key: &'a str, value: &'a str },
    /// A run is active.
    Active,
}

impl Condition<'_> {
    /// Whether at most one row meets it.
    fn is_unique(&self) -> bool {
        matches!(self, Self::Column { index: "", .. })
    }

    /// The rows to read, with `t` for the table of the objects; their condition; and their ordinal.
    fn sql(&self, table: &str) -> (String, String, &'static str) {
        match self {
            Self::Column { column, index: "", .. } => {
                (format!("{table} t"), format!("t.{column} = ?"), "t.ordinal")
            }
            Self::Column { column, index, .. } => {
                let from = format!("{table} t INDEXED BY {index}");
                (from, format!("t.{column} = ?"), "t.ordinal")
            }
            Self::Label { .. } => {
                let (labels, ordinal) = labels(table);
                let from = format!("{labels} l CROSS JOIN {table} t ON t.ordinal = {ordinal}");
                (from, "l.key = ? AND l.value = ?".to_owned(), ordinal)
            }
            Self::Active => (
                format!("{table} t INDEXED BY runs_active"),
                "t.active = 1".to_owned(),
                "t.ordinal",
            ),
        }
    }

    /// The values of its SQL.
    fn values(&self) -> Vec<&dyn ToSql> {
        match self {
            Self::Column { value, .. } => vec![value],
            Self::Label { key, value } => vec![key, value],
            Self::Active => Vec::new(),
        }
    }

    /// How many rows meet it, counted up to `max`.
    fn count(&self, conn: &Connection, table: &str, max: usize) -> Result<usize, StoreError> {
        let (from, wanted) = match self {
            Self::Label { .. } => (labels(table).0.to_owned(), "key = ? AND value = ?".to_owned()),
            Self::Column { .. } | Self::Active => {
                let (from, wanted, _) = self.sql(table);
                (from, wanted)
            }
        };
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {from} WHERE {wanted} LIMIT {max})");
        let count = conn
            .prepare_cached(&sql)
            .and_then(|mut query| query.query_row(&*self.values(), |row| row.get::<_, i64>(0)));
        Ok(usize::try_from(count.map_err(failed)?).unwrap_or(usize::MAX))
    }
}

/// The index of the labels of a table, and its column of ordinals.
fn labels(table: &str) -> (&'static str, &'static str) {
    match table {
        "runs" => ("run_labels", "l.run"),
        _ => ("machine_labels", "l.machine"),
    }
}

/// The most selective of the conditions that every match meets, with the number of its rows as far as counted. If
/// several have more rows than a page examines, the first will do.
fn narrowest<'a>(
    conn: &Connection,
    table: &str,
    conditions: Vec<Condition<'a>>,
    counted: bool,
) -> Result<Option<(Condition<'a>, usize)>, StoreError> {
    match conditions[..] {
        [] => return Ok(None),
        [first, ..] if first.is_unique() => return Ok(Some((first, 1))),
        [only] if !counted => return Ok(Some((only, usize::MAX))),
        _ => {}
    }
    let mut best = None;
    for max in [FEW_ROWS, SCAN_ROWS_MAX + 1] {
        for condition in &conditions {
            let count = condition.count(conn, table, max)?;
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

/// The rows of a list, in its order. At most one condition is given to SQLite, one that an index serves; all others
/// are tested on the records, so that the rows examined can be counted and bounded.
struct Statement<'a> {
    table: &'static str,
    /// The sort key of the table in the order of ids.
    id: &'static str,
    condition: Option<Condition<'a>>,
    /// The condition leaves few enough rows to sort them by id, so that its index serves nevertheless.
    sorted: bool,
}

impl<'a> Statement<'a> {
    fn machines(conn: &Connection, query: &'a Query) -> Result<Self, StoreError> {
        let filter = &query.filter;
        let labels = filter.pinned_labels().map(|(key, value)| Condition::Label { key, value });
        let conditions = column(filter, "machine_id", "id", "")
            .into_iter()
            .chain(labels)
            .chain(column(filter, "phase", "phase", "machines_phase"))
            .chain(column(filter, "provider", "provider", "machines_provider"));
        Self::new(conn, query, ("machines", "sort_key"), conditions.collect())
    }

    fn runs(conn: &Connection, query: &'a Query) -> Result<Self, StoreError> {
        let filter = &query.filter;
        let labels = filter.pinned_labels().map(|(key, value)| Condition::Label { key, value });
        let conditions = column(filter, "run_id", "id", "")
            .into_iter()
            .chain(column(filter, "machine_id", "machine_id", "runs_machine"))
            .chain(labels)
            .chain(query.active_only.then_some(Condition::Active))
            .chain(column(filter, "phase", "phase", "runs_phase"))
            .chain(column(filter, "plan_id", "plan", "runs_plan"))
            .chain(column(filter, "type", "type", "runs_type"));
        Self::new(conn, query, ("runs", "id"), conditions.collect())
    }

    fn new(
        conn: &Connection,
        query: &Query,
        (table, id): (&'static str, &'static str),
        conditions: Vec<Condition<'a>>,
    ) -> Result<Self, StoreError> {
        let by_id = query.order == Order::Id;
        let found = narrowest(conn, table, conditions, by_id)?;
        let sorted = by_id && found.is_some_and(|(_, count)| count <= SCAN_ROWS_MAX);
        let condition = found.map(|(condition, _)| condition).filter(|_| sorted || !by_id);
        Ok(Self { table, id, condition, sorted })
    }

    fn each(
        &self,
        conn: &Connection,
        query: &Query,
        each: impl FnMut(&rusqlite::Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.run(conn, "", query, each)
    }

    /// Runs the statement, with `prefix` before it.
    fn run(
        &self,
        conn: &Connection,
        prefix: &str,
        query: &Query,
        each: impl FnMut(&rusqlite::Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let (from, wanted, ordinal) = match &self.condition {
            Some(condition) => condition.sql(self.table),
            None => (format!("{} t", self.table), "1".to_owned(), "t.ordinal"),
        };
        // The plus keeps SQLite from using the index of the column.
        let key = match query.order {
            Order::Created => ordinal.to_owned(),
            Order::Id if self.sorted => format!("+t.{}", self.id),
            Order::Id => format!("t.{}", self.id),
        };
        let mut sql = format!(
            "{prefix}SELECT t.ordinal, t.revision, t.body, t.sum FROM {from} WHERE {wanted}"
        );
        let mut values = self.condition.as_ref().map(Condition::values).unwrap_or_default();
        let after: Option<Box<dyn ToSql>> = match (&query.after, query.order) {
            (Some(Position::Ordinal(ordinal)), Order::Created) => Some(Box::new(int(*ordinal))),
            (Some(Position::Id(id)), Order::Id) if self.table == "machines" => {
                Some(Box::new(natural_key(id)))
            }
            (Some(Position::Id(id)), Order::Id) => Some(Box::new(id)),
            (Some(Position::Ordinal(_) | Position::Id(_)) | None, _) => None,
        };
        if let Some(after) = &after {
            let comes = if query.descending { '<' } else { '>' };
            sql += &format!(" AND {key} {comes} ?");
            values.push(after);
        }
        sql += &format!(" ORDER BY {key}{}", if query.descending { " DESC" } else { "" });
        for_each(conn, &sql, &*values, each)
    }
}

/// The condition of a field that the filter pins, if it does.
fn column<'a>(
    filter: &'a Filter,
    field: &str,
    column: &'static str,
    index: &'static str,
) -> Option<Condition<'a>> {
    filter.pinned(field).map(|value| Condition::Column { column, index, value })
}

pub(super) fn machines(conn: &Connection, query: &Query) -> Result<Page<Machine>, StoreError> {
    let mut page = Filling::new(query);
    Statement::machines(conn, query)?.each(conn, query, |row| {
        if page.is_full() {
            return Ok(false);
        }
        let machine = match machine_row(row) {
            Err(StoreError::Corrupt { kind: "machine" | "column", message, .. }) => {
                let ordinal = number(row, 0)?;
                let sql = "SELECT id, id FROM machines WHERE ordinal = ?1";
                page.leave_out(ordinal, unreadable(conn, sql, "machine", ordinal, message)?);
                return Ok(true);
            }
            machine => machine?,
        };
        let wanted = query.filter.matches_machine(&machine);
        page.push(machine.ordinal, &machine.id.clone(), wanted.then(|| Arc::new(machine)));
        Ok(true)
    })?;
    Ok(page.finish(read::revisions(conn)?.0))
}

pub(super) fn runs(conn: &Connection, query: &Query) -> Result<Page<Run>, StoreError> {
    let mut page = Filling::new(query);
    Statement::runs(conn, query)?.each(conn, query, |row| {
        if page.is_full() {
            return Ok(false);
        }
        let run = match current_run(conn, row) {
            Err(StoreError::Corrupt { kind: "run" | "column", message, .. }) => {
                let ordinal = number(row, 0)?;
                let sql = "SELECT id, machine_id FROM runs WHERE ordinal = ?1";
                page.leave_out(ordinal, unreadable(conn, sql, "run", ordinal, message)?);
                return Ok(true);
            }
            run => run?,
        };
        let wanted =
            query.filter.matches_run(&run) && (!query.active_only || run.state.is_active());
        let (ordinal, id) = (run.ordinal, run.id);
        page.push(ordinal, &id, wanted.then(|| Arc::new(run)));
        Ok(true)
    })?;
    Ok(page.finish(read::revisions(conn)?.0))
}

/// Names an unreadable record by its columns.
fn unreadable(
    conn: &Connection,
    sql: &str,
    kind: &'static str,
    ordinal: u64,
    message: String,
) -> Result<Unreadable, StoreError> {
    let named = conn.prepare_cached(sql).and_then(|mut query| {
        let ordinal = i64::try_from(ordinal).unwrap_or(i64::MAX);
        query.query_row([ordinal], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
    });
    let (id, machine_id) = named.map_err(failed)?;
    Ok(Unreadable { kind, id, machine_id: MachineId::parse(&machine_id).ok(), message })
}

fn count_all(conn: &Connection, sql: &str) -> Result<u64, StoreError> {
    let count =
        conn.prepare_cached(sql).and_then(|mut query| query.query_row([], |row| row.get(0)));
    count.map(uint).map_err(failed)
}

pub(super) fn count_machines(conn: &Connection, filter: Filter) -> Result<u64, StoreError> {
    if filter.is_empty() {
        return count_all(conn, "SELECT count(*) FROM machines");
    }
    let query = Query { filter, ..Query::default() };
    let mut count = 0;
    Statement::machines(conn, &query)?.each(conn, &query, |row| {
        match machine_row(row) {
            Ok(machine) => count += u64::from(query.filter.matches_machine(&machine)),
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    })?;
    Ok(count)
}

pub(super) fn count_runs(conn: &Connection, filter: Filter) -> Result<u64, StoreError> {
    if filter.is_empty() {
        return count_all(conn, "SELECT count(*) FROM runs");
    }
    let query = Query { filter, ..Query::default() };
    let mut count = 0;
    Statement::runs(conn, &query)?.each(conn, &query, |row| {
        match current_run(conn, row) {
            Ok(run) => count += u64::from(query.filter.matches_run(&run)),
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    })?;
    Ok(count)
}

/// The query plan of a list.
#[cfg(test)]
pub(super) fn explain(
    conn: &Connection,
    query: &Query,
    subject: crate::model::filter::Subject,
) -> Result<String, StoreError> {
    let statement = match subject {
        crate::model::filter::Subject::Machine => Statement::machines(conn, query)?,
        crate::model::filter::Subject::Run => Statement::runs(conn, query)?,
    };
    let mut plan = Vec::new();
    statement.run(conn, "EXPLAIN QUERY PLAN ", query, |row| {
        plan.push(super::row::text(row, 3)?.to_owned());
        Ok(true)
    })?;
    Ok(plan.join("; "))
}
