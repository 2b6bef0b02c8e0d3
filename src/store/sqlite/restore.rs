//! Restores a backup into an unused data directory.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::check::backup;
use super::error::{failed, uint};
use super::open::{
    DATABASE_FILE, OpenError, connect_reader, io, make_dir, refuse_foreign, sqlite, sync_dir,
    take_lock,
};
use super::writer::Writer;
use crate::ids::Epoch;
use crate::store::StoreError;

/// Subdirectory of the store until it is complete, in the data directory.
const UNFINISHED: &str = "restoring";

/// Least distance of a restore's floor from every epoch in the store: no machine is claimed this often between a
/// backup and its restore.
const EPOCHS_MAX_SINCE: u64 = 1_000_000_000;

/// A data directory into which a backup is being restored. It has no database until that is finished; if dropped
/// earlier it leaves nothing behind.
#[derive(Debug)]
pub struct Restoring {
    dir: PathBuf,
    unfinished: PathBuf,
    /// Held to the end: no server uses the directory meanwhile.
    _lock: File,
}

impl Restoring {
    /// Copies the backup into the data directory `dir`, which is created if it does not exist, for a store to be
    /// opened in [`Restoring::store_dir`].
    ///
    /// # Errors
    /// [`OpenError`], in particular [`OpenError::Used`] if the directory has a database, or had one.
    pub fn begin(from: &Path, dir: &Path) -> Result<Self, OpenError> {
        let conn = connect_reader(from).map_err(|error| sqlite(from, error))?;
        refuse_foreign(&conn, from)?;
        drop(conn);
        for name in [DATABASE_FILE.to_owned(), format!("{DATABASE_FILE}-wal")] {
            if dir.join(name).symlink_metadata().is_ok() {
                return Err(OpenError::Used { dir: dir.to_owned() });
            }
        }
        make_dir(dir)?;
        let (lock, set_up) = take_lock(dir)?;
        if set_up {
            return Err(OpenError::Used { dir: dir.to_owned() });
        }
        let unfinished = dir.join(UNFINISHED);
        // Left over from an interrupted restore.
        match std::fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io("remove", &unfinished)(error));
            }
            Ok(()) | Err(_) => {}
        }
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(io("create", &unfinished))?;
        let restoring = Self { dir: dir.to_owned(), unfinished, _lock: lock };
        backup(from, &restoring.unfinished.join(DATABASE_FILE))?;
        Ok(restoring)
    }

    /// Directory of the store during the restore.
    #[must_use]
    pub fn store_dir(&self) -> &Path {
        &self.unfinished
    }

    /// Moves the database to its place. The store in [`Restoring::store_dir`] must have been closed.
    ///
    /// # Errors
    /// [`OpenError::Io`]; then the data directory has no database.
    pub fn finish(self) -> Result<(), OpenError> {
        let from = self.unfinished.join(DATABASE_FILE);
        let log = self.unfinished.join(format!("{DATABASE_FILE}-wal"));
        if log.metadata().is_ok_and(|log| log.len() > 0) {
            let error = std::io::Error::other("its log could not be checkpointed");
            return Err(io("finish", &from)(error));
        }
        File::open(&from).and_then(|file| file.sync_all()).map_err(io("flush", &from))?;
        let to = self.dir.join(DATABASE_FILE);
        std::fs::rename(&from, &to).map_err(io("create", &to))?;
        sync_dir(&self.dir)
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        // A leftover is removed by the next restore.
        drop(std::fs::remove_dir_all(&self.unfinished));
    }
}

impl Writer {
    pub(super) fn raise_epochs(&mut self, least: Epoch) -> Result<Epoch, StoreError> {
        let mut floor = least;
        self.transaction(|conn, counters| {
            let sql = "SELECT max(coalesce((SELECT max(epoch) FROM machines), 0),
                coalesce((SELECT max(epoch) FROM gone), 0))";
            let known = conn.query_row(sql, [], |row| row.get(0)).map(uint).map_err(failed)?;
            let known = known.max(counters.epoch_floor.0);
            floor = least.max(Epoch(known.saturating_add(EPOCHS_MAX_SINCE)));
            counters.epoch_floor = floor;
            Ok(1)
        })?;
        Ok(floor)
    }
}
