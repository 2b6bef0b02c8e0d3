//! The loop of a worker: one message, result or timer after the other.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Message, Rest, Scheduling};
use super::state::Worker;
use crate::executor::error::EngineError;
use crate::executor::planted::Planted;
use crate::ids::MachineId;
use crate::store::{Availability, StoreError};

/// Delay before a commit of the engine is retried, in milliseconds.
const STORE_RETRY_MS: u64 = 250;

impl Worker {
    /// Runs from the machine's saved state until there is nothing to do now.
    pub(in crate::executor) async fn run(mut self, rest: Rest) {
        let mut guard =
            PanicGuard { scheduler: self.scheduler.clone(), id: self.id.clone(), done: false };
        match rest {
            Rest::Nothing => {}
            Rest::Lost(run_id) => self.lost = Some(run_id),
            Rest::Parked(parked) => Box::pin(self.resume(parked)).await,
            Rest::Faulty => Box::pin(self.hold_faulty()).await,
            Rest::Unrecovered(permit) => {
                Box::pin(self.find_abandoned()).await;
                drop(permit);
            }
        }
        loop {
            if self.in_doubt.is_some() {
                self.settle_in_doubt().await;
            }
            // What has come already needs no timer beside it, and mostly the answer of a provider has.
            let stashed = self.stash.pop_front();
            if let Some(message) = stashed.or_else(|| self.mailbox.try_recv().ok()) {
                self.handle(message).await;
                continue;
            }
            if let Some(run_id) = self.abandoned() {
                Box::pin(self.adopt(run_id)).await;
                continue;
            }
            if self.leave() {
                guard.done = true;
                return;
            }
            let due = self.active.as_ref().and_then(|active| active.timers.next_due());
            let nap = self.until(due);
            tokio::select! {
                biased;
                message = self.mailbox.recv() => {
                    let Some(message) = message else { return };
                    self.handle(message).await;
                }
                () = nap => self.fire_timers().await,
            }
        }
    }

    /// Resolves at an instant of the monotonic clock; never without one.
    fn until(&self, due: Option<Duration>) -> impl Future<Output = ()> + Send + 'static {
        let nap =
            due.map(|due| self.ports.clock.sleep(due.saturating_sub(self.ports.clock.monotonic())));
        async {
            match nap {
                Some(nap) => nap.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the store. A call whose attempt times out meanwhile is no longer waited for; the consequences are
    /// decided afterwards.
    pub(super) async fn await_store<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let deadline = self.until(self.call_deadline());
        tokio::pin!(answer, deadline);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = deadline => self.forget_call(),
        }
        answer.await
    }

    /// When the attempt of the call in flight times out.
    fn call_deadline(&self) -> Option<Duration> {
        let active = self.active.as_ref().filter(|active| active.call.is_some())?;
        active.timers.deadline_at()
    }

    // Requests of clients are boxed: they are rare compared with results of providers, and their futures are large.
    async fn handle(&mut self, message: Message) {
        match message {
            Message::Start { origin, new, retry_of, caller, reply } => {
                if self.ports.planted == Some(Planted::AckBeforeCommit) {
                    self.early_reply = Some(reply);
                    let answer = Box::pin(self.start(&origin, *new, retry_of, &caller)).await;
                    if let Some(reply) = self.early_reply.take() {
                        drop(reply.send(answer));
                    }
                    return;
                }
                let answer = Box::pin(self.start(&origin, *new, retry_of, &caller)).await;
                // The client may have gone; what was committed stays committed.
                drop(reply.send(answer));
            }
            Message::Operate { origin, run_id, verb, reply } => {
                drop(reply.send(Box::pin(self.operate(&origin, run_id, &verb)).await));
            }
            Message::Update { origin, changes, reply } => {
                drop(reply.send(Box::pin(self.update(&origin, &changes)).await));
            }
            Message::ClearIntervention { origin, reply } => {
                drop(reply.send(Box::pin(self.clear_intervention(&origin)).await));
            }
            Message::Delete { origin, reply } => {
                drop(reply.send(Box::pin(self.delete(&origin)).await));
            }
            Message::Admitted { run_id } => self.admitted(run_id).await,
            Message::Released { run_id } => self.released(run_id).await,
            Message::Called(called) => self.called(*called).await,
            Message::Printed => self.printed(),
            Message::Probed { health } => self.probed(&health).await,
            Message::Inspected { origin, health, reply } => {
                drop(reply.send(Box::pin(self.inspected(&origin, &health)).await));
            }
            // The client may have stopped waiting.
            Message::Barrier { done } => drop(done.send(())),
        }
    }

    /// Waits for a store that is unavailable, refusing commands meanwhile and keeping everything else for later.
    pub(super) async fn wait_for_store(&mut self, error: &StoreError) {
        let availability = self.ports.store.availability();
        // A store that accepts no writes logs this itself, once for all that wait for it.
        if !matches!(error, StoreError::Full(_)) && availability.borrow().takes_writes() {
            tracing::warn!(machine = %self.id, %error, "the store did not accept a commit; retrying");
        }
        let clock = self.ports.clock.clone();
        let waits_for_room = matches!(error, StoreError::Full(_));
        // The state after each delay decides, not the order of waking: so that a simulation can be replayed.
        let nap = async move {
            loop {
                clock.sleep(Duration::from_millis(STORE_RETRY_MS)).await;
                if !waits_for_room || !matches!(*availability.borrow(), Availability::Full { .. }) {
                    return;
                }
            }
        };
        let deadline = self.until(self.call_deadline());
        tokio::pin!(nap, deadline);
        loop {
            tokio::select! {
                biased;
                () = &mut nap => return,
                () = &mut deadline, if self.call_deadline().is_some() => self.forget_call(),
                message = self.mailbox.recv() => {
                    let Some(message) = message else { return };
                    self.refuse_or_stash(message, error);
                }
            }
        }
    }

    fn refuse_or_stash(&mut self, message: Message, error: &StoreError) {
        let refusal = || EngineError::Store(error.clone());
        match message {
            Message::Start { reply, .. } | Message::Operate { reply, .. } => {
                drop(reply.send(Err(refusal())));
            }
            Message::Update { reply, .. }
            | Message::ClearIntervention { reply, .. }
            | Message::Inspected { reply, .. } => {
                drop(reply.send(Err(refusal())));
            }
            Message::Delete { reply, .. } => drop(reply.send(Err(refusal()))),
            kept @ (Message::Admitted { .. }
            | Message::Released { .. }
            | Message::Called(_)
            | Message::Printed
            | Message::Probed { .. }
            | Message::Barrier { .. }) => self.stash.push_back(kept),
        }
    }
}

/// A panic in one worker must not take its machine out of service permanently: the run is recovered as after a
/// restart.
struct PanicGuard {
    scheduler: Arc<dyn Scheduling>,
    id: MachineId,
    done: bool,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !self.done && std::thread::panicking() {
            tracing::error!(machine = %self.id, "a worker panicked; its run will be recovered");
            self.scheduler.revive(&self.id);
        }
    }
}
