//! An engine in virtual time, and what tests ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt as _;

use crate::clock::{Clock, SeededRandom, Timestamp, TokioClock};
use crate::executor::request::{NewMachine, NewRun, Origin};
use crate::executor::watch::{Start, WatchItem};
use crate::executor::{Engine, EngineConfig, EngineError, Limits};
use crate::ids::{MachineId, RunId};
use crate::model::filter::{Filter, Subject};
use crate::model::{Actor, Machine, MachineSpec, Run};
use crate::plan::Registry;
use crate::provider::fake::{FakeOptions, FakeProvider, Script, Timing, World};
use crate::store::Store;
use crate::store::memory::MemoryStore;

/// 2026-01-01T00:00:00Z.
pub(super) const START: Timestamp = Timestamp(1_767_225_600_000);

pub(super) struct Harness {
    pub(super) clock: Arc<TokioClock>,
    pub(super) store: Arc<dyn Store>,
    pub(super) world: World,
    pub(super) script: String,
    pub(super) timing: Timing,
    pub(super) limits: Limits,
    pub(super) engine: Engine,
    seed: u64,
}

pub(super) fn origin() -> Origin {
    Origin {
        request_id: String::new(),
        body_digest: String::new(),
        actor: Actor::operator("tester"),
        reason: "a test".to_owned(),
        expected: None,
    }
}

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
    }
}

impl Harness {
    pub(super) async fn new(script: &str) -> Self {
        Self::with(script, Timing::Default, Limits::default()).await
    }

    pub(super) async fn with(script: &str, timing: Timing, limits: Limits) -> Self {
        let clock = Arc::new(TokioClock::new(START));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let world = World::in_memory();
        let engine =
            boot(&clock, &store, &world, script, timing, &limits, 1).await.expect("it starts");
        Self { clock, store, world, script: script.to_owned(), timing, limits, engine, seed: 1 }
    }

    /// Ends the engine as a crash would and starts another on the same store and world.
    pub(super) async fn crash(&mut self) {
        self.engine.kill();
        self.seed += 1;
        self.engine = boot(
            &self.clock,
            &self.store,
            &self.world,
            &self.script,
            self.timing,
            &self.limits,
            self.seed,
        )
        .await
        .expect("it starts again");
    }

    pub(super) async fn register(&self, count: usize) {
        for number in 1..=count {
            let rack = if number % 2 == 0 { "even" } else { "odd" };
            let new = NewMachine {
                id: machine_id(number),
                labels: [("rack".to_owned(), rack.to_owned())].into_iter().collect(),
                spec: MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() },
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
                    Some(Ok(WatchItem::Snapshot(object, _) | WatchItem::Change { object, .. })) => {
                        if wanted(&object) {
                            return object;
                        }
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

async fn boot(
    clock: &Arc<TokioClock>,
    store: &Arc<dyn Store>,
    world: &World,
    script: &str,
    timing: Timing,
    limits: &Limits,
    seed: u64,
) -> Result<Engine, EngineError> {
    let options = FakeOptions {
        timing,
        seed: 7,
        script: Script::parse(script).expect("a script"),
        world: world.clone(),
        ..FakeOptions::default()
    };
    Engine::start(EngineConfig {
        store: store.clone(),
        providers: vec![Arc::new(FakeProvider::new(options, clock.clone()))],
        plans: Registry::built_in(),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(seed)),
        limits: limits.clone(),
        planted: None,
    })
    .await
}
