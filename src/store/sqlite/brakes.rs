//! Locks, and how often plans have failed in a row.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::corrupt;
use super::row::{for_each, text};
use super::seal;
use crate::model::Lock;
use crate::store::codec::{decode_lock, encode_lock};
use crate::store::{LockMove, StoreError};

/// Keys begin with what a row is.
const LOCK: &str = "lock/";
const STREAK: &str = "streak/";

/// Carries a move out; returns the lock that it has set.
pub(super) fn apply(conn: &Connection, step: &LockMove) -> rusqlite::Result<Option<Arc<Lock>>> {
    match step {
        LockMove::Put(lock) => put(conn, lock).map(Some),
        LockMove::Forget(id) => remove(conn, &format!("{LOCK}{id}")).map(|()| None),
        LockMove::Tally { digest, failed: false, .. } => {
            remove(conn, &format!("{STREAK}{digest}")).map(|()| None)
        }
        LockMove::Tally { digest, failed: true, most, pause } => {
            let key = format!("{STREAK}{digest}");
            let sql = "SELECT body FROM brakes WHERE key = ?1";
            let before =
                conn.prepare_cached(sql)?.query_row([&key], |row| row.get(0)).optional()?;
            // One that cannot be read counts as none; `check` reports it.
            let before = before.and_then(|body: String| body.parse::<u32>().ok()).unwrap_or(0);
            let failures = before.saturating_add(1);
            if failures < *most {
                return save(conn, &key, &failures.to_string()).map(|()| None);
            }
            remove(conn, &key)?;
            put(conn, pause).map(Some)
        }
    }
}

fn put(conn: &Connection, lock: &Arc<Lock>) -> rusqlite::Result<Arc<Lock>> {
    save(conn, &format!("{LOCK}{}", lock.id), &encode_lock(lock)).map(|()| lock.clone())
}

fn save(conn: &Connection, key: &str, body: &str) -> rusqlite::Result<()> {
    let sum = seal::of(&[seal::text(key), seal::text(body)]);
    let sql = "INSERT OR REPLACE INTO brakes (key, body, sum) VALUES (?1, ?2, ?3)";
    conn.prepare_cached(sql)?.execute(params![key, body, sum]).map(|_| ())
}

fn remove(conn: &Connection, key: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM brakes WHERE key = ?1")?.execute([key]).map(|_| ())
}

/// Every lock that is kept, by id.
pub(super) fn load(conn: &Connection) -> Result<Vec<Lock>, StoreError> {
    let mut locks = Vec::new();
    let sql =
        "SELECT key, body, sum FROM brakes WHERE key >= 'lock/' AND key < 'lock0' ORDER BY key";
    for_each(conn, sql, [], |row| {
        let id = text(row, 0)?.trim_start_matches(LOCK);
        seal::verify(row, 0..2, 2, corrupt("lock", id))?;
        locks.push(decode_lock(id, text(row, 1)?).map_err(corrupt("lock", id))?);
        Ok(true)
    })?;
    Ok(locks)
}
