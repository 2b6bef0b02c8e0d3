//! Checkpoints the write-ahead log of SQLite beside the writer, so that commits need not wait for it.
//!
//! A checkpoint beside the writer covers what was in the log when it started; the little that has been added
//! meanwhile the writer checkpoints itself, between two transactions. Then SQLite resets the log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::open::{OpenError, connect_checkpointer, sqlite};

/// Pages (16 MiB) in the log at which it is checkpointed: enough that pages which are rewritten often are checkpointed
/// once, and few enough that a killed server reopens its store at once.
const PAGES: u32 = 4096;

/// If readers have kept the log from being reset, the checkpoint is retried after this many more pages.
const PAGES_MORE: u32 = 1024;

/// The writer's state of the log, and the checkpointing thread.
pub(super) struct Checkpointer {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Pages at which the next checkpoint starts.
    checkpoint_at: u32,
    /// A checkpoint is running.
    running: bool,
    asks: Option<SyncSender<()>>,
    answers: Receiver<rusqlite::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread, for the database at `path` and its writer's connection.
    pub(super) fn spawn(path: &Path, writer: &mut Connection) -> Result<Self, OpenError> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = pages.clone();
        let hook = move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(u32::try_from(pages).unwrap_or(0), Relaxed);
            Ok(())
        };
        writer.wal_hook(Some(hook)).map_err(|error| sqlite(path, error))?;
        let conn = connect_checkpointer(path).map_err(|error| sqlite(path, error))?;
        let (asks, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let builder = std::thread::Builder::new().name("store-checkpointer".to_owned());
        let thread = builder.spawn(move || {
            while let Ok(()) = asked.recv() {
                if answer
                    .send(checkpoint(&conn, "PRAGMA wal_checkpoint(PASSIVE)").map(|_| ()))
                    .is_err()
                {
                    return;
                }
            }
        });
        let thread = thread.map_err(|source| OpenError::Io {
            action: "start a thread for checkpoints",
            path: path.to_owned(),
            source,
        })?;
        let (asks, thread) = (Some(asks), Some(thread));
        Ok(Self { pages, checkpoint_at: PAGES, running: false, asks, answers, thread })
    }

    /// Called between transactions. Starts a checkpoint when it is due; returns the result of one that has ended.
    pub(super) fn poll(&mut self) -> Option<rusqlite::Result<()>> {
        let pages = self.pages.load(Relaxed);
        if self.running {
            let ended = match self.answers.try_recv() {
                Err(TryRecvError::Empty) => return None,
                Ok(result) => result,
                // It panicked: from now on the writer checkpoints.
                Err(TryRecvError::Disconnected) => {
                    self.asks = None;
                    Ok(())
                }
            };
            self.running = false;
            self.checkpoint_at = pages.saturating_add(PAGES_MORE);
            return Some(ended);
        }
        if pages < PAGES {
            // It was reset.
            self.checkpoint_at = PAGES;
        }
        if pages < self.checkpoint_at {
            return None;
        }
        self.running = self.asks.as_ref().is_some_and(|asks| asks.try_send(()).is_ok());
        if self.running {
            return None;
        }
        self.checkpoint_at = pages.saturating_add(PAGES_MORE);
        Some(Ok(()))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

/// Runs a checkpoint, and returns how many pages the log has.
pub(super) fn checkpoint(conn: &Connection, sql: &str) -> rusqlite::Result<i64> {
    conn.query_row(sql, [], |row| row.get(1))
}
