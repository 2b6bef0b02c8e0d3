//! How far receivers of notifications have got.

use rusqlite::{Connection, params};

use super::error::{corrupt, int};
use super::row::{first, number};
use super::seal;
use crate::ids::{Epoch, Revision};
use crate::model::Cursor;
use crate::store::{CursorMove, StoreError};

/// Moves a cursor.
pub(super) fn save(conn: &Connection, step: &CursorMove) -> rusqlite::Result<()> {
    let Cursor { owner, next, done } = step.after;
    let (receiver, owner, next) = (step.receiver.as_str(), int(owner.0), int(next.0));
    let numbers = [owner, next, i64::from(done)].map(|number| seal::number(Some(number)));
    let [of_owner, of_next, of_done] = numbers;
    let sum = seal::of(&[seal::text(receiver), of_owner, of_next, of_done]);
    let sql = "INSERT OR REPLACE INTO cursors (receiver, owner, next, done, sum) VALUES (?1, ?2, ?3, ?4, ?5)";
    conn.prepare_cached(sql)?.execute(params![receiver, owner, next, done, sum]).map(|_| ())
}

/// The cursor of a receiver.
pub(super) fn load(conn: &Connection, receiver: &str) -> Result<Option<Cursor>, StoreError> {
    let sql = "SELECT receiver, owner, next, done, sum FROM cursors WHERE receiver = ?1";
    first(conn, sql, [receiver], |row| {
        seal::verify(row, 0..4, 4, corrupt("cursor", receiver))?;
        let done = u32::try_from(number(row, 3)?).unwrap_or(u32::MAX);
        Ok(Cursor { owner: Epoch(number(row, 1)?), next: Revision(number(row, 2)?), done })
    })
}
