//! One transaction, sent in one go, COMMIT included: while it holds the row of `meta`, it never waits for this server.
//!
//! A statement that fails makes PostgreSQL refuse those after it and answer COMMIT with a rollback, without an error.
//! So committed means that every statement has succeeded, COMMIT among them; and not committed, that a statement before
//! COMMIT has failed. Everything else is unknown until the next session has found out.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::connection::{Conn, Param};
use super::error::{failed, int, is_place_lost, words};
use super::statements::Stmt;
use crate::ids::Revision;
use crate::store::StoreError;

/// Why a transaction was not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// It is not written, and never will be.
    Failed(StoreError),
    /// Another server has taken the place of this one; it is not written.
    PlaceLost,
    /// The session was lost: the next one finds out.
    InDoubt(String),
}

/// What makes a transaction one of this server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Number of the server's place.
    pub(super) holder: i64,
    /// Revision before it.
    pub(super) revision: Revision,
    /// Its number.
    pub(super) group: i64,
}

/// Alone: a statement that has waited for the row sees everything else as it was before.
const LOCK: &str = "SELECT 1 FROM meta WHERE id = 1 FOR UPDATE";
const EXPECT: &str = "SELECT expect((SELECT holder = $1 AND revision = $2 FROM meta WHERE id = 1))";
const GROUP: &str = "UPDATE meta SET last_group = $1 WHERE id = 1";

/// Writes the statements in one transaction. Returns the number of rows of each.
pub(super) async fn write(
    conn: &Conn,
    mark: Mark,
    statements: Vec<Stmt<'_>>,
) -> Result<Vec<u64>, Unwritten> {
    let mut prepared = Vec::with_capacity(statements.len() + 3);
    let own = [LOCK, EXPECT, GROUP];
    for sql in own.into_iter().chain(statements.iter().map(|statement| statement.sql)) {
        let statement = conn.prepared(sql).await;
        // Nothing has been sent that writes.
        prepared.push(statement.map_err(|error| Unwritten::Failed(failed(error)))?);
    }
    let (holder, revision, group) = (mark.holder, int(mark.revision.0), mark.group);
    let none: [Param<'_>; 0] = [];
    let expected: [Param<'_>; 2] = [&holder, &revision];
    let numbered: [Param<'_>; 1] = [&group];
    let params: Vec<Vec<Param<'_>>> = statements
        .iter()
        .map(|statement| statement.params.iter().map(|param| &**param as Param<'_>).collect())
        .collect();
    let own = [&none[..], &expected[..], &numbered[..]];
    let all = own.into_iter().chain(params.iter().map(Vec::as_slice));
    let mut sending: Vec<Sending<'_, u64>> = Vec::with_capacity(prepared.len() + 2);
    sending.push(Box::pin(async {
        conn.batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await.map(|()| 0)
    }));
    for (statement, params) in prepared.iter().zip(all) {
        sending.push(Box::pin(conn.execute(statement, params)));
    }
    sending.push(Box::pin(async { conn.batch("COMMIT").await.map(|()| 0) }));
    let mut done = in_order(sending).await;
    let committed = done.pop();
    let mut rows = Vec::with_capacity(done.len());
    for statement in done {
        match statement {
            Ok(count) => rows.push(count),
            Err(error) if is_place_lost(&error) => return Err(Unwritten::PlaceLost),
            Err(error) if error.as_db_error().is_some() => {
                return Err(Unwritten::Failed(failed(error)));
            }
            Err(error) => return Err(Unwritten::InDoubt(words(&error))),
        }
    }
    match committed {
        // BEGIN, and the three statements of this file.
        Some(Ok(_)) => Ok(rows.split_off(4)),
        Some(Err(error)) => Err(Unwritten::InDoubt(words(&error))),
        None => Err(Unwritten::InDoubt("nothing was sent".to_owned())),
    }
}

/// A statement that is sent when it is polled for the first time.
type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a>>;

/// Polls futures in their order, so that their statements are sent in it, until all are done.
async fn in_order<T>(mut futures: Vec<Sending<'_, T>>) -> Vec<Result<T, tokio_postgres::Error>> {
    let mut done: Vec<_> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut is_pending = false;
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(result) => *done = Some(result),
                    Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}
