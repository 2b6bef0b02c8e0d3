//! Errors of opening a database, and the meaning of those of its statements.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::store::StoreError;
pub(super) use crate::store::keys::{
    corrupt, int, ms, named, place, place_after, revision_of, run_after, uint,
};

/// SQLSTATE of a transaction of a server that has lost its place.
const LOST_PLACE: &str = "BM001";

/// Why a database cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached, or it refuses us.
    #[error("cannot use the database: {}", words(.0))]
    Postgres(#[source] tokio_postgres::Error),
    /// Another server uses it.
    #[error(
        "another server uses this database ({holder}). One server at a time may: stop that one first, or use another database"
    )]
    InUse {
        /// Who, as far as PostgreSQL says.
        holder: String,
    },
    /// A newer program has changed it.
    #[error(
        "the database has format {format}, and this program reads up to {newest}: use the newer program"
    )]
    TooNew {
        /// Format of the database.
        format: i32,
        /// Newest format that this program knows.
        newest: i32,
    },
    /// Its schema is not ours.
    #[error("the schema bmdemo of the database was not made by this program: use another database")]
    NotOurs,
    /// A setting of the database.
    #[error("{0}")]
    Setting(String),
    /// A stored value of the store's own cannot be read.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The thread that writes cannot be started.
    #[error("cannot start a thread to write")]
    Thread(#[source] std::io::Error),
}

impl From<tokio_postgres::Error> for OpenError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// What PostgreSQL says, if it said anything: the library's own words name the layer and no more.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return match said.detail() {
            Some(detail) => format!("{} ({detail})", said.message()),
            None => said.message().to_owned(),
        };
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// An error of PostgreSQL in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// Meaning of a failed statement other than COMMIT.
pub(super) fn failed(error: tokio_postgres::Error) -> StoreError {
    let cause = Arc::new(Said(words(&error)));
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => StoreError::Full(cause),
        Some(code) if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => {
            StoreError::Corrupt {
                kind: "database",
                id: "table".to_owned(),
                message: cause.0.clone(),
            }
        }
        Some(_) | None => StoreError::Unavailable(cause),
    }
}

/// Meaning of a connection that was not made while the store is open.
pub(super) fn not_open(error: OpenError) -> StoreError {
    match error {
        OpenError::Postgres(error) => failed(error),
        error @ (OpenError::InUse { .. }
        | OpenError::TooNew { .. }
        | OpenError::NotOurs
        | OpenError::Setting(_)
        | OpenError::Damaged(_)
        | OpenError::Thread(_)) => unavailable(error.to_string()),
    }
}

/// Whether a statement was refused because another server has taken the place of this one.
pub(super) fn is_place_lost(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == LOST_PLACE)
}

/// The store cannot be used now.
pub(super) fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::Unavailable(Arc::new(Said(why.into())))
}

/// It is not known whether a write is durable.
pub(super) fn unknown(why: impl Into<String>) -> StoreError {
    StoreError::Unknown(Arc::new(Said(why.into())))
}
