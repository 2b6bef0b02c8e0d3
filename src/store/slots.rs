//! Limits on what runs at the same time: what a commit can ask of them.

use std::fmt;
use std::sync::Arc;

use crate::ids::RunId;

/// Something of which only so much may be in use at a time, such as the runs of a rack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey(Arc<str>);

impl SlotKey {
    /// The key of a name. It must not hold a line feed.
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

/// What a commit does to the slots of a run. A run that ends gives back what it has by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotMove {
    /// The active run takes one slot of each key, instead of those that it has. Fails with [`StoreError::NoSlot`](super::StoreError::NoSlot) if as
    /// many of a key are taken as may be.
    Take {
        /// Who.
        run: RunId,
        /// Of which, and how many may be taken of it.
        keys: Vec<(SlotKey, u64)>,
    },
    /// The run gives back what it has.
    Give {
        /// Who.
        run: RunId,
    },
}
