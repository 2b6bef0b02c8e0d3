//! Simulates a plan on fake machines in virtual time: the engine and the API of a server, without a server.
//!
//! Everything is in memory and on one thread, time passes only when there is nothing to do, and all randomness comes
//! from the seed: the same simulation always ends the same, to the millisecond, and a simulated day takes no time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::service::Routes;

use crate::clock::simulated::SimulatedClock;
use crate::clock::{Clock, SeededRandom, Timestamp};
use crate::executor::{Engine, EngineConfig, EngineError, Limits, names};
use crate::ids::MachineId;
use crate::model::{Actor, Condition, Entry, EntryKind, Machine, MachineSpec};
use crate::pb;
use crate::pb::machine_service_client::MachineServiceClient;
use crate::pb::plan_service_client::PlanServiceClient;
use crate::pb::run_service_client::RunServiceClient;
use crate::plan::registry::BUILT_IN;
use crate::plan::{Phase, Plan, Registry, Step};
use crate::provider::fake::{
    FakeOptions, FakeProvider, NAME, Script, ScriptError, Timing, TimingError, World,
};
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Store, Write};

/// Start of every simulation: 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp(1_767_225_600_000);
/// Longest simulation, in virtual time: longer than any plan can take without an operator, and quick to run.
const LIMIT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Most machines of a simulation.
pub const MACHINES_MAX: usize = 1_000;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// Plans to add to the built-in ones, or to replace those with the same id.
    pub plans: Vec<Plan>,
    /// The plan to run, with or without `plan/`.
    pub plan_id: String,
    /// Plans to run first, one after the other and without failures, so that the machines start in the state that
    /// they leave.
    pub after: Vec<String>,
    /// How many machines, `machine-1` and so on; at most [`MACHINES_MAX`].
    pub machines: usize,
    /// Phase of the machines at the start; if absent, the first that the first plan allows.
    pub phase: Option<Phase>,
    /// Labels of the machines.
    pub labels: BTreeMap<String, String>,
    /// Parameters of the plan as text.
    pub parameters: BTreeMap<String, String>,
    /// Override the plan's refusal by effective state.
    pub force: bool,
    /// Failures: a script of the fake provider.
    pub script: String,
    /// Duration of actions, as for `--fake-timing`; if absent, as long as the plan expects.
    pub timing: Option<String>,
    /// Answer to steps that ask for approval: yes, no, or none until they time out.
    pub approve: Option<bool>,
    /// Seed of ids, jitter and randomness.
    pub seed: u64,
}

/// Result of a simulation.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// The plan that was run.
    pub plan: pb::Plan,
    /// The machines before it.
    pub before: Vec<pb::Machine>,
    /// Every change of every run, in order.
    pub events: Vec<pb::RunEvent>,
    /// The runs as they ended, or as they are held permanently.
    pub runs: Vec<pb::Run>,
    /// The machines after it.
    pub after: Vec<pb::Machine>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The script cannot be parsed.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The timing cannot be parsed.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// The plans contradict each other, or the plan does not exist.
    #[error("{0}")]
    Plans(String),
    /// The API refused, as it would on a real server.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The engine failed.
    #[error("the simulation failed")]
    Engine(#[from] EngineError),
    /// The run did not end within ninety virtual days.
    #[error("the run did not end within 90 days of virtual time")]
    Endless,
    /// A bug, or no thread was available.
    #[error("cannot simulate: {0}")]
    Runtime(String),
}

impl From<Status> for SimulateError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Runs a simulation to its end. Blocks; call it where that is allowed.
///
/// # Errors
/// [`SimulateError`], before anything was run or if a run cannot be started.
pub fn simulate(simulation: &Simulation) -> Result<Simulated, SimulateError> {
    let clock = Arc::new(SimulatedClock::new(START));
    let idle = clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            idle.advance();
        })
        .build()
        .map_err(|error| SimulateError::Runtime(error.to_string()))?;
    runtime.block_on(play(simulation, clock))
}

async fn play(
    simulation: &Simulation,
    clock: Arc<SimulatedClock>,
) -> Result<Simulated, SimulateError> {
    let bench = Bench::new(simulation, clock)?;
    bench.register(simulation).await?;
    if !simulation.after.is_empty() {
        let engine = bench.engine(Script::default()).await?;
        let api = Api::new(&engine);
        for plan in &simulation.after {
            let runs = api.run_all(&bench.machines, Some(true), |machine_id| pb::StartRunRequest {
                machine_id,
                plan_id: plan.clone(),
                ..pb::StartRunRequest::default()
            });
            bench.within(runs).await?;
        }
        engine.kill();
    }
    let engine = bench.engine(bench.script.clone()).await?;
    let api = Api::new(&engine);
    let plan = pb::GetPlanRequest { plan_id: simulation.plan_id.clone() };
    let plan = PlanServiceClient::new(api.routes.clone()).get_plan(plan).await?.into_inner();
    let before = api.machines(&bench.machines).await?;
    let approve = simulation.approve;
    let played = api.run_all(&bench.machines, approve, |machine_id| pb::StartRunRequest {
        machine_id,
        plan_id: simulation.plan_id.clone(),
        parameters: simulation.parameters.clone(),
        force: simulation.force,
        ..pb::StartRunRequest::default()
    });
    let (events, runs) = bench.within(played).await?;
    let after = api.machines(&bench.machines).await?;
    engine.kill();
    Ok(Simulated { plan, before, events, runs, after })
}

/// The world that engines work on.
struct Bench {
    clock: Arc<SimulatedClock>,
    store: Arc<dyn Store>,
    world: World,
    plans: Vec<Plan>,
    script: Script,
    timing: Timing,
    seed: u64,
    machines: Vec<String>,
}

impl Bench {
    fn new(simulation: &Simulation, clock: Arc<SimulatedClock>) -> Result<Self, SimulateError> {
        let plans = plans_with(&simulation.plans);
        let plan = find(&plans, &simulation.plan_id)?;
        // A mistake in the script is reported with the number of the user's own rule.
        Script::parse(&simulation.script)?;
        let (timing, durations) = match &simulation.timing {
            Some(timing) => (timing.parse()?, String::new()),
            None => (Timing::Default, durations(plan)),
        };
        Ok(Self {
            store: Arc::new(MemoryStore::new(clock.clone())),
            clock,
            world: World::in_memory(),
            script: Script::parse(&format!("{}\n{durations}", simulation.script))?,
            plans,
            timing,
            seed: simulation.seed,
            machines: (1..=simulation.machines.min(MACHINES_MAX))
                .map(|number| format!("machine-{number}"))
                .collect(),
        })
    }

    /// Puts the machines into the store in the state that the first plan requires.
    async fn register(&self, simulation: &Simulation) -> Result<(), SimulateError> {
        let first = simulation.after.first().unwrap_or(&simulation.plan_id);
        let plan = find(&self.plans, first)?;
        let phase = simulation.phase.or_else(|| plan.allowed_phases.first().copied());
        let mut batch = Batch::default();
        for id in &self.machines {
            let id =
                MachineId::parse(id).map_err(|error| SimulateError::Runtime(error.to_string()))?;
            let spec = MachineSpec { provider: NAME.to_owned(), ..MachineSpec::default() };
            let mut machine = Machine::registered(id, simulation.labels.clone(), spec, START);
            if let Some(phase) = phase {
                machine.phase = names::phase(phase);
            }
            for (kind, status) in plan.required_conditions.iter() {
                let condition = Condition {
                    status: *status,
                    reason: "SIMULATED".to_owned(),
                    message: "as the plan requires".to_owned(),
                    last_transition_at: START,
                    observed_by: "operator/simulation".to_owned(),
                    plan_id: String::new(),
                };
                machine.conditions.set(names::condition(*kind), condition);
            }
            let entries =
                vec![Entry::new(EntryKind::MachineRegistered, Actor::operator("simulation"))];
            batch.writes.push(Write::new(None, machine, entries));
        }
        self.store.commit(batch).await.map_err(EngineError::from)?;
        Ok(())
    }

    async fn engine(&self, script: Script) -> Result<Engine, SimulateError> {
        let options = FakeOptions {
            timing: self.timing,
            seed: self.seed,
            script,
            world: self.world.clone(),
            ..FakeOptions::default()
        };
        let config = EngineConfig {
            store: self.store.clone(),
            providers: vec![Arc::new(FakeProvider::new(options, self.clock.clone()))],
            plans: Registry::from_plans(self.plans.clone())
                .map_err(|error| SimulateError::Plans(error.to_string()))?,
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.seed)),
            limits: Limits::default(),
            planted: None,
        };
        Ok(Engine::start(config).await?)
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, SimulateError>>,
    ) -> Result<T, SimulateError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.clock.sleep(LIMIT) => Err(SimulateError::Endless),
        }
    }
}

/// The built-in plans and `own`. If one of `own` takes the place of a default, the built-in one loses it.
fn plans_with(own: &[Plan]) -> Vec<Plan> {
    let mut plans: Vec<Plan> = BUILT_IN
        .iter()
        .filter(|plan| !own.iter().any(|other| other.id == plan.id))
        .cloned()
        .collect();
    for plan in &mut plans {
        if own.iter().any(|other| other.default_for == plan.default_for) {
            plan.default_for = None;
        }
    }
    plans.extend(own.iter().cloned());
    plans
}

fn find<'a>(plans: &'a [Plan], id: &str) -> Result<&'a Plan, SimulateError> {
    let found = plans.iter().find(|plan| plan.id == id || plan.name() == id);
    found.ok_or_else(|| {
        let names: BTreeSet<&str> = plans.iter().map(Plan::name).collect();
        let near = crate::plan::suggest::nearest(id, names.iter().copied());
        let help = near.map_or_else(
            || format!("there are {}", names.into_iter().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near}?"),
        );
        SimulateError::Plans(format!("there is no plan {id:?}: {help}"))
    })
}

/// Rules that make every action of a plan take as long as the plan expects.
fn durations(plan: &Plan) -> String {
    let mut rules = String::new();
    // A rule names a step or an action: steps that are named like an action come last, so that they do not match
    // another's.
    let is_action = |name: &str| {
        let undone =
            |step: &Step| step.compensation.as_ref().is_some_and(|undo| undo.action.name == name);
        plan.steps.iter().any(|step| step.action.name == name || undone(step))
    };
    let steps = plan.steps.iter().filter(|step| !step.action.is_own());
    let (late, early): (Vec<_>, Vec<_>) = steps.partition(|step| is_action(&step.name));
    for step in early.into_iter().chain(late) {
        // Writing to a String cannot fail.
        let _ = writeln!(rules, "step={} do=slow:{}ms", step.name, step.expected_ms);
        if let Some(undo) = &step.compensation {
            let ms = undo.expected_ms;
            let _ = writeln!(rules, "step=undo-{} do=slow:{ms}ms", step.name);
        }
    }
    rules
}

/// The API of a server, called without a connection.
struct Api {
    routes: Routes,
}

impl Api {
    fn new(engine: &Engine) -> Self {
        Self { routes: crate::api::routes(engine.clone()).prepare() }
    }

    async fn machines(&self, ids: &[String]) -> Result<Vec<pb::Machine>, SimulateError> {
        let mut client = MachineServiceClient::new(self.routes.clone());
        let mut machines = Vec::with_capacity(ids.len());
        for id in ids {
            let request = pb::GetMachineRequest { machine_id: id.clone(), ..Default::default() };
            machines.push(client.get_machine(request).await?.into_inner());
        }
        Ok(machines)
    }

    /// Starts a run on every machine and follows them until each has ended or is held permanently.
    async fn run_all(
        &self,
        machines: &[String],
        approve: Option<bool>,
        request: impl Fn(String) -> pb::StartRunRequest,
    ) -> Result<(Vec<pb::RunEvent>, Vec<pb::Run>), SimulateError> {
        let mut client = RunServiceClient::new(self.routes.clone());
        let mut stream = client.watch_runs(pb::WatchRunsRequest::default()).await?.into_inner();
        // Everything up to here is the past: later changes are reported.
        while let Some(event) = stream.message().await? {
            if event.r#type() == pb::RunEventType::Synced {
                break;
            }
        }
        let mut order = Vec::with_capacity(machines.len());
        for id in machines {
            let run = client.start_run(request(id.clone())).await?.into_inner();
            order.push(run.run_id);
        }
        let mut events = Vec::new();
        let mut ended: BTreeMap<String, pb::Run> = BTreeMap::new();
        while ended.len() < order.len() {
            let Some(event) = stream.message().await? else {
                return Err(SimulateError::Runtime("the watch ended early".to_owned()));
            };
            let Some(run) = event.snapshot.clone() else { continue };
            if let Some(yes) = approve
                && waits_for(&run, pb::WaitReason::Approval)
            {
                let resolution =
                    if yes { pb::StepResolution::Approve } else { pb::StepResolution::Reject };
                let answer = pb::ResolveStepRequest {
                    run_id: run.run_id.clone(),
                    resolution: resolution.into(),
                    reason: "simulated".to_owned(),
                    ..Default::default()
                };
                client.resolve_step(answer).await?;
            }
            if run.finished_at.is_some() || is_held_for_good(&run) {
                ended.insert(run.run_id.clone(), run);
            }
            events.push(event);
        }
        let runs = order.iter().filter_map(|id| ended.remove(id)).collect();
        Ok((events, runs))
    }
}

/// Whether only an operator could make the run continue.
fn is_held_for_good(run: &pb::Run) -> bool {
    [
        pb::WaitReason::OutcomeUnknown,
        pb::WaitReason::LoopBreaker,
        pb::WaitReason::Restored,
        pb::WaitReason::EngineFault,
        pb::WaitReason::WrongHardware,
    ]
    .into_iter()
    .any(|reason| waits_for(run, reason))
}

fn waits_for(run: &pb::Run, reason: pb::WaitReason) -> bool {
    run.waiting.as_ref().is_some_and(|waiting| waiting.reason() == reason)
}

#[cfg(test)]
mod tests;
