//! What a watch begins with and what it sends.

use std::sync::Arc;

use super::event::Event;
use crate::ids::Revision;

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the records as they are, then their changes.
    Snapshot,
    /// With the changes after this revision.
    Resume(Revision),
    /// With what changes from now on.
    Now,
}

/// What a watch sends.
#[derive(Debug, Clone)]
pub enum WatchItem<T> {
    /// A matching record as it was at this revision.
    Snapshot(Arc<T>, Revision),
    /// What was sent so far is the state at this revision: every snapshot has been sent.
    Synced(Revision),
    /// So many stored records belong to what was sent so far, or may, and cannot be read: they are left out. Comes before
    /// `Synced`, if there are any.
    LeftOut(u64),
    /// A matching record was written.
    Change {
        /// The change.
        event: Arc<Event<T>>,
        /// Where a new watch may resume without missing anything. Of a commit that changed several records only the
        /// last event carries the commit's own revision; zero while the snapshots are not complete.
        resume: Revision,
    },
    /// A record that matched does not any more, or is gone.
    Removed {
        /// The change.
        event: Arc<Event<T>>,
        /// Where a new watch may resume, as in `Change`.
        resume: Revision,
    },
    /// Nothing happened for a while: everything up to this revision has been sent.
    Bookmark(Revision),
}
