//! Facts about the server's host: its data directory, and the last reload of its configuration.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::config::Storage;
use crate::api::{DataFacts, Facts};
use crate::clock::Timestamp;
use crate::files;

/// File in the data directory with the time of the last backup: one line, milliseconds since 1970.
const LAST_BACKUP: &str = "last-backup";

/// Longest content of that file that is read.
const LAST_BACKUP_BYTES_MAX: u64 = 64;

/// Longest error of a reload that is kept; the log has all of it.
const ERROR_CHARS_MAX: usize = 4_000;

/// Facts about the server's host.
#[derive(Debug)]
pub(super) struct Host {
    dir: Option<PathBuf>,
    last_reload: Mutex<Option<(Timestamp, Option<String>)>>,
}

impl Host {
    pub(super) fn new(storage: &Storage) -> Self {
        let dir = match storage {
            Storage::Dir(dir) => Some(dir.clone()),
            Storage::Ephemeral => None,
        };
        Self { dir, last_reload: Mutex::default() }
    }

    /// Records a reload of configuration and plans: why it was refused, if it was.
    pub(super) fn reloaded(&self, at: Timestamp, error: Option<String>) {
        let error = error.map(|error| error.chars().take(ERROR_CHARS_MAX).collect());
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, error));
    }

    /// Whether the last reload was refused, so that older settings are in force.
    pub(super) fn is_reload_refused(&self) -> bool {
        let last = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|(_, error)| error.is_some())
    }

    /// Reads the facts from the disk.
    pub(super) fn facts(&self) -> Facts {
        let last_reload = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let data = self.dir.as_deref().map(data_facts);
        Facts { data, last_reload, receivers: Vec::new() }
    }
}

fn data_facts(dir: &Path) -> DataFacts {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok()).filter(|file| file.is_file());
    let room = rustix::fs::statvfs(dir).ok();
    DataFacts {
        dir: dir.to_owned(),
        bytes: files.map(|file| file.len()).sum(),
        bytes_free: room.map_or(0, |room| room.f_bavail.saturating_mul(room.f_frsize)),
        last_backup_at: last_backup(dir),
    }
}

fn last_backup(dir: &Path) -> Option<Timestamp> {
    let text = files::read_text(&dir.join(LAST_BACKUP), LAST_BACKUP_BYTES_MAX).ok()?;
    text.trim().parse().ok().map(Timestamp)
}

/// Records in the data directory that a backup was finished.
///
/// # Errors
/// Those of the file system; the backup is complete all the same.
pub(super) fn backed_up(dir: &Path, at: Timestamp) -> std::io::Result<()> {
    let new = dir.join(format!("{LAST_BACKUP}.new"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::write(&new, format!("{}\n", at.0))?;
    std::fs::rename(new, dir.join(LAST_BACKUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_described() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("one"), [0; 1000]).unwrap();
        let host = Host::new(&Storage::Dir(dir.path().to_owned()));
        let facts = host.facts();
        let data = facts.data.unwrap();
        assert_eq!((data.dir.as_path(), data.bytes, data.last_backup_at), (dir.path(), 1000, None));
        assert!(data.bytes_free > 0);
        assert_eq!(facts.last_reload, None);

        backed_up(dir.path(), Timestamp(1_700_000_000_000)).unwrap();
        host.reloaded(Timestamp(5), Some("no such plan".to_owned()));
        let facts = host.facts();
        let data = facts.data.unwrap();
        assert_eq!(data.last_backup_at, Some(Timestamp(1_700_000_000_000)));
        assert_eq!(facts.last_reload, Some((Timestamp(5), Some("no such plan".to_owned()))));
        assert!(Host::new(&Storage::Ephemeral).facts().data.is_none());
    }
}
