//! A commit's writes, and its result.

use std::sync::Arc;

use super::slots::SlotMove;
use crate::clock::Timestamp;
use crate::ids::{BatchId, Epoch, MachineId, Revision};
use crate::model::{
    AuditEntry, Change, Cursor, Entry, Images, Installation, Lock, LogChunk, Machine, Object,
    Observed, Record, Run,
};

/// The use of a request id; kept at least a day and as long as its object is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// RPC and target: `StartRun/machine-1`.
    pub scope: String,
    /// The client's idempotency key.
    pub request_id: String,
    /// Digest of the request's content, to tell a repetition from a different request.
    pub body_digest: String,
    /// Id of the object in the first answer.
    pub object_id: String,
    /// When.
    pub at: Timestamp,
    /// Revision of the commit, and so of the first answer; assigned by the store.
    pub revision: Revision,
}

/// One record to write or to delete.
///
/// The write is conditional on the record that the writer saw, its image before: if another revision is stored it
/// fails with [`StoreError::Conflict`], and a record without an image before must not exist yet. The image before
/// must be that record as it was stored, since watches judge the change by it.
///
/// Epochs are never reused, so a machine that is inserted continues from the epoch at which the last one with its id
/// was deleted: with a lower one the insertion fails with [`StoreError::Fenced`], which names it. Inserting an active
/// run fails with [`StoreError::ActiveRun`] while another run of its machine is active.
///
/// [`StoreError::Conflict`]: super::StoreError::Conflict
/// [`StoreError::Fenced`]: super::StoreError::Fenced
/// [`StoreError::ActiveRun`]: super::StoreError::ActiveRun
#[derive(Debug, Clone)]
pub struct Write {
    /// The record before and after. The store assigns the latter its new revision and, on insert, its ordinal.
    pub object: Object,
    /// What happened.
    pub entries: Vec<Entry>,
}

impl Write {
    /// A record that changes, or that is new if there is none before.
    #[must_use]
    pub fn new<T: Record>(
        before: Option<Arc<T>>,
        after: impl Into<Arc<T>>,
        entries: Vec<Entry>,
    ) -> Self {
        Self { object: T::object(Images { before, after: Some(after.into()) }), entries }
    }

    /// The deletion of a record. Only machines can be deleted; runs are deleted by
    /// [`Store::trim`](super::Store::trim).
    #[must_use]
    pub fn deletion(before: Arc<Machine>, entries: Vec<Entry>) -> Self {
        Self { object: Machine::object(Images { before: Some(before), after: None }), entries }
    }

    /// The images of a record of the kind `T`; `None` if this writes another kind.
    #[must_use]
    pub fn images<T: Record>(&self) -> Option<&Images<T>> {
        T::images(&self.object)
    }
}

/// Copy of a plan, kept under its digest as long as a run refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedPlan {
    /// Digest of the canonical text.
    pub digest: String,
    /// Canonical text.
    pub text: Arc<str>,
}

/// Writes that become durable together. An empty batch is legal and gets a revision.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Id of the batch, for [`Store::outcome`](super::Store::outcome); zero if its outcome is not looked up.
    pub id: BatchId,
    /// Fencing: the stored epochs of these machines must be these.
    pub holds: Vec<(MachineId, Epoch)>,
    /// Records to write, each at most once, in the order in which their changes are shown.
    pub writes: Vec<Write>,
    /// Slots that runs take and release.
    pub slots: Vec<SlotMove>,
    /// Plan copy to keep, if it is not kept already.
    pub plan: Option<PinnedPlan>,
    /// Request id that this batch uses.
    pub request: Option<RequestRecord>,
    /// Log chunks to append.
    pub logs: Vec<LogChunk>,
    /// Observed facts of machines, replacing the previous ones; those of a deleted machine are dropped.
    pub observed: Vec<(MachineId, Observed)>,
    /// Installations of machines, replacing the previous ones; those of a deleted machine are dropped.
    pub installations: Vec<(MachineId, Installation)>,
    /// Cursors of receivers to move.
    pub cursors: Vec<CursorMove>,
    /// Locks to set, to lift and to forget.
    pub locks: Vec<LockMove>,
    /// What the audit says of this batch: becomes durable with it, or not at all.
    pub audit: Vec<AuditEntry>,
}

/// A step of the cursor of a receiver. It is conditional on the cursor that the writer saw, like the write of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorMove {
    /// Name of the receiver.
    pub receiver: String,
    /// The cursor as stored; `None` if there is none.
    pub before: Option<Cursor>,
    /// The cursor from now on.
    pub after: Cursor,
}

/// A change of what holds runs and callers back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockMove {
    /// Stores a lock, in place of one with its id.
    Put(Arc<Lock>),
    /// Drops a lock.
    Forget(String),
    /// A run that destroys data has ended: counts the failures of its plan in a row, and stores `pause` at the last of
    /// `most` of them, from which on they are counted again.
    Tally {
        /// Digest of the plan.
        digest: String,
        /// Whether it failed; else the count starts over.
        failed: bool,
        /// Failures in a row.
        most: u32,
        /// What is stored then.
        pause: Arc<Lock>,
    },
}

impl Batch {
    /// A batch that writes one record.
    #[must_use]
    pub fn of(write: Write) -> Self {
        Self { writes: vec![write], ..Self::default() }
    }

    /// The images of the records of the kind `T`, in the order of the batch.
    pub fn images<T: Record>(&self) -> impl Iterator<Item = &Images<T>> {
        self.writes.iter().filter_map(Write::images)
    }
}

/// What a commit made durable, as stored: for its writer, and for listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Revision of the commit.
    pub revision: Revision,
    /// When, by the store's clock; never before the previous commit.
    pub at: Timestamp,
    /// The records that it changed, with revision and ordinal, in the order of the batch.
    pub changes: Vec<Change>,
    /// The log chunks that it stored.
    pub logs: Vec<Arc<LogChunk>>,
    /// The locks that it stored.
    pub locks: Vec<Arc<Lock>>,
}

impl Committed {
    /// The records of the kind `T` that were written, in the order of the batch.
    pub fn written<T: Record>(&self) -> impl Iterator<Item = &Arc<T>> {
        self.changes.iter().filter_map(Change::after)
    }

    /// The first machine that was written.
    #[must_use]
    pub fn machine(&self) -> Option<&Arc<Machine>> {
        self.written().next()
    }

    /// The first run that was written.
    #[must_use]
    pub fn run(&self) -> Option<&Arc<Run>> {
        self.written().next()
    }
}

/// Outcome of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable, under this revision.
    Committed(Revision),
    /// It is not durable, and never will be.
    NotCommitted,
    /// So much has been committed since that its outcome is no longer known.
    Forgotten,
}
