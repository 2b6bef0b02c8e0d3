//! What reaches a worker, and what it asks of the scheduler above it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Span;

use super::call::Called;
use super::spans::Spans;
use crate::executor::error::EngineError;
use crate::executor::request::{MachineChanges, NewRun, Origin, Verb};
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::model::{Machine, Run};
use crate::provider::Health;
use crate::store::SlotKey;

/// Where an answer goes.
pub(in crate::executor) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// What a worker is asked to do. Small, since a mailbox is made of blocks of 32.
pub(in crate::executor) enum Message {
    /// Start a run, or repeat an ended one.
    Start {
        origin: Box<Origin>,
        new: Box<NewRun>,
        retry_of: Option<RunId>,
        /// The span of the request, for the run's to name.
        caller: Box<Span>,
        reply: Reply<Arc<Run>>,
    },
    /// An operator's verb on a run.
    Operate { origin: Box<Origin>, run_id: RunId, verb: Box<Verb>, reply: Reply<Arc<Run>> },
    /// Change the machine.
    Update { origin: Box<Origin>, changes: Box<MachineChanges>, reply: Reply<Arc<Machine>> },
    /// Clear NeedsIntervention.
    ClearIntervention { origin: Box<Origin>, reply: Reply<Arc<Machine>> },
    /// Delete the machine.
    Delete { origin: Box<Origin>, reply: Reply<()> },
    /// The scheduler has a slot for the run.
    Admitted { run_id: RunId },
    /// A provider call was answered.
    Called(Box<Called>),
    /// A step has printed lines that no commit has taken yet.
    Printed,
    /// A probe was answered.
    Probed { health: Health },
    /// Everything sent before this has been handled.
    Barrier { done: oneshot::Sender<()> },
}

/// A run that only waits: its worker has left, and its record says everything else.
///
/// Instants are on the monotonic clock: a wall-clock time that was computed once means a span from then, however the
/// wall clock jumps in between.
#[derive(Debug)]
pub(in crate::executor) struct Parked {
    /// The run.
    pub(in crate::executor) run_id: RunId,
    /// Epoch under which its machine was claimed.
    pub(in crate::executor) epoch: Epoch,
    /// Whether the provider has confirmed that epoch.
    pub(in crate::executor) fenced: bool,
    /// When its step goes on by itself.
    pub(in crate::executor) wake_at: Option<Duration>,
    /// When its attempt times out.
    pub(in crate::executor) deadline_at: Option<Duration>,
    /// When the time of the whole run is up.
    pub(in crate::executor) limit_at: Option<Duration>,
    /// Its spans, if anything listens to them.
    pub(in crate::executor) spans: Option<Box<Spans>>,
}

impl Parked {
    /// When a worker has to look at it, on the monotonic clock.
    pub(in crate::executor) fn due_at(&self) -> Option<Duration> {
        [self.wake_at, self.deadline_at, self.limit_at].into_iter().flatten().min()
    }
}

/// What a machine is left with when its worker leaves, and what the next one begins with.
#[derive(Debug)]
pub(in crate::executor) enum Rest {
    /// Nothing that concerns it.
    Nothing,
    /// A run that waits.
    Parked(Parked),
    /// An active run that no worker drives: after a restart, a panic, or an error of ours. With a permit where many are
    /// recovered at the same time.
    Unrecovered(Option<OwnedSemaphorePermit>),
    /// An active run at which workers have panicked so often that it is to be given up.
    Faulty,
    /// An active run that another engine drives: this one touches nothing.
    Lost(RunId),
}

/// What workers ask of the scheduler: the only way up.
pub(in crate::executor) trait Scheduling: Send + Sync {
    /// The worker of a machine leaves, if its mailbox is empty while no message can be sent; else it is given back what
    /// was to be left.
    fn leave(
        &self,
        machine: &MachineId,
        rest: Rest,
        is_empty: &dyn Fn() -> bool,
    ) -> Result<(), Rest>;
    /// The worker of a machine has panicked: its run is to be recovered by another.
    fn revive(&self, machine: &MachineId);
    /// Asks for a slot for a run that is not durable yet: `true` if it has it now. Otherwise it is announced, and waits
    /// from its commit on.
    fn take_slot(&self, run: RunId, machine: &Machine) -> bool;
    /// A run is about to wait for a slot: it takes its place in the queue with its commit.
    fn announce(&self, run: RunId, machine: &Machine);
    /// Asks for a slot for a run that waits for one by its record of this revision: [`Message::Admitted`] follows, now
    /// or later.
    fn request_slot(&self, run: RunId, machine: &Machine, revision: Revision);
    /// The slots that a run takes with the commit by which it has one, and how many of each may be taken: as many as the
    /// limits allow, or any number if the run `had_one` before or did not have to wait for it.
    fn slot_keys(&self, run: RunId, machine: &Machine, had_one: bool) -> Vec<(SlotKey, u64)>;
    /// Whether the run has a slot now.
    fn has_slot(&self, run: RunId) -> bool;
    /// Gives a run its slot whatever the limits say.
    fn restore_slot(&self, run: RunId, machine: &Machine);
    /// Gives back the run's slot, or its place in the queue.
    fn release_slot(&self, run: RunId);
}
