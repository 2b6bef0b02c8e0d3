//! Copies the log of SQLite into the database beside the writer, so that commits need not wait for it.
//!
//! A copy that runs beside the writer ends with what was in the log when it began; what has come meanwhile is little,
//! and the writer copies that itself, between two transactions. Then SQLite begins the log anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::open::{OpenError, connect_copier, sqlite};

/// The log is copied from this many pages (16 MiB) on: so many that pages that are written again and again are copied
/// once, so few that a server that was killed opens its store at once.
const PAGES: u32 = 4096;

/// If readers have kept the log from beginning anew, it is tried again after this many more pages.
const PAGES_MORE: u32 = 1024;

/// What the writer knows of the log, and the thread that copies it.
pub(super) struct Copier {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Pages at which it is copied next.
    copy_at: u32,
    /// The answer is awaited.
    copying: bool,
    asks: Option<SyncSender<()>>,
    answers: Receiver<rusqlite::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    /// Starts the thread, for the database at `path` and its writer's connection.
    pub(super) fn spawn(path: &Path, writer: &mut Connection) -> Result<Self, OpenError> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = pages.clone();
        let hook = move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(u32::try_from(pages).unwrap_or(0), Relaxed);
            Ok(())
        };
        writer.wal_hook(Some(hook)).map_err(|error| sqlite(path, error))?;
        let conn = connect_copier(path).map_err(|error| sqlite(path, error))?;
        let (asks, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let builder = std::thread::Builder::new().name("store-copier".to_owned());
        let thread = builder.spawn(move || {
            while let Ok(()) = asked.recv() {
                if answer.send(copy(&conn, "PRAGMA wal_checkpoint(PASSIVE)").map(|_| ())).is_err() {
                    return;
                }
            }
        });
        let thread = thread.map_err(|source| OpenError::Io {
            action: "start a thread to copy the log",
            path: path.to_owned(),
            source,
        })?;
        let (asks, thread) = (Some(asks), Some(thread));
        Ok(Self { pages, copy_at: PAGES, copying: false, asks, answers, thread })
    }

    /// To be called between transactions. Begins a copy when it is time to; returns how one has ended that was begun.
    pub(super) fn poll(&mut self) -> Option<rusqlite::Result<()>> {
        let pages = self.pages.load(Relaxed);
        if self.copying {
            let ended = match self.answers.try_recv() {
                Err(TryRecvError::Empty) => return None,
                Ok(result) => result,
                // It panicked: from now on the writer copies.
                Err(TryRecvError::Disconnected) => {
                    self.asks = None;
                    Ok(())
                }
            };
            self.copying = false;
            self.copy_at = pages.saturating_add(PAGES_MORE);
            return Some(ended);
        }
        if pages < PAGES {
            // It was begun anew.
            self.copy_at = PAGES;
        }
        if pages < self.copy_at {
            return None;
        }
        self.copying = self.asks.as_ref().is_some_and(|asks| asks.try_send(()).is_ok());
        if self.copying {
            return None;
        }
        self.copy_at = pages.saturating_add(PAGES_MORE);
        Some(Ok(()))
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

/// Runs a checkpoint, and returns how many pages the log has.
pub(super) fn copy(conn: &Connection, sql: &str) -> rusqlite::Result<i64> {
    conn.query_row(sql, [], |row| row.get(1))
}
