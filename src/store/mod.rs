//! What the engine asks of storage; implementations live in [`memory`] and [`sqlite`].
//!
//! The database is the truth and memory a cache held by whoever owns the work. Every write is conditional on the
//! revision that the writer saw, so that no update is lost, and a batch is durable as a whole or not at all.

mod availability;
mod batch;
mod check;
pub(crate) mod codec;
mod error;
pub mod memory;
mod outcomes;
mod ownership;
mod page;
#[cfg(test)]
mod samples;
mod slots;
pub mod sqlite;
#[cfg(test)]
mod suite;
mod taken;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::availability::Availability;
pub use self::batch::{Batch, Committed, Outcome, PinnedPlan, RequestRecord, Write};
pub use self::error::{Fut, StoreError};
pub use self::ownership::{Lease, Owner, Ownership, OwnsAll, SHARDS, Shard};
pub use self::slots::{SlotKey, SlotMove};
use crate::clock::Timestamp;
use crate::ids::{BatchId, MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{Change, HistoryRow, LogChunk, Machine, Observed, Run};

/// Most rows that a page of a list examines for a filter that no index serves.
pub const SCAN_ROWS_MAX: usize = 10_000;

/// Most runs, most request ids and most changes of machines that one [`Store::trim`] forgets.
pub const TRIM_ROWS_MAX: usize = 256;

/// Number of commits whose outcome can be asked for.
pub const OUTCOMES_MAX: usize = 65_536;

/// What a list is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Order of registration or creation, which is that of ordinals.
    #[default]
    Created,
    /// Id: of machines as people count (machine-2 before machine-10), of runs as their text.
    Id,
}

/// A place in a list: that of an object which may be gone since. Opaque to callers, who hand back what a page gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Of a list in the order of creation.
    Ordinal(u64),
    /// Of a list in the order of ids.
    Id(String),
}

impl Position {
    /// The ordinal, in a list in the order of creation.
    #[must_use]
    pub fn ordinal(&self) -> Option<u64> {
        match self {
            Self::Ordinal(ordinal) => Some(*ordinal),
            Self::Id(_) => None,
        }
    }
}

/// Which machines or runs to list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Which.
    pub filter: Filter,
    /// What they are ordered by.
    pub order: Order,
    /// Only those that come after this place in the list. A place of a list in another order is not looked at.
    pub after: Option<Position>,
    /// Most items to return.
    pub limit: usize,
    /// Descending instead of ascending: the newest first, or the last id.
    pub descending: bool,
    /// Runs only: leave out those that have ended. Served by an index.
    pub active_only: bool,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<Arc<T>>,
    /// Where to go on (`after`), `None` at the end. A page may be short and still not be the last: a filter that no
    /// index serves examines a bounded number of rows a page.
    pub next: Option<Position>,
    /// Revision at which the page was read.
    pub as_of: Revision,
    /// Records that belong here, or may, and cannot be read: they are left out.
    pub unreadable: Vec<Unreadable>,
}

/// A stored record that cannot be read. It is never dropped or guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// "machine" or "run".
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// The machine that it is or belongs to.
    pub machine_id: Option<MachineId>,
    /// What is wrong with it.
    pub message: String,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None, as_of: Revision(0), unreadable: Vec::new() }
    }
}

/// Whose history to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Of one machine, its runs included.
    Machine(MachineId),
    /// Of one run.
    Run(RunId),
}

/// How much of the output of a run is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogHead {
    /// Number of chunks: the offset of the next one.
    pub chunks: u64,
    /// Bytes of text, by the name of the step that printed it.
    pub step_bytes: BTreeMap<String, u64>,
}

/// What to forget. Nothing of an active run is ever forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Runs that ended before this instant go, with their history and logs; machine history before it goes too.
    pub ended_before: Timestamp,
    /// Of the ended runs, at most this many are kept: those that ended last.
    pub ended_runs_max: u64,
    /// Request ids used before this instant go, unless their object is an active run. They outlive their object, so
    /// that a late repetition never starts a run anew.
    pub requests_before: Timestamp,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Runs.
    pub runs: u64,
    /// Changes of machines and runs, with their entries.
    pub changes: u64,
    /// Request ids.
    pub requests: u64,
}

/// Hears of every commit, in the order of revisions, after it is durable and before its writer is answered.
pub trait Listener: Send + Sync {
    /// Called from the commit path: must not block, and must not call the store.
    fn committed(&self, committed: &Arc<Committed>);
}

/// Durable home of machines, runs and their history.
pub trait Store: Send + Sync + 'static {
    /// Writes all of `batch` or nothing; resolves once it is durable. The commit goes on if the future is dropped.
    ///
    /// Preconditions are checked in this order: request id, `holds`, writes, slots, logs.
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>>;
    /// What came of a batch whose commit was answered with [`StoreError::Unknown`]. Settles it: a batch that is said
    /// not to be durable never will be.
    ///
    /// The store remembers the last [`OUTCOMES_MAX`] commits that have an id. `since` is a revision that the batch
    /// would have come after, such as that of the records it was decided on: if all commits since then are remembered,
    /// the answer is certain.
    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome>;
    /// Whether writes are taken, now and whenever that changes.
    fn availability(&self) -> watch::Receiver<Availability>;
    /// Deals out the work on machines among the servers of this store.
    fn ownership(&self) -> &dyn Ownership;
    /// How many slots are taken of each key.
    fn slots(&self) -> Fut<'_, BTreeMap<SlotKey, u64>>;
    /// One machine.
    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>>;
    /// What was seen of a machine last, if anything was. It has no revision and no history.
    fn observed<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Observed>>;
    /// One machine as it was after the commit `at`; `None` if it did not exist or its history is gone.
    fn machine_at<'a>(&'a self, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Machine>>>;
    /// One run.
    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>>;
    /// One run as it was after the commit `at`; `None` if it did not exist or its history is gone.
    fn run_at(&self, id: RunId, at: Revision) -> Fut<'_, Option<Arc<Run>>>;
    /// A page of machines.
    fn machines(&self, query: Query) -> Fut<'_, Page<Machine>>;
    /// A page of runs.
    fn runs(&self, query: Query) -> Fut<'_, Page<Run>>;
    /// Number of machines that match.
    fn count_machines(&self, filter: Filter) -> Fut<'_, u64>;
    /// Number of runs that match.
    fn count_runs(&self, filter: Filter) -> Fut<'_, u64>;
    /// Canonical text of a pinned plan.
    fn plan<'a>(&'a self, digest: &'a str) -> Fut<'a, Option<Arc<str>>>;
    /// What a request id was used for.
    fn request<'a>(&'a self, scope: &'a str, request_id: &'a str)
    -> Fut<'a, Option<RequestRecord>>;
    /// Entries of one object's history after a place (revision, index), oldest first.
    fn history(
        &self,
        subject: Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Fut<'_, Vec<HistoryRow>>;
    /// Changes of all objects after a revision, oldest first; whole commits only, at least one commit if there is
    /// one, and no more once `limit` changes are reached.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if changes after `after` have been forgotten.
    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>>;
    /// Log chunks of a run from an offset, in order.
    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>>;
    /// How much of the output of a run is stored; nothing, if there is no such run.
    fn log_head(&self, run: RunId) -> Fut<'_, LogHead>;
    /// Revision of the newest commit, and the oldest from which [`Store::changes`] can go on.
    fn revisions(&self) -> Fut<'_, (Revision, Revision)>;
    /// Forgets what the policy says, a bounded amount a call; call again until nothing is forgotten.
    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed>;
    /// Lets a listener hear of every later commit.
    fn listen(&self, listener: Arc<dyn Listener>);
    /// "memory" or "sqlite", for people.
    fn kind(&self) -> &'static str;
}
