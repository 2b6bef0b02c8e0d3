//! What the actors share: ports, tables and counters.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor::{Actor, Message};
use super::admission;
use super::error::EngineError;
use super::limits::Limits;
use super::planted::Planted;
use super::request::{NewRun, Origin};
use super::slots::Slots;
use super::watch::WatchHub;
use crate::clock::{Clock, Random, SplitMix64, Timestamp};
use crate::ids::{MachineId, RunId};
use crate::model::{Machine, Run};
use crate::plan::{OnUnknown, Plan, Registered, Registry};
use crate::provider::Provider;
use crate::store::{Batch, Committed, RequestRecord, Store, StoreError};

/// Most plans kept in memory beside those of the registry: copies that older runs pinned.
const PINNED_PLANS_MAX: usize = 256;

pub(super) struct Core {
    pub(super) store: Arc<dyn Store>,
    pub(super) providers: BTreeMap<String, Arc<dyn Provider>>,
    pub(super) plans: RwLock<Arc<Registry>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    /// Seeded from `random`: every decision draws from it, and asking the operating system takes a system call.
    jitter: Mutex<SplitMix64>,
    pub(super) limits: Limits,
    pub(super) planted: Option<Planted>,
    pub(super) hub: WatchHub,
    slots: Mutex<Slots>,
    actors: Mutex<HashMap<MachineId, mpsc::UnboundedSender<Message>>>,
    pinned: Mutex<BTreeMap<String, Arc<Registered>>>,
    tracker: TaskTracker,
    token: CancellationToken,
    draining: AtomicBool,
    calls: AtomicUsize,
    call_ended: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a provider call for as long as it is in flight.
pub(super) struct CallGuard(Arc<Core>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
        self.0.call_ended.notify_waiters();
    }
}

impl Core {
    pub(super) fn new(config: super::EngineConfig, hub: WatchHub) -> Self {
        Self {
            store: config.store,
            providers: config
                .providers
                .into_iter()
                .map(|provider| (provider.name().to_owned(), provider))
                .collect(),
            plans: RwLock::new(Arc::new(config.plans)),
            clock: config.clock,
            jitter: Mutex::new(SplitMix64::new(config.random.next_u64())),
            random: config.random,
            slots: Mutex::new(Slots::closed(config.limits.clone())),
            limits: config.limits,
            planted: config.planted,
            hub,
            actors: Mutex::new(HashMap::new()),
            pinned: Mutex::new(BTreeMap::new()),
            tracker: TaskTracker::new(),
            token: CancellationToken::new(),
            draining: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            call_ended: Notify::new(),
        }
    }

    // -- tasks ------------------------------------------------------------------------------------------------------

    /// Runs a task until it ends or the engine does.
    pub(super) fn spawn<F>(&self, task: F) -> tokio::task::AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        // Boxed, since each future that a future is handed to makes room for it anew.
        let task = Box::pin(task);
        self.tracker
            .spawn(async move {
                // `None` when the engine ended first: what the task had not done yet stays undone.
                let _ = token.run_until_cancelled(task).await;
            })
            .abort_handle()
    }

    /// Hands a message to the machine's actor, making one if there is none.
    pub(super) fn send(self: &Arc<Self>, machine: &MachineId, message: Message) {
        let mut actors = lock(&self.actors);
        let message = match actors.get(machine) {
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
        actors.insert(machine.clone(), mailbox);
        drop(actors);
        let actor = Actor::new(self.clone(), machine.clone(), receiver);
        self.spawn(actor.run());
    }

    /// Takes an actor out of the table, if `empty` says so while nobody can send.
    pub(super) fn retire(&self, machine: &MachineId, empty: impl FnOnce() -> bool) -> bool {
        let mut actors = lock(&self.actors);
        let retired = empty();
        if retired {
            actors.remove(machine);
        }
        retired
    }

    /// Takes a machine's run up again after its actor panicked.
    pub(super) fn revive(self: &Arc<Self>, machine: &MachineId) {
        lock(&self.actors).remove(machine);
        let core = self.clone();
        let machine = machine.clone();
        self.spawn(async move {
            core.clock.sleep(Duration::from_secs(1)).await;
            if let Ok(Some(record)) = core.store.machine(&machine).await
                && let Some(run_id) = record.active_run
            {
                let (done, _) = tokio::sync::oneshot::channel();
                core.send(&machine, Message::Recover { run_id, done });
            }
        });
    }

    /// Number of machines with work.
    pub(super) fn actors(&self) -> usize {
        lock(&self.actors).len()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(super) fn call_started(self: &Arc<Self>) -> CallGuard {
        self.calls.fetch_add(1, Ordering::SeqCst);
        CallGuard(self.clone())
    }

    /// Takes no more runs and opens no more attempts; returns when no provider call is in flight and every answer has
    /// been committed, or after `grace`.
    pub(super) async fn drain(&self, grace: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        let grace_over = self.clock.sleep(grace);
        tokio::select! {
            biased;
            () = self.quiet() => {}
            () = grace_over => {
                tracing::warn!("some provider calls did not end in time; their outcome is looked up after the restart");
            }
        }
        self.stop();
    }

    /// Resolves when no call is in flight and no actor has anything left to do.
    async fn quiet(&self) {
        loop {
            let ended = self.call_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.calls.load(Ordering::SeqCst) > 0 {
                ended.await;
                continue;
            }
            // Answers that have come in are handled before this; handling them may send the next call of an open
            // attempt.
            let mailboxes: Vec<_> = lock(&self.actors).values().cloned().collect();
            for mailbox in mailboxes {
                let (done, passed) = tokio::sync::oneshot::channel();
                if mailbox.send(Message::Barrier { done }).is_ok() {
                    // An actor that ends instead of answering has nothing left to do either.
                    let _ = passed.await;
                }
            }
            if self.calls.load(Ordering::SeqCst) == 0 {
                return;
            }
        }
    }

    /// Ends every task at its next await.
    pub(super) fn stop(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.token.cancel();
        self.tracker.close();
        self.hub.close();
    }

    pub(super) async fn stopped(&self) {
        self.tracker.wait().await;
    }

    // -- slots ------------------------------------------------------------------------------------------------------

    pub(super) fn request_slot(&self, run: RunId, machine: &Machine) -> bool {
        lock(&self.slots).request(run, machine)
    }

    pub(super) fn has_slot(&self, run: RunId) -> bool {
        lock(&self.slots).has(run)
    }

    pub(super) fn restore_slot(&self, run: RunId, machine: &Machine) {
        lock(&self.slots).restore(run, machine);
    }

    pub(super) fn release_slot(self: &Arc<Self>, run: RunId) {
        let served = lock(&self.slots).release(run);
        for (machine, run_id) in served {
            self.send(&machine, Message::Admitted { run_id });
        }
    }

    /// Every run that had a slot before the restart has it again: now others get theirs.
    pub(super) fn open_slots(self: &Arc<Self>) {
        let served = lock(&self.slots).open();
        for (machine, run_id) in served {
            self.send(&machine, Message::Admitted { run_id });
        }
    }

    pub(super) fn set_run_limits(self: &Arc<Self>, limits: &Limits) {
        let served = lock(&self.slots).set_limits(limits);
        for (machine, run_id) in served {
            self.send(&machine, Message::Admitted { run_id });
        }
    }

    pub(super) fn run_limits(&self) -> Limits {
        lock(&self.slots).limits().clone()
    }

    pub(super) fn waits_for(&self, run: RunId) -> Option<String> {
        lock(&self.slots).waits_for(run)
    }

    pub(super) fn slot_counts(&self) -> (usize, usize) {
        lock(&self.slots).counts()
    }

    // -- records ----------------------------------------------------------------------------------------------------

    pub(super) async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.store.commit(batch).await
    }

    pub(super) async fn run(&self, id: RunId) -> Result<Arc<Run>, EngineError> {
        self.store
            .run(id)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "run", id: id.to_string() })
    }

    pub(super) fn provider(&self, name: &str) -> Option<Arc<dyn Provider>> {
        self.providers.get(name).cloned()
    }

    /// 64 random bits for the jitter of a backoff.
    pub(super) fn jitter(&self) -> u64 {
        lock(&self.jitter).next_u64()
    }

    pub(super) fn next_run_id(&self, now: Timestamp) -> RunId {
        RunId::new(now, [self.random.next_u64(), self.random.next_u64()])
    }

    // -- plans ------------------------------------------------------------------------------------------------------

    pub(super) fn registry(&self) -> Arc<Registry> {
        self.plans.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The plan that a request means.
    pub(super) fn registered(&self, new: &NewRun) -> Result<Arc<Registered>, EngineError> {
        let registry = self.registry();
        let registered = admission::choose_plan(&registry, new)?;
        Ok(self.with_planted(registered.clone()))
    }

    /// The plan that a run pinned, with its digest.
    pub(super) async fn pinned_registered(
        &self,
        run: &Run,
    ) -> Result<Arc<Registered>, EngineError> {
        if let Some(found) = lock(&self.pinned).get(&run.spec.plan_digest) {
            return Ok(found.clone());
        }
        if let Some(found) = self.registry().iter().find(|r| r.digest() == run.spec.plan_digest) {
            return Ok(self.with_planted(found.clone()));
        }
        let text = self.store.plan(&run.spec.plan_digest).await?.ok_or_else(|| {
            EngineError::Internal(format!("the pinned plan of run {} is gone", run.id))
        })?;
        let plan = Plan::from_canonical(&text).map_err(|error| {
            EngineError::Internal(format!(
                "the pinned plan of run {} cannot be read: {error}",
                run.id
            ))
        })?;
        let registered = self.with_planted(Arc::new(Registered::new(plan)));
        self.remember_plan(&registered);
        Ok(registered)
    }

    pub(super) async fn pinned_plan(&self, run: &Run) -> Result<Arc<Plan>, EngineError> {
        Ok(self.pinned_registered(run).await?.plan.clone())
    }

    /// Keeps a pinned plan at hand.
    pub(super) fn remember_plan(&self, registered: &Arc<Registered>) {
        let mut pinned = lock(&self.pinned);
        if !pinned.contains_key(registered.digest()) {
            if pinned.len() >= PINNED_PLANS_MAX {
                pinned.pop_first();
            }
            pinned.insert(registered.digest().to_owned(), registered.clone());
        }
    }

    fn with_planted(&self, registered: Arc<Registered>) -> Arc<Registered> {
        if self.planted != Some(Planted::BlindRetry) {
            return registered;
        }
        let mut plan = Plan::clone(&registered.plan);
        for step in plan.steps.to_mut() {
            step.on_unknown = OnUnknown::Retry;
        }
        Arc::new(Registered::new(plan))
    }

    // -- request ids ------------------------------------------------------------------------------------------------

    /// The first answer to a request id that was used before, if it was.
    pub(super) async fn repeated_run(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<Option<Arc<Run>>, EngineError> {
        match self.used(origin, scope).await? {
            None => Ok(None),
            Some(record) => self.run_of_request(origin, &record).await.map(Some),
        }
    }

    /// The first answer to a request id that was used before, if it was.
    pub(super) async fn repeated_machine(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<Option<Arc<Machine>>, EngineError> {
        match self.used(origin, scope).await? {
            None => Ok(None),
            Some(record) => self.machine_of_request(origin, &record).await.map(Some),
        }
    }

    /// Whether a request that has no object to show was carried out before.
    pub(super) async fn is_repeated(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<bool, EngineError> {
        match self.used(origin, scope).await? {
            None => Ok(false),
            Some(record) => check_same(origin, &record).map(|()| true),
        }
    }

    async fn used(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<Option<RequestRecord>, EngineError> {
        if origin.request_id.is_empty() {
            return Ok(None);
        }
        Ok(self.store.request(scope, &origin.request_id).await?)
    }

    /// The run as the first answer showed it; as it is now, if that history is gone.
    pub(super) async fn run_of_request(
        &self,
        origin: &Origin,
        record: &RequestRecord,
    ) -> Result<Arc<Run>, EngineError> {
        check_same(origin, record)?;
        let id = RunId::parse(&record.object_id)
            .map_err(|error| EngineError::Internal(format!("stored request: {error}")))?;
        match self.store.run_at(id, record.revision).await? {
            Some(run) => Ok(run),
            None => self.run(id).await,
        }
    }

    /// The machine as the first answer showed it; as it is now, if that history is gone.
    pub(super) async fn machine_of_request(
        &self,
        origin: &Origin,
        record: &RequestRecord,
    ) -> Result<Arc<Machine>, EngineError> {
        check_same(origin, record)?;
        let id = MachineId::parse(&record.object_id)
            .map_err(|error| EngineError::Internal(format!("stored request: {error}")))?;
        if let Some(machine) = self.store.machine_at(&id, record.revision).await? {
            return Ok(machine);
        }
        self.store
            .machine(&id)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "machine", id: id.to_string() })
    }
}

fn check_same(origin: &Origin, record: &RequestRecord) -> Result<(), EngineError> {
    if record.body_digest == origin.body_digest {
        Ok(())
    } else {
        Err(EngineError::RequestIdReused { request_id: origin.request_id.clone() })
    }
}
