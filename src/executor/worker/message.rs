//! Messages to a worker, and its requests to the scheduler above it.

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
use crate::plan::Risk;
use crate::provider::Health;
use crate::store::SlotKey;

/// Where a reply goes.
pub(in crate::executor) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// Messages to a worker. Small, since a mailbox consists of blocks of 32.
pub(in crate::executor) enum Message {
    /// Start a run, or repeat an ended one.
    Start {
        origin: Box<Origin>,
        new: Box<NewRun>,
        retry_of: Option<RunId>,
        /// The span of the request, for a link from the run's.
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
    /// What has held the run back may not do so any more.
    Released { run_id: RunId },
    /// A provider call has returned.
    Called(Box<Called>),
    /// A step has printed lines that are not committed yet.
    Printed,
    /// A probe has returned.
    Probed { health: Box<Health> },
    /// The hardware was looked at because a client asked.
    Inspected { origin: Box<Origin>, health: Box<Health>, reply: Reply<Arc<Machine>> },
    /// Everything sent before this has been handled.
    Barrier { done: oneshot::Sender<()> },
}

/// A run that only waits: its worker has left, and its record says everything else.
///
/// Instants are on the monotonic clock: a wall-clock time is converted once to a span, so that later jumps of the
/// wall clock do not matter.
#[derive(Debug)]
pub(in crate::executor) struct Parked {
    /// The run.
    pub(in crate::executor) run_id: RunId,
    /// Epoch under which its machine was claimed.
    pub(in crate::executor) epoch: Epoch,
    /// Whether the provider has confirmed that epoch.
    pub(in crate::executor) fenced: bool,
    /// When its step continues by itself.
    pub(in crate::executor) wake_at: Option<Duration>,
    /// When its attempt times out.
    pub(in crate::executor) deadline_at: Option<Duration>,
    /// When the time limit of the whole run passes.
    pub(in crate::executor) limit_at: Option<Duration>,
    /// Its spans, if tracing is enabled.
    pub(in crate::executor) spans: Option<Box<Spans>>,
}

impl Parked {
    /// When a worker must look at it, on the monotonic clock.
    pub(in crate::executor) fn due_at(&self) -> Option<Duration> {
        [self.wake_at, self.deadline_at, self.limit_at].into_iter().flatten().min()
    }
}

/// State of a machine when its worker leaves, from which the next one starts.
#[derive(Debug)]
pub(in crate::executor) enum Rest {
    /// Nothing to do.
    Nothing,
    /// A run that waits.
    Parked(Parked),
    /// An active run that no worker drives: after a restart, a panic, or an internal error. With a permit if many are
    /// recovered at the same time.
    Unrecovered(Option<OwnedSemaphorePermit>),
    /// An active run at which workers have panicked so often that it must be given up.
    Faulty,
    /// An active run that another engine drives: this one touches nothing.
    Lost(RunId),
}

/// What workers request of the scheduler: the only way up. What a run counts against depends on its machine, and on the
/// risk of its plan.
pub(in crate::executor) trait Scheduling: Send + Sync {
    /// The worker of a machine leaves, if its mailbox is empty while no message can be sent; otherwise the state is
    /// returned to it.
    fn leave(
        &self,
        machine: &MachineId,
        rest: Rest,
        is_empty: &dyn Fn() -> bool,
    ) -> Result<(), Rest>;
    /// The worker of a machine has panicked: another one must recover its run.
    fn revive(&self, machine: &MachineId);
    /// Requests a slot for a run that is not durable yet: `true` if it has it now. Otherwise it is announced, and
    /// waits from its commit on.
    fn take_slot(&self, run: RunId, risk: Risk, machine: &Machine) -> bool;
    /// A run is about to wait for a slot: it enters the queue with its commit.
    fn announce(&self, run: RunId, risk: Risk, machine: &Machine);
    /// Requests a slot for a run that waits for one according to its record of this revision: [`Message::Admitted`]
    /// follows, now or later.
    fn request_slot(&self, run: RunId, risk: Risk, machine: &Machine, revision: Revision);
    /// The slots that a run takes with the commit by which it gets one, and how many of each may be taken: as many as
    /// the limits allow, or any number if the run `had_one` before or did not have to wait for it.
    fn slot_keys(
        &self,
        run: RunId,
        risk: Risk,
        machine: &Machine,
        had_one: bool,
    ) -> Vec<(SlotKey, u64)>;
    /// Whether the run has a slot now.
    fn has_slot(&self, run: RunId) -> bool;
    /// Gives a run its slot whatever the limits say.
    fn restore_slot(&self, run: RunId, risk: Risk, machine: &Machine);
    /// The run has not used its slot, and waits for one according to its record: it is where it was in the queue.
    fn put_back_slot(&self, run: RunId);
    /// Releases the run's slot, or its position in the queue.
    fn release_slot(&self, run: RunId);
}
