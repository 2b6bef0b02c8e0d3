//! How far receivers of notifications have got.

use crate::ids::{Epoch, Revision};

/// How far a receiver has got in the feed of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Grows each time that another server begins to deliver: the former one cannot move it any more.
    pub owner: Epoch,
    /// The commit that comes next: everything before it is done.
    pub next: Revision,
    /// Entries of that commit that are done, from its first one on.
    pub done: u32,
}

impl Cursor {
    /// Before everything after a commit.
    #[must_use]
    pub fn after(revision: Revision) -> Self {
        Self { owner: Epoch(0), next: Revision(revision.0.saturating_add(1)), done: 0 }
    }

    /// The newest commit that is done as a whole.
    #[must_use]
    pub fn passed(&self) -> Revision {
        Revision(self.next.0.saturating_sub(1))
    }
}
