//! The audit of a database file, read without a server.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::audit;
use super::open::{DATABASE_FILE, OpenError, connect_reader, migrated, refuse_foreign, sqlite};
use crate::model::{AuditHead, AuditRow};
use crate::store::StoreError;

/// The audit of a data directory, or of a backup file. A server may be using it meanwhile.
#[derive(Debug)]
pub struct AuditFile {
    conn: Connection,
    path: PathBuf,
}

/// Opens the audit in a data directory, or in a backup file, without changing it.
///
/// # Errors
/// [`OpenError`] if there is no store that can be opened, or one of a version that had no audit.
pub fn audit_file(path: &Path) -> Result<AuditFile, OpenError> {
    let path = if path.is_dir() { path.join(DATABASE_FILE) } else { path.to_owned() };
    let conn = connect_reader(&path).map_err(|error| sqlite(&path, error))?;
    refuse_foreign(&conn, &path)?;
    if !migrated(&conn).map_err(|error| sqlite(&path, error))? {
        let message = "its schema is older than this version: start a server on it once".to_owned();
        return Err(OpenError::Corrupt { path, message });
    }
    Ok(AuditFile { conn, path })
}

impl AuditFile {
    /// Entries after the one of this number, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub fn page(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        audit::page(&self.conn, after, limit)
    }

    /// The last entry that was deleted, and the newest.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub fn ends(&self) -> Result<(AuditHead, AuditHead), StoreError> {
        audit::ends(&self.conn)
    }

    /// Follows the whole chain, which must lead through `saved`: the number of entries and the head, or what is wrong.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn verify(
        &self,
        saved: Option<AuditHead>,
    ) -> Result<Result<(u64, AuditHead), String>, StoreError> {
        audit::verify(&self.conn, saved)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
