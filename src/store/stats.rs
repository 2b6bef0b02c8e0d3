//! Counters of the store, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Number of buckets of [`StoreStats::groups`].
pub const GROUP_BUCKETS: usize = 13;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) commits: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) queued: AtomicU64,
    groups: [AtomicU64; GROUP_BUCKETS],
}

impl Counting {
    /// Counts a transaction that made `commits` batches durable.
    pub(super) fn group(&self, commits: u64) {
        if let Some(log2) = commits.checked_ilog2() {
            let bucket = usize::try_from(log2).unwrap_or(usize::MAX).min(GROUP_BUCKETS - 1);
            self.groups[bucket].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn read(&self) -> StoreStats {
        StoreStats {
            commits: self.commits.load(Relaxed),
            refused: self.refused.load(Relaxed),
            flushes: self.flushes.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            queued: self.queued.load(Relaxed),
            groups: std::array::from_fn(|bucket| self.groups[bucket].load(Relaxed)),
        }
    }
}

/// Counters since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Batches made durable.
    pub commits: u64,
    /// Batches refused by a precondition.
    pub refused: u64,
    /// Transactions, each with one flush of the log.
    pub flushes: u64,
    /// Checkpoints of the write-ahead log, if the store makes them itself.
    pub checkpoints: u64,
    /// Batches that are waiting for the writer.
    pub queued: u64,
    /// Transactions by the number of batches in them: 1, 2-3, 4-7 and so on.
    pub groups: [u64; GROUP_BUCKETS],
}
