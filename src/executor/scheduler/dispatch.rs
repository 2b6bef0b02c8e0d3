//! Where messages go: to the machine's worker, which is made if there is none. Runs that wait are woken when they are
//! due, and slots are handed out here too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use super::seats::Seats;
use super::slots::Slots;
use crate::executor::limits::Limits;
use crate::executor::ports::Ports;
use crate::executor::worker::{Message, Rest, Scheduling, Worker};
use crate::ids::{MachineId, RunId};
use crate::model::Machine;

/// Most workers made at once for runs that are due.
const WOKEN_MAX: usize = 256;

/// See the module. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(in crate::executor) struct Scheduler(Arc<Inner>);

struct Inner {
    ports: Arc<Ports>,
    slots: Mutex<Slots>,
    seats: Mutex<Seats>,
    /// Something is due earlier than anything was before.
    sooner: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scheduler {
    pub(in crate::executor) fn new(ports: Arc<Ports>) -> Self {
        let slots = Mutex::new(Slots::closed(ports.limits.clone()));
        Self(Arc::new(Inner { ports, slots, seats: Mutex::default(), sooner: Notify::new() }))
    }

    pub(super) fn ports(&self) -> &Arc<Ports> {
        &self.0.ports
    }

    /// Starts waking the runs that wait, when they are due.
    pub(in crate::executor) fn begin(&self) {
        let scheduler = self.clone();
        self.0.ports.tasks.spawn(async move { scheduler.keep_time().await });
    }

    async fn keep_time(&self) {
        let clock = &self.0.ports.clock;
        loop {
            let sooner = self.0.sooner.notified();
            tokio::pin!(sooner);
            sooner.as_mut().enable();
            match self.wake_due() {
                None => sooner.await,
                Some(due_at) => {
                    let nap = clock.sleep(due_at.saturating_sub(clock.monotonic()));
                    tokio::select! {
                        biased;
                        () = sooner => {}
                        () = nap => {}
                    }
                }
            }
        }
    }

    /// Makes workers for what is due, a bounded number at once; says when something is due next.
    fn wake_due(&self) -> Option<Duration> {
        let now = self.0.ports.clock.monotonic();
        let mut seats = lock(&self.0.seats);
        for _ in 0..WOKEN_MAX {
            match seats.take_due(now) {
                Ok((machine, parked)) => {
                    self.employ(&mut seats, &machine, Rest::Parked(parked));
                }
                Err(next) => return next,
            }
        }
        Some(now)
    }

    /// Makes a worker that begins with what the machine was left with.
    fn employ(
        &self,
        seats: &mut Seats,
        machine: &MachineId,
        rest: Rest,
    ) -> mpsc::UnboundedSender<Message> {
        let (mailbox, receiver) = mpsc::unbounded_channel();
        seats.occupy(machine, mailbox.clone());
        let ports = self.0.ports.clone();
        let scheduler = Arc::new(self.clone());
        let worker = Worker::new(ports, scheduler, machine.clone(), (mailbox.clone(), receiver));
        self.0.ports.tasks.spawn(worker.run(rest));
        mailbox
    }

    /// Hands a message to the machine's worker, making one if there is none.
    pub(in crate::executor) fn send(&self, machine: &MachineId, message: Message) {
        let mut seats = lock(&self.0.seats);
        let message = match seats.worker(machine) {
            None => message,
            Some(mailbox) => match mailbox.send(message) {
                Ok(()) => return,
                // It ended without leaving its seat, which only a panic does.
                Err(returned) => returned.0,
            },
        };
        let rest = seats.take(machine);
        let mailbox = self.employ(&mut seats, machine, rest);
        // The worker has not run yet: it cannot have left.
        drop(mailbox.send(message));
    }

    /// Number of machines with work.
    pub(in crate::executor) fn workers(&self) -> usize {
        lock(&self.0.seats).len()
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
            let mailboxes: Vec<_> = lock(&self.0.seats).workers();
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
    fn leave(
        &self,
        machine: &MachineId,
        rest: Rest,
        is_empty: &dyn Fn() -> bool,
    ) -> Result<(), Rest> {
        let mut seats = lock(&self.0.seats);
        if !is_empty() {
            return Err(rest);
        }
        if seats.leave(machine, rest) {
            self.0.sooner.notify_one();
        }
        Ok(())
    }

    fn revive(&self, machine: &MachineId) {
        lock(&self.0.seats).take(machine);
        let scheduler = self.clone();
        let machine = machine.clone();
        self.0.ports.tasks.spawn(async move {
            let ports = &scheduler.0.ports;
            ports.clock.sleep(Duration::from_secs(1)).await;
            if let Ok(Some(record)) = ports.store.machine(&machine).await
                && let Some(run_id) = record.active_run
            {
                let (done, _) = oneshot::channel();
                scheduler.send(&machine, Message::Recover { run_id, done });
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
