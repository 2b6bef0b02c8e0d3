//! The world: what really happened to each machine, and how time passes there.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::disk::{self, Disk, Queue};
use super::journal::{self, WorldError};
use super::ledger::LedgerEntry;
use super::script::CallKind;
use super::state::{Ending, Machine, Record, State};
use crate::clock::{Clock, Timestamp};
use crate::ids::{Epoch, MachineId};

/// Operations whose calls are counted, per machine.
const COUNTED_OPERATIONS_MAX: usize = 32;

/// What really happened to each machine. Handles share one world, which outlives the engines and providers on it.
///
/// World time starts at the wall clock's and then runs with the monotonic clock of the provider that was attached
/// last: it never goes back, and a jump of the wall clock moves no operation. It is carried over a restart.
#[derive(Clone)]
pub struct World {
    handle: Arc<Handle>,
}

/// What all handles share; the last one to go closes the journal.
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

/// A machine as it really is, for tests and demonstrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineView {
    /// Epoch in force.
    pub fence: Epoch,
    /// Whether it has power.
    pub powered: bool,
    /// Times it was booted by an operation.
    pub boots: u64,
    /// What the next boot starts from, if that was set.
    pub boot_override: Option<String>,
    /// Installed image.
    pub image: Option<String>,
    /// How its disks were erased, if nothing was installed since.
    pub wiped: Option<String>,
    /// Cluster that it has joined.
    pub cluster: Option<String>,
    /// Whether it takes no work.
    pub cordoned: bool,
    /// Network profile.
    pub net_profile: String,
    /// Times somebody was notified about it.
    pub notices: u64,
    /// Whether an operation is under way.
    pub busy: bool,
}

#[derive(Default)]
pub(super) struct Shared {
    core: Mutex<Core>,
    /// Signaled when the writer has something to do.
    work: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work of the writer.
    pub(super) fn wait_while(&self, idle: impl Fn(&Queue) -> bool) -> MutexGuard<'_, Core> {
        self.work
            .wait_while(self.lock(), |core| idle(&core.queue))
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything behind the lock, which is never held across an await: a machine that hangs delays no other.
#[derive(Default)]
pub(super) struct Core {
    pub(super) state: State,
    time: Option<Anchor>,
    counts: BTreeMap<MachineId, VecDeque<(String, Counts)>>,
    /// Whether the world has a journal.
    journaled: bool,
    /// What join material is made from; a world on disk keeps it, so that material outlives the server.
    key: Option<u64>,
    pub(super) queue: Queue,
}

/// Says whether something has become durable, or why it cannot.
pub(super) type Durable = oneshot::Receiver<Result<(), String>>;

/// Calls made for an operation, in the order of [`CallKind`] that have one.
type Counts = [u32; 6];

/// World time was `at_ms` when the clock's monotonic time was `monotonic`.
struct Anchor {
    clock: Arc<dyn Clock>,
    at_ms: u64,
    monotonic: Duration,
}

impl Anchor {
    fn now_ms(&self) -> u64 {
        let passed = self.clock.monotonic().saturating_sub(self.monotonic);
        // Rounded up, so that an engine that slept until the stated millisecond does not find a rest of it.
        let ms = passed.as_nanos().div_ceil(1_000_000);
        self.at_ms.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

impl World {
    /// A world that lives as long as the last handle to it and remembers every operation, for tests and simulations.
    /// No threads, no files.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { handle: Arc::new(Handle { shared: Arc::default(), writer: None }) }
    }

    /// As [`World::in_memory`], but only the latest `operations_max` operations of each machine are remembered: for a
    /// server that runs long. An engine asks about the operation in flight, or the one before it.
    #[must_use]
    pub fn in_memory_bounded(operations_max: usize) -> Self {
        let core = Core { state: State::bounded(operations_max), ..Core::default() };
        let shared = Arc::new(Shared { core: Mutex::new(core), work: Condvar::new() });
        Self { handle: Arc::new(Handle { shared, writer: None }) }
    }

    /// The world of a data directory, kept in the file [`JOURNAL_FILE`](super::JOURNAL_FILE) and a thread that writes
    /// it. Whoever owns the directory sees to it that only one process has it open.
    ///
    /// Operations that were in flight go on: those whose time came meanwhile are done. A tail that a power loss tore
    /// is cut with a warning; nothing in it had been answered.
    ///
    /// # Errors
    /// [`WorldError`] if the journal cannot be read or written, is damaged, or is of a newer format; then nothing has
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

    /// Gives the world of a data directory its key: the one it has in the file [`KEY_FILE`](super::KEY_FILE), or else
    /// `fresh`, which is kept there from now on.
    ///
    /// # Errors
    /// [`WorldError`] if the file cannot be read or written, or is damaged.
    pub fn keyed(self, dir: &Path, fresh: u64) -> Result<Self, WorldError> {
        let key = disk::key(dir, fresh)?;
        self.lock().key = Some(key);
        Ok(self)
    }

    /// What join material is made from, if the world keeps it.
    pub(super) fn key(&self) -> Option<u64> {
        self.lock().key
    }

    /// Flushes of the journal so far.
    #[cfg(test)]
    pub(super) fn flushes(&self) -> u64 {
        self.lock().queue.flushes
    }

    /// Every remembered operation, in the order in which they began.
    ///
    /// Operations whose time has come are ended first. A world on disk remembers the latest 16 operations of each
    /// machine; [`read_ledger`](super::read_ledger) reads those that are still in its journal.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        let mut core = self.lock();
        core.settle_all();
        core.state.ledger()
    }

    /// A machine as it really is, or `None` if it was never touched.
    #[must_use]
    pub fn machine(&self, id: &MachineId) -> Option<MachineView> {
        let mut core = self.lock();
        let now_ms = core.now_ms();
        core.settle(id, now_ms);
        core.state.machine(id).map(view)
    }

    /// Lets time pass with `clock` from now on.
    pub(super) fn attach(&self, clock: Arc<dyn Clock>) {
        let mut core = self.lock();
        // A world whose time already runs goes on where it is, whatever the wall clock has become.
        let at_ms = match &core.time {
            Some(anchor) => anchor.now_ms(),
            None => clock.now().0,
        };
        let at_ms = at_ms.max(core.state.latest_ms);
        core.state.latest_ms = at_ms;
        core.time = Some(Anchor { at_ms, monotonic: clock.monotonic(), clock });
    }

    /// Locks the world. What is recorded until the guard goes is written in one piece.
    pub(super) fn lock(&self) -> Guard<'_> {
        Guard { core: self.handle.shared.lock(), shared: &self.handle.shared }
    }
}

/// The lock on the world; when it goes, the writer is told of what there is to write.
pub(super) struct Guard<'a> {
    core: MutexGuard<'a, Core>,
    shared: &'a Shared,
}

impl Deref for Guard<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.core.journaled && self.core.queue.has_work() {
            self.shared.work.notify_one();
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl Core {
    /// World time in milliseconds.
    pub(super) fn now_ms(&mut self) -> u64 {
        let now_ms = self.time.as_ref().map_or(0, Anchor::now_ms).max(self.state.latest_ms);
        self.state.latest_ms = now_ms;
        now_ms
    }

    /// The wall-clock time at which world time will be `at_ms`.
    pub(super) fn wall_time(&mut self, at_ms: u64) -> Timestamp {
        let rest_ms = at_ms.saturating_sub(self.now_ms());
        self.time.as_ref().map_or(Timestamp(at_ms), |anchor| anchor.clock.now().plus_ms(rest_ms))
    }

    /// Changes the world.
    pub(super) fn record(&mut self, record: Record) {
        if self.journaled {
            journal::encode(&record, &mut self.queue.bytes);
        }
        self.state.apply(record);
    }

    /// Whether what is recorded now can be made durable; why not. If that may pass, it is tried again.
    pub(super) fn writable(&mut self) -> Result<(), String> {
        match &self.queue.trouble {
            None => Ok(()),
            Some(trouble) => {
                self.queue.try_again = true;
                Err(trouble.why.clone())
            }
        }
    }

    /// Answered when a record is durable; `None` if it is.
    pub(super) fn durable(&mut self, record: u64) -> Option<Durable> {
        let queue = &mut self.queue;
        if !self.journaled || record <= queue.durable {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        match &queue.trouble {
            None => queue.waiters.push(sender),
            Some(trouble) => {
                queue.try_again = true;
                // The receiver is at hand.
                let _ = sender.send(Err(trouble.why.clone()));
            }
        }
        Some(receiver)
    }

    /// Ends the machine's operation if its time has come, at the time at which it came.
    pub(super) fn settle(&mut self, id: &MachineId, now_ms: u64) {
        let Some(operation) = self.state.machine(id).and_then(Machine::in_flight) else { return };
        if operation.until_ms <= now_ms {
            let at_ms = operation.until_ms;
            self.record(Record::End { machine: id.to_string(), at_ms, ending: Ending::AsPlanned });
        }
    }

    fn settle_all(&mut self) {
        let now_ms = self.now_ms();
        for id in self.state.busy_machines() {
            self.settle(&id, now_ms);
        }
    }

    /// Counts a call for an operation: how many there were before it.
    pub(super) fn count(&mut self, machine: &MachineId, operation: &str, kind: CallKind) -> u32 {
        let counted = self.counts.entry(machine.clone()).or_default();
        let index = match counted.iter().rposition(|(id, _)| id == operation) {
            Some(index) => index,
            None => {
                if counted.len() >= COUNTED_OPERATIONS_MAX {
                    counted.pop_front();
                }
                counted.push_back((operation.to_owned(), Counts::default()));
                counted.len() - 1
            }
        };
        let count = &mut counted[index].1[kind as usize];
        *count += 1;
        *count - 1
    }
}

fn view(machine: &Machine) -> MachineView {
    MachineView {
        fence: Epoch(machine.fence),
        powered: machine.powered,
        boots: machine.boots,
        boot_override: machine.boot_override.clone(),
        image: machine.image.clone(),
        wiped: machine.wiped.clone(),
        cluster: machine.cluster.clone(),
        cordoned: machine.cordoned,
        net_profile: machine.net_profile.clone(),
        notices: machine.notices,
        busy: machine.in_flight().is_some(),
    }
}
