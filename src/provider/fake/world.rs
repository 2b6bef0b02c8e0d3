//! The world: the real state of each machine, and its time.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use super::disk::{self, Disk};
use super::journal::WorldError;
use super::ledger::LedgerEntry;
use super::queue::Queue;
use super::shared::{Anchor, Core, Guard, Shared};
use super::state::{Machine, State};
use crate::clock::Clock;
use crate::ids::{Epoch, MachineId};

/// The real state of each machine. Handles share one world, which outlives the engines and providers that use it.
///
/// World time starts at the wall clock's and then runs with the monotonic clock of the provider that was attached
/// last: it never goes back, and a jump of the wall clock moves no operation. It is preserved across a restart.
#[derive(Clone)]
pub struct World {
    handle: Arc<Handle>,
}

/// Shared by all handles; the last one closes the journal.
struct Handle {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().queue.closing = true;
        self.shared.work.notify_all();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

/// The real state of a machine, for tests and demonstrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineView {
    /// Epoch in force.
    pub fence: Epoch,
    /// Whether it is powered on.
    pub powered: bool,
    /// How often an operation booted it.
    pub boots: u64,
    /// Source of the next boot, if set.
    pub boot_override: Option<String>,
    /// Installed image.
    pub image: Option<String>,
    /// How its disks were erased, if nothing was installed since.
    pub wiped: Option<String>,
    /// Cluster that it has joined.
    pub cluster: Option<String>,
    /// Whether it accepts no work.
    pub cordoned: bool,
    /// Network profile.
    pub net_profile: String,
    /// How many notifications were sent about it.
    pub notices: u64,
    /// Whether an operation is in progress.
    pub busy: bool,
}

impl World {
    /// A world that lives as long as the last handle to it and remembers every operation, for tests and simulations.
    /// No threads, no files.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { handle: Arc::new(Handle { shared: Arc::default(), writer: None }) }
    }

    /// Like [`World::in_memory`], but only the latest `operations_max` operations of each machine are remembered: for
    /// a server that runs for a long time. An engine asks about the operation in flight, or the one before it.
    #[must_use]
    pub fn in_memory_bounded(operations_max: usize) -> Self {
        let core = Core { state: State::bounded(operations_max), ..Core::default() };
        let shared = Arc::new(Shared { core: Mutex::new(core), work: Condvar::new() });
        Self { handle: Arc::new(Handle { shared, writer: None }) }
    }

    /// The world of a data directory, kept in the file [`JOURNAL_FILE`](super::JOURNAL_FILE) and a thread that writes
    /// it. The owner of the directory ensures that only one process has it open.
    ///
    /// Operations that were in flight continue: those that became due meanwhile are done. A tail that a power loss
    /// tore is cut with a warning; nothing in it had been acknowledged.
    ///
    /// # Errors
    /// [`WorldError`] if the journal cannot be read or written, is damaged, or has a newer format; then nothing has
    /// been changed.
    pub fn open(dir: &Path) -> Result<Self, WorldError> {
        Self::open_with(dir, disk::COMPACT_BYTES)
    }

    pub(super) fn open_with(dir: &Path, compact_bytes: u64) -> Result<Self, WorldError> {
        let (disk, state) = Disk::open(dir, compact_bytes)?;
        let queue = Queue { durable: state.recorded(), ..Queue::default() };
        let core = Core { state, queue, journaled: true, ..Core::default() };
        let shared = Arc::new(Shared { core: Mutex::new(core), work: Condvar::new() });
        let writer = std::thread::Builder::new()
            .name("fake-world".to_owned())
            .spawn({
                let shared = shared.clone();
                move || disk::run_writer(&shared, disk)
            })
            .map_err(|source| WorldError::Io {
                action: "start a thread for",
                path: dir.to_owned(),
                source,
            })?;
        Ok(Self { handle: Arc::new(Handle { shared, writer: Some(writer) }) })
    }

    /// Gives the world of a data directory its key: the one in the file [`KEY_FILE`](super::KEY_FILE), or else
    /// `fresh`, which is stored there from now on.
    ///
    /// # Errors
    /// [`WorldError`] if the file cannot be read or written, or is damaged.
    pub fn keyed(self, dir: &Path, fresh: u64) -> Result<Self, WorldError> {
        let key = disk::key(dir, fresh)?;
        self.lock().key = Some(key);
        Ok(self)
    }

    /// Key from which join material is derived, if the world keeps one.
    pub(super) fn key(&self) -> Option<u64> {
        self.lock().key
    }

    /// Flushes of the journal so far.
    #[cfg(test)]
    pub(super) fn flushes(&self) -> u64 {
        self.lock().queue.flushes
    }

    /// Every remembered operation, in the order in which they started.
    ///
    /// Operations that are due are ended first. A world on disk remembers the latest 16 operations of each machine;
    /// [`read_ledger`](super::read_ledger) reads those that are still in its journal.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        let mut core = self.lock();
        core.settle_all();
        core.state.ledger()
    }

    /// The real state of a machine, or `None` if nothing ever happened to it.
    #[must_use]
    pub fn machine(&self, id: &MachineId) -> Option<MachineView> {
        let mut core = self.lock();
        let now_ms = core.now_ms();
        core.settle(id, now_ms);
        core.state.machine(id).map(view)
    }

    /// Makes time run with `clock` from now on.
    pub(super) fn attach(&self, clock: Arc<dyn Clock>) {
        let mut core = self.lock();
        // A world whose time already runs continues where it is, whatever the wall clock says.
        let at_ms = match &core.time {
            Some(anchor) => anchor.now_ms(),
            None => clock.now().0,
        };
        let at_ms = at_ms.max(core.state.latest_ms);
        core.state.latest_ms = at_ms;
        core.time = Some(Anchor { at_ms, monotonic: clock.monotonic(), clock });
    }

    /// Locks the world. Records made until the guard is dropped are written as a unit.
    pub(super) fn lock(&self) -> Guard<'_> {
        Guard { core: self.handle.shared.lock(), shared: &self.handle.shared }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

fn view(machine: &Machine) -> MachineView {
    MachineView {
        fence: Epoch(machine.fence),
        powered: machine.hardware.powered,
        boots: machine.hardware.boots,
        boot_override: machine.hardware.boot_override.clone(),
        image: machine.hardware.image.clone(),
        wiped: machine.hardware.wiped.clone(),
        cluster: machine.hardware.cluster.clone(),
        cordoned: machine.hardware.cordoned,
        net_profile: machine.hardware.net_profile.clone(),
        notices: machine.hardware.notices,
        busy: machine.in_flight().is_some(),
    }
}
