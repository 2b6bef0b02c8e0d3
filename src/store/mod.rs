//! What the engine asks of storage; implementations live in [`memory`] and [`sqlite`].
//!
//! The database is the truth and memory a cache held by whoever owns the work. Every write is conditional on the
//! revision that the writer saw, so that no update is lost, and a batch is durable as a whole or not at all.

mod check;
pub(crate) mod codec;
pub mod memory;
mod page;
#[cfg(test)]
mod samples;
pub mod sqlite;
#[cfg(test)]
mod suite;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{Change, Entry, HistoryRow, LogChunk, Machine, Run, RunDelta};

/// Most rows that a page of a list examines for a filter that no index serves.
pub const SCAN_ROWS_MAX: usize = 10_000;

/// Most runs, most request ids and most changes of machines that one [`Store::trim`] forgets.
pub const TRIM_ROWS_MAX: usize = 256;

/// Boxed future of a store call. A commit is never cheaper than one disk flush, so the box is noise.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store call did not do what was asked. Nothing was written unless the variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote first: read again, decide again. An object that a batch names twice conflicts with itself.
    #[error("{kind} {id} is at revision {stored}, not at the expected {expected}")]
    Conflict {
        /// "machine", "run", or "log of run": then the two numbers are offsets, since a log has no gaps.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Revision that the writer saw; zero if it expected nothing to be there.
        expected: Revision,
        /// Revision that is stored; zero if nothing is.
        stored: Revision,
    },
    /// Another run is active on the machine.
    #[error("machine {machine_id} has an active run {run_id}")]
    ActiveRun {
        /// Machine.
        machine_id: MachineId,
        /// The run that owns it.
        run_id: RunId,
    },
    /// The writer's epoch is older than the machine's: somebody else owns its work. Never retry.
    #[error("fenced: epoch {held} of machine {machine_id} is older than {current}")]
    Fenced {
        /// Machine.
        machine_id: MachineId,
        /// Epoch that the writer holds.
        held: Epoch,
        /// Epoch in force.
        current: Epoch,
    },
    /// The request id was used before.
    #[error("request id {:?} was used before", .0.request_id)]
    RequestUsed(Box<RequestRecord>),
    /// The reader's revision is older than what is kept: list again, then watch.
    #[error("history before revision {oldest} has been compacted")]
    Compacted {
        /// Oldest revision from which a reader can go on.
        oldest: Revision,
    },
    /// There is no room. Writes are refused until there is; reads go on.
    #[error("the store is full")]
    Full(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Nobody knows whether the write is durable: the store refuses further writes until it is opened again.
    #[error("the outcome of a write is unknown")]
    Unknown(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The backend failed; retrying may help.
    #[error("the store is unavailable")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A stored record cannot be read; it is never dropped or guessed.
    #[error("stored {kind} {id} cannot be read: {message}")]
    Corrupt {
        /// Kind of the record.
        kind: &'static str,
        /// Its key.
        id: String,
        /// What is wrong with it.
        message: String,
    },
}

/// What a request id was used for; kept at least a day and as long as its object is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// RPC and target: `StartRun/machine-1`.
    pub scope: String,
    /// The client's idempotency key.
    pub request_id: String,
    /// Digest of the request's meaning, to tell a repetition from a different request.
    pub body_digest: String,
    /// Id of the object that the first answer showed.
    pub object_id: String,
    /// When.
    pub at: Timestamp,
    /// Revision of the commit, and so of the first answer; given by the store.
    pub revision: Revision,
}

/// A machine to write. `machine.revision` is the revision that the writer saw, zero to insert; the write fails with
/// [`StoreError::Conflict`] if another one is stored.
///
/// Epochs are never used again, so a machine that is inserted goes on from the epoch at which the last of its name was
/// deleted: with a lower one the insertion fails with [`StoreError::Fenced`], which names it.
#[derive(Debug, Clone)]
pub struct MachineWrite {
    /// The machine after the change. The store gives it its new revision and, on insert, its ordinal.
    pub machine: Machine,
    /// What happened.
    pub entries: Vec<Entry>,
}

/// A run to write, conditional on `run.revision` like [`MachineWrite`].
///
/// Inserting an active run fails with [`StoreError::ActiveRun`] while another run of its machine is active.
#[derive(Debug, Clone)]
pub struct RunWrite {
    /// The run after the change.
    pub run: Run,
    /// What changed, for the history: [`RunDelta::between`] the run before and this one.
    pub delta: RunDelta,
    /// What happened.
    pub entries: Vec<Entry>,
}

/// A machine to delete.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// Which.
    pub id: MachineId,
    /// Revision that the writer saw.
    pub revision: Revision,
    /// What happened.
    pub entries: Vec<Entry>,
}

impl From<(MachineId, Revision)> for Deletion {
    /// A deletion of which nothing is told.
    fn from((id, revision): (MachineId, Revision)) -> Self {
        Self { id, revision, entries: Vec::new() }
    }
}

/// Copy of a plan, kept under its digest for as long as a run refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedPlan {
    /// Digest of the canonical text.
    pub digest: String,
    /// Canonical text.
    pub text: String,
}

/// Writes that become durable together. An empty batch is legal and gets a revision.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// When, for the history.
    pub at: Timestamp,
    /// Fencing: the stored epoch of this machine must be this one.
    pub holds: Option<(MachineId, Epoch)>,
    /// Machines to write.
    pub machines: Vec<MachineWrite>,
    /// Machines to delete.
    pub deleted: Vec<Deletion>,
    /// Runs to write.
    pub runs: Vec<RunWrite>,
    /// Plan copy to keep, if it is not kept already.
    pub plan: Option<PinnedPlan>,
    /// Request id to use up.
    pub request: Option<RequestRecord>,
    /// Log chunks to append.
    pub logs: Vec<LogChunk>,
}

/// What a commit made durable, as it is stored.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Revision of the commit.
    pub revision: Revision,
    /// Machines, in the order of the batch, with revision and ordinal.
    pub machines: Vec<Arc<Machine>>,
    /// Runs, in the order of the batch, with revision and ordinal.
    pub runs: Vec<Arc<Run>>,
}

/// Which machines or runs to list: in the order of their ordinals.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Which.
    pub filter: Filter,
    /// Only those after this ordinal (before it, if `newest_first`).
    pub after: Option<u64>,
    /// Most items to return.
    pub limit: usize,
    /// Descending instead of ascending.
    pub newest_first: bool,
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
    pub next: Option<u64>,
    /// Revision at which the page was read.
    pub as_of: Revision,
}

/// Whose history to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Of one machine, its runs included.
    Machine(MachineId),
    /// Of one run.
    Run(RunId),
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
    fn committed(&self, revision: Revision, changes: &[Change], logs: &[Arc<LogChunk>]);
}

/// Durable home of machines, runs and their history.
pub trait Store: Send + Sync + 'static {
    /// Writes all of `batch` or nothing; resolves once it is durable. The commit goes on if the future is dropped.
    ///
    /// Preconditions are checked in this order: request id, `holds`, machines, deletions, runs, logs.
    fn commit(&self, batch: Batch) -> Fut<'_, Committed>;
    /// One machine.
    fn machine<'a>(&'a self, id: &'a MachineId) -> Fut<'a, Option<Arc<Machine>>>;
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
    /// Revision of the newest commit, and the oldest from which [`Store::changes`] can go on.
    fn revisions(&self) -> Fut<'_, (Revision, Revision)>;
    /// Forgets what the policy says, a bounded amount a call; call again until nothing is forgotten.
    fn trim(&self, retention: Retention) -> Fut<'_, Trimmed>;
    /// Lets a listener hear of every later commit.
    fn listen(&self, listener: Arc<dyn Listener>);
    /// "memory" or "sqlite", for people.
    fn kind(&self) -> &'static str;
}
