//! The one thread that writes: it drains its queue into one transaction, so that one flush serves many commits.
//!
//! Order: all preconditions of a batch, its writes, the next batch …, COMMIT, listeners, answers. A refused batch
//! wrote nothing, so the others continue without it. If the transaction fails, none of them is written and all get
//! the error.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::oneshot;

use super::checkpointer::{Checkpointer, checkpoint};
use super::commit::{Stopped, apply};
use super::counters::Counters;
use super::encoded::Encoded;
use super::error::failed;
use super::heads::Rows;
use super::load::{Loaded, load_slots, save_outcomes};
use super::options::Fault;
use super::shared::Shared;
use super::{room, trim};
use crate::clock::Timestamp;
use crate::ids::{BatchId, Revision};
use crate::store::availability::{Notice, Outage};
use crate::store::outcomes::Outcomes;
use crate::store::{
    Availability, Batch, Committed, Outcome, Retention, SlotKey, StoreError, Trimmed,
};

/// Most batches in one transaction.
const GROUP_MAX: usize = 4096;

/// After a transaction of this many batches or more, the next one waits for [`LINGER`].
const BUSY_GROUP: usize = 16;

/// How long the writer waits for more batches when there are many: a flush or two of a fast disk. A single batch
/// never waits.
const LINGER: Duration = Duration::from_micros(250);

/// Pages (256 MiB) at which the log is reset even if readers must be waited for: otherwise overlapping readers would
/// let it grow forever.
const LOG_PAGES_MAX: i64 = 65_536;

/// A batch that waits for its commit.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) encoded: Encoded,
    pub(super) answer: oneshot::Sender<Result<Arc<Committed>, StoreError>>,
}

/// Work for the writer.
pub(super) enum Work {
    Commit(Box<Job>),
    /// Any other job on the writer's connection, between transactions.
    Call(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// A flush failed: it is unknown what is durable, and a retry could report a false success.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "an earlier write may or may not be durable; writes are refused until the store is reopened"
)]
struct Broken(#[source] Arc<dyn std::error::Error + Send + Sync>);

/// The writer's side of the store.
pub(super) struct Writer {
    /// Before the connection, which must be the last to close.
    checkpointer: Checkpointer,
    pub(super) conn: Connection,
    pub(super) counters: Counters,
    pub(super) shared: Arc<Shared>,
    broken: Option<Broken>,
    rows: Rows,
    /// Time of the last commit.
    at: Timestamp,
    outcomes: Outcomes,
    outage: Outage,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        checkpointer: Checkpointer,
        loaded: Loaded,
        shared: Arc<Shared>,
    ) -> Self {
        let Loaded { counters, at, slots, outcomes } = loaded;
        let rows = Rows { slots, ..Rows::default() };
        let (broken, outage) = (None, Outage::default());
        Self { checkpointer, conn, counters, shared, broken, rows, at, outcomes, outage }
    }

    /// Works until every sender is gone.
    pub(super) fn run(mut self, queue: &Receiver<Work>) {
        let mut last_group = 0;
        while let Some(work) = self.next_work(queue) {
            if last_group >= BUSY_GROUP {
                // When this many wait at once, more come in a moment, and one flush serves them all.
                std::thread::sleep(LINGER);
            }
            let mut next = Some(work);
            let mut jobs = Vec::new();
            let mut call = None;
            while let Some(work) = next.take() {
                match work {
                    Work::Commit(job) => jobs.push(*job),
                    Work::Call(work) => call = Some(work),
                }
                if call.is_none() && jobs.len() < GROUP_MAX {
                    next = queue.try_recv().ok();
                }
            }
            last_group = jobs.len();
            if !jobs.is_empty() {
                self.shared.stats.queued.fetch_sub(jobs.len() as u64, Relaxed);
                self.commit(jobs);
            }
            if let Some(call) = call {
                call(&mut self);
            }
            self.tend_log();
        }
    }

    /// The next work. Checks for space meanwhile, if the disk is full.
    fn next_work(&mut self, queue: &Receiver<Work>) -> Option<Work> {
        while self.outage.lasts() {
            match queue.recv_timeout(room::INTERVAL) {
                Ok(work) => return Some(work),
                Err(RecvTimeoutError::Timeout) => self.look_for_room(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        queue.recv().ok()
    }

    fn look_for_room(&mut self) {
        let is_full = matches!(*self.shared.availability.borrow(), Availability::Full { .. });
        if is_full && room::is_there(self.shared.dir()) {
            let counters = self.counters;
            let written =
                self.transaction(|conn, _| counters.save(conn).map(|()| 1).map_err(failed));
            self.met(&written, 0);
        }
        let notice = self.outage.pass(self.shared.clock.monotonic());
        self.notice(notice);
    }

    /// Updates the availability after a transaction of this many writes: whether the disk is full.
    fn met(&mut self, written: &Result<u64, StoreError>, writes: u64) {
        let now = self.shared.clock.monotonic();
        let (is_full, notice) = match written {
            Err(StoreError::Full(_)) => (true, self.outage.refused(writes, now)),
            Ok(1..) if self.outage.lasts() => (false, self.outage.room(now)),
            Ok(_) | Err(_) => return,
        };
        self.shared.availability.send_if_modified(|state| match (&*state, is_full) {
            (Availability::Ok, true) => {
                *state = Availability::Full { since: self.shared.clock.now() };
                true
            }
            (Availability::Full { .. }, false) => {
                *state = Availability::Ok;
                true
            }
            (Availability::Ok, false)
            | (Availability::Full { .. }, true)
            | (Availability::Away { .. } | Availability::Broken { .. }, _) => false,
        });
        self.notice(notice);
    }

    fn notice(&self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            room::log(self.shared.dir(), notice);
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let writes = jobs.len() as u64;
        let mut answers = Vec::with_capacity(jobs.len());
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut named = Vec::with_capacity(jobs.len());
        // Whatever the clock says, no commit is older than the one before it.
        let at = self.shared.clock.now().max(self.at);
        let since = self.counters.revision;
        // Dropped if the transaction fails: the cache must equal what is stored.
        let mut kept = std::mem::take(&mut self.rows);
        let mut rest = jobs.into_iter();
        let written = self.transaction(|conn, counters| {
            let mut rows = 0;
            for job in rest.by_ref() {
                answers.push(job.answer);
                let id = job.batch.id;
                match apply(conn, counters, &mut kept, at, job.batch, &job.encoded) {
                    Ok(applied) => {
                        rows += applied.rows;
                        if id != BatchId::default() {
                            named.push((id, applied.committed.revision));
                        }
                        outcomes.push(Ok(Arc::new(applied.committed)));
                    }
                    Err(Stopped::Refused(error)) => outcomes.push(Err(error)),
                    Err(Stopped::Failed(error)) => return Err(failed(error)),
                }
            }
            if rows > 0 {
                save_outcomes(conn, since, &named).map_err(failed)?;
            }
            Ok(rows)
        });
        self.met(&written, writes);
        if let Err(error) = written {
            match load_slots(&self.conn) {
                Ok(slots) => self.rows.slots = slots,
                Err(error) => self.break_off(Arc::new(error)),
            }
            answers.extend(rest.map(|job| job.answer));
            for answer in answers {
                // The caller may have stopped waiting.
                let _ = answer.send(Err(error.clone()));
            }
            return;
        }
        self.rows = kept;
        self.at = at;
        for (id, revision) in named {
            self.outcomes.note(id, revision);
        }
        self.announce(&outcomes);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            let _ = answer.send(outcome);
        }
    }

    fn announce(&self, outcomes: &[Result<Arc<Committed>, StoreError>]) {
        let stats = &self.shared.stats;
        let listeners = self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let mut commits = 0;
        for committed in outcomes.iter().flatten() {
            commits += 1;
            for listener in listeners.iter() {
                listener.committed(committed);
            }
        }
        stats.commits.fetch_add(commits, Relaxed);
        stats.refused.fetch_add(outcomes.len() as u64 - commits, Relaxed);
        stats.group(commits);
    }

    /// The outcome of a batch that was queued before this call.
    pub(super) fn outcome(&self, id: BatchId, since: Revision) -> Result<Outcome, StoreError> {
        match &self.broken {
            Some(broken) => Err(StoreError::Unavailable(Arc::new(broken.clone()))),
            None => Ok(self.outcomes.of(id, since)),
        }
    }

    /// How many slots are taken of each key.
    pub(super) fn slots(&self) -> BTreeMap<SlotKey, u64> {
        self.rows.slots.used()
    }

    pub(super) fn trim(
        &mut self,
        retention: Retention,
        oldest_kept: i64,
    ) -> Result<Trimmed, StoreError> {
        let mut trimmed = Trimmed::default();
        self.rows.plans.clear();
        let written = self.transaction(|conn, counters| {
            trimmed = trim::trim(conn, counters, retention, oldest_kept)?;
            Ok(trimmed.runs + trimmed.changes + trimmed.requests + trimmed.audit)
        });
        self.met(&written, 1);
        written.map(|_| trimmed)
    }

    /// Runs `write` in a transaction; it returns how many rows it wrote. Nothing is flushed if it wrote none.
    pub(super) fn transaction(
        &mut self,
        write: impl FnOnce(&Connection, &mut Counters) -> Result<u64, StoreError>,
    ) -> Result<u64, StoreError> {
        if let Some(broken) = &self.broken {
            return Err(StoreError::Unavailable(Arc::new(broken.clone())));
        }
        self.execute("BEGIN IMMEDIATE").map_err(failed)?;
        let mut counters = self.counters;
        let written = write(&self.conn, &mut counters).and_then(|rows| {
            if counters != self.counters {
                counters.save(&self.conn).map_err(failed)?;
            }
            Ok(rows)
        });
        match written {
            Ok(0) => {
                self.roll_back();
                Ok(0)
            }
            Ok(rows) => {
                self.flush()?;
                self.counters = counters;
                Ok(rows)
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// COMMIT. A full disk is detected before anything counts as written; any other failure leaves the outcome
    /// unknown, and is never retried: a second fsync may succeed although the first one lost the data.
    fn flush(&mut self) -> Result<(), StoreError> {
        let committed = match self.shared.fault() {
            None => self.execute("COMMIT"),
            Some(Fault::Full) => Err(sqlite_failure(rusqlite::ffi::SQLITE_FULL)),
            Some(Fault::SyncLost) => Err(sqlite_failure(rusqlite::ffi::SQLITE_IOERR_FSYNC)),
            Some(Fault::SyncKept) => {
                self.execute("COMMIT").and(Err(sqlite_failure(rusqlite::ffi::SQLITE_IOERR_FSYNC)))
            }
        };
        self.shared.stats.flushes.fetch_add(1, Relaxed);
        let Err(error) = committed else { return Ok(()) };
        if matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull)) {
            self.roll_back();
            // The space of the log can be reused after a checkpoint.
            self.checkpoint();
            return Err(failed(error));
        }
        let error: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error);
        self.roll_back();
        self.break_off(error.clone());
        Err(StoreError::Unknown(error))
    }

    fn roll_back(&mut self) {
        // Some failures have rolled back already.
        if self.conn.is_autocommit() {
            return;
        }
        if let Err(error) = self.execute("ROLLBACK") {
            self.break_off(Arc::new(error));
        }
    }

    /// Refuses every later write, and keeps SQLite from flushing again when the connections are closed.
    fn break_off(&mut self, cause: Arc<dyn std::error::Error + Send + Sync>) {
        tracing::error!(error = %cause, "the store refuses further writes until it is reopened");
        self.broken = Some(Broken(cause));
        let since = self.shared.clock.now();
        self.shared.availability.send_replace(Availability::Broken { since });
        // It cannot fail for an open connection.
        let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }

    /// Starts a checkpoint when the log is long, and checkpoints what has been added meanwhile.
    fn tend_log(&mut self) {
        if self.broken.is_none()
            && let Some(checkpointed) = self.checkpointer.poll()
        {
            self.checkpointed(checkpointed);
            self.checkpoint();
        }
    }

    /// Checkpoints the log, as far as readers allow.
    fn checkpoint(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let mut result = checkpoint(&self.conn, "PRAGMA wal_checkpoint(PASSIVE)");
        if result.as_ref().is_ok_and(|pages| *pages > LOG_PAGES_MAX) {
            result = checkpoint(&self.conn, "PRAGMA wal_checkpoint(RESTART)");
        }
        self.shared.stats.checkpoints.fetch_add(1, Relaxed);
        self.checkpointed(result.map(|_| ()));
    }

    fn checkpointed(&mut self, result: rusqlite::Result<()>) {
        match result.as_ref().map_err(rusqlite::Error::sqlite_error_code) {
            // A full disk leaves the log unchanged: it is checkpointed when there is space.
            Ok(())
            | Err(Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::DatabaseBusy)) => {}
            Err(_) => {
                if let Err(error) = result {
                    self.break_off(Arc::new(error));
                }
            }
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }
}

fn sqlite_failure(code: std::ffi::c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}
