//! Disk space: what the writer does while the disk is full.

use std::fs::{OpenOptions, remove_file};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::store::availability::Notice;

/// How often the writer checks for space while the disk is full.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// Space that must be available before writes are accepted again: with less, all waiting writes would come at once
/// and be refused at once.
const BYTES_MIN: usize = 1 << 20;

/// Name of the file that tests for space; removed at once.
const FILE: &str = "bmdemo.room";

/// Whether there is some space on the disk of a directory.
pub(super) fn is_there(dir: &Path) -> bool {
    let path = dir.join(FILE);
    // Left over from a server that was killed.
    let _ = remove_file(&path);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| {
        file.write_all(&vec![0x5a; BYTES_MIN])?;
        file.sync_all()
    });
    let _ = remove_file(&path);
    // Any other failure says nothing about space: the next write finds out.
    let full = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    };
    !written.is_err_and(|error| full(&error))
}

/// Writes a line of log about an outage.
pub(super) fn log(dir: &Path, notice: Notice) {
    let data_dir = dir.display();
    match notice {
        Notice::Began => tracing::warn!(
            %data_dir,
            "the store is full: nothing is written until there is space; reads still work"
        ),
        Notice::Lasts { lasted, refused } => tracing::warn!(
            %data_dir, seconds = lasted.as_secs(), refused, "the store is still full"
        ),
        Notice::Ended { lasted, refused } => tracing::info!(
            %data_dir, seconds = lasted.as_secs(), refused, "the store has space again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_looked_for_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "left over").unwrap();
        assert!(is_there(dir.path()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(is_there(&dir.path().join("missing")), "that is not for want of room");
    }
}
