//! The real API on the real engine, in virtual time, and the comparison with the model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SeededRandom, Timestamp, TokioClock};
use bmdemo::executor::{Engine, EngineConfig, Limits};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::plan::{Registry, SourceFile, compile};
use bmdemo::provider::fake::{FakeOptions, FakeProvider, Script, Timing, World};
use bmdemo::store::memory::MemoryStore;
use proptest_state_machine::StateMachineTest;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::asking::{Answer, Ask, Etag, Step, Verb};
use crate::reference::Model;
use crate::rules::{MACHINES, PLANS, SCRIPT};
use crate::world::{At, Run};

const START: Timestamp = Timestamp(1_767_225_600_000);

/// An object as it was answered.
#[derive(Debug, Clone, PartialEq)]
enum Object {
    Machine(Box<pb::Machine>),
    Run(Box<pb::Run>),
    Nothing,
}

/// The server under test, and what outlives it.
struct Server {
    clock: Arc<TokioClock>,
    store: Arc<MemoryStore>,
    world: World,
    plans: fn() -> Registry,
    script: &'static str,
    starts: u64,
    engine: Option<Engine>,
    runs: Vec<String>,
    answers: BTreeMap<((&'static str, usize), u8), Object>,
}

pub(crate) struct Api {
    runtime: tokio::runtime::Runtime,
    server: Server,
}

fn plans() -> Registry {
    let files: Vec<_> = PLANS.split("--\n").map(str::as_bytes).collect();
    let files: Vec<_> =
        files.iter().map(|bytes| SourceFile { name: "model.toml", bytes }).collect();
    let plans = compile(&files).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    Registry::from_plans(plans).expect("they are different")
}

impl StateMachineTest for Api {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self::with(SCRIPT)
    }

    fn apply(mut api: Self, model: &Model, step: Step) -> Self {
        let Self { runtime, server } = &mut api;
        runtime.block_on(async {
            match step {
                Step::Ask(ask, id) => server.ask_and_compare(ask, id, model).await,
                Step::Pass => server.pass().await,
                Step::Restart { orderly } => server.restart(orderly).await,
            }
            // What needs no time is done.
            server.clock.sleep(Duration::from_millis(1)).await;
            server.compare(model).await;
        });
        api
    }
}

impl Api {
    /// With a world that has the faults of the script.
    pub(crate) fn with(script: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let server = runtime.block_on(async {
            let clock = Arc::new(TokioClock::new(START));
            let mut server = Server {
                store: Arc::new(MemoryStore::new(clock.clone())),
                clock,
                world: World::in_memory(),
                plans,
                script,
                starts: 0,
                engine: None,
                runs: Vec::new(),
                answers: BTreeMap::new(),
            };
            server.boot().await;
            server
        });
        Self { runtime, server }
    }
}

impl Server {
    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it runs")
    }

    async fn boot(&mut self) {
        self.starts += 1;
        let options = FakeOptions {
            timing: Timing::Default,
            seed: 7,
            script: Script::parse(self.script).expect("a script"),
            world: self.world.clone(),
            ..FakeOptions::default()
        };
        let config = EngineConfig {
            store: self.store.clone(),
            providers: vec![Arc::new(FakeProvider::new(options, self.clock.clone()))],
            plans: (self.plans)(),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.starts)),
            limits: Limits::default(),
            planted: None,
        };
        let engine = Engine::start(config).await.expect("it starts");
        engine.recovered().await;
        self.engine = Some(engine);
    }

    async fn restart(&mut self, orderly: bool) {
        if orderly {
            self.engine().drain(Duration::from_secs(10)).await;
        }
        self.engine().kill();
        self.boot().await;
    }

    async fn pass(&self) {
        self.clock.sleep(Duration::from_secs(3_600)).await;
    }

    fn machines(&self) -> MachineServiceClient<Routes> {
        MachineServiceClient::new(bmdemo::api::routes(self.engine().clone()))
    }

    fn all_runs(&self) -> RunServiceClient<Routes> {
        RunServiceClient::new(bmdemo::api::routes(self.engine().clone()))
    }

    // -- asking -----------------------------------------------------------------------------------------------------

    async fn ask_and_compare(&mut self, ask: Ask, id: Option<u8>, model: &Model) {
        let answered = self.ask(ask, id).await;
        let key = id.map(|id| (ask.scope(), id));
        match (answered, model.answer) {
            (Ok(object), Answer::Yes { new_run }) => {
                if let (Some(number), Object::Run(run)) = (new_run, &object) {
                    assert_eq!(number, self.runs.len(), "a run that is not new: {run:?}");
                    self.runs.push(run.run_id.clone());
                }
                if let Some(key) = key {
                    self.answers.entry(key).or_insert(object);
                }
                if self.takes_over_a_memory(ask, model) {
                    self.pass().await;
                }
            }
            (Ok(object), Answer::Again) => {
                let first = key.and_then(|key| self.answers.get(&key));
                assert_eq!(Some(&object), first, "the first answer was another one");
            }
            (Err(status), Answer::No(reason)) => {
                let details = status.get_error_details();
                let given = details.error_info().map(|info| info.reason.as_str());
                assert_eq!(given, Some(reason), "{ask:?}: {status:?}");
            }
            (answered, expected) => panic!("{ask:?} is answered {answered:#?}, not {expected:?}"),
        }
    }

    /// The model advances time after the first run of a machine that had runs under an earlier registration: the
    /// provider knows higher epochs, which costs a claim.
    fn takes_over_a_memory(&self, ask: Ask, model: &Model) -> bool {
        let Answer::Yes { new_run: Some(run) } = model.answer else { return false };
        matches!(ask, Ask::Start { .. } | Ask::Retry { .. }) && model.world.rushed == Some(run)
    }

    async fn machine_etag(&self, machine: usize, etag: Etag) -> String {
        match etag {
            Etag::None => String::new(),
            Etag::Stale => "\"999999\"".to_owned(),
            Etag::Current => {
                self.get_machine(machine).await.map_or_else(String::new, |machine| machine.etag)
            }
        }
    }

    async fn ask(&self, ask: Ask, id: Option<u8>) -> Result<Object, Status> {
        let request_id = id.map_or_else(String::new, |id| format!("request-{id}"));
        let reason = "the model says so".to_owned();
        let name = |machine: usize| MACHINES[machine].to_owned();
        let changed = match ask {
            Ask::Register { machine, serves } => {
                let spec = pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() };
                let machine = pb::Machine {
                    machine_id: name(machine),
                    spec: Some(spec),
                    ..Default::default()
                };
                let request = pb::RegisterMachineRequest {
                    request_id,
                    machine: Some(machine),
                    in_service: serves,
                    reason,
                };
                self.machines().register_machine(request).await
            }
            Ask::Label { machine, value, etag } => {
                let labels = (value > 0).then(|| ("value".to_owned(), value.to_string()));
                let machine = pb::Machine {
                    machine_id: name(machine),
                    labels: labels.into_iter().collect(),
                    etag: self.machine_etag(machine, etag).await,
                    ..Default::default()
                };
                self.update(machine, "labels.value", request_id, reason).await
            }
            Ask::SetPhase { machine, phase, etag } => {
                let status = pb::MachineStatus { phase: phase.into(), ..Default::default() };
                let machine = pb::Machine {
                    machine_id: name(machine),
                    status: Some(status),
                    etag: self.machine_etag(machine, etag).await,
                    ..Default::default()
                };
                self.update(machine, "status.phase", request_id, reason).await
            }
            Ask::Clear { machine, etag } => {
                let etag = self.machine_etag(machine, etag).await;
                let machine_id = name(machine);
                let request = pb::ClearInterventionRequest { machine_id, reason, request_id, etag };
                self.machines().clear_intervention(request).await
            }
            Ask::Delete { machine, etag } => {
                let etag = self.machine_etag(machine, etag).await;
                let machine_id = name(machine);
                let request = pb::DeleteMachineRequest { machine_id, reason, request_id, etag };
                return self.machines().delete_machine(request).await.map(|_| Object::Nothing);
            }
            Ask::Start { machine, plan, force, dry, etag } => {
                let request = pb::StartRunRequest {
                    request_id,
                    machine_id: name(machine),
                    plan_id: plan.id().to_owned(),
                    force,
                    reason,
                    validate_only: dry,
                    machine_etag: self.machine_etag(machine, etag).await,
                    ..Default::default()
                };
                return self.all_runs().start_run(request).await.map(run);
            }
            Ask::Retry { run: number } => {
                let run_id = self.runs[number].clone();
                let request = pb::RetryRunRequest { run_id, request_id, reason };
                return self.all_runs().retry_run(request).await.map(run);
            }
            Ask::Verb { run: number, verb, etag } => {
                return self.verb(number, verb, etag, request_id, reason).await.map(run);
            }
        };
        changed.map(|machine| Object::Machine(Box::new(machine.into_inner())))
    }

    async fn update(
        &self,
        machine: pb::Machine,
        path: &str,
        request_id: String,
        reason: String,
    ) -> Result<tonic::Response<pb::Machine>, Status> {
        let update_mask = Some(prost_types::FieldMask { paths: vec![path.to_owned()] });
        let machine = Some(machine);
        let request = pb::UpdateMachineRequest {
            machine,
            update_mask,
            request_id,
            reason,
            force: false,
            validate_only: false,
        };
        self.machines().update_machine(request).await
    }

    async fn verb(
        &self,
        number: usize,
        verb: Verb,
        etag: Etag,
        request_id: String,
        reason: String,
    ) -> Result<tonic::Response<pb::Run>, Status> {
        let run_id = self.runs[number].clone();
        let now = self.get_run(number).await;
        let etag = match etag {
            Etag::None => String::new(),
            Etag::Stale => "\"999999\"".to_owned(),
            Etag::Current => now.etag,
        };
        let mut runs = self.all_runs();
        match verb {
            Verb::Cancel => {
                runs.cancel_run(pb::CancelRunRequest { run_id, reason, request_id, etag }).await
            }
            Verb::Abort => {
                runs.abort_run(pb::AbortRunRequest { run_id, reason, request_id, etag }).await
            }
            Verb::Pause => {
                runs.pause_run(pb::PauseRunRequest { run_id, reason, request_id, etag }).await
            }
            Verb::Resume => {
                runs.resume_run(pb::ResumeRunRequest { run_id, reason, request_id, etag }).await
            }
            Verb::Resolve(resolution) => {
                let step = now.steps.first().map(|step| step.name.clone()).unwrap_or_default();
                let resolution = resolution.into();
                let request =
                    pb::ResolveStepRequest { run_id, step, resolution, reason, request_id, etag };
                runs.resolve_step(request).await
            }
        }
    }

    // -- comparing --------------------------------------------------------------------------------------------------

    async fn get_machine(&self, machine: usize) -> Option<pb::Machine> {
        let machine_id = MACHINES[machine].to_owned();
        let request = pb::GetMachineRequest { machine_id, read_mask: None };
        match self.machines().get_machine(request).await {
            Ok(machine) => Some(machine.into_inner()),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => panic!("{status:?}"),
        }
    }

    async fn get_run(&self, number: usize) -> pb::Run {
        let request = pb::GetRunRequest { run_id: self.runs[number].clone(), read_mask: None };
        self.all_runs().get_run(request).await.expect("runs are never deleted").into_inner()
    }

    async fn compare(&self, model: &Model) {
        for machine in 0..MACHINES.len() {
            self.compare_machine(machine, model).await;
        }
        for (number, wanted) in model.world.runs.iter().enumerate() {
            compare_run(&self.get_run(number).await, wanted);
        }
        self.compare_lists(model).await;
    }

    async fn compare_machine(&self, machine: usize, model: &Model) {
        let found = self.get_machine(machine).await;
        let name = MACHINES[machine];
        let (found, wanted) = match (found, &model.world.machines[machine]) {
            (None, None) => return,
            (Some(found), Some(wanted)) => (found, wanted),
            (found, wanted) => panic!("{name} is {found:?}, not {wanted:?}"),
        };
        let status = found.status.unwrap_or_default();
        assert_eq!(status.phase(), wanted.phase, "phase of {name}");
        assert_eq!(status.effective_state(), wanted.effective(), "effective state of {name}");
        let active = wanted.active.map_or("", |run| self.runs[run].as_str());
        assert_eq!(status.active_run_id, active, "the run that owns {name}");
        let holds = |kind| {
            let condition = status.conditions.iter().find(|condition| condition.r#type() == kind);
            condition.filter(|condition| condition.status)
        };
        let is_in = holds(pb::ConditionType::InCustomerCluster).is_some();
        assert_eq!(is_in, wanted.in_cluster, "InCustomerCluster of {name}");
        let trouble = holds(pb::ConditionType::NeedsIntervention).map(|held| held.reason.as_str());
        let wanted_trouble = wanted.trouble.map(|(trouble, _)| trouble.name());
        assert_eq!(trouble, wanted_trouble, "NeedsIntervention of {name}");
        let label = wanted.label.map(|label| label.to_string());
        assert_eq!(found.labels.get("value"), label.as_ref(), "label of {name}");
    }

    /// Lists equal single reads, in the order of registration.
    async fn compare_lists(&self, model: &Model) {
        let there = model.world.machines.iter().zip(MACHINES);
        let mut wanted: Vec<_> =
            there.filter_map(|(machine, name)| Some((machine.as_ref()?.number, name))).collect();
        wanted.sort_unstable();
        let wanted: Vec<_> = wanted.into_iter().map(|(_, name)| name.to_owned()).collect();
        let request = pb::ListMachinesRequest::default();
        let listed = self.machines().list_machines(request).await.expect("a list").into_inner();
        let listed: Vec<_> =
            listed.machines.into_iter().map(|machine| machine.machine_id).collect();
        assert_eq!(listed, wanted);

        let active = model.world.runs.iter().zip(&self.runs).filter(|(run, _)| run.at.is_active());
        let mut wanted: Vec<_> = active.map(|(_, id)| id.clone()).collect();
        let filter = "phase = RUNNING".to_owned();
        let request = pb::ListRunsRequest { filter, ..Default::default() };
        let listed = self.all_runs().list_runs(request).await.expect("a list").into_inner();
        let mut listed: Vec<_> = listed.runs.into_iter().map(|run| run.run_id).collect();
        wanted.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, wanted);
    }
}

/// A run without fields that the clock alone changes.
fn run(answer: tonic::Response<pb::Run>) -> Object {
    let mut run = answer.into_inner();
    run.waiting = None;
    for step in &mut run.steps {
        step.overdue = false;
    }
    Object::Run(Box::new(run))
}

fn compare_run(found: &pb::Run, wanted: &Run) {
    let context = format!("{found:#?}\n{wanted:#?}");
    let phase = match wanted.at {
        At::Succeeded => pb::RunPhase::Succeeded,
        At::Failed => pb::RunPhase::Failed,
        At::Canceled => pb::RunPhase::Canceled,
        At::Running | At::Pausing | At::Paused | At::Unknown | At::Canceling | At::Unwinding => {
            pb::RunPhase::Running
        }
    };
    assert_eq!(found.phase(), phase, "{context}");
    assert_eq!(found.compensating, wanted.at == At::Unwinding, "{context}");
    let waits = found.waiting.as_ref().map_or(pb::WaitReason::Unspecified, pb::Waiting::reason);
    assert_eq!(waits == pb::WaitReason::Paused, wanted.at == At::Paused, "{context}");
    assert_eq!(waits == pb::WaitReason::OutcomeUnknown, wanted.at == At::Unknown, "{context}");
    if matches!(wanted.at, At::Canceling | At::Unwinding | At::Canceled) {
        assert!(found.cancel_requested, "{context}");
    }
    let of_the_plan = found.steps.iter().filter(|step| step.compensates.is_empty());
    let steps: Vec<_> = of_the_plan.map(pb::StepStatus::state).collect();
    assert_eq!(steps, wanted.steps, "{context}");
}
