//! The port to storage; implementations are in [`memory`], [`sqlite`] and [`postgres`].
//!
//! The database is the source of truth, and memory a cache held by the owner of the work. Every write is conditional
//! on the revision that the writer saw, so that no update is lost, and a batch is durable as a whole or not at all.

mod availability;
mod batch;
mod check;
pub(crate) mod codec;
mod error;
mod keys;
pub mod memory;
mod outcomes;
mod ownership;
mod page;
pub mod postgres;
#[cfg(test)]
mod samples;
mod slots;
pub mod sqlite;
mod stats;
#[cfg(test)]
mod suite;
mod taken;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::availability::Availability;
pub use self::batch::{
    Batch, Committed, CursorMove, LockMove, Outcome, PinnedPlan, RequestRecord, Write,
};
pub use self::error::{Fut, StoreError};
pub use self::ownership::{Lease, Owner, Ownership, OwnsAll, SHARDS, Shard};
pub use self::slots::{SlotKey, SlotMove};
pub use self::stats::{GROUP_BUCKETS, StoreStats};
use crate::clock::Timestamp;
use crate::ids::{BatchId, MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{
    AuditHead, AuditRow, Change, Cursor, HistoryRow, Installation, Lock, LogChunk, Machine,
    Observed, Run,
};

/// Most rows that a page of a list examines for a filter without an index.
pub const SCAN_ROWS_MAX: usize = 10_000;

/// Most runs, most request ids, most changes of machines and most audit entries that one [`Store::trim`] deletes.
pub const TRIM_ROWS_MAX: usize = 256;

/// Number of commits whose outcome can be looked up.
pub const OUTCOMES_MAX: usize = 65_536;

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Order of registration or creation, which is that of ordinals.
    #[default]
    Created,
    /// By id: of machines in natural order (machine-2 before machine-10), of runs as text.
    Id,
}

/// A position in a list: that of an object which may have been deleted since. Opaque to callers, who pass back what a
/// page returned.
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
    /// The filter.
    pub filter: Filter,
    /// The order.
    pub order: Order,
    /// Only those after this position in the list. The position of a list in another order is ignored.
    pub after: Option<Position>,
    /// Most items to return.
    pub limit: usize,
    /// The page ends with the item by which the texts of all have this many bytes; `None` for no such bound.
    pub bytes_max: Option<usize>,
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
    /// Where to continue (`after`), `None` at the end. A page may be short and still not be the last: with a filter
    /// without an index a page examines a bounded number of rows.
    pub next: Option<Position>,
    /// Revision at which the page was read.
    pub as_of: Revision,
    /// Records that are, or may be, part of the page but cannot be read: they are left out.
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

/// What to delete. Nothing of an active run is ever deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Runs that ended before this instant are deleted, with their history and logs; machine history before it is
    /// deleted too.
    pub ended_before: Timestamp,
    /// Of the ended runs, at most this many are kept: those that ended last.
    pub ended_runs_max: u64,
    /// Of the changes of machines, about this many newest are kept, those of other machines counted; the oldest are
    /// deleted first, whatever their age.
    pub machine_changes_max: u64,
    /// Request ids used before this instant are deleted, unless their object is an active run. They outlive their
    /// object, so that a late repetition never starts a run again.
    pub requests_before: Timestamp,
    /// Audit entries before this instant are deleted, the oldest first.
    pub audit_before: Timestamp,
    /// Of the audit, at most this many newest entries are kept.
    pub audit_max: u64,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Runs.
    pub runs: u64,
    /// Changes of machines and runs, with their entries.
    pub changes: u64,
    /// Request ids.
    pub requests: u64,
    /// Audit entries.
    pub audit: u64,
}

/// Receives every commit, in the order of revisions, after it is durable and before its writer gets the result.
pub trait Listener: Send + Sync {
    /// Called from the commit path: must not block, and must not call the store.
    fn committed(&self, committed: &Arc<Committed>);
}

/// Durable storage of machines, runs and their history.
pub trait Store: Send + Sync + 'static {
    /// Writes all of `batch` or nothing; resolves once it is durable. The commit continues if the future is dropped.
    ///
    /// Preconditions are checked in this order: request id, `holds`, writes, slots, logs, cursors.
    fn commit(&self, batch: Batch) -> Fut<'_, Arc<Committed>>;
    /// The outcome of a batch whose commit returned [`StoreError::Unknown`]. The result is final: a batch that is
    /// reported as not durable never will be.
    ///
    /// The store remembers the last [`OUTCOMES_MAX`] commits that have an id. `since` is a revision before that of
    /// the batch, such as that of the records it was decided on: if all commits since then are remembered, the result
    /// is certain.
    fn outcome(&self, id: BatchId, since: Revision) -> Fut<'_, Outcome>;
    /// Whether writes are accepted, now and whenever that changes.
    fn availability(&self) -> watch::Receiver<Availability>;
    /// Assigns the work on machines to the servers of this store.
    fn ownership(&self) -> &dyn Ownership;
    /// How many slots are taken of each key.
    fn slots(&self) -> Fut<'_, BTreeMap<SlotKey, u64>>;
    /// One machine.
    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>>;
    /// The latest observation of a machine, if there is one. It has no revision and no history.
    fn observed<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Observed>>;
    /// What the machine reported about its latest installation, if there was one. It has no revision and no history.
    fn installation<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Installation>>;
    /// The machine that has a MAC address.
    fn mac_owner<'a>(&'a self, mac: &'a str) -> Fut<'a, Option<MachineId>>;
    /// How far a receiver of notifications has got; `None` if it is new. It has no revision and no history.
    fn cursor<'a>(&'a self, receiver: &'a str) -> Fut<'a, Option<Cursor>>;
    /// Every lock that is kept: those in force, and the last of those that were lifted.
    fn locks(&self) -> Fut<'_, Vec<Lock>>;
    /// One machine as of the commit `at`; `None` if it did not exist or its history is gone.
    fn machine_at<'a>(&'a self, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Machine>>>;
    /// One run.
    fn run(&self, id: RunId) -> Fut<'_, Option<Arc<Run>>>;
    /// One run as of the commit `at`; `None` if it did not exist or its history is gone.
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
    /// The use of a request id.
    fn request<'a>(&'a self, scope: &'a str, request_id: &'a str)
    -> Fut<'a, Option<RequestRecord>>;
    /// Entries of one object's history after a position (revision, index), oldest first.
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
    /// [`StoreError::Compacted`] if changes after `after` have been deleted.
    fn changes(&self, after: Revision, limit: usize) -> Fut<'_, Vec<Change>>;
    /// Log chunks of a run from an offset, in order.
    fn logs(&self, run: RunId, from: u64, limit: usize) -> Fut<'_, Vec<Arc<LogChunk>>>;
    /// How much of the output of a run is stored; empty if there is no such run.
    fn log_head(&self, run: RunId) -> Fut<'_, LogHead>;
    /// Revision of the newest commit, and the oldest from which [`Store::changes`] can continue.
    fn revisions(&self) -> Fut<'_, (Revision, Revision)>;
    /// Audit entries after the one of this number, oldest first; what was deleted is left out.
    fn audit(&self, after: u64, limit: usize) -> Fut<'_, Vec<AuditRow>>;
    /// Where the audit begins and ends, as of one instant: the last entry that was deleted, and the newest.
    fn audit_ends(&self) -> Fut<'_, (AuditHead, AuditHead)>;
    /// Deletes what the policy says, a bounded amount per call; call again until nothing is deleted.
    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed>;
    /// Registers a listener for every later commit.
    fn listen(&self, listener: Arc<dyn Listener>);
    /// "memory", "sqlite" or "postgresql", for people.
    fn kind(&self) -> &'static str;
}
