//! The journal on disk: one thread writes the records, many calls per flush.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::journal::{self, FORMAT, JOURNAL_FILE, KEY_FILE, WorldError};
use super::queue::Trouble;
use super::shared::Shared;
use super::state::{Record, State};
use crate::files;

/// Size from which the journal is compacted, if it has also grown to three times its size after the last compaction.
///
/// Replaying it takes under a second, and it holds about the latest 200,000 operations.
pub(super) const COMPACT_BYTES: u64 = 64 << 20;

/// Operations of each machine that a compaction keeps. An engine asks about the operation in flight, or the one
/// before it.
const KEPT_OPERATIONS: usize = 4;

/// After a flush for this many callers or more, the next one waits for [`LINGER`].
const BUSY_WAITERS: usize = 16;

/// How long the writer waits for more callers when there are many; a single one never waits.
const LINGER: Duration = Duration::from_micros(500);

/// Largest key file, in bytes: sixteen digits and a line break, with room for what an editor adds.
const KEY_BYTES_MAX: u64 = 64;

/// Operations of each machine that are kept in memory: three runs of five steps.
const REMEMBERED_OPERATIONS: usize = 16;

/// The open file.
pub(super) struct Disk {
    path: PathBuf,
    file: File,
    /// Bytes that hold whole batches.
    len: u64,
    /// Bytes that are durable.
    durable: u64,
    /// Bytes that the file itself declares durable.
    stated: u64,
    /// Size right after the last compaction.
    compacted: u64,
    compact_bytes: u64,
    #[cfg(test)]
    full: bool,
}

impl Disk {
    /// Opens or creates the journal of a directory and reads it.
    ///
    /// # Errors
    /// [`WorldError`]; then nothing has been changed.
    pub(super) fn open(dir: &Path, compact_bytes: u64) -> Result<(Self, State), WorldError> {
        let path = dir.join(JOURNAL_FILE);
        let failed = |action: &'static str| {
            let path = path.clone();
            move |source| WorldError::Io { action, path, source }
        };
        let bytes = match files::read_own(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read")(error)),
        };
        let mut state = State::bounded(REMEMBERED_OPERATIONS);
        let extent = journal::replay(&path, &bytes, &mut state)?;
        let file =
            files::open_own(options().create(true).append(true), &path).map_err(failed("open"))?;
        let torn_bytes = bytes.len() - extent.good_bytes;
        if torn_bytes > 0 {
            let lines = extent.lines;
            tracing::warn!(
                path = %path.display(),
                torn_bytes,
                lines,
                "the end of the fake provider's journal was torn by a power loss and has been cut"
            );
            file.set_len(extent.good_bytes as u64).map_err(failed("cut"))?;
        }
        let len = extent.good_bytes as u64;
        let mut disk = Self {
            path: path.clone(),
            file,
            len,
            durable: 0,
            stated: 0,
            compacted: 0,
            compact_bytes,
            #[cfg(test)]
            full: false,
        };
        if extent.lines == 0 {
            let mut header = Vec::new();
            journal::encode(&Record::Header { format: FORMAT }, &mut header);
            disk.append(&header).map_err(failed("write"))?;
        }
        disk.flush().map_err(failed("flush"))?;
        sync_directory(dir).map_err(failed("flush the directory of"))?;
        Ok((disk, state))
    }

    /// Writes bytes at the end, or none of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.write_all(bytes) {
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    #[cfg(not(test))]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Writes half of the bytes, as a full disk does.
    #[cfg(test)]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full && !bytes.is_empty() {
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(bytes)
    }

    #[cfg(test)]
    fn fill_up(&mut self, full: bool) {
        self.full = full;
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.durable < self.len {
            self.file.sync_data()?;
            self.durable = self.len;
        }
        Ok(())
    }

    /// Writes a batch, and flushes it if a caller waits for it.
    fn write(&mut self, bytes: &[u8], flushed: bool) -> Result<(), Trouble> {
        let mut stated = Vec::new();
        if flushed && self.stated < self.durable && !bytes.is_empty() {
            journal::encode(&Record::Synced { offset: self.durable }, &mut stated);
            stated.extend_from_slice(bytes);
        }
        let batch = if stated.is_empty() { bytes } else { &stated };
        let durable = self.durable;
        self.append(batch).map_err(|error| self.trouble("write", &error))?;
        if !stated.is_empty() {
            self.stated = durable;
        }
        if flushed {
            self.flush().map_err(|error| self.trouble("flush", &error))?;
        }
        Ok(())
    }

    fn trouble(&self, action: &str, error: &io::Error) -> Trouble {
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let may_pass = full && action == "write";
        let advice = if may_pass { "free space" } else { "restart the server" };
        let path = self.path.display();
        let why = format!("cannot {action} the fake provider's journal {path}: {error}; {advice}");
        Trouble { why, may_pass }
    }

    fn has_outgrown(&self) -> bool {
        self.len >= self.compact_bytes.max(self.compacted.saturating_mul(3))
    }

    /// Writes a journal with these records beside the old one.
    fn write_beside(&self, records: &[Record]) -> io::Result<(PathBuf, File, u64)> {
        let beside = self.path.with_extension("journal.new");
        let mut bytes = Vec::new();
        journal::encode(&Record::Header { format: FORMAT }, &mut bytes);
        for record in records {
            journal::encode(record, &mut bytes);
        }
        let mut file = files::open_own(options().create(true).write(true).truncate(true), &beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        let file = OpenOptions::new().append(true).open(&beside)?;
        Ok((beside, file, bytes.len() as u64))
    }

    /// Replaces the old journal with the new one.
    fn swap(&mut self, beside: &Path, file: File, len: u64) -> io::Result<()> {
        std::fs::rename(beside, &self.path)?;
        self.file = file;
        self.len = len;
        (self.durable, self.stated, self.compacted) = (len, 0, len);
        self.path.parent().map_or(Ok(()), sync_directory)
    }
}

/// Options of a file that only its owner can read.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes records until the world is closed. Runs on its own thread.
pub(super) fn run_writer(shared: &Arc<Shared>, mut disk: Disk) {
    let mut waited = 0;
    loop {
        if waited >= BUSY_WAITERS {
            // When this many wait at once, more come in a moment, and one flush serves them all.
            std::thread::sleep(LINGER);
        }
        let (bytes, waiters, upto, closing) = {
            let mut core = shared.wait_while(|queue| !queue.has_work());
            let recorded = core.state.recorded();
            let queue = &mut core.queue;
            queue.try_again = false;
            let bytes = std::mem::take(&mut queue.bytes);
            (bytes, std::mem::take(&mut queue.waiters), recorded, queue.closing)
        };
        let flushed = closing || !waiters.is_empty();
        #[cfg(test)]
        disk.fill_up(shared.lock().queue.full);
        let written = disk.write(&bytes, flushed);
        {
            let mut core = shared.lock();
            let queue = &mut core.queue;
            match &written {
                Ok(()) => {
                    queue.trouble = None;
                    if flushed {
                        queue.durable = upto;
                        queue.flushes += 1;
                    }
                }
                Err(trouble) => {
                    if queue.trouble.is_none() {
                        tracing::error!(
                            why = trouble.why,
                            "the fake provider's world is read-only"
                        );
                    }
                    // Kept at the front, in order: the world in memory has them.
                    let later = std::mem::replace(&mut queue.bytes, bytes);
                    queue.bytes.extend_from_slice(&later);
                    queue.refuse(trouble.clone());
                }
            }
        }
        let verdict = written.map_err(|trouble| trouble.why);
        waited = waiters.len();
        for waiter in waiters {
            // The caller may have gone away.
            let _ = waiter.send(verdict.clone());
        }
        if closing {
            return;
        }
        if verdict.is_ok() && disk.has_outgrown() {
            compact(shared, &mut disk);
        }
    }
}

/// Compacts the journal. If that fails the old one stays in use, and grows.
fn compact(shared: &Arc<Shared>, disk: &mut Disk) {
    let (records, taken, upto) = {
        let mut core = shared.lock();
        let records = core.state.snapshot(KEPT_OPERATIONS);
        let upto = core.state.recorded();
        // The snapshot contains them.
        (records, std::mem::take(&mut core.queue.bytes), upto)
    };
    let written = disk.write_beside(&records);
    let swapped = match written {
        Ok((beside, file, len)) => disk.swap(&beside, file, len),
        Err(error) => {
            tracing::warn!(%error, "cannot rewrite the fake provider's journal");
            let queue = &mut shared.lock().queue;
            let later = std::mem::replace(&mut queue.bytes, taken);
            queue.bytes.extend_from_slice(&later);
            // Not retried before it has grown by half.
            disk.compacted = disk.len / 2;
            return;
        }
    };
    let queue = &mut shared.lock().queue;
    match swapped {
        Ok(()) => queue.durable = upto,
        // It is unknown which of the two journals would survive a power loss.
        Err(error) => queue.refuse(disk.trouble("replace", &error)),
    }
}

/// The key in the directory's [`KEY_FILE`]; `fresh` is stored there first if there is none.
pub(super) fn key(dir: &Path, fresh: u64) -> Result<u64, WorldError> {
    let path = dir.join(KEY_FILE);
    let failed = |action: &'static str| {
        let path = path.clone();
        move |source| WorldError::Io { action, path, source }
    };
    match files::read_text(&path, KEY_BYTES_MAX) {
        Ok(text) => u64::from_str_radix(text.trim(), 16).map_err(|error| {
            failed("understand")(io::Error::new(io::ErrorKind::InvalidData, error))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let new = dir.join(format!("{}.new", KEY_FILE));
            let mut file = files::open_own(options().create(true).write(true).truncate(true), &new)
                .map_err(failed("create"))?;
            file.write_all(format!("{fresh:016x}\n").as_bytes())
                .and_then(|()| file.sync_all())
                .and_then(|()| std::fs::rename(&new, &path))
                .and_then(|()| sync_directory(dir))
                .map_err(failed("write"))?;
            Ok(fresh)
        }
        Err(error) => Err(failed("read")(error)),
    }
}
