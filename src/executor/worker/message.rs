//! What reaches a worker, and what it asks of the scheduler above it.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Span;

use super::call::Called;
use crate::executor::error::EngineError;
use crate::executor::request::{MachineChanges, NewRun, Origin, Verb};
use crate::ids::{MachineId, RunId};
use crate::model::{Machine, Run};
use crate::provider::Health;

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
    /// Recover the machine's active run after a restart.
    Recover { run_id: RunId, done: oneshot::Sender<Result<(), EngineError>> },
    /// A probe was answered.
    Probed { health: Health },
    /// Everything sent before this has been handled.
    Barrier { done: oneshot::Sender<()> },
}

/// What workers ask of the scheduler: the only way up.
pub(in crate::executor) trait Scheduling: Send + Sync {
    /// Hands a message to the worker of a machine, making one if there is none.
    fn send(&self, machine: &MachineId, message: Message);
    /// The worker of a machine ends, if its mailbox is empty while nobody can send.
    fn retire(&self, machine: &MachineId, is_empty: &dyn Fn() -> bool) -> bool;
    /// The worker of a machine has panicked: its run is to be recovered by another.
    fn revive(&self, machine: &MachineId);
    /// Asks for a slot: `true` if the run has it now; otherwise [`Message::Admitted`] follows.
    fn request_slot(&self, run: RunId, machine: &Machine) -> bool;
    /// Whether the run has a slot now.
    fn has_slot(&self, run: RunId) -> bool;
    /// Gives a run its slot whatever the limits say.
    fn restore_slot(&self, run: RunId, machine: &Machine);
    /// Gives back the run's slot, or its place in the queue.
    fn release_slot(&self, run: RunId);
}
