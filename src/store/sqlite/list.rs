//! Pages of lists, and counts. To be called in a transaction, so that a page and its revision belong together.

use std::sync::Arc;

use rusqlite::{Connection, ToSql};

use super::error::{failed, int, uint};
use super::read::{self, for_each, machine_row, run_row};
use crate::model::filter::Filter;
use crate::model::{Machine, Run};
use crate::store::page::Filling;
use crate::store::{Page, Query, StoreError};

/// A list statement under construction. At most one condition is given to SQLite, one that an index serves in the
/// order of ordinals; all others are tested on the records, so that the rows examined can be counted and bounded.
struct Statement<'a> {
    table: &'static str,
    condition: Option<(&'static str, &'a str)>,
    active_only: bool,
}

impl<'a> Statement<'a> {
    fn machines(filter: &'a Filter) -> Self {
        let columns = [("machine_id", "id"), ("phase", "phase"), ("provider", "provider")];
        Self { table: "machines", condition: served(filter, &columns), active_only: false }
    }

    fn runs(filter: &'a Filter, active_only: bool) -> Self {
        let by_id = [("run_id", "id"), ("machine_id", "machine_id")];
        let columns = [("plan_id", "plan"), ("phase", "phase"), ("type", "type")];
        // Few runs are active: nothing but the runs of one machine is fewer.
        let condition = served(filter, &by_id)
            .or_else(|| if active_only { None } else { served(filter, &columns) });
        Self { table: "runs", condition, active_only }
    }

    fn each(
        &self,
        conn: &Connection,
        query: &Query,
        each: impl FnMut(&rusqlite::Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut sql = format!("SELECT ordinal, revision, body FROM {} WHERE 1", self.table);
        let mut values: Vec<&dyn ToSql> = Vec::new();
        if let Some((column, value)) = &self.condition {
            sql += &format!(" AND {column} = ?");
            values.push(value);
        }
        if self.active_only {
            sql += " AND active = 1";
        }
        let after = query.after.map(int);
        if let Some(after) = &after {
            sql += if query.newest_first { " AND ordinal < ?" } else { " AND ordinal > ?" };
            values.push(after);
        }
        sql += if query.newest_first { " ORDER BY ordinal DESC" } else { " ORDER BY ordinal" };
        for_each(conn, &sql, &*values, each)
    }
}

/// The first column that the filter pins to a value.
fn served<'a>(
    filter: &'a Filter,
    columns: &[(&str, &'static str)],
) -> Option<(&'static str, &'a str)> {
    columns.iter().find_map(|(field, column)| Some((*column, filter.pinned(field)?)))
}

pub(super) fn machines(conn: &Connection, query: &Query) -> Result<Page<Machine>, StoreError> {
    let mut page = Filling::new(query);
    Statement::machines(&query.filter).each(conn, query, |row| {
        if page.is_full() {
            return Ok(false);
        }
        let machine = machine_row(row)?;
        let wanted = query.filter.matches_machine(&machine);
        page.push(machine.ordinal, wanted.then(|| Arc::new(machine)));
        Ok(true)
    })?;
    Ok(page.finish(read::revisions(conn)?.0))
}

pub(super) fn runs(conn: &Connection, query: &Query) -> Result<Page<Run>, StoreError> {
    let mut page = Filling::new(query);
    Statement::runs(&query.filter, query.active_only).each(conn, query, |row| {
        if page.is_full() {
            return Ok(false);
        }
        let run = run_row(row)?;
        let wanted = query.filter.matches_run(&run);
        page.push(run.ordinal, wanted.then(|| Arc::new(run)));
        Ok(true)
    })?;
    Ok(page.finish(read::revisions(conn)?.0))
}

fn count_all(conn: &Connection, sql: &str) -> Result<u64, StoreError> {
    let count =
        conn.prepare_cached(sql).and_then(|mut query| query.query_row([], |row| row.get(0)));
    count.map(uint).map_err(failed)
}

pub(super) fn count_machines(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    if filter.is_empty() {
        return count_all(conn, "SELECT count(*) FROM machines");
    }
    let mut count = 0;
    Statement::machines(filter).each(conn, &Query::default(), |row| {
        count += u64::from(filter.matches_machine(&machine_row(row)?));
        Ok(true)
    })?;
    Ok(count)
}

pub(super) fn count_runs(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    if filter.is_empty() {
        return count_all(conn, "SELECT count(*) FROM runs");
    }
    let mut count = 0;
    Statement::runs(filter, false).each(conn, &Query::default(), |row| {
        count += u64::from(filter.matches_run(&run_row(row)?));
        Ok(true)
    })?;
    Ok(count)
}
