//! The place of the one server of a database.
//!
//! It is a lock of the session that writes, so that a server that is gone gives it back by itself, and a number in
//! `meta` (`holder`) that is drawn again whenever the lock is taken. Every transaction expects its server's number, after
//! it has locked the row: so nothing that an earlier session has sent, however late it arrives, is written.
//!
//! In `last_group` every transaction leaves a number of its own, which shows the outcome of the last one of a session that
//! was lost. A session that waits for the lock waits for the end of the session before.

use super::connection::Conn;
use super::error::{OpenError, int, uint};
use crate::ids::Revision;

/// The lock: "bmdm", and the kind of the lock.
const LOCK: &str = "1651336301, 1";

/// What the session must find to continue where the last one was.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Identity of the store.
    pub(super) store_id: String,
    /// The numbers that this server has drawn, of which the last attempt may or may not have been stored.
    pub(super) holders: Vec<i64>,
    /// The newest revision that was acknowledged.
    pub(super) revision: Revision,
}

/// A place that was taken.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) store_id: String,
    /// Number of the last transaction.
    pub(super) last_group: i64,
}

/// Why a place was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// The lock is held; by whom.
    Held(String),
    /// Another server has had the place, or the database is not the one that it was. This server cannot continue.
    Lost(String),
    /// Something else.
    Failed(OpenError),
}

impl From<tokio_postgres::Error> for NotTaken {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Takes the lock, if it is free.
pub(super) async fn lock(conn: &Conn) -> Result<(), NotTaken> {
    let rows = conn.query(&format!("SELECT pg_try_advisory_lock({LOCK})"), &[]).await?;
    if rows.first().is_some_and(|row| row.get(0)) {
        return Ok(());
    }
    let sql = "SELECT coalesce(a.client_addr::text, 'the same machine'), a.usename::text,
            to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS TZ'), l.pid
        FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.classid = 1651336301 AND l.objid = 1 AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let rows = conn.query(sql, &[]).await?;
    let holder = rows.first().map_or_else(
        || "it has just left".to_owned(),
        |row| {
            let text = |column| row.get::<_, Option<String>>(column).unwrap_or_default();
            let pid: Option<i32> = row.get(3);
            format!(
                "from {}, role {}, since {}, backend {}",
                text(0),
                text(1),
                text(2),
                pid.unwrap_or_default()
            )
        },
    );
    Err(NotTaken::Held(holder))
}

/// Ends the session of this server that was lost, if PostgreSQL has not noticed yet: it is the one that holds the lock
/// while the number in `meta` is still ours.
pub(super) async fn end_former_session(conn: &Conn, expected: &Expected) -> Result<(), NotTaken> {
    let sql = "SELECT holder FROM meta WHERE id = 1";
    let rows = conn.query(sql, &[]).await?;
    let is_ours = rows.first().is_some_and(|row| expected.holders.contains(&row.get(0)));
    if !is_ours {
        return Err(NotTaken::Lost("another server has taken its place".to_owned()));
    }
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 1651336301 AND objid = 1 AND granted AND pid <> pg_backend_pid()
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    conn.query(sql, &[]).await?;
    Ok(())
}

/// Makes the session with the lock the one that may write: from now on `meta` has the number `holder`.
pub(super) async fn take(
    conn: &Conn,
    holder: i64,
    expected: Option<&Expected>,
) -> Result<Place, NotTaken> {
    conn.batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    let taken = take_within(conn, holder, expected).await;
    let end = if taken.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = conn.batch(end).await;
    let place = taken?;
    ended?;
    Ok(place)
}

async fn take_within(
    conn: &Conn,
    holder: i64,
    expected: Option<&Expected>,
) -> Result<Place, NotTaken> {
    // Alone: a statement that has waited for the row sees everything else as it was before.
    conn.query("SELECT 1 FROM meta WHERE id = 1 FOR UPDATE", &[]).await?;
    let sql = "SELECT store_id, holder, revision, last_group FROM meta WHERE id = 1";
    let rows = conn.query(sql, &[]).await?;
    let Some(row) = rows.first() else {
        return Err(NotTaken::Failed(OpenError::Damaged("the table meta is empty".to_owned())));
    };
    let place = Place { store_id: row.get(0), last_group: row.get(3) };
    if let Some(expected) = expected {
        let revision = Revision(uint(row.get(2)));
        if place.store_id != expected.store_id {
            return Err(NotTaken::Lost("the database is another one".to_owned()));
        }
        if revision < expected.revision {
            return Err(NotTaken::Lost(format!(
                "the database has lost commits: it is at revision {revision}, and revision {} was acknowledged",
                expected.revision
            )));
        }
        if !expected.holders.contains(&row.get(1)) {
            return Err(NotTaken::Lost("another server has taken its place".to_owned()));
        }
    }
    conn.query("UPDATE meta SET holder = $1 WHERE id = 1", &[&holder]).await?;
    Ok(place)
}

/// Gives the lock back. Best effort: the end of the session does, too.
pub(super) async fn leave(conn: &Conn) {
    if let Err(error) = conn.query(&format!("SELECT pg_advisory_unlock({LOCK})"), &[]).await {
        tracing::debug!(%error, "the place of the server ends with its session");
    }
}

/// A number for `holder` or `last_group`, of 63 random bits; never zero, which stands for none.
pub(super) fn number(random: u64) -> i64 {
    int(random >> 1).max(1)
}
