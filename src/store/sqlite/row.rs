//! Rows of queries.

use rusqlite::{Connection, Row};

use super::error::{failed, uint};
use crate::store::StoreError;

/// The text of a column, borrowed.
pub(super) fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str, StoreError> {
    let value = row.get_ref(column).map_err(failed)?;
    value.as_str().map_err(|error| StoreError::Corrupt {
        kind: "column",
        id: column.to_string(),
        message: error.to_string(),
    })
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Result<u64, StoreError> {
    Ok(uint(row.get(column).map_err(failed)?))
}

/// The rows of a query, each given to `each` until that says to stop.
pub(super) fn for_each(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut each: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut query = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = query.query(params).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if !each(row)? {
            break;
        }
    }
    Ok(())
}

/// The first row of a query.
pub(super) fn first<T>(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut found = None;
    for_each(conn, sql, params, |row| {
        found = Some(read(row)?);
        Ok(false)
    })?;
    Ok(found)
}
