//! What is known about the machines on which programs act: the epoch in force, what runs, how the last operation ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ids::{Epoch, MachineId, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::provider::{Acted, Call, ProviderError, ProviderErrorKind};

/// Every machine that a program has acted on since the server started.
#[derive(Debug, Clone, Default)]
pub(super) struct Machines(Arc<Mutex<HashMap<MachineId, Known>>>);

#[derive(Debug, Default)]
struct Known {
    fence: Epoch,
    running: Option<Running>,
    last: Option<(OperationId, Result<Acted, ProviderError>)>,
    /// Open as long as a program of a former server acts.
    former: Option<watch::Receiver<()>>,
}

/// A program that acts.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) operation: OperationId,
    epoch: Epoch,
    stop: CancellationToken,
    ended: watch::Receiver<()>,
}

/// What *act* does next.
pub(super) enum Next {
    /// The operation has ended before, like this.
    Known(Result<Acted, ProviderError>),
    /// Another program still acts on the machine: its call was dropped only just now.
    Wait(Running),
    /// Its program is run; dropping this says that it has ended.
    Run(watch::Sender<()>),
}

impl Machines {
    fn lock(&self) -> MutexGuard<'_, HashMap<MachineId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a call under an epoch that is no longer in force.
    pub(super) fn admit(&self, machine: &MachineId, epoch: Epoch) -> Result<(), ProviderError> {
        let fence = self.lock().get(machine).map_or(Epoch(0), |known| known.fence);
        if epoch >= fence {
            return Ok(());
        }
        let message = format!("epoch {epoch} of {machine} is older than {fence}");
        let error = ProviderError::fenced(fence, message);
        Err(error.seen(format!("epoch {fence} or newer"), format!("epoch {epoch}")))
    }

    /// A program of a former server acts on a machine; dropping the result says that it has ended.
    pub(super) fn former(&self, machine: &MachineId) -> watch::Sender<()> {
        let (sender, ended) = watch::channel(());
        self.lock().entry(machine.clone()).or_default().former = Some(ended);
        sender
    }

    /// Resolves when no program of a former server acts on the machine.
    pub(super) async fn without_former(&self, machine: &MachineId) {
        let former = self.lock().get(machine).and_then(|known| known.former.clone());
        if let Some(former) = former {
            closed(former).await;
        }
    }

    /// Raises the epoch; returns the program that acts, and whether it was run under an older one.
    pub(super) fn raise(&self, machine: &MachineId, epoch: Epoch) -> Option<(Running, bool)> {
        let mut machines = self.lock();
        let known = machines.entry(machine.clone()).or_default();
        known.fence = known.fence.max(epoch);
        known.running.clone().map(|running| {
            let is_older = running.epoch < epoch;
            (running, is_older)
        })
    }

    /// Decides what *act* does, and if it runs its program notes that it does; `stop` ends it.
    pub(super) fn next(&self, machine: &MachineId, call: &Call, stop: &CancellationToken) -> Next {
        let mut machines = self.lock();
        let known = machines.entry(machine.clone()).or_default();
        if let Some(running) = &known.running {
            return Next::Wait(running.clone());
        }
        if let Some((last, result)) = &known.last
            && *last == call.operation
            && result.as_ref().err().is_none_or(is_settled)
        {
            return Next::Known(result.clone());
        }
        let (sender, ended) = watch::channel(());
        let (operation, epoch, stop) = (call.operation.clone(), call.epoch, stop.clone());
        known.running = Some(Running { operation, epoch, stop, ended });
        Next::Run(sender)
    }

    /// The program has ended, and led to this.
    pub(super) fn ended(
        &self,
        machine: MachineId,
        operation: OperationId,
        result: Result<Acted, ProviderError>,
    ) {
        let mut machines = self.lock();
        let known = machines.entry(machine).or_default();
        known.running = None;
        known.last = Some((operation, result));
    }

    /// The program that acts on a machine.
    pub(super) fn running(&self, machine: &MachineId) -> Option<Running> {
        self.lock().get(machine)?.running.clone()
    }

    /// What an operation led to, if it is the last one.
    pub(super) fn last(
        &self,
        machine: &MachineId,
        operation: &OperationId,
    ) -> Option<Result<Acted, ProviderError>> {
        let machines = self.lock();
        let (last, result) = machines.get(machine)?.last.as_ref()?;
        (last == operation).then(|| result.clone())
    }
}

impl Running {
    /// Resolves when it has ended.
    pub(super) async fn over(self) {
        closed(self.ended).await;
    }

    /// Ends it.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.over().await;
    }
}

/// Nothing is ever sent: the wait ends when the sender is dropped.
async fn closed(mut receiver: watch::Receiver<()>) {
    while receiver.changed().await.is_ok() {}
}

/// Whether a failure says what the operation did.
pub(super) fn is_settled(error: &ProviderError) -> bool {
    error.kind != ProviderErrorKind::Class(ErrorClass::OutcomeUnknown)
}
