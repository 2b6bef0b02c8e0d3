//! One connection: how it is made and prepared, and its statements.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::error::{OpenError, failed};
use super::options::{Host, PostgresOptions};
use super::settings::{SETTINGS, Settings};
use super::tls::Tls;
use crate::store::StoreError;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// After this time without an answer of the network a connection counts as lost.
const SILENCE: Duration = Duration::from_secs(15);
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 3;
/// Most statements that a connection keeps prepared; more than lists have forms.
const STATEMENTS_MAX: usize = 256;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The one that writes. Its statements have no time limit: one that ends the wait for a standby makes PostgreSQL
    /// report a commit that the standby may not have.
    Write,
    Read,
}

impl Purpose {
    /// What the session is set to. A session that disappeared, or that is stopped within a transaction, gives its
    /// locks back soon.
    fn settings(self) -> &'static str {
        match self {
            Self::Write => {
                "SET search_path = bmdemo; SET statement_timeout = 0; SET lock_timeout = '10s';
                SET idle_in_transaction_session_timeout = '5s'; SET client_min_messages = error;
                SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
                SET bytea_output = 'hex'; SET TimeZone = 'UTC'"
            }
            Self::Read => {
                "SET search_path = bmdemo; SET statement_timeout = '30s'; SET default_transaction_read_only = on;
                SET idle_in_transaction_session_timeout = '30s'; SET client_min_messages = error;
                SET TimeZone = 'UTC'"
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Write => "bmdemo-server: writer",
            Self::Read => "bmdemo-server: reader",
        }
    }
}

/// A parameter of a statement.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// One connection. Must be made within the runtime that drives it.
pub(super) struct Conn {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// Statements that have been sent and not been answered, and a transaction that has not ended.
    pending: AtomicU32,
    lost: watch::Receiver<bool>,
}

impl Conn {
    pub(super) async fn open(
        options: &PostgresOptions,
        purpose: Purpose,
    ) -> Result<Self, OpenError> {
        let mut config = Config::new();
        match &options.host {
            Host::Tcp(name, port) => config.host(name).port(*port),
            Host::Unix(dir, port) => config.host_path(dir).port(*port),
        };
        config
            .user(&options.user)
            .dbname(&options.database)
            .application_name(purpose.name())
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE)
            .keepalives_retries(KEEPALIVES);
        if let Some(password) = &options.password {
            config.password(password.as_bytes());
        }
        let (ended, lost) = watch::channel(false);
        let client = match &options.tls {
            None => {
                let (client, connection) = config.ssl_mode(SslMode::Disable).connect(NoTls).await?;
                tokio::spawn(async move {
                    // The statements of the connection get the error.
                    drop(connection.await);
                    ended.send_replace(true);
                });
                client
            }
            Some(tls) => {
                let tls = Tls(tls.clone());
                let (client, connection) = config.ssl_mode(SslMode::Require).connect(tls).await?;
                tokio::spawn(async move {
                    drop(connection.await);
                    ended.send_replace(true);
                });
                client
            }
        };
        let conn = Self { client, statements: Mutex::default(), pending: AtomicU32::new(0), lost };
        conn.check(options.unsafe_no_flush_for_tests).await?;
        conn.batch(purpose.settings()).await?;
        Ok(conn)
    }

    /// Refuses a server that would lose what it has acknowledged.
    async fn check(&self, no_flush: bool) -> Result<(), OpenError> {
        let rows = self.query(SETTINGS, &[]).await?;
        let Some(row) = rows.first() else {
            return Err(OpenError::Damaged("it does not tell its settings".to_owned()));
        };
        let refusal = Settings::of(row).refusal(no_flush);
        refusal.map_or(Ok(()), |why| Err(OpenError::Setting(why)))
    }

    /// Turns true when the connection is lost, or is dropped when it has been for long.
    pub(super) fn lost(&self) -> watch::Receiver<bool> {
        self.lost.clone()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed() || *self.lost.borrow()
    }

    /// Whether nothing is pending on it, so that another can use it.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_lost() && self.pending.load(Relaxed) == 0
    }

    /// Something is pending until [`Self::settled`]. A future that is dropped in between leaves a connection that is not
    /// idle.
    fn unsettled(&self) {
        self.pending.fetch_add(1, Relaxed);
    }

    fn settled(&self) {
        self.pending.fetch_sub(1, Relaxed);
    }

    /// The rows of a statement.
    pub(super) async fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.unsettled();
        let rows = match self.prepared(sql).await {
            Ok(statement) => self.client.query(&statement, params).await,
            Err(error) => Err(error),
        };
        self.settled();
        rows
    }

    /// The rows of a reader's statement.
    pub(super) async fn rows(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.query(sql, params).await.map_err(failed)
    }

    /// The first row of a reader's statement.
    pub(super) async fn first(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// Carries statements out that return nothing and have no parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.unsettled();
        let done = self.client.batch_execute(sql).await;
        self.settled();
        done
    }

    /// Carries a prepared statement out. Sent when the future is polled for the first time.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        params: &[Param<'_>],
    ) -> Result<u64, tokio_postgres::Error> {
        self.unsettled();
        let rows = self.client.execute(statement, params).await;
        self.settled();
        rows
    }

    /// A statement, prepared once for each connection.
    pub(super) async fn prepared(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        let known = || self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        let mut known = known();
        if known.len() >= STATEMENTS_MAX {
            known.clear();
        }
        known.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("lost", &self.is_lost()).finish_non_exhaustive()
    }
}

/// A read-only transaction that sees one revision.
pub(super) struct Snapshot<'a> {
    pub(super) conn: &'a Conn,
}

impl<'a> Snapshot<'a> {
    pub(super) async fn begin(conn: &'a Conn) -> Result<Self, StoreError> {
        conn.unsettled();
        conn.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
        Ok(Self { conn })
    }

    pub(super) async fn end(self) -> Result<(), StoreError> {
        self.conn.batch("COMMIT").await.map_err(failed)?;
        self.conn.settled();
        Ok(())
    }
}

/// Items with their number from 1.
pub(super) fn numbered<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (1..).zip(items)
}
