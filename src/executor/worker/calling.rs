//! Provider calls of a worker: each call is its own task, and its result is a message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tracing::Instrument as _;

use super::call::{CallInFlight, CallTask, Called, Kind, Outcome, Prepared, failed, perform};
use super::caught::Caught;
use super::logs::CallLogs;
use super::message::Message;
use super::state::{Active, Worker};
use crate::executor::planted::Planted;
use crate::ids::{Epoch, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::model::{Machine, RunErrorCode, Steps};
use crate::plan::{Plan, Values};
use crate::provider::{Call, Capabilities, ErrorCode, Logs, ProviderError, Target};

impl Worker {
    /// Sends a call of a step; an earlier one is dropped.
    pub(super) fn start_call(&mut self, kind: Kind, place: usize) {
        self.forget_call();
        let (Some(active), Some(machine)) = (&mut self.active, &self.machine) else { return };
        let serial = self.next_serial;
        self.next_serial += 1;
        let Some(record) = active.run.steps.get(place) else { return };
        let usable = active.prepared.take().filter(|one| one.is_for(place, record, machine));
        let Some(prepared) = usable.or_else(|| prepare(active, machine, place)) else { return };
        let (target, call) = (prepared.target.clone(), prepared.call.clone());
        let fence = (!active.fenced).then(|| (machine.epoch, uses(&active.plan)));
        let logs: Logs = Arc::new(CallLogs {
            clock: self.ports.clock.clone(),
            worker: self.own.clone(),
            buffer: active.logs.clone(),
            place,
            attempt: record.attempt,
            brakes: self.ports.brakes.clone(),
            machine: machine.clone(),
        });
        active.prepared = Some(prepared);
        let Some(provider) = active.provider.clone() else {
            let error = ProviderError::new(
                ErrorClass::NeedsHuman,
                ErrorCode::Unavailable,
                format!("provider {:?} is not configured on this server", active.run.spec.provider),
            );
            let outcome = Outcome::NotSent(failed(place, error));
            drop(self.own.send(Message::Called(Box::new(Called { serial, outcome }))));
            return;
        };
        let guard = self.ports.tasks.call_started();
        let late_fence = self.ports.planted == Some(Planted::FenceAfterReadBack);
        let span = active.spans.call(kind);
        let mut answer = Box::pin(async move {
            let sent = perform(&*provider, kind, place, &target, &call, logs, fence, late_fence);
            let answered = Caught(std::pin::pin!(sent)).instrument(span.clone()).await;
            let outcome = answered.unwrap_or_else(|said| {
                tracing::error!(machine = %target.machine_id, said, "a provider panicked");
                let message = format!("the provider panicked: {said}");
                Outcome::Step(failed(
                    place,
                    ProviderError::new(ErrorClass::OutcomeUnknown, ErrorCode::Internal, message),
                ))
            });
            span.record("outcome", tracing::field::display(&outcome));
            outcome
        });
        // Polled now rather than when its task is first scheduled. A call that must wait is polled again by its task,
        // which registers the waker.
        let own = self.own.clone();
        let task = match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => {
                // Queued after the messages in the mailbox: an operator's request comes in between, however fast the
                // provider is.
                drop(own.send(Message::Called(Box::new(Called { serial, outcome }))));
                None
            }
            // It runs by itself, even while the worker waits for the store.
            Poll::Pending => Some(CallTask(self.ports.tasks.spawn(async move {
                let outcome = answer.await;
                drop(own.send(Message::Called(Box::new(Called { serial, outcome }))));
            }))),
        };
        active.call = Some(CallInFlight { serial, _task: task, _guard: guard });
    }

    /// Drops the call in flight, if any.
    pub(super) fn forget_call(&mut self) {
        if let Some(active) = &mut self.active {
            active.call = None;
        }
    }

    /// Asks the provider to stop a step's operation, without waiting for it.
    pub(super) fn stop_call(&mut self, place: usize) {
        self.forget_call();
        let (Some(active), Some(machine)) = (&self.active, &self.machine) else { return };
        let Some(record) = active.run.steps.get(place) else { return };
        let (Some(provider), Some(operation)) = (active.provider.clone(), record.operation.clone())
        else {
            return;
        };
        let target = Target::from(&**machine);
        let Some(action) = crate::executor::decide::action(&active.plan, record, place) else {
            return;
        };
        let call = Call {
            operation,
            epoch: machine.epoch,
            action: action.name.to_string(),
            capability: action.traits.capability,
            args: Values::new(),
            inputs: BTreeMap::new(),
            handle: record.handle.clone(),
        };
        self.send_off(async move {
            if let Err(error) = provider.stop(&target, &call).await {
                tracing::warn!(machine = %target.machine_id, %error, "an operation could not be stopped");
            }
        });
    }

    /// Sends a call whose result is not needed: now, so that it is ahead of every later call, and to its end in its
    /// own task.
    fn send_off(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut call = Box::pin(async move {
            if let Err(said) = Caught(std::pin::pin!(call)).await {
                tracing::error!(said, "a provider panicked");
            }
        });
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.ports.tasks.spawn(call);
        }
    }

    /// Raises the fence if a run ends before this claim's fence was confirmed: a former owner of the machine may
    /// still be about to act on it.
    pub(super) fn fence_former_owner(&mut self) {
        let (Some(active), Some(machine)) = (&self.active, &self.machine) else { return };
        let begun = active.run.steps.iter().any(|step| step.attempt > 0);
        // An abort raises the fence itself.
        let aborted = active.run.error.as_ref().is_some_and(|e| e.code == RunErrorCode::Aborted);
        if begun && !active.fenced && !aborted {
            self.raise_fence(machine.epoch);
        }
    }

    /// Raises the fence without acting: late calls of an aborted run must not come through.
    pub(super) fn raise_fence(&mut self, epoch: Epoch) {
        let (Some(active), Some(machine)) = (&self.active, &self.machine) else { return };
        let Some(provider) = active.provider.clone() else { return };
        let target = Target::from(&**machine);
        let uses = uses(&active.plan);
        self.send_off(async move {
            // The next claim raises it again before anything acts: one try is enough.
            if let Err(error) = provider.fence(&target, epoch, uses).await {
                tracing::warn!(machine = %target.machine_id, %error, "the fence could not be raised");
            }
        });
    }
}

/// What is sent with the calls of the present attempt of a step.
fn prepare(active: &Active, machine: &Arc<Machine>, place: usize) -> Option<Prepared> {
    let record = active.run.steps.get(place)?;
    let action = crate::executor::decide::action(&active.plan, record, place)?;
    let operation = record.operation.clone();
    let call = Call {
        operation: operation
            .unwrap_or_else(|| OperationId::new(active.run.id, &record.name, record.attempt)),
        epoch: machine.epoch,
        action: action.name.to_string(),
        capability: action.traits.capability,
        args: action.resolve(&active.params),
        inputs: inputs(&active.plan, &active.run.steps, place),
        handle: record.handle.clone(),
    };
    Some(Prepared {
        place,
        attempt: record.attempt,
        machine: machine.clone(),
        target: Arc::new(Target::from(&**machine)),
        call: Arc::new(call),
    })
}

/// What the steps of a plan need of the provider: where a fence has to be raised.
fn uses(plan: &Plan) -> Capabilities {
    plan.capabilities().map(|(_, capability)| capability).collect()
}

/// The outputs of the steps that this one needs, by step; for a compensation also the output of the step that it
/// undoes.
fn inputs(plan: &Plan, steps: &Steps, place: usize) -> BTreeMap<String, Values> {
    let undone = steps.get(place).and_then(|record| record.compensates);
    let Some(declared) = plan.steps.get(undone.unwrap_or(place)) else { return BTreeMap::new() };
    steps
        .iter()
        .enumerate()
        .filter(|(at, step)| {
            !step.output.is_empty()
                && (undone == Some(*at) || declared.needs.iter().any(|need| *need == step.name))
        })
        .map(|(_, step)| (step.name.clone(), step.output.clone()))
        .collect()
}
