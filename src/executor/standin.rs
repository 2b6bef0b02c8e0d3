//! Stands where the engine will be: reads work, mutations do not.
#![expect(
    missing_docs,
    clippy::unused_async,
    clippy::missing_errors_doc,
    reason = "replaced when the engine is merged"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::error::EngineError;
use super::limits::Limits;
use super::request::{MachineChanges, NewMachine, NewRun, Origin, Verb};
use super::watch::{WatchHub, WatchLimits};
use crate::clock::{Clock, Random};
use crate::ids::{MachineId, RunId};
use crate::model::{Machine, Run};
use crate::plan::{Plan, Registry};
use crate::provider::Provider;
use crate::store::Store;

pub struct EngineConfig {
    pub store: Arc<dyn Store>,
    pub providers: Vec<Arc<dyn Provider>>,
    pub plans: Registry,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub limits: Limits,
}

#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    plans: Arc<Mutex<Arc<Registry>>>,
    hub: WatchHub,
}

impl Engine {
    pub async fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let hub = WatchHub::new(config.clock.clone(), WatchLimits::default());
        config.store.listen(Arc::new(hub.clone()));
        Ok(Self {
            store: config.store,
            clock: config.clock,
            plans: Arc::new(Mutex::new(Arc::new(config.plans))),
            hub,
        })
    }
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    pub fn plans(&self) -> Arc<Registry> {
        self.plans.lock().map(|plans| plans.clone()).expect("never poisoned")
    }
    pub async fn register_machine(
        &self,
        _: &Origin,
        _: NewMachine,
    ) -> Result<Arc<Machine>, EngineError> {
        unreachable!()
    }
    pub async fn register_machines(
        &self,
        _: &Origin,
        _: Vec<NewMachine>,
    ) -> Result<Vec<Result<Arc<Machine>, EngineError>>, EngineError> {
        unreachable!()
    }
    pub async fn update_machine(
        &self,
        _: &Origin,
        _: &MachineId,
        _: MachineChanges,
    ) -> Result<Arc<Machine>, EngineError> {
        unreachable!()
    }
    pub async fn clear_intervention(
        &self,
        _: &Origin,
        _: &MachineId,
    ) -> Result<Arc<Machine>, EngineError> {
        unreachable!()
    }
    pub async fn delete_machine(&self, _: &Origin, _: &MachineId) -> Result<(), EngineError> {
        unreachable!()
    }
    pub async fn start_run(&self, _: &Origin, _: NewRun) -> Result<Arc<Run>, EngineError> {
        unreachable!()
    }
    pub async fn retry_run(&self, _: &Origin, _: RunId) -> Result<Arc<Run>, EngineError> {
        unreachable!()
    }
    pub async fn operate(&self, _: &Origin, _: RunId, _: Verb) -> Result<Arc<Run>, EngineError> {
        unreachable!()
    }
    pub async fn machine(&self, id: &MachineId) -> Result<Arc<Machine>, EngineError> {
        let machine = self.store.machine(id).await?;
        machine.ok_or_else(|| EngineError::NotFound { kind: "machine", id: id.to_string() })
    }
    pub async fn run(&self, id: RunId) -> Result<Arc<Run>, EngineError> {
        let run = self.store.run(id).await?;
        run.ok_or_else(|| EngineError::NotFound { kind: "run", id: id.to_string() })
    }
    pub async fn pinned_plan(&self, run: &Run) -> Result<Arc<Plan>, EngineError> {
        let plan = self.plans().get(&run.plan_id).map(|registered| registered.plan.clone());
        plan.ok_or_else(|| EngineError::NotFound { kind: "plan", id: run.plan_id.clone() })
    }
    pub fn capacity_message(&self, _: RunId) -> Option<String> {
        None
    }
    pub async fn drain(&self, _: Duration) {}
    pub fn is_draining(&self) -> bool {
        false
    }
    pub fn watch(&self) -> &WatchHub {
        &self.hub
    }
}
