//! The handle of the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::Span;

use crate::clock::{Clock, Random};
use crate::executor::admission;
use crate::executor::denied::Denied;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::feed::{WatchHub, WatchLimits};
use crate::executor::limits::Limits;
use crate::executor::planted::Planted;
use crate::executor::ports::{EngineConfig, Ports};
use crate::executor::request::{HeldBack, MachineChanges, NewRun, Origin, Verb};
use crate::executor::scheduler::Scheduler;
use crate::executor::scheduler::probes::{self, ProbePolicy};
use crate::executor::worker::{Message, Reply, apply_changes, check_etag};
use crate::ids::{MachineId, RunId};
use crate::model::{LockTarget, Machine, Run};
use crate::plan::{Capability, Plan, Registry};
use crate::provider::{Provider, Target};
use crate::store::{Store, StoreError};

/// Something that can be done with a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Able {
    /// What.
    pub capability: Capability,
    /// Name of the driver that does it.
    pub driver: String,
    /// What an operator should know about it; empty if nothing.
    pub warning: String,
}

/// The engine. Cloning gives another handle to the same one.
///
/// Every mutation is detached: once requested it is completed, even if the caller stops waiting.
#[derive(Clone)]
pub struct Engine {
    pub(super) ports: Arc<Ports>,
    scheduler: Scheduler,
    hub: WatchHub,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("workers", &self.scheduler.workers()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts an engine. It serves at once, and recovers every active run in the background: see
    /// [`Engine::recovered`].
    ///
    /// # Errors
    /// [`EngineError::Store`] if the store cannot be read.
    pub async fn start(config: EngineConfig) -> Result<Self, EngineError> {
        config.store.revisions().await?;
        let limits = WatchLimits::default();
        let hub = WatchHub::with_bug(config.clock.clone(), limits, config.planted);
        config.store.listen(Arc::new(hub.clone()));
        let ports = Arc::new(Ports::new(config));
        let engine = Self { scheduler: Scheduler::new(ports.clone()), ports, hub };
        let brakes = &engine.ports.brakes;
        engine.ports.store.listen(brakes.clone());
        if engine.ports.planted != Some(Planted::StopForgotten) {
            brakes.load(engine.ports.store.locks().await?);
        }
        if let Some(stop) = engine.stop() {
            let (by, reason) = (&stop.by.name, &stop.reason);
            tracing::warn!(%by, reason, "everything is still stopped: nothing begins until resume-all");
        }
        engine.spawn(engine.hub.clone().run());
        let scheduler = &engine.scheduler;
        engine.spawn(scheduler.clone().keep_time());
        engine.spawn(scheduler.clone().keep_shares());
        engine.spawn(scheduler.clone().keep_brakes());
        engine.spawn(scheduler.clone().recover());
        engine.spawn(engine.denied().clone().run(engine.store().clone()));
        Ok(engine)
    }

    /// Resolves when every run that was active before the start has been recovered.
    pub async fn recovered(&self) {
        self.scheduler.recovered().await;
    }

    /// Where calls are noted that were denied.
    #[must_use]
    pub fn denied(&self) -> &Denied {
        &self.ports.denied
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.ports.store
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.ports.clock
    }

    /// The source of randomness.
    #[must_use]
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.ports.random
    }

    /// The providers, by name.
    #[must_use]
    pub fn providers(&self) -> &BTreeMap<String, Arc<dyn Provider>> {
        &self.ports.providers
    }

    /// What can be done with a machine, and the driver that does it; nothing if its provider is not there.
    #[must_use]
    pub fn drivers(&self, machine: &Machine) -> Vec<Able> {
        let Some(provider) = self.ports.provider(&machine.spec.provider) else { return Vec::new() };
        let can = provider.capabilities(&Target::from(machine));
        can.iter()
            .filter(|capability| *capability != Capability::Engine)
            .map(|capability| Able {
                capability,
                driver: provider.driver(capability).to_owned(),
                warning: provider.warning(capability).unwrap_or_default().to_owned(),
            })
            .collect()
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.ports.limits
    }

    /// The change feed.
    #[must_use]
    pub fn watch(&self) -> &WatchHub {
        &self.hub
    }

    /// Plans that new runs can use.
    #[must_use]
    pub fn plans(&self) -> Arc<Registry> {
        self.ports.plans.registry()
    }

    /// Replaces the plans that new runs can use; runs in flight keep their pinned plan.
    pub fn set_plans(&self, plans: Registry) {
        self.ports.plans.set(plans);
    }

    /// Changes how many runs may be in progress. Runs that have a slot keep it, even if there are more than the new
    /// limit; a provider or label without a limit before only counts runs that get their slot from now on.
    pub fn set_run_limits(&self, limits: &Limits) {
        self.scheduler.set_run_limits(limits);
    }

    /// The present limits on runs in progress.
    #[must_use]
    pub fn run_limits(&self) -> Limits {
        self.scheduler.run_limits()
    }

    /// The plan that a run pinned.
    ///
    /// # Errors
    /// [`EngineError::Store`] if it cannot be read.
    pub async fn pinned_plan(&self, run: &Run) -> Result<Arc<Plan>, EngineError> {
        Ok(self.ports.plans.pinned(run).await?.plan.clone())
    }

    /// What keeps an active run waiting besides its own steps.
    #[must_use]
    pub fn held_back(&self, run: &Run) -> Option<HeldBack> {
        self.scheduler.held_back(run)
    }

    /// Runs that have a slot, runs that wait for one, and machines with work.
    #[must_use]
    pub fn load(&self) -> (usize, usize, usize) {
        let (granted, waiting) = self.scheduler.slot_counts();
        (granted, waiting, self.scheduler.workers())
    }

    /// Number of machines with a worker.
    #[cfg(test)]
    pub(in crate::executor) fn at_work(&self) -> usize {
        self.scheduler.at_work()
    }

    /// Loses what a machine waits for, as a bug might.
    #[cfg(test)]
    pub(in crate::executor) fn lose(&self, machine: &MachineId) {
        self.scheduler.lose(machine);
    }

    /// One machine.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub async fn machine(&self, id: &MachineId) -> Result<Arc<Machine>, EngineError> {
        self.ports
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
        self.ports.run(id).await
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

    /// The machine as [`Engine::update_machine`] would leave it; nothing is changed.
    ///
    /// # Errors
    /// Those of the change.
    pub async fn would_update(
        &self,
        origin: &Origin,
        id: &MachineId,
        changes: &MachineChanges,
    ) -> Result<Arc<Machine>, EngineError> {
        let machine = self.ports.machine_for(origin, id).await?;
        check_etag("machine", id.as_str(), origin, machine.revision)?;
        let mut changed = Machine::clone(&machine);
        apply_changes(&mut changed, changes, origin, &mut Vec::new())?;
        self.ports.keeps_locks(&machine, &changed)?;
        let new: Vec<String> = changed
            .spec
            .mac_addresses
            .iter()
            .filter(|mac| !machine.spec.mac_addresses.contains(mac))
            .cloned()
            .collect();
        match self.check_macs(id, &new, &BTreeMap::new()).await {
            Ok(()) => {}
            Err(StoreError::MacTaken { machine_id, .. })
                if !self.ports.may_name(origin, &machine_id).await =>
            {
                return Err(origin.may_not_have(id));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Arc::new(changed))
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

    /// Looks whether the caller may touch the machine of a run, before its worker is asked.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], as if it were not there.
    pub async fn may_start(&self, origin: &Origin, new: &NewRun) -> Result<(), EngineError> {
        match &origin.scope {
            Some(_) => self.ports.machine_for(origin, &new.machine_id).await.map(|_| ()),
            None => Ok(()),
        }
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
        let before = self.ports.run(id).await?;
        self.ports.plans.admits(origin, &before).await?;
        match before.phase() {
            Phase::Failed | Phase::Canceled => {}
            Phase::Pending | Phase::Running | Phase::Succeeded => {
                return Err(EngineError::Refused {
                    refusal: Refusal::RunState,
                    subject: format!("runs/{id}"),
                    message: format!("run {id} cannot be retried: it is {}", before.ended_as()),
                    hint: "only a run that FAILED or was CANCELED can be retried".to_owned(),
                });
            }
        }
        let new = admission::repeat_of(&before);
        let origin = Box::new(origin.clone());
        let machine = before.machine_id.clone();
        let (new, caller, retry_of) = (Box::new(new), Box::new(Span::current()), Some(id));
        self.ask(&machine, |reply| Message::Start { origin, new, retry_of, caller, reply }).await
    }

    /// Performs an operator's verb on a run.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if the verb is not possible in the state of the run or the step.
    pub async fn operate(
        &self,
        origin: &Origin,
        run_id: RunId,
        verb: Verb,
    ) -> Result<Arc<Run>, EngineError> {
        let machine = self.ports.run(run_id).await?.machine_id.clone();
        let origin = Box::new(origin.clone());
        self.ask(&machine, |reply| Message::Operate { origin, run_id, verb: Box::new(verb), reply })
            .await
    }

    /// What a run of `new` would do, and everything that blocks it now. Changes nothing.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for wrong fields, [`EngineError::NotFound`] for an unknown machine or plan.
    pub async fn dry_run(
        &self,
        origin: &Origin,
        new: &NewRun,
    ) -> Result<(Run, Arc<Machine>, Vec<EngineError>), EngineError> {
        let machine = self.ports.machine_for(origin, &new.machine_id).await?;
        let registered = self.ports.plans.chosen(new)?;
        origin.may_run(&registered.plan)?;
        let params = admission::bind(&registered.plan, &new.parameters)?;
        let provider = self.ports.provider(&machine.spec.provider);
        let terms = admission::Terms { force: new.force, is_retry: false };
        let mut blockers =
            admission::refusals(&registered.plan, &params, &machine, provider.as_deref(), terms);
        blockers.extend(admission::wrong_hardware(&registered.plan, &machine, None));
        let now = self.ports.clock.now();
        // A stop says nothing about the run: it is noted, see `Engine::stop`.
        let lock = self.ports.brakes.refuses(&machine, registered.digest(), now);
        let lock = lock.filter(|lock| lock.target != LockTarget::All);
        blockers.extend(lock.map(|lock| admission::locked(&lock, &machine.id)));
        let id = RunId::new(now, [0, 0]);
        let run = admission::accepted(id, &machine, &registered, &params, new, origin, now);
        Ok((run, machine, blockers))
    }

    /// Starts probing the machines of the providers that have a probe policy, until the engine ends.
    pub fn start_probes(&self, policies: BTreeMap<String, ProbePolicy>) {
        probes::start(&self.ports, &self.scheduler, policies);
    }

    pub(super) async fn ask<T>(
        &self,
        machine: &MachineId,
        message: impl FnOnce(Reply<T>) -> Message,
    ) -> Result<T, EngineError> {
        if self.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        let (reply, answer) = oneshot::channel();
        self.scheduler.send(machine, message(reply));
        answer.await.unwrap_or_else(|_| {
            Err(if self.is_draining() {
                EngineError::ShuttingDown
            } else {
                EngineError::Internal(
                    "the request was dropped by a bug; it may have been carried out".to_owned(),
                )
            })
        })
    }

    /// Runs a task until it ends or the engine does.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.ports.tasks.spawn(task);
    }

    /// Whether the engine accepts no more work.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.ports.tasks.is_draining()
    }

    /// Accepts no more runs, lets steps reach a commit point for at most `grace`, and stops.
    pub async fn drain(&self, grace: Duration) {
        self.scheduler.drain(grace).await;
        self.ports.denied.write(&*self.ports.store).await;
        self.kill();
        self.ports.tasks.stopped().await;
    }

    /// Ends every task at once, as a crash would: this engine commits and sends nothing more.
    pub fn kill(&self) {
        self.ports.tasks.stop();
        self.hub.close();
    }
}
