//! Conversion of SQLite's errors to ours.

use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::store::StoreError;
pub(super) use crate::store::keys::{
    corrupt, int, ms, named, place, place_after, revision_of, run_after, uint,
};

/// Meaning of a failed statement other than COMMIT.
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(Arc::new(error)),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            kind: "database",
            id: "file".to_owned(),
            message: error.to_string(),
        },
        _ => StoreError::Unavailable(Arc::new(error)),
    }
}

/// A thread that should be running is not.
pub(super) fn gone(what: &'static str) -> StoreError {
    #[derive(Debug, thiserror::Error)]
    #[error("the {0} has stopped")]
    struct Gone(&'static str);
    StoreError::Unavailable(Arc::new(Gone(what)))
}
