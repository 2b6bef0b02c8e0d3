//! Limits on concurrent runs, as far as a commit can request them.

use std::fmt;
use std::sync::Arc;

use crate::ids::RunId;

/// Something with a limit on concurrent use, such as the runs of a rack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey(Arc<str>);

impl SlotKey {
    /// The key with a name, which must not contain a line feed.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.replace('\n', " ").into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The effect of a commit on the slots of a run. A run that ends releases its slots by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotMove {
    /// The active run takes one slot of each key, instead of those that it has. Fails with
    /// [`StoreError::NoSlot`](super::StoreError::NoSlot) if all slots of a key are taken.
    Take {
        /// The run.
        run: RunId,
        /// The keys, and the limit of each.
        keys: Vec<(SlotKey, u64)>,
    },
    /// The run releases its slots.
    Give {
        /// The run.
        run: RunId,
    },
}
