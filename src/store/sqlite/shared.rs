//! State shared by the threads of a store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::options::{Fault, FaultHook};
use crate::clock::Clock;
use crate::store::stats::Counting;
use crate::store::{Availability, Listener};

/// State shared by the threads of a store.
pub(super) struct Shared {
    pub(super) listeners: Mutex<Vec<Arc<dyn Listener>>>,
    pub(super) stats: Counting,
    pub(super) availability: watch::Sender<Availability>,
    pub(super) fault: Option<FaultHook>,
    pub(super) clock: Arc<dyn Clock>,
    /// The data directory.
    pub(super) dir: PathBuf,
}

impl Shared {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.as_ref().and_then(|fault| fault())
    }
}
