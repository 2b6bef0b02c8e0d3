//! Store in one SQLite file: the default of the server.
//!
//! WAL, flushed at every transaction. One thread writes and groups waiting batches into one transaction; a few
//! threads read. To look at the file, use the `sqlite3` tool: the views `machine_list`, `run_list` and `history` are
//! made for that.

mod append;
mod audit;
mod brakes;
mod check;
mod checkpointer;
mod commit;
mod counters;
mod cursors;
mod encoded;
mod error;
mod fold;
mod heads;
mod installations;
mod list;
mod load;
mod observed;
mod offline;
mod open;
mod options;
mod read;
mod readers;
mod repair;
mod restore;
mod room;
mod row;
mod schema;
mod seal;
mod shared;
#[cfg(test)]
mod tests;
mod trim;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub use check::{Report, accept, backup, check};
pub use offline::{AuditFile, audit_file};
pub use open::{DATABASE_FILE, LOCK_FILE, OpenError, claim_dir};
pub use options::{Fault, FaultHook, SqliteOptions};
pub use repair::{Dropped, RepairError, Repaired, repair};
pub use restore::Restoring;

use self::checkpointer::Checkpointer;
use self::encoded::Encoded;
use self::error::{failed, gone};
use self::readers::Lane;
use self::shared::Shared;
use self::writer::{Job, Work, Writer};
use super::stats::{Counting, StoreStats};
use super::{
    Availability, Batch, Committed, Fut, Listener, LogHead, Outcome, Ownership, OwnsAll, Page,
    Query, RequestRecord, Retention, SlotKey, Store, StoreError, Subject, Trimmed,
};
use crate::clock::SystemClock;
use crate::ids::{BatchId, Epoch, MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{
    AuditHead, AuditRow, Change, Cursor, HistoryRow, Installation, Lock, LogChunk, Machine,
    Observed, Run,
};

/// [`Store`] in a data directory. Dropping it finishes the commits in progress, and releases the directory.
pub struct SqliteStore {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Reads of single records.
    points: Option<Lane>,
    /// Lists, counts, history.
    scans: Option<Lane>,
    work: Option<Sender<Work>>,
    writer: Option<JoinHandle<()>>,
    /// While a round of [`Store::trim`] lasts: how many changes of machines it keeps, and the oldest of them.
    oldest_kept: Mutex<Option<(u64, i64)>>,
    /// Released last.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store in the directory `dir`, which is created if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub fn open(dir: &Path, options: SqliteOptions) -> Result<Self, OpenError> {
        let mut opened = open::open(dir, &options)?;
        let shared = Arc::new(Shared {
            listeners: Mutex::default(),
            stats: Counting::default(),
            availability: watch::Sender::default(),
            fault: options.fault,
            dir: dir.to_owned(),
            clock: options.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
        });
        let points = Lane::spawn("point", &opened.path, false)?;
        let scans = Lane::spawn("scan", &opened.path, true)?;
        let (work, queue) = channel();
        let checkpointer = Checkpointer::spawn(&opened.path, &mut opened.conn)?;
        let writer = Writer::new(opened.conn, checkpointer, opened.loaded, shared.clone());
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let thread = thread.spawn(move || writer.run(&queue)).map_err(|source| OpenError::Io {
            action: "start a thread to write",
            path: opened.path.clone(),
            source,
        })?;
        Ok(Self {
            shared,
            path: opened.path,
            points: Some(points),
            scans: Some(scans),
            work: Some(work),
            writer: Some(thread),
            oldest_kept: Mutex::default(),
            _lock: opened.lock,
        })
    }

    /// Counters since the store was opened.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.shared.stats.read()
    }

    /// Whether writes are refused until the store is reopened, because a flush failed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(*self.shared.availability.borrow(), Availability::Broken { .. })
    }

    /// Resolves when writes are refused until the store is reopened; never, if that does not happen.
    pub async fn until_broken(&self) {
        // The sender lives as long as the store.
        let mut availability = self.shared.availability.subscribe();
        let _ = availability.wait_for(|state| matches!(state, Availability::Broken { .. })).await;
    }

    /// Copies the store, as of one revision, to the new file `to`. Commits and reads continue meanwhile. Blocks the
    /// calling thread.
    ///
    /// # Errors
    /// [`OpenError::Io`] if `to` exists or cannot be written, [`OpenError::Sqlite`] if the copy fails; an incomplete
    /// file is removed.
    pub fn backup(&self, to: &Path) -> Result<(), OpenError> {
        backup(&self.path, to)
    }

    /// Refuses machines below an epoch, which is `least` or one far beyond every epoch in the store, whichever is
    /// greater. For a store that is behind what providers have seen.
    pub fn raise_epochs(&self, least: Epoch) -> Fut<'_, Epoch> {
        self.call(move |writer| writer.raise_epochs(least))
    }

    fn send(&self, work: Work) -> Result<(), StoreError> {
        let sent = self.work.as_ref().is_some_and(|queue| queue.send(work).is_ok());
        if sent { Ok(()) } else { Err(gone("writer of the store")) }
    }

    /// Runs `job` on the writer thread, between transactions.
    fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Fut<'_, T> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.send(Work::Call(Box::new(move |writer| {
                // The caller may have stopped waiting.
                let _ = answer.send(job(writer));
            })))?;
            answered.await.map_err(|_| gone("writer of the store"))?
        })
    }

    fn read<'a, T: Send + 'static>(
        lane: Option<&'a Lane>,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Fut<'a, T> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let sent = lane.is_some_and(|lane| {
                lane.send(Box::new(move |conn| {
                    if !answer.is_closed() {
                        let _ = answer.send(job(conn));
                    }
                }))
            });
            if !sent {
                return Err(gone("reader of the store"));
            }
            answered.await.map_err(|_| gone("reader of the store"))?
        })
    }

    /// Reads one record with one statement, which sees one revision without a transaction.
    fn point<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Fut<'_, T> {
        Self::read(self.points.as_ref(), job)
    }

    /// Reads many records.
    fn scan<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Fut<'_, T> {
        Self::read(self.scans.as_ref(), move |conn| in_transaction(conn, job))
    }
}

/// All statements of `job` see the same revision.
fn in_transaction<T>(
    conn: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = conn.unchecked_transaction().map_err(failed)?;
    let result = job(&transaction);
    transaction.commit().map_err(failed)?;
    result
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer's connection is the last to close: it checkpoints the log, unless a flush failed.
        self.points = None;
        self.scans = None;
        self.work = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has sent no answers after that: everything acknowledged is durable.
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for SqliteStore {
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>> {
        Box::pin(async move {
            let encoded = Encoded::new(&batch);
            let (answer, answered) = oneshot::channel();
            self.shared.stats.queued.fetch_add(1, Relaxed);
            self.send(Work::Commit(Box::new(Job { batch, encoded, answer })))?;
            answered.await.map_err(|_| gone("writer of the store"))?
        })
    }

    fn availability(&self) -> watch::Receiver<Availability> {
        self.shared.availability.subscribe()
    }

    fn ownership(&self) -> &dyn Ownership {
        &OwnsAll
    }

    fn slots(&self) -> Fut<'_, BTreeMap<SlotKey, u64>> {
        self.call(|writer| Ok(writer.slots()))
    }

    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome> {
        self.call(move |writer| writer.outcome(id, since))
    }

    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>> {
        let id = id.clone();
        self.point(move |conn| read::machine(conn, &id))
    }

    fn observed<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Observed>> {
        let id = id.clone();
        self.point(move |conn| observed::load(conn, &id))
    }

    fn installation<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Installation>> {
        let id = id.clone();
        self.point(move |conn| installations::load(conn, &id))
    }

    fn mac_owner<'a>(&'a self, mac: &'a str) -> Fut<'a, Option<MachineId>> {
        let mac = mac.to_owned();
        self.point(move |conn| heads::mac_owner(conn, &mac))
    }

    fn cursor<'a>(&'a self, receiver: &'a str) -> Fut<'a, Option<Cursor>> {
        let receiver = receiver.to_owned();
        self.point(move |conn| cursors::load(conn, &receiver))
    }

    fn locks(&self) -> Fut<'_, Vec<Lock>> {
        self.point(brakes::load)
    }

    fn machine_at<'a>(&'a self, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Machine>>> {
        let id = id.clone();
        self.point(move |conn| in_transaction(conn, |conn| read::machine_at(conn, &id, at)))
    }

    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>> {
        self.point(move |conn| in_transaction(conn, |conn| fold::run(conn, id)))
    }

    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>> {
        self.point(move |conn| in_transaction(conn, |conn| fold::run_at(conn, id, at)))
    }

    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>> {
        self.scan(move |conn| list::machines(conn, &query))
    }

    fn runs(&self, query: Query) -> Fut<'_, Page<Run>> {
        self.scan(move |conn| list::runs(conn, &query))
    }

    fn count_machines(&self, filter: Filter) -> Fut<'_, u64> {
        self.scan(move |conn| list::count_machines(conn, filter))
    }

    fn count_runs(&self, filter: Filter) -> Fut<'_, u64> {
        self.scan(move |conn| list::count_runs(conn, filter))
    }

    fn plan<'a>(&'a self, digest: &'a str) -> Fut<'a, Option<Arc<str>>> {
        let digest = digest.to_owned();
        self.point(move |conn| read::plan(conn, &digest))
    }

    fn request<'a>(
        &'a self,
        scope: &'a str,
        request_id: &'a str,
    ) -> Fut<'a, Option<RequestRecord>> {
        let (scope, request_id) = (scope.to_owned(), request_id.to_owned());
        self.point(move |conn| read::request(conn, &scope, &request_id))
    }

    fn history(
        &self,
        subject: Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Fut<'_, Vec<HistoryRow>> {
        self.scan(move |conn| read::history(conn, &subject, after, limit))
    }

    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>> {
        self.scan(move |conn| read::changes(conn, after, limit))
    }

    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>> {
        self.scan(move |conn| read::logs(conn, run, from, limit))
    }

    fn log_head(&self, run: RunId) -> Fut<'_, LogHead> {
        self.scan(move |conn| read::log_head(conn, run))
    }

    fn revisions(&self) -> Fut<'_, (Revision, Revision)> {
        self.point(read::revisions)
    }

    fn audit(&self, after: u64, limit: usize) -> Fut<'_, Vec<AuditRow>> {
        self.scan(move |conn| audit::page(conn, after, limit))
    }

    fn audit_ends(&self) -> Fut<'_, (AuditHead, AuditHead)> {
        self.scan(audit::ends)
    }

    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed> {
        Box::pin(async move {
            let counted = *self.oldest_kept.lock().unwrap_or_else(PoisonError::into_inner);
            // Counted once for all parts of a round: what is written meanwhile is for the next one.
            let oldest_kept = match counted {
                Some((most, place)) if most == retention.machine_changes_max => place,
                Some(_) | None => {
                    let most = retention.machine_changes_max;
                    self.scan(move |conn| trim::oldest_kept(conn, most)).await?.unwrap_or(i64::MIN)
                }
            };
            let trimmed = self.call(move |writer| writer.trim(retention, oldest_kept)).await?;
            let counted =
                (trimmed.changes > 0).then_some((retention.machine_changes_max, oldest_kept));
            *self.oldest_kept.lock().unwrap_or_else(PoisonError::into_inner) = counted;
            Ok(trimmed)
        })
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }
}
