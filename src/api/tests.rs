//! The services with the real engine behind them, in virtual time and without a network.

mod batches;
mod codec;
mod hints;
mod lists;
mod mutations;
mod raw;
mod refusals;
mod scopes;
mod watches;

use std::sync::Arc;

use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::routes;
use crate::clock::{SeededRandom, Timestamp, TokioClock};
use crate::executor::{Engine, EngineConfig, Limits};
use crate::pb;
use crate::pb::machine_service_client::MachineServiceClient;
use crate::pb::plan_service_client::PlanServiceClient;
use crate::pb::run_service_client::RunServiceClient;
use crate::plan::{Capability, Registry};
use crate::provider::Provider;
use crate::provider::fake::{FakeOptions, FakeProvider, Script, Timing, World};
use crate::provider::routed::Routed;
use crate::store::memory::MemoryStore;

/// 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp(1_767_225_600_000);

struct Api {
    engine: Engine,
    machines: MachineServiceClient<Routes>,
    plans: PlanServiceClient<Routes>,
    runs: RunServiceClient<Routes>,
}

impl Api {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With a provider that fails as the script says.
    async fn with(script: &str) -> Self {
        let clock = Arc::new(TokioClock::new(START));
        let options = FakeOptions {
            timing: Timing::Default,
            seed: 7,
            script: Script::parse(script).unwrap(),
            world: World::in_memory(),
            ..FakeOptions::default()
        };
        let fake: Arc<dyn Provider> = Arc::new(FakeProvider::new(options, clock.clone()));
        let drivers = Capability::ALL.iter().map(|capability| (*capability, fake.clone()));
        let other = Routed::new("other".to_owned(), drivers.collect());
        let engine = Engine::start(EngineConfig {
            store: Arc::new(MemoryStore::new(clock.clone())),
            providers: vec![fake, Arc::new(other)],
            plans: Registry::built_in(),
            clock,
            random: Arc::new(SeededRandom::new(1)),
            limits: Limits::default(),
            planted: None,
        })
        .await
        .unwrap();
        let routes = routes(engine.clone());
        Self {
            engine,
            machines: MachineServiceClient::new(routes.clone()),
            plans: PlanServiceClient::new(routes.clone()),
            runs: RunServiceClient::new(routes),
        }
    }

    async fn register(&mut self, id: &str) -> pb::Machine {
        self.machines.register_machine(registration(id)).await.unwrap().into_inner()
    }

    async fn start(&mut self, machine_id: &str, plan_id: &str) -> Result<pb::Run, Status> {
        let request = pb::StartRunRequest {
            machine_id: machine_id.to_owned(),
            plan_id: plan_id.to_owned(),
            ..pb::StartRunRequest::default()
        };
        Ok(self.runs.start_run(request).await?.into_inner())
    }

    /// The run after its last event.
    async fn finished(&mut self, run_id: &str) -> pb::Run {
        let request =
            pb::WatchRunsRequest { filter: format!("run_id={run_id}"), ..Default::default() };
        let mut events = self.runs.watch_runs(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(event) = events.message().await.unwrap() {
            last = event.snapshot.or(last);
        }
        last.unwrap()
    }
}

/// A MAC address derived from an id, in upper case.
fn mac_of(id: &str) -> String {
    let bytes = id.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [a, b, c, d] = bytes.to_be_bytes();
    format!("02:00:{a:02X}:{b:02X}:{c:02X}:{d:02X}")
}

fn registration(id: &str) -> pb::RegisterMachineRequest {
    let spec = pb::MachineSpec {
        provider: "fake".to_owned(),
        // Its own, and to be lowered.
        mac_addresses: vec![mac_of(id)],
        ..pb::MachineSpec::default()
    };
    let machine =
        pb::Machine { machine_id: id.to_owned(), spec: Some(spec), ..pb::Machine::default() };
    pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() }
}

/// Code and reason of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    (status.code(), reason.unwrap_or_default())
}
