//! The locked part of a world: its state, its time, and its queue of records.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::journal;
use super::operation::Ending;
use super::queue::Queue;
use super::script::CallKind;
use super::state::{Machine, Record, State};
use crate::clock::{Clock, Timestamp};
use crate::ids::MachineId;

/// Operations whose calls are counted, per machine.
const COUNTED_OPERATIONS_MAX: usize = 32;

#[derive(Default)]
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    /// Signaled when the writer has something to do.
    pub(super) work: Condvar,
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
    pub(super) time: Option<Anchor>,
    pub(super) counts: BTreeMap<MachineId, VecDeque<(String, Counts)>>,
    /// Whether the world has a journal.
    pub(super) journaled: bool,
    /// Key from which join material is derived; a world on disk keeps it, so that material outlives the server.
    pub(super) key: Option<u64>,
    pub(super) queue: Queue,
}

/// Reports that something has become durable, or why it cannot.
pub(super) type Durable = oneshot::Receiver<Result<(), String>>;

/// Calls made for an operation, indexed by [`CallKind`].
pub(super) type Counts = [u32; 6];

/// World time was `at_ms` when the clock's monotonic time was `monotonic`.
pub(super) struct Anchor {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) at_ms: u64,
    pub(super) monotonic: Duration,
}

impl Anchor {
    pub(super) fn now_ms(&self) -> u64 {
        let passed = self.clock.monotonic().saturating_sub(self.monotonic);
        // Rounded up, so that an engine that slept until the given millisecond does not find it still running.
        let ms = passed.as_nanos().div_ceil(1_000_000);
        self.at_ms.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// The lock on the world; when it is dropped, the writer is woken if there is something to write.
pub(super) struct Guard<'a> {
    pub(super) core: MutexGuard<'a, Core>,
    pub(super) shared: &'a Shared,
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

    /// Whether records can be made durable now; if not, why. After a transient error it is retried.
    pub(super) fn writable(&mut self) -> Result<(), String> {
        match &self.queue.trouble {
            None => Ok(()),
            Some(trouble) => {
                self.queue.try_again = true;
                Err(trouble.why.clone())
            }
        }
    }

    /// Resolves when a record is durable; `None` if it is.
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
                // The receiver is still here.
                let _ = sender.send(Err(trouble.why.clone()));
            }
        }
        Some(receiver)
    }

    /// Ends the machine's operation if it is due, at the time at which it was due.
    pub(super) fn settle(&mut self, id: &MachineId, now_ms: u64) {
        let Some(operation) = self.state.machine(id).and_then(Machine::in_flight) else { return };
        if operation.until_ms <= now_ms {
            let at_ms = operation.until_ms;
            self.record(Record::End { machine: id.to_string(), at_ms, ending: Ending::AsPlanned });
        }
    }

    pub(super) fn settle_all(&mut self) {
        let now_ms = self.now_ms();
        for id in self.state.busy_machines() {
            self.settle(&id, now_ms);
        }
    }

    /// Counts a call for an operation: returns how many there were before it.
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
