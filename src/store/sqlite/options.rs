//! How a store is opened, and the failures that a test can ask for.

use std::sync::Arc;

use crate::clock::Clock;

/// A failure that a test can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full.
    Full,
    /// The flush fails, and its data is lost.
    SyncLost,
    /// The flush fails, and its data is durable nevertheless.
    SyncKept,
}

/// Called before every COMMIT: whether it should fail.
pub type FaultHook = Arc<dyn Fn() -> Option<Fault> + Send + Sync>;

/// How to open a store. The default is what a server wants.
#[derive(Clone, Default)]
pub struct SqliteOptions {
    /// Do not flush at every transaction: a power cut loses acknowledged commits. Only to show that tests notice.
    pub unsafe_no_flush_for_tests: bool,
    /// Most pages (4 KiB each) of the database; `None` for as many as the disk holds.
    pub pages_max: Option<u32>,
    /// Failures to inject.
    pub fault: Option<FaultHook>,
    /// Time of commits; `None` for the clock of the system.
    pub clock: Option<Arc<dyn Clock>>,
}

impl std::fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("unsafe_no_flush_for_tests", &self.unsafe_no_flush_for_tests)
            .field("pages_max", &self.pages_max)
            .field("fault", &self.fault.is_some())
            .field("clock", &self.clock)
            .finish()
    }
}
