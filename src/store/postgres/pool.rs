//! The connections of readers.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::{Conn, Purpose};
use super::error::{not_open, unavailable};
use super::options::PostgresOptions;
use crate::store::StoreError;

/// Most connections of one kind of readers.
const CONNECTIONS_MAX: usize = 6;

/// A few connections for reading. Their sockets are served by the runtime of the store.
#[derive(Debug)]
pub(super) struct Pool {
    options: Arc<PostgresOptions>,
    runtime: Handle,
    idle: Mutex<Vec<Conn>>,
    permits: Semaphore,
}

/// A connection that is used by one reader.
pub(super) struct Lease<'a> {
    conn: Option<Conn>,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(options: Arc<PostgresOptions>, runtime: Handle) -> Self {
        let permits = Semaphore::new(CONNECTIONS_MAX);
        Self { options, runtime, idle: Mutex::default(), permits }
    }

    /// A connection for this reader alone.
    pub(super) async fn take(&self) -> Result<Lease<'_>, StoreError> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_| unavailable("the store is closed"))?;
        let idle = loop {
            match self.idle().pop() {
                Some(conn) if !conn.is_idle() => {}
                found => break found,
            }
        };
        let conn = match idle {
            Some(conn) => conn,
            None => {
                let options = self.options.clone();
                let opening = self
                    .runtime
                    .spawn(async move { Conn::open(&options, Purpose::Read).await })
                    .await;
                let opened = opening.map_err(|_| unavailable("the store is closed"))?;
                opened.map_err(not_open)?
            }
        };
        Ok(Lease { conn: Some(conn), pool: self, _permit })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for Lease<'_> {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.conn.as_ref().expect("a lease has its connection until it is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // One that a reader left in the middle of something is closed.
        if let Some(conn) = self.conn.take().filter(Conn::is_idle) {
            self.pool.idle().push(conn);
        }
    }
}
