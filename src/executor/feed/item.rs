//! Where a watch starts and what it sends.

use std::sync::Arc;

use super::event::Event;
use crate::ids::Revision;

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the present records, then their changes.
    Snapshot,
    /// With the changes after this revision.
    Resume(Revision),
    /// With changes from now on.
    Now,
}

/// What a watch sends.
#[derive(Debug, Clone)]
pub enum WatchItem<T> {
    /// A matching record as it was at this revision.
    Snapshot(Arc<T>, Revision),
    /// The items so far are the complete state at this revision: every snapshot has been sent.
    Synced(Revision),
    /// This many stored records are, or may be, part of what was sent so far but cannot be read: they are left out.
    /// Comes before `Synced`, if there are any.
    LeftOut(u64),
    /// A matching record was written.
    Change {
        /// The change.
        event: Arc<Event<T>>,
        /// Where a new watch may resume without missing anything. For a commit that changed several records only the
        /// last event carries the commit's own revision; zero while the snapshots are not complete.
        resume: Revision,
    },
    /// A record that matched no longer does, or was deleted.
    Removed {
        /// The change.
        event: Arc<Event<T>>,
        /// Where a new watch may resume, as in `Change`.
        resume: Revision,
    },
    /// Nothing happened for a while: everything up to this revision has been sent.
    Bookmark(Revision),
}
