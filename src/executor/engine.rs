//! The handle of the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::Span;

use super::actor::{Message, Reply};
use super::admission;
use super::core::Core;
use super::error::EngineError;
use super::limits::Limits;
use super::planted::Planted;
use super::request::{MachineChanges, NewMachine, NewRun, Origin, Verb};
use super::watch::{WatchHub, WatchLimits};
use crate::clock::{Clock, Random};
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::model::{Entry, EntryKind, Machine, Run};
use crate::plan::{Plan, Registry};
use crate::provider::{Health, Provider};
use crate::store::{Batch, MachineWrite, Query, RequestRecord, Store, StoreError};

/// Most runs read at once during recovery, and most machines registered by one commit.
const BATCH_MAX: usize = 500;

/// What an engine is made of. Everything that it does to the world goes through these ports.
pub struct EngineConfig {
    /// Durable home of the records.
    pub store: Arc<dyn Store>,
    /// Providers, by their own names.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Plans that new runs can take.
    pub plans: Registry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids and jitter.
    pub random: Arc<dyn Random>,
    /// Bounds.
    pub limits: Limits,
    /// A bug planted by a test.
    pub planted: Option<Planted>,
}

/// The engine. Cloning gives another handle to the same one.
///
/// Every mutation is detached: once asked for it is carried through, also when the caller stops waiting.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("actors", &self.core.actors()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts an engine and takes up every active run before it returns.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the store cannot be read.
    pub async fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let hub = WatchHub::new(config.clock.clone(), WatchLimits::default());
        config.store.listen(Arc::new(hub.clone()));
        let engine = Self { core: Arc::new(Core::new(config, hub)) };
        if let Err(error) = engine.recover().await {
            // What was taken up must not be driven by an engine that nobody has a handle of.
            engine.kill();
            return Err(error);
        }
        Ok(engine)
    }

    async fn recover(&self) -> Result<(), EngineError> {
        let mut after = None;
        let mut recovered = 0_usize;
        loop {
            let page = self
                .core
                .store
                .runs(Query { after, limit: BATCH_MAX, active_only: true, ..Query::default() })
                .await?;
            let waits: Vec<_> = page
                .items
                .iter()
                .map(|run| {
                    let (done, wait) = oneshot::channel();
                    let message = Message::Recover { run_id: run.id, done };
                    self.core.send(&run.machine_id, message);
                    (run.id, wait)
                })
                .collect();
            for (run_id, wait) in waits {
                match wait.await {
                    Ok(Ok(())) => recovered += 1,
                    Ok(Err(error)) => {
                        tracing::error!(%run_id, %error, "a run could not be taken up");
                        return Err(error);
                    }
                    Err(_) => return Err(EngineError::ShuttingDown),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.core.open_slots();
        if recovered > 0 {
            tracing::info!(runs = recovered, "took active runs up again");
        }
        Ok(())
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core.store
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.core.clock
    }

    /// The source of randomness.
    #[must_use]
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.core.random
    }

    /// The providers, by name.
    #[must_use]
    pub fn providers(&self) -> &BTreeMap<String, Arc<dyn Provider>> {
        &self.core.providers
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// Feeds of changes.
    #[must_use]
    pub fn watch(&self) -> &WatchHub {
        &self.core.hub
    }

    /// Plans that new runs can take.
    #[must_use]
    pub fn plans(&self) -> Arc<Registry> {
        self.core.registry()
    }

    /// Changes the plans that new runs can take; runs in flight keep the plan that they pinned.
    pub fn set_plans(&self, plans: Registry) {
        *self.core.plans.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Arc::new(plans);
    }

    /// Changes how many runs may be in progress. Runs that are keep their slots, also where there are more than that now;
    /// a provider or label that was not limited before counts the runs that get their slot from now on.
    pub fn set_run_limits(&self, limits: &Limits) {
        self.core.set_run_limits(limits);
    }

    /// The bounds on runs in progress as they are now.
    #[must_use]
    pub fn run_limits(&self) -> Limits {
        self.core.run_limits()
    }

    /// The plan that a run pinned.
    ///
    /// # Errors
    /// [`EngineError::Store`] if it cannot be read.
    pub async fn pinned_plan(&self, run: &Run) -> Result<Arc<Plan>, EngineError> {
        self.core.pinned_plan(run).await
    }

    /// Which limit keeps a run back, for people.
    #[must_use]
    pub fn capacity_message(&self, run: RunId) -> Option<String> {
        self.core.waits_for(run)
    }

    /// Runs that have a slot, runs that wait for one, and machines with work.
    #[must_use]
    pub fn load(&self) -> (usize, usize, usize) {
        let (granted, waiting) = self.core.slot_counts();
        (granted, waiting, self.core.actors())
    }

    /// One machine.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub async fn machine(&self, id: &MachineId) -> Result<Arc<Machine>, EngineError> {
        self.core
            .store
            .machine(id)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "machine", id: id.to_string() })
    }

    /// One run.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub async fn run(&self, id: RunId) -> Result<Arc<Run>, EngineError> {
        self.core.run(id).await
    }

    /// Registers one machine. An existing id with the same provider and MAC addresses is returned untouched.
    ///
    /// # Errors
    /// [`EngineError::AlreadyExists`] if the existing machine differs.
    pub async fn register_machine(
        &self,
        origin: &Origin,
        new: NewMachine,
    ) -> Result<Arc<Machine>, EngineError> {
        if self.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        let scope = format!("RegisterMachine/{}", new.id);
        if let Some(machine) = self.core.repeated_machine(origin, &scope).await? {
            return Ok(machine);
        }
        if let Some(existing) = self.core.store.machine(&new.id).await? {
            return same_machine(existing, &new);
        }
        let request = (!origin.request_id.is_empty()).then(|| RequestRecord {
            scope,
            request_id: origin.request_id.clone(),
            body_digest: origin.body_digest.clone(),
            object_id: new.id.to_string(),
            at: self.core.clock.now(),
            revision: Revision(0),
        });
        // Zero, unless a machine of the same name was deleted: the store says how far its epochs went.
        let mut epoch = Epoch(0);
        loop {
            let batch = Batch {
                at: self.core.clock.now(),
                machines: vec![self.registration(origin, &new, epoch)],
                request: request.clone(),
                ..Batch::default()
            };
            return match self.detached_commit(batch).await {
                Ok(mut machines) => machines.pop().ok_or_else(|| {
                    EngineError::Internal("a commit without its machine".to_owned())
                }),
                Err(StoreError::Fenced { current, .. }) if current > epoch => {
                    epoch = current;
                    continue;
                }
                Err(StoreError::Conflict { .. }) => {
                    let existing = self.machine(&new.id).await?;
                    same_machine(existing, &new)
                }
                Err(StoreError::RequestUsed(record)) => {
                    self.core.machine_of_request(origin, &record).await
                }
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Registers many machines, a few hundred a commit; each has its own result, in the order given. The request id
    /// of `origin` is not used: registering is idempotent by itself.
    ///
    /// # Errors
    /// [`EngineError::ShuttingDown`]; everything else is in the results.
    pub async fn register_machines(
        &self,
        origin: &Origin,
        new: Vec<NewMachine>,
    ) -> Result<Vec<Result<Arc<Machine>, EngineError>>, EngineError> {
        if self.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        let mut results = Vec::with_capacity(new.len());
        for part in new.chunks(BATCH_MAX) {
            let batch = Batch {
                at: self.core.clock.now(),
                machines: part
                    .iter()
                    .map(|machine| self.registration(origin, machine, Epoch(0)))
                    .collect(),
                ..Batch::default()
            };
            match self.detached_commit(batch).await {
                Ok(machines) => results.extend(machines.into_iter().map(Ok)),
                // Some exist or did once, or stand twice in the request: one by one then.
                Err(StoreError::Conflict { .. } | StoreError::Fenced { .. }) => {
                    let each = Origin { request_id: String::new(), ..origin.clone() };
                    for machine in part {
                        results.push(self.register_machine(&each, machine.clone()).await);
                    }
                }
                Err(error) => {
                    results.extend(part.iter().map(|_| Err(EngineError::Store(error.clone()))));
                }
            }
        }
        Ok(results)
    }

    fn registration(&self, origin: &Origin, new: &NewMachine, epoch: Epoch) -> MachineWrite {
        let now = self.core.clock.now();
        let machine =
            Machine::registered(new.id.clone(), new.labels.clone(), new.spec.clone(), now);
        let entry = Entry::new(EntryKind::MachineRegistered, origin.actor.clone());
        MachineWrite {
            machine: Machine { epoch, ..machine },
            entries: vec![entry.reason(&origin.reason).message("machine registered")],
        }
    }

    async fn detached_commit(&self, batch: Batch) -> Result<Vec<Arc<Machine>>, StoreError> {
        let core = self.core.clone();
        let (reply, answer) = oneshot::channel();
        self.core.spawn(async move {
            drop(reply.send(core.commit(batch).await.map(|committed| committed.machines)));
        });
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(Arc::new(std::io::Error::other("shutting down"))))
        })
    }

    /// Changes labels, spec or phase of a machine.
    ///
    /// # Errors
    /// [`EngineError::Refused`] for an illegal phase, or one set while a run is active.
    pub async fn update_machine(
        &self,
        origin: &Origin,
        id: &MachineId,
        changes: MachineChanges,
    ) -> Result<Arc<Machine>, EngineError> {
        let origin = Box::new(origin.clone());
        self.ask(id, |reply| Message::Update { origin, changes: Box::new(changes), reply }).await
    }

    /// Clears NeedsIntervention.
    ///
    /// # Errors
    /// [`EngineError::Refused`] while it belongs to an active run.
    pub async fn clear_intervention(
        &self,
        origin: &Origin,
        id: &MachineId,
    ) -> Result<Arc<Machine>, EngineError> {
        let origin = Box::new(origin.clone());
        self.ask(id, |reply| Message::ClearIntervention { origin, reply }).await
    }

    /// Deletes a RETIRED machine.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if it is not RETIRED.
    pub async fn delete_machine(&self, origin: &Origin, id: &MachineId) -> Result<(), EngineError> {
        let origin = Box::new(origin.clone());
        self.ask(id, |reply| Message::Delete { origin, reply }).await
    }

    /// Starts a run; returns when the request is durable.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where the machine or the plan forbid it, [`EngineError::Invalid`] for wrong fields.
    pub async fn start_run(&self, origin: &Origin, new: NewRun) -> Result<Arc<Run>, EngineError> {
        let origin = Box::new(origin.clone());
        let id = new.machine_id.clone();
        let (new, caller) = (Box::new(new), Box::new(Span::current()));
        self.ask(&id, |reply| Message::Start { origin, new, retry_of: None, caller, reply }).await
    }

    /// Starts a run that repeats an ended one from the step that did not succeed.
    ///
    /// # Errors
    /// [`EngineError::Refused`] unless the run FAILED or was CANCELED, and where the machine forbids a run.
    pub async fn retry_run(&self, origin: &Origin, id: RunId) -> Result<Arc<Run>, EngineError> {
        use crate::lifecycle::run::Phase;
        let before = self.core.run(id).await?;
        match before.phase() {
            Phase::Failed | Phase::Canceled => {}
            Phase::Pending | Phase::Running | Phase::Succeeded => {
                return Err(EngineError::Refused {
                    refusal: super::error::Refusal::RunState,
                    subject: format!("runs/{id}"),
                    message: format!("run {id} cannot be retried: it is {}", before.phase()),
                    hint: "only a run that FAILED or was CANCELED is retried".to_owned(),
                });
            }
        }
        let new = admission::repeat_of(&before);
        let origin = Box::new(origin.clone());
        let machine = before.machine_id.clone();
        let (new, caller, retry_of) = (Box::new(new), Box::new(Span::current()), Some(id));
        self.ask(&machine, |reply| Message::Start { origin, new, retry_of, caller, reply }).await
    }

    /// Carries out an operator's verb on a run.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where the state of the run or the step does not take it.
    pub async fn operate(
        &self,
        origin: &Origin,
        run_id: RunId,
        verb: Verb,
    ) -> Result<Arc<Run>, EngineError> {
        let machine = self.core.run(run_id).await?.machine_id.clone();
        let origin = Box::new(origin.clone());
        self.ask(&machine, |reply| Message::Operate { origin, run_id, verb: Box::new(verb), reply })
            .await
    }

    /// What a run of `new` would do, and every reason that forbids it now. Changes nothing.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for wrong fields, [`EngineError::NotFound`] for an unknown machine or plan.
    pub async fn dry_run(
        &self,
        origin: &Origin,
        new: &NewRun,
    ) -> Result<(Run, Arc<Machine>, Vec<EngineError>), EngineError> {
        let machine = self.machine(&new.machine_id).await?;
        let registered = self.core.registered(new)?;
        let params = admission::bind(&registered.plan, &new.parameters)?;
        let provider = self.core.provider(&machine.spec.provider);
        let capabilities = provider.as_ref().map(|provider| provider.capabilities());
        let blockers = admission::blockers(&registered.plan, &machine, capabilities, new.force);
        let now = self.core.clock.now();
        let id = RunId::new(now, [0, 0]);
        let run = admission::accepted(id, &machine, &registered, &params, new, origin, now);
        Ok((run, machine, blockers))
    }

    /// Stores what a probe has seen.
    pub fn probed(&self, machine: &MachineId, health: Health) {
        self.core.send(machine, Message::Probed { health });
    }

    async fn ask<T>(
        &self,
        machine: &MachineId,
        message: impl FnOnce(Reply<T>) -> Message,
    ) -> Result<T, EngineError> {
        if self.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        let (reply, answer) = oneshot::channel();
        self.core.send(machine, message(reply));
        answer.await.unwrap_or(Err(EngineError::ShuttingDown))
    }

    /// Runs a task until it ends or the engine does.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.core.spawn(task);
    }

    /// Whether the engine takes no more work.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.is_draining()
    }

    /// Takes no more runs, lets steps reach a commit point for at most `grace`, and stops.
    pub async fn drain(&self, grace: Duration) {
        self.core.drain(grace).await;
        self.core.stopped().await;
    }

    /// Ends every task at once, as a crash would: nothing more is committed or sent by this engine.
    pub fn kill(&self) {
        self.core.stop();
    }
}

fn same_machine(existing: Arc<Machine>, new: &NewMachine) -> Result<Arc<Machine>, EngineError> {
    let mut differences = Vec::new();
    if existing.spec.provider != new.spec.provider {
        differences.push(format!(
            "its provider is {:?}, not {:?}",
            existing.spec.provider, new.spec.provider
        ));
    }
    if existing.spec.mac_addresses != new.spec.mac_addresses {
        differences.push(format!(
            "its mac_addresses are {:?}, not {:?}",
            existing.spec.mac_addresses, new.spec.mac_addresses
        ));
    }
    if differences.is_empty() {
        return Ok(existing);
    }
    Err(EngineError::AlreadyExists {
        kind: "machine",
        id: existing.id.to_string(),
        difference: differences.join("; "),
    })
}
