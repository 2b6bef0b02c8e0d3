//! A store that outlives the server: in a file, or in PostgreSQL.

use std::fs::File;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::config::{ConfigError, Database};
use crate::clock::Clock;
use crate::files;
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Availability, Store as _, StoreStats};

/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// A store that outlives the server.
#[derive(Debug, Clone)]
pub(super) enum Durable {
    /// In the data directory.
    Sqlite(Arc<SqliteStore>),
    /// In PostgreSQL, with the lock of the data directory.
    Postgres(Arc<PostgresStore>, #[expect(dead_code, reason = "held until the end")] Arc<File>),
}

impl Durable {
    /// Counters of its writer.
    pub(super) fn stats(&self) -> StoreStats {
        match self {
            Self::Sqlite(store) => store.stats(),
            Self::Postgres(store, _) => store.stats(),
        }
    }

    /// Whether it accepts writes.
    pub(super) fn availability(&self) -> tokio::sync::watch::Receiver<Availability> {
        match self {
            Self::Sqlite(store) => store.availability(),
            Self::Postgres(store, _) => store.availability(),
        }
    }

    /// Resolves when the server has lost its database for good and must end, with the reason. Never, if that does not
    /// happen.
    pub(super) async fn until_lost(&self) -> String {
        match self {
            // The operator restarts it, by its health: what can be read is read until then.
            Self::Sqlite(_) => std::future::pending().await,
            Self::Postgres(store, _) => store.until_lost().await,
        }
    }
}

/// How a database is reached.
///
/// # Errors
/// [`ConfigError`] if its password or its authorities cannot be read.
pub(super) fn options(
    database: &Database,
    clock: &Arc<dyn Clock>,
) -> Result<PostgresOptions, ConfigError> {
    let password = match &database.password_file {
        None => None,
        Some(path) => {
            let text = files::read_secret_text(path, PASSWORD_BYTES_MAX);
            let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
            let text = Zeroizing::new(text.map_err(unreadable)?);
            Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
    };
    let tls = match &database.trust {
        None => None,
        Some(trust) => {
            let config = trust.client_config();
            let refused = |error| ConfigError::Setting(format!("TLS to the database: {error}"));
            Some(Arc::new(config.map_err(refused)?))
        }
    };
    Ok(PostgresOptions {
        host: database.host.clone(),
        user: database.user.clone(),
        database: database.name.clone(),
        password,
        tls,
        clock: clock.clone(),
        unsafe_no_flush_for_tests: false,
    })
}
