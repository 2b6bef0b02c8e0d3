//! One simulation: a server that is killed, stopped and restarted under load, then a world that heals.

mod finish;
mod requests;

use std::sync::Arc;

use bmdemo::clock::{SeededRandom, SplitMix64};
use bmdemo::executor::planted::Planted;
use bmdemo::executor::{Engine, EngineConfig};
use bmdemo::ids::MachineId;
use bmdemo::model::LockTarget;
use bmdemo::provider::fake::{Chaos, FakeOptions, FakeProvider, World};
use bmdemo::store::memory::MemoryStore;
use bmdemo::store::{Query, Store as _};

use crate::client::{Answer, Ask, Clients, Request};
use crate::gate::{Incarnation, Life};
use crate::invariants;
use crate::oracle::{Feed, Violation};
use crate::panics;
use crate::plans::registry;
use crate::profile::Profile;
use crate::provider::SimProvider;
use crate::sim::{Outage, Point, Sim};
use crate::store::SimStore;
use crate::watcher::{Scope, Serving, Sleeper, Watcher};

/// Far longer than a simulation takes: thirty days.
const PATIENCE_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Result of a simulation.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) violations: Vec<Violation>,
    pub(crate) trace: Vec<String>,
    pub(crate) runs: usize,
    pub(crate) commits: u64,
    pub(crate) incarnations: u32,
    pub(crate) acknowledged: u64,
    pub(crate) effects: usize,
}

/// Runs the simulation of a seed.
pub(crate) fn simulate(seed: u64, profile: Profile, planted: Option<Planted>) -> Report {
    in_virtual_time(async move {
        let mut driver = Driver::new(seed, profile, planted);
        let sim = driver.sim.clone();
        tokio::select! {
            biased;
            () = driver.run() => {}
            // Time passes only when no task can run: here all wait for something that never comes.
            () = sim.sleep_ms(PATIENCE_MS) => {
                let verdict = Err("the simulation waits forever".to_owned());
                sim.oracle().judge("promise_05_nothing_is_stuck", verdict);
            }
        }
        driver.report()
    })
}

/// Runs a future on its own runtime, whose time passes only when no task can run.
pub(crate) fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// Drives one simulation.
pub(crate) struct Driver {
    pub(crate) sim: Arc<Sim>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) world: World,
    pub(crate) clients: Arc<Clients>,
    rng: SplitMix64,
    seed: u64,
    planted: Option<Planted>,
    incarnations: Incarnation,
    current: Option<(Incarnation, Engine)>,
    zombie: Option<(Incarnation, Engine)>,
    /// A stopped incarnation was continued and has acted beside the present one: no live server drives the runs that
    /// it has accepted or claimed.
    orphans: bool,
    serving: Arc<Serving>,
    past: Vec<Request>,
}

impl Driver {
    pub(crate) fn new(seed: u64, profile: Profile, planted: Option<Planted>) -> Self {
        let sim = Sim::new(seed, profile);
        let store = Arc::new(MemoryStore::new(sim.clock.clone()));
        store.listen(Arc::new(Feed(Arc::downgrade(&sim))));
        Self {
            clients: Clients::new(sim.clone(), store.clone()),
            sim,
            store,
            world: World::in_memory(),
            rng: SplitMix64::new(seed ^ 0x64_72_69_76_65_72),
            seed,
            planted,
            incarnations: 0,
            current: None,
            zombie: None,
            orphans: false,
            serving: Arc::default(),
            past: Vec::new(),
        }
    }

    // -- the server -------------------------------------------------------------------------------------------------

    fn config(&self, who: Incarnation) -> EngineConfig {
        let provider = |chaos| {
            let options = FakeOptions {
                timing: self.sim.profile.timing,
                seed: self.seed,
                chaos,
                world: self.world.clone(),
                ..FakeOptions::default()
            };
            Arc::new(FakeProvider::new(options, self.sim.clock.clone()))
        };
        let provider = SimProvider {
            sim: self.sim.clone(),
            who,
            world: self.world.clone(),
            rough: provider(self.sim.profile.chaos),
            calm: provider(Chaos::default()),
        };
        let store = SimStore { inner: self.store.clone(), sim: self.sim.clone(), who };
        EngineConfig {
            store: Arc::new(store),
            providers: vec![Arc::new(provider)],
            plans: registry(),
            clock: self.sim.clock.clone(),
            random: Arc::new(SeededRandom::new(self.seed ^ (u64::from(who) << 32))),
            limits: self.sim.profile.limits.clone(),
            planted: self.planted,
        }
    }

    /// The incarnation that serves.
    pub(crate) fn current(&self) -> (Incarnation, Engine) {
        self.current.clone().expect("it was started")
    }

    /// Starts the server until it runs. It may be killed while it starts.
    pub(crate) async fn boot(&mut self) {
        loop {
            self.incarnations += 1;
            let who = self.incarnations;
            self.sim.gates.set(who, Life::Open);
            self.sim.note(format!("incarnation {who} starts"));
            let config = self.config(who);
            let started = tokio::select! {
                biased;
                started = Engine::start(config) => Some(started),
                () = self.sim.gates.died(who) => None,
            };
            match started {
                Some(Ok(engine)) => {
                    self.sim.note(format!("incarnation {who} serves"));
                    self.serving.set(Some(engine.clone()));
                    self.current = Some((who, engine));
                    return;
                }
                Some(Err(error)) => {
                    self.sim.note(format!("incarnation {who} cannot start: {error:?}"));
                    self.sim.gates.set(who, Life::Dead);
                }
                None => {}
            }
            self.sim.sleep_ms(100).await;
        }
    }

    /// Ends the present incarnation as a power cut would.
    pub(crate) fn crash(&mut self) {
        if let Some((who, engine)) = self.current.take() {
            self.sim.note(format!("incarnation {who} is dead"));
            self.sim.gates.set(who, Life::Dead);
            engine.kill();
            self.serving.set(None);
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.crash();
        // A continued one acts beside the next one as well, and may take runs away from it.
        let zombie = self.zombie.as_ref().map(|(who, _)| self.sim.gates.life(*who));
        let down_ms = self.rng.below(self.sim.profile.down_ms);
        self.sim.sleep_ms(down_ms).await;
        self.boot().await;
        self.orphans = zombie == Some(Life::Open);
    }

    /// Stops the present incarnation, without its knowledge, and starts its successor.
    async fn replace(&mut self) {
        self.end_zombie();
        if let Some((who, engine)) = self.current.take() {
            self.sim.note(format!("incarnation {who} is stopped"));
            self.sim.gates.set(who, Life::Stopped);
            self.serving.set(None);
            self.zombie = Some((who, engine));
            self.sim.oracle().overlapped = true;
        }
        self.sim.delay(self.sim.profile.down_ms).await;
        self.boot().await;
        self.orphans = false;
    }

    fn continue_zombie(&mut self) {
        if let Some((who, _)) = &self.zombie {
            self.sim.note(format!("incarnation {who} is continued"));
            self.sim.gates.set(*who, Life::Open);
            self.orphans = true;
        }
    }

    fn end_zombie(&mut self) {
        if let Some((who, engine)) = self.zombie.take() {
            self.sim.note(format!("incarnation {who}, once stopped, is dead"));
            self.sim.gates.set(who, Life::Dead);
            engine.kill();
        }
    }

    // -- the simulation ---------------------------------------------------------------------------------------------

    async fn run(&mut self) {
        self.boot().await;
        self.register().await;
        let from = self.sim.oracle().book.head;
        let scopes = [Scope::Runs, Scope::RunsOf(machine(1)), Scope::RunsRunning, Scope::Machines];
        let watchers: Vec<_> = scopes
            .into_iter()
            .map(|scope| Watcher::spawn(self.sim.clone(), scope, from, self.serving.clone()))
            .collect();
        let sleeper = Sleeper::start(&self.sim, &self.store).await;
        for _ in 0..self.sim.profile.steps {
            let gap_ms = self.rng.below(self.sim.profile.gap_ms);
            self.sim.sleep_ms(gap_ms).await;
            self.trouble().await;
            self.swap();
            self.brake().await;
            self.ask();
            self.compare().await;
            if !self.sim.oracle().violations.is_empty() {
                return;
            }
        }
        self.settle().await;
        if self.sim.oracle().violations.is_empty() {
            self.finish(&watchers, sleeper).await;
        }
    }

    pub(crate) async fn register(&mut self) {
        for number in 1..=self.sim.profile.machines {
            loop {
                let request = request(Ask::Register { machine: machine(number) });
                let Some((who, engine)) = self.current.clone() else { return };
                let answer = tokio::select! {
                    biased;
                    answer = self.clients.ask(&engine, who, request) => Some(answer),
                    () = self.sim.gates.died(who) => None,
                };
                match answer {
                    Some(Answer::Machine(_)) => break,
                    Some(Answer::Run(_) | Answer::Lock(_) | Answer::Refused(_)) => {
                        self.sim.sleep_ms(50).await;
                    }
                    None => self.restart().await,
                }
            }
        }
    }

    /// Machines take each other's places, and operators look at them.
    fn swap(&mut self) {
        let permille = self.sim.profile.swap_permille;
        if permille == 0 {
            return;
        }
        let machines = self.sim.profile.machines;
        if self.rng.chance(permille, 1_000) {
            self.sim.swap(&machine(1 + self.rng.below(machines)));
        }
        let asked = machine(1 + self.rng.below(machines));
        if let Some((who, engine)) = self.current.as_ref().filter(|_| self.rng.chance(1, 2)) {
            self.clients.send(engine, *who, request(Ask::Inspect { machine: asked }));
        }
    }

    /// An operator stops everything, or resumes, and waits for the answer; plans that were paused are lifted.
    async fn brake(&mut self) {
        if !self.rng.chance(self.sim.profile.brake_permille, 1_000) {
            return;
        }
        let Some((who, engine)) = self.current.clone() else { return };
        let paused = engine.locks().into_iter().find(|lock| lock.target != LockTarget::All);
        let ask = match self.rng.below(3) {
            0 => Ask::Stop,
            1 => Ask::Resume,
            _ => match paused {
                Some(lock) => Ask::Unlock { id: lock.id.clone() },
                None => return,
            },
        };
        if ask == Ask::Resume {
            self.sim.oracle().book.is_stopped = false;
        }
        tokio::select! {
            biased;
            _ = self.clients.ask(&engine, who, request(ask)) => {}
            () = self.sim.gates.died(who) => {}
            () = self.sim.sleep_ms(5_000) => {}
        }
    }

    /// At most one kind of fault.
    async fn trouble(&mut self) {
        let profile = self.sim.profile.clone();
        let dead =
            self.current.as_ref().is_none_or(|(who, _)| self.sim.gates.life(*who) == Life::Dead);
        if dead {
            return self.restart().await;
        }
        if self.zombie.is_some() {
            match self.rng.below(6) {
                0 => self.end_zombie(),
                1 => self.continue_zombie(),
                _ => {}
            }
        }
        if self.rng.chance(profile.crash_permille, 1_000) {
            self.restart().await;
        } else if self.rng.chance(profile.fuse_permille, 1_000) {
            self.light_a_fuse();
        } else if self.rng.chance(profile.stop_permille, 1_000) {
            self.replace().await;
        } else if self.rng.chance(profile.jump_permille, 1_000) {
            let year_ms = 365 * 24 * 60 * 60 * 1_000;
            let delta = i64::try_from(self.rng.below(2 * year_ms)).unwrap_or(0)
                - i64::try_from(year_ms).unwrap_or(0);
            self.sim.note(format!("the wall clock jumps by {delta} ms"));
            self.sim.clock.jump(delta);
        } else if self.rng.chance(profile.outage_permille, 1_000) {
            let outage = if self.rng.chance(1, 2) { Outage::Full } else { Outage::Unavailable };
            self.sim.note(format!("the store is {outage:?}"));
            self.sim.set_outage(outage);
            self.clients.outage_changed();
            let lasts_ms = self.rng.below(10_000);
            let (sim, clients) = (self.sim.clone(), self.clients.clone());
            tokio::spawn(async move {
                sim.sleep_ms(lasts_ms).await;
                sim.note("the store is well again");
                sim.set_outage(Outage::None);
                clients.outage_changed();
            });
        }
    }

    /// The server will be killed at one of the next commit boundaries or effects.
    fn light_a_fuse(&mut self) {
        let kind = self.rng.below(5);
        let mut left = self.rng.below(8);
        self.sim.set_fuse(Box::new(move |point| {
            let fits = matches!(
                (kind, point),
                (0, Point::BeforeCommit(_))
                    | (1, Point::AfterCommit(_))
                    | (2, Point::BeforeCall(..))
                    | (3, Point::AfterCall(..))
                    | (4, _)
            );
            if fits && left > 0 {
                left -= 1;
                return false;
            }
            fits
        }));
    }

    /// The store lists what it has reported to its listeners.
    async fn compare(&self) {
        let query = || Query { limit: 10_000, ..Query::default() };
        let runs = self.store.runs(query()).await.expect("it is in memory");
        let machines = self.store.machines(query()).await.expect("it is in memory");
        let mut oracle = self.sim.oracle();
        let same = runs.items.len() == oracle.book.runs.len()
            && runs.items.iter().all(|run| oracle.book.runs.get(&run.id) == Some(run))
            && machines.items.len() == oracle.book.machines.len()
            && machines.items.iter().all(|one| oracle.book.machines.get(&one.id) == Some(one));
        let verdict = invariants::ensure(same, || "the lists differ from the feed".to_owned());
        oracle.judge("the_store_lists_what_it_told", verdict);
    }

    pub(crate) fn report(&mut self) -> Report {
        self.crash();
        self.end_zombie();
        let effects = self.world.ledger().len();
        let mut oracle = self.sim.oracle();
        for message in panics::take() {
            oracle.judge("nothing_panics", Err(message));
        }
        Report {
            hash: oracle.hash(),
            violations: oracle.violations.clone(),
            trace: std::mem::take(&mut oracle.trace),
            runs: oracle.book.runs.len(),
            commits: oracle.book.head.0,
            incarnations: self.incarnations,
            acknowledged: self.clients.acknowledged(),
            effects,
        }
    }
}

/// The machine of a number.
pub(crate) fn machine(number: u64) -> MachineId {
    MachineId::parse(&format!("machine-{number}")).expect("an id")
}

/// A request without an id.
pub(crate) fn request(ask: Ask) -> Request {
    Request { ask, id: String::new(), reason: "a simulation".to_owned() }
}
