//! Where messages go: to the machine's worker, which is made if there is none. Slots are handed out here too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::slots::Slots;
use crate::executor::limits::Limits;
use crate::executor::ports::Ports;
use crate::executor::worker::{Message, Scheduling, Worker};
use crate::ids::{MachineId, RunId};
use crate::model::Machine;

/// See the module. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(in crate::executor) struct Scheduler(Arc<Inner>);

struct Inner {
    ports: Arc<Ports>,
    slots: Mutex<Slots>,
    workers: Mutex<HashMap<MachineId, mpsc::UnboundedSender<Message>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scheduler {
    pub(in crate::executor) fn new(ports: Arc<Ports>) -> Self {
        let slots = Mutex::new(Slots::closed(ports.limits.clone()));
        Self(Arc::new(Inner { ports, slots, workers: Mutex::default() }))
    }

    pub(super) fn ports(&self) -> &Arc<Ports> {
        &self.0.ports
    }

    /// Hands a message to the machine's worker, making one if there is none.
    pub(in crate::executor) fn send(&self, machine: &MachineId, message: Message) {
        let mut workers = lock(&self.0.workers);
        let message = match workers.get(machine) {
            None => message,
            Some(mailbox) => match mailbox.send(message) {
                Ok(()) => return,
                // It ended without leaving the table, which only a panic does.
                Err(returned) => returned.0,
            },
        };
        let (mailbox, receiver) = mpsc::unbounded_channel();
        // The receiver is in scope: a send to it cannot fail.
        let _ = mailbox.send(message);
        workers.insert(machine.clone(), mailbox);
        drop(workers);
        let worker =
            Worker::new(self.0.ports.clone(), Arc::new(self.clone()), machine.clone(), receiver);
        self.0.ports.tasks.spawn(worker.run());
    }

    /// Number of machines with work.
    pub(in crate::executor) fn workers(&self) -> usize {
        lock(&self.0.workers).len()
    }

    /// Takes no more runs and opens no more attempts; returns when no provider call is in flight and every answer has
    /// been committed, or after `grace`.
    pub(in crate::executor) async fn drain(&self, grace: Duration) {
        self.0.ports.tasks.begin_draining();
        let grace_over = self.0.ports.clock.sleep(grace);
        tokio::select! {
            biased;
            () = self.quiet() => {}
            () = grace_over => {
                tracing::warn!("some provider calls did not end in time; their outcome is looked up after the restart");
            }
        }
    }

    /// Resolves when no call is in flight and no worker has anything left to do.
    async fn quiet(&self) {
        loop {
            self.0.ports.tasks.without_calls().await;
            // Answers that have come in are handled before this; handling them may send the next call of an open
            // attempt.
            let mailboxes: Vec<_> = lock(&self.0.workers).values().cloned().collect();
            for mailbox in mailboxes {
                let (done, passed) = oneshot::channel();
                if mailbox.send(Message::Barrier { done }).is_ok() {
                    // A worker that ends instead of answering has nothing left to do either.
                    let _ = passed.await;
                }
            }
            if !self.0.ports.tasks.has_calls() {
                return;
            }
        }
    }

    fn admit(&self, served: Vec<(MachineId, RunId)>) {
        for (machine, run_id) in served {
            self.send(&machine, Message::Admitted { run_id });
        }
    }

    /// Every run that had a slot before the restart has it again: now others get theirs.
    pub(super) fn open_slots(&self) {
        let served = lock(&self.0.slots).open();
        self.admit(served);
    }

    pub(in crate::executor) fn set_run_limits(&self, limits: &Limits) {
        let served = lock(&self.0.slots).set_limits(limits);
        self.admit(served);
    }

    pub(in crate::executor) fn run_limits(&self) -> Limits {
        lock(&self.0.slots).limits().clone()
    }

    pub(in crate::executor) fn waits_for(&self, run: RunId) -> Option<String> {
        lock(&self.0.slots).waits_for(run)
    }

    pub(in crate::executor) fn slot_counts(&self) -> (usize, usize) {
        lock(&self.0.slots).counts()
    }
}

impl Scheduling for Scheduler {
    fn send(&self, machine: &MachineId, message: Message) {
        Self::send(self, machine, message);
    }

    fn retire(&self, machine: &MachineId, is_empty: &dyn Fn() -> bool) -> bool {
        let mut workers = lock(&self.0.workers);
        let retired = is_empty();
        if retired {
            workers.remove(machine);
        }
        retired
    }

    fn revive(&self, machine: &MachineId) {
        lock(&self.0.workers).remove(machine);
        let scheduler = self.clone();
        let machine = machine.clone();
        self.0.ports.tasks.spawn(async move {
            let ports = &scheduler.0.ports;
            ports.clock.sleep(Duration::from_secs(1)).await;
            if let Ok(Some(record)) = ports.store.machine(&machine).await
                && let Some(run_id) = record.active_run
            {
                let (done, _) = oneshot::channel();
                Self::send(&scheduler, &machine, Message::Recover { run_id, done });
            }
        });
    }

    fn request_slot(&self, run: RunId, machine: &Machine) -> bool {
        lock(&self.0.slots).request(run, machine)
    }

    fn has_slot(&self, run: RunId) -> bool {
        lock(&self.0.slots).has(run)
    }

    fn restore_slot(&self, run: RunId, machine: &Machine) {
        lock(&self.0.slots).restore(run, machine);
    }

    fn release_slot(&self, run: RunId) {
        let served = lock(&self.0.slots).release(run);
        self.admit(served);
    }
}
