//! An engine in virtual time, with helpers for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt as _;

use crate::clock::{Clock, SeededRandom, Timestamp, TokioClock};
use crate::executor::feed::{Start, WatchItem};
use crate::executor::request::{MachineChanges, NewMachine, NewRun, Verb};
use crate::executor::{Engine, EngineConfig, EngineError, Limits, Refusal};
use crate::ids::{MachineId, RunId};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::step::State;
use crate::model::filter::{Filter, Subject};
use crate::model::machine::Condition;
use crate::model::{ConditionKind, Entry, Machine, MachineSpec, Run};
use crate::plan::{Registry, Step};
use crate::provider::Provider;
use crate::provider::fake::{self, FakeOptions, FakeProvider, LedgerEntry, Script, Timing, World};
use crate::store::memory::MemoryStore;
use crate::store::{self, Store};

/// 2026-01-01T00:00:00Z.
pub(super) const START: Timestamp = Timestamp(1_767_225_600_000);

/// Which providers an engine has, given the fake one.
pub(super) type Providers = fn(Arc<dyn Provider>) -> Vec<Arc<dyn Provider>>;

pub(super) struct Harness {
    pub(super) clock: Arc<TokioClock>,
    pub(super) store: Arc<dyn Store>,
    pub(super) world: World,
    pub(super) script: String,
    pub(super) timing: Timing,
    pub(super) limits: Limits,
    /// Providers of the next engine, given the fake one.
    pub(super) providers: Providers,
    /// Plans of the next engine.
    pub(super) plans: fn() -> Registry,
    pub(super) engine: Engine,
    seed: u64,
}

/// The built-in plans.
pub(super) const PLANS: [&str; 5] =
    ["plan/repave-join", "plan/rma", "plan/reboot", "plan/upgrade", "plan/net-reconfig"];

/// Steps of a built-in plan.
pub(super) fn steps_of(plan: &str) -> Vec<Step> {
    Registry::built_in().get(plan).unwrap().plan.steps.to_vec()
}

/// Every step of every built-in plan: plan, index, step.
pub(super) fn every_step() -> impl Iterator<Item = (&'static str, usize, Step)> {
    PLANS.into_iter().flat_map(|plan| {
        steps_of(plan).into_iter().enumerate().map(move |(place, step)| (plan, place, step))
    })
}

/// What the engine refused, and why.
pub(super) fn refusal<T: std::fmt::Debug>(answer: Result<T, EngineError>) -> (Refusal, String) {
    match answer {
        Err(EngineError::Refused { refusal, message, .. }) => (refusal, message),
        other => panic!("not refused: {other:?}"),
    }
}

pub(super) use crate::testing::origin;

pub(super) fn machine_id(number: usize) -> MachineId {
    MachineId::parse(&format!("machine-{number}")).unwrap()
}

pub(super) fn new_run(machine: usize, plan: &str) -> NewRun {
    NewRun {
        machine_id: machine_id(machine),
        run_type: None,
        plan_id: plan.to_owned(),
        parameters: BTreeMap::new(),
        force: false,
        plan_digest: String::new(),
    }
}

impl Harness {
    pub(super) async fn new(script: &str) -> Self {
        Self::with(script, Timing::Default, Limits::default()).await
    }

    pub(super) async fn with(script: &str, timing: Timing, limits: Limits) -> Self {
        let clock = Arc::new(TokioClock::new(START));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let world = World::in_memory();
        let plans = Registry::built_in;
        let script = script.to_owned();
        let providers: Providers = |fake| vec![fake];
        let engine =
            boot(&clock, &store, &world, &script, timing, &limits, plans, providers, 1).await;
        Self { clock, store, world, script, timing, limits, providers, plans, engine, seed: 1 }
    }

    /// An engine with `machine-1`, in a phase that `plan` allows, and a run of it.
    pub(super) async fn running(script: &str, plan: &str) -> (Self, RunId) {
        let harness = Self::new(script).await;
        harness.register(1).await;
        let run = harness.start_where_allowed(plan).await;
        (harness, run)
    }

    /// The same, with the step at `place` being worked on by the provider.
    pub(super) async fn at_step(script: &str, plan: &str, place: usize) -> (Self, RunId) {
        let (harness, run) = Self::running(script, plan).await;
        harness.polling(run, place).await;
        (harness, run)
    }

    pub(super) async fn start_where_allowed(&self, plan: &str) -> RunId {
        if plan == "plan/upgrade" {
            self.set_phase(1, Phase::Ready).await.unwrap();
        }
        self.start(1, plan).await.unwrap().id
    }

    /// Ends the engine as a crash would and starts another on the same store and world.
    pub(super) async fn crash(&mut self) {
        self.engine.kill();
        self.restart().await;
    }

    /// Starts another engine on the same store and world; every run has been recovered then.
    pub(super) async fn restart(&mut self) {
        self.serve().await;
        self.engine.recovered().await;
    }

    /// Starts another engine on the same store and world, which serves before it has recovered anything.
    pub(super) async fn serve(&mut self) {
        self.seed += 1;
        self.engine = boot(
            &self.clock,
            &self.store,
            &self.world,
            &self.script,
            self.timing,
            &self.limits,
            self.plans,
            self.providers,
            self.seed,
        )
        .await;
    }

    pub(super) async fn set_phase(
        &self,
        machine: usize,
        phase: Phase,
    ) -> Result<Arc<Machine>, EngineError> {
        let changes = MachineChanges { phase: Some(phase), ..MachineChanges::default() };
        self.engine.update_machine(&origin(), &machine_id(machine), changes).await
    }

    pub(super) async fn operate(&self, run: RunId, verb: Verb) -> Result<Arc<Run>, EngineError> {
        self.engine.operate(&origin(), run, verb).await
    }

    /// Waits until the provider is working on the step at `place`.
    pub(super) async fn polling(&self, run: RunId, place: usize) -> Arc<Run> {
        let polling = |run: &Run| matches!(run.steps[place].state, State::Polling { .. });
        self.until(run, polling).await
    }

    /// Lets virtual time pass.
    pub(super) async fn pass(&self, ms: u64) {
        self.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// History of a run, oldest first.
    pub(super) async fn history(&self, run: RunId) -> Vec<Entry> {
        let rows = self.store.history(store::Subject::Run(run), None, 10_000).await.unwrap();
        rows.into_iter().map(|row| row.entry).collect()
    }

    pub(super) async fn intervention(&self) -> Option<Condition> {
        self.machine(1).await.conditions.get(ConditionKind::NeedsIntervention).cloned()
    }

    /// The world's ledger, after checking it for broken promises.
    pub(super) fn ledger(&self) -> Vec<LedgerEntry> {
        let ledger = self.world.ledger();
        assert_eq!(fake::violations(&ledger), Vec::<String>::new());
        ledger
    }

    /// No destructive step took effect twice, and no operation broke a promise.
    pub(super) fn nothing_was_repeated(&self) {
        assert_eq!(fake::repeated_steps(&self.ledger()), Vec::<String>::new());
    }

    pub(super) async fn register(&self, count: usize) {
        for number in 1..=count {
            let rack = if number % 2 == 0 { "even" } else { "odd" };
            let new = NewMachine {
                id: machine_id(number),
                labels: [("rack".to_owned(), rack.to_owned())].into_iter().collect(),
                spec: MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() },
                in_service: false,
            };
            self.engine.register_machine(&origin(), new).await.unwrap();
        }
    }

    pub(super) async fn start(&self, machine: usize, plan: &str) -> Result<Arc<Run>, EngineError> {
        self.engine.start_run(&origin(), new_run(machine, plan)).await
    }

    pub(super) async fn machine(&self, number: usize) -> Arc<Machine> {
        self.engine.machine(&machine_id(number)).await.unwrap()
    }

    /// Waits until the run has ended, for at most a virtual day.
    pub(super) async fn finished(&self, run: RunId) -> Arc<Run> {
        self.until(run, |run| !run.state.is_active()).await
    }

    /// Waits until the run, as its watchers see it, is as `wanted` says.
    pub(super) async fn until(&self, run: RunId, wanted: impl Fn(&Run) -> bool) -> Arc<Run> {
        let filter = Filter::parse(&format!("run_id={run}"), Subject::Run).unwrap();
        let stream = self.engine.watch().watch_runs(self.store.clone(), filter, Start::Snapshot);
        let mut stream = Box::pin(stream);
        let limit = self.clock.sleep(Duration::from_secs(24 * 60 * 60));
        tokio::pin!(limit);
        loop {
            tokio::select! {
                biased;
                item = stream.next() => match item {
                    Some(Ok(WatchItem::Snapshot(run, _))) if wanted(&run) => return run,
                    Some(Ok(WatchItem::Change { event, .. })) if wanted(&event.record) => {
                        return event.record.clone();
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => panic!("watch of {run}: {error}"),
                    None => panic!("watch of {run} ended: {:?}", self.engine.run(run).await),
                },
                () = &mut limit => panic!("run {run} is stuck: {:#?}", self.engine.run(run).await),
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the harness's own fields, in one place")]
async fn boot(
    clock: &Arc<TokioClock>,
    store: &Arc<dyn Store>,
    world: &World,
    script: &str,
    timing: Timing,
    limits: &Limits,
    plans: fn() -> Registry,
    providers: Providers,
    seed: u64,
) -> Engine {
    let options = FakeOptions {
        timing,
        seed: 7,
        script: Script::parse(script).expect("a script"),
        world: world.clone(),
        ..FakeOptions::default()
    };
    let fake: Arc<dyn Provider> = Arc::new(FakeProvider::new(options, clock.clone()));
    let config = EngineConfig {
        store: store.clone(),
        providers: providers(fake),
        plans: plans(),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(seed)),
        limits: limits.clone(),
        planted: None,
    };
    Engine::start(config).await.expect("it starts")
}
