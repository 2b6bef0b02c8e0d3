//! Store in a PostgreSQL database, for one server at a time.
//!
//! One session writes and groups waiting batches into one transaction, which is sent in one go; a few sessions read.
//! All of them are served by one thread. Everything is in the schema `bmdemo`; to look at it, use `psql`: the views
//! `machine_list`, `run_list` and `history` are made for that.
//!
//! The schema and the meaning of its columns are those of the store in SQLite as far as possible, with two differences:
//! the row of an active run is never behind its changes, and rows have no checksums, since PostgreSQL has them for pages.

mod connection;
mod encoded;
mod error;
mod feed;
mod group;
mod heads;
mod list;
mod load;
mod lookup;
mod options;
mod place;
mod pool;
mod read;
mod rows;
mod schema;
mod session;
mod settings;
mod shared;
mod statements;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;
mod trim;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};

pub use error::OpenError;
pub use options::{Host, PostgresOptions};

use self::encoded::Encoded;
use self::error::unavailable;
use self::pool::Pool;
use self::shared::Shared;
use self::writer::{Job, Work, Writer};
use super::stats::StoreStats;
use super::{
    Availability, Batch, Committed, Fut, Listener, LogHead, Outcome, Ownership, OwnsAll, Page,
    Query, RequestRecord, Retention, SlotKey, Store, StoreError, Subject, Trimmed,
};
use crate::ids::{BatchId, MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{
    AuditHead, AuditRow, Change, Cursor, HistoryRow, Installation, Lock, LogChunk, Machine,
    Observed, Run,
};

/// [`Store`] in a PostgreSQL database. Dropping it finishes the commits in progress, and gives the database back.
pub struct PostgresStore {
    options: Arc<PostgresOptions>,
    shared: Arc<Shared>,
    /// Reads of single records.
    points: Pool,
    /// Lists, counts, history.
    scans: Pool,
    work: Option<UnboundedSender<Work>>,
    thread: Option<JoinHandle<()>>,
    /// While a round of [`Store::trim`] lasts: how many changes of machines it keeps, and the oldest of them.
    oldest_kept: Mutex<Option<(u64, i64)>>,
}

impl PostgresStore {
    /// Opens the store in a database. Its tables are created if there are none.
    ///
    /// # Errors
    /// [`OpenError`] if the database cannot be used, or another server uses it.
    pub async fn open(options: PostgresOptions) -> Result<Self, OpenError> {
        let options = Arc::new(options);
        let shared = Arc::new(Shared::new(options.clock.clone()));
        let (work, queue) = unbounded_channel();
        let (ready, opened) = oneshot::channel();
        let thread = {
            let (options, shared) = (options.clone(), shared.clone());
            std::thread::Builder::new().name("store-postgres".to_owned()).spawn(move || {
                let runtime = match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(OpenError::Thread(error)))),
                };
                runtime.block_on(async {
                    match Writer::open(options, shared, queue).await {
                        Err(error) => drop(ready.send(Err(error))),
                        Ok(writer) => {
                            if ready.send(Ok(Handle::current())).is_ok() {
                                writer.run().await;
                            }
                        }
                    }
                });
            })
        };
        let thread = thread.map_err(OpenError::Thread)?;
        let gone = |_| Err(OpenError::Damaged("the thread that opens it has ended".to_owned()));
        let runtime = opened.await.unwrap_or_else(gone)?;
        Ok(Self {
            points: Pool::new(options.clone(), runtime.clone()),
            scans: Pool::new(options.clone(), runtime),
            options,
            shared,
            work: Some(work),
            thread: Some(thread),
            oldest_kept: Mutex::default(),
        })
    }

    /// Counters since the store was opened.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.shared.stats.read()
    }

    /// Resolves when nothing can be written any more, with the reason: another server has taken the place of this one,
    /// or the database is not the one that it was. Never, if that does not happen.
    pub async fn until_lost(&self) -> String {
        // The sender lives as long as the store.
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    fn send(&self, work: Work) -> Result<(), StoreError> {
        let sent = self.work.as_ref().is_some_and(|queue| queue.send(work).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }

    /// Gives the writer work, and waits for its answer.
    fn call<'a, T: Send + 'static>(
        &'a self,
        work: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Work + Send + 'a,
    ) -> Fut<'a, T> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.send(work(answer))?;
            answered.await.map_err(|_| gone())?
        })
    }
}

/// The thread of the store should be running and is not.
fn gone() -> StoreError {
    unavailable("the writer of the store has stopped")
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has sent no answers after that: everything acknowledged is durable.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A read on a connection of a pool.
macro_rules! read {
    ($pool:expr, $module:ident :: $read:ident ( $($argument:expr),* )) => {
        Box::pin(async move {
            let conn = $pool.take().await?;
            $module::$read(&conn, $($argument),*).await
        })
    };
}

impl Store for PostgresStore {
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>> {
        Box::pin(async move {
            let encoded = Encoded::new(&batch);
            let (answer, answered) = oneshot::channel();
            self.shared.stats.queued.fetch_add(1, Relaxed);
            self.send(Work::Commit(Box::new(Job { batch, encoded, answer })))?;
            answered.await.map_err(|_| gone())?
        })
    }

    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome> {
        self.call(move |answer| Work::Outcome { id, since, answer })
    }

    fn availability(&self) -> watch::Receiver<Availability> {
        self.shared.availability.subscribe()
    }

    fn ownership(&self) -> &dyn Ownership {
        &OwnsAll
    }

    fn slots(&self) -> Fut<'_, BTreeMap<SlotKey, u64>> {
        self.call(Work::Slots)
    }

    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>> {
        read!(self.points, read::machine(id))
    }

    fn observed<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Observed>> {
        read!(self.points, read::observed(id))
    }

    fn installation<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Installation>> {
        read!(self.points, read::installation(id))
    }

    fn mac_owner<'a>(&'a self, mac: &'a str) -> Fut<'a, Option<MachineId>> {
        read!(self.points, read::mac_owner(mac))
    }

    fn cursor<'a>(&'a self, receiver: &'a str) -> Fut<'a, Option<Cursor>> {
        read!(self.points, read::cursor(receiver))
    }

    fn locks(&self) -> Fut<'_, Vec<Lock>> {
        read!(self.points, read::locks())
    }

    fn machine_at<'a>(&'a self, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Machine>>> {
        read!(self.points, read::machine_at(id, at))
    }

    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>> {
        read!(self.points, read::run(id))
    }

    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>> {
        read!(self.points, read::run_at(id, at))
    }

    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>> {
        read!(self.scans, list::machines(&query))
    }

    fn runs(&self, query: Query) -> Fut<'_, Page<Run>> {
        read!(self.scans, list::runs(&query))
    }

    fn count_machines(&self, filter: Filter) -> Fut<'_, u64> {
        read!(self.scans, list::count_machines(filter))
    }

    fn count_runs(&self, filter: Filter) -> Fut<'_, u64> {
        read!(self.scans, list::count_runs(filter))
    }

    fn plan<'a>(&'a self, digest: &'a str) -> Fut<'a, Option<Arc<str>>> {
        read!(self.points, read::plan(digest))
    }

    fn request<'a>(
        &'a self,
        scope: &'a str,
        request_id: &'a str,
    ) -> Fut<'a, Option<RequestRecord>> {
        read!(self.points, read::request(scope, request_id))
    }

    fn history(
        &self,
        subject: Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Fut<'_, Vec<HistoryRow>> {
        read!(self.scans, feed::history(&subject, after, limit))
    }

    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>> {
        read!(self.scans, feed::changes(after, limit))
    }

    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>> {
        read!(self.scans, read::logs(run, from, limit))
    }

    fn log_head(&self, run: RunId) -> Fut<'_, LogHead> {
        read!(self.scans, read::log_head(run))
    }

    fn revisions(&self) -> Fut<'_, (Revision, Revision)> {
        read!(self.points, read::revisions())
    }

    fn audit(&self, after: u64, limit: usize) -> Fut<'_, Vec<AuditRow>> {
        read!(self.scans, read::audit(after, limit))
    }

    fn audit_ends(&self) -> Fut<'_, (AuditHead, AuditHead)> {
        read!(self.scans, read::audit_ends())
    }

    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed> {
        Box::pin(async move {
            let most = retention.machine_changes_max;
            let counted = *self.oldest_kept.lock().unwrap_or_else(PoisonError::into_inner);
            // Counted once for all parts of a round: what is written meanwhile is for the next one.
            let oldest_kept = match counted {
                Some((counted_most, place)) if counted_most == most => place,
                Some(_) | None => {
                    let conn = self.scans.take().await?;
                    trim::oldest_kept(&conn, most).await?.unwrap_or(i64::MIN)
                }
            };
            let work = |answer| Work::Trim { retention, oldest_kept, answer };
            let trimmed = self.call(work).await?;
            let counted = (trimmed.changes > 0).then_some((most, oldest_kept));
            *self.oldest_kept.lock().unwrap_or_else(PoisonError::into_inner) = counted;
            Ok(trimmed)
        })
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn kind(&self) -> &'static str {
        "postgresql"
    }
}
