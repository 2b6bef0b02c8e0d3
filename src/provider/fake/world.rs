//! The world: what really happened to each machine, and how time passes there.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

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
    shared: Arc<Shared>,
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

pub(super) struct Shared {
    core: Mutex<Core>,
}

/// Everything behind the lock, which is never held across an await: a machine that hangs delays no other.
#[derive(Default)]
pub(super) struct Core {
    pub(super) state: State,
    time: Option<Anchor>,
    counts: BTreeMap<MachineId, VecDeque<(String, Counts)>>,
}

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
    /// A world that lives as long as the last handle to it. No threads, no files.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { shared: Arc::new(Shared { core: Mutex::new(Core::default()) }) }
    }

    /// Every remembered operation, in the order in which they began.
    ///
    /// Operations whose time has come are ended first. At most the latest 1,024 operations of a machine are
    /// remembered.
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.state.apply(record);
    }

    /// Whether what is recorded now can be made durable; why not.
    pub(super) fn writable(&self) -> Result<(), String> {
        Ok(())
    }

    /// Answered when a record is durable; `None` if it is.
    pub(super) fn durable(
        &mut self,
        _record: u64,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        None
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
