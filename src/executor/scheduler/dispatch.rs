//! Dispatch of messages to machines' workers, which are created on demand. Also wakes waiting runs when they are due,
//! and hands out slots.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::seats::Seats;
use super::slots::Slots;
use crate::executor::limits::Limits;
use crate::executor::ports::Ports;
use crate::executor::request::HeldBack;
use crate::executor::worker::{Message, Rest, Scheduling, Worker};
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::run;
use crate::model::{Machine, Run};
use crate::plan::Risk;
use crate::store::{Committed, Listener, SlotKey};

/// Most workers created at once for runs that are due.
const WOKEN_MAX: usize = 256;

/// Delay before the run of a panicked worker is recovered, in milliseconds.
const REVIVE_MS: u64 = 1_000;

/// Progress of the recovery after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Recovery {
    /// Not every active run is known yet.
    Listing,
    /// They are known, and the queue for slots is restored.
    Recovering,
    /// Each has been recovered.
    Done,
}

/// See the module. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(in crate::executor) struct Scheduler(Arc<Inner>);

struct Inner {
    ports: Arc<Ports>,
    slots: Arc<Mutex<Slots>>,
    /// Whether every run that was active before the start is known, and whether each has been recovered.
    recovery: watch::Sender<Recovery>,
    seats: Mutex<Seats>,
    /// Notified when something is due earlier than anything before.
    sooner: Notify,
    /// Notified when a limit is a share of machines that were never counted.
    uncounted: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scheduler {
    pub(in crate::executor) fn new(ports: Arc<Ports>) -> Self {
        let slots = Arc::new(Mutex::new(Slots::closed(ports.limits.clone())));
        ports.store.listen(Arc::new(QueueFeed(slots.clone())));
        Self(Arc::new(Inner {
            ports,
            slots,
            seats: Mutex::default(),
            sooner: Notify::new(),
            uncounted: Notify::new(),
            recovery: watch::Sender::new(Recovery::Listing),
        }))
    }

    pub(super) fn ports(&self) -> &Arc<Ports> {
        &self.0.ports
    }

    pub(super) fn seats(&self) -> MutexGuard<'_, Seats> {
        lock(&self.0.seats)
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        lock(&self.0.slots)
    }

    pub(super) fn recovery(&self) -> &watch::Sender<Recovery> {
        &self.0.recovery
    }

    /// Wakes waiting runs when they are due.
    pub(in crate::executor) async fn keep_time(self) {
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

    /// Creates workers for what is due, a bounded number at once; returns when something is due next.
    fn wake_due(&self) -> Option<Duration> {
        let now = self.0.ports.clock.monotonic();
        let mut seats = self.seats();
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

    /// Creates a worker that starts with the machine's saved state.
    pub(super) fn employ(
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

    /// Recovers a machine's run now, unless a worker has been created for it meanwhile.
    pub(super) fn recover_now(&self, machine: &MachineId, permit: Option<OwnedSemaphorePermit>) {
        let mut seats = self.seats();
        if seats.is_unrecovered(machine) == Some(true) {
            let rest = match seats.take(machine) {
                Rest::Unrecovered(_) => Rest::Unrecovered(permit),
                rest @ (Rest::Nothing | Rest::Parked(_) | Rest::Faulty | Rest::Lost(_)) => rest,
            };
            self.employ(&mut seats, machine, rest);
        }
    }

    /// Hands a message to the machine's worker, creating one if there is none.
    pub(in crate::executor) fn send(&self, machine: &MachineId, message: Message) {
        let mut seats = self.seats();
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

    #[cfg(test)]
    pub(in crate::executor) fn at_work(&self) -> usize {
        self.seats().workers().len()
    }

    #[cfg(test)]
    pub(in crate::executor) fn lose(&self, machine: &MachineId) {
        drop(self.seats().take(machine));
    }

    /// Number of machines with work.
    pub(in crate::executor) fn workers(&self) -> usize {
        self.seats().len()
    }

    /// Accepts no more runs and opens no more attempts; returns when no provider call is in flight and every result
    /// has been committed, or after `grace`.
    pub(in crate::executor) async fn drain(&self, grace: Duration) {
        self.0.ports.tasks.begin_draining();
        let grace_over = self.0.ports.clock.sleep(grace);
        tokio::select! {
            biased;
            () = self.quiet() => {}
            () = grace_over => {
                tracing::warn!("some provider calls did not end in time; their outcome will be checked after the restart");
            }
        }
    }

    /// Resolves when no call is in flight and no worker has anything left to do.
    async fn quiet(&self) {
        loop {
            self.0.ports.tasks.without_calls().await;
            // Results that have arrived are handled before this; handling them may send the next call of an open
            // attempt.
            let mailboxes: Vec<_> = self.seats().workers();
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

    pub(super) fn uncounted(&self) -> &Notify {
        &self.0.uncounted
    }

    /// Has machines counted at once, if a limit is a share of them and they never were.
    fn count_soon(&self) {
        let is_needed = self.slots().has_uncounted();
        if is_needed {
            self.0.uncounted.notify_one();
        }
    }

    pub(super) fn admit(&self, served: Vec<(MachineId, RunId)>) {
        for (machine, run_id) in served {
            self.send(&machine, Message::Admitted { run_id });
        }
    }

    /// Every run that had a slot before the restart has it again, and the queue is restored: now other runs get
    /// slots.
    pub(super) fn open_slots(&self) {
        let served = self.slots().open();
        self.admit(served);
        self.count_soon();
    }

    /// What keeps an active run waiting besides its own steps.
    pub(in crate::executor) fn held_back(&self, run: &Run) -> Option<HeldBack> {
        if !run.state.is_active() {
            return None;
        }
        let unrecovered = match self.seats().is_unrecovered(&run.machine_id) {
            Some(unrecovered) => unrecovered,
            // Not listed yet.
            None => *self.0.recovery.borrow() == Recovery::Listing,
        };
        if unrecovered {
            return Some(HeldBack::Recovery);
        }
        let now = self.0.ports.clock.now();
        if let Some(lock) = self.0.ports.brakes.held_back(run, now) {
            return Some(HeldBack::Locked(lock));
        }
        self.slots().waits_for(run.id).map(HeldBack::Capacity)
    }

    pub(in crate::executor) fn set_run_limits(&self, limits: &Limits) {
        let served = self.slots().set_limits(limits);
        self.admit(served);
        self.count_soon();
    }

    pub(in crate::executor) fn run_limits(&self) -> Limits {
        self.slots().limits().clone()
    }

    pub(in crate::executor) fn slot_counts(&self) -> (usize, usize) {
        self.slots().counts()
    }
}

impl Scheduling for Scheduler {
    fn leave(
        &self,
        machine: &MachineId,
        rest: Rest,
        is_empty: &dyn Fn() -> bool,
    ) -> Result<(), Rest> {
        let mut seats = self.seats();
        if !is_empty() {
            return Err(rest);
        }
        if seats.leave(machine, rest) {
            self.0.sooner.notify_one();
        }
        Ok(())
    }

    fn revive(&self, machine: &MachineId) {
        self.seats().panicked(machine);
        let scheduler = self.clone();
        let machine = machine.clone();
        self.0.ports.tasks.spawn(async move {
            scheduler.0.ports.clock.sleep(Duration::from_millis(REVIVE_MS)).await;
            scheduler.recover_now(&machine, None);
        });
    }

    fn take_slot(&self, run: RunId, risk: Risk, machine: &Machine) -> bool {
        let taken = self.slots().take(run, risk, machine);
        self.count_soon();
        taken
    }

    fn announce(&self, run: RunId, risk: Risk, machine: &Machine) {
        self.slots().announce(run, risk, machine);
    }

    fn request_slot(&self, run: RunId, risk: Risk, machine: &Machine, revision: Revision) {
        let served = self.slots().request(run, risk, machine, revision);
        self.admit(served);
        self.count_soon();
    }

    fn slot_keys(
        &self,
        run: RunId,
        risk: Risk,
        machine: &Machine,
        had_one: bool,
    ) -> Vec<(SlotKey, u64)> {
        self.slots().stored_keys(run, risk, machine, had_one)
    }

    fn has_slot(&self, run: RunId) -> bool {
        self.slots().has(run)
    }

    fn restore_slot(&self, run: RunId, risk: Risk, machine: &Machine) {
        let mut slots = self.slots();
        let set = slots.key_set(risk, &machine.spec.provider, &machine.labels);
        slots.restore(run, set);
    }

    fn put_back_slot(&self, run: RunId) {
        let served = self.slots().put_back(run);
        self.admit(served);
    }

    fn release_slot(&self, run: RunId) {
        let served = self.slots().release(run);
        self.admit(served);
    }
}

/// Puts runs into the queue in the order of their commits.
struct QueueFeed(Arc<Mutex<Slots>>);

impl Listener for QueueFeed {
    fn committed(&self, committed: &Arc<Committed>) {
        for run in committed.written::<Run>() {
            if matches!(run.state, run::State::Pending | run::State::Resuming) {
                lock(&self.0).queued(run.id, committed.revision);
            }
        }
    }
}
