//! Health probes: asks providers for the state of their machines, and updates Reachable, Degraded and HardwareMatches.
//!
//! A machine is probed once per interval, with jitter so that a fleet is not probed all at once, and never twice at
//! the same time; concurrent probes are bounded per provider, so that a dead machine, or a dead provider, delays no
//! other. FACTORY_READY and RETIRED machines are never probed, nor is a machine with an active run: its steps know
//! better.
//!
//! A machine that is not due is only an instant in a list: no task, no timer, no record. A result that confirms the
//! known state ends here, without a worker.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::dispatch::Scheduler;
use crate::clock::SplitMix64;
use crate::executor::ports::Ports;
use crate::executor::worker::{Caught, Message};
use crate::ids::MachineId;
use crate::lifecycle::machine::Phase;
use crate::model::{ConditionKind, Machine, MachineFacts, identity};
use crate::provider::{Fut, Health, Target};
use crate::store::{Committed, Listener, Query};

/// Machines read at once when the list is built.
const PAGE: usize = 500;

/// Probe policy of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbePolicy {
    /// Time between two probes of one machine, in milliseconds; varied by up to a tenth.
    pub interval_ms: u64,
    /// Longest time a probe may take, in milliseconds; after that the machine counts as unreachable.
    pub timeout_ms: u64,
    /// Most probes of the provider's machines at the same time.
    pub concurrent_max: usize,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self { interval_ms: 60_000, timeout_ms: 10_000, concurrent_max: 64 }
    }
}

/// When each machine is probed next. Instants are on the monotonic clock.
struct Turns {
    due: BTreeSet<(Duration, MachineId)>,
    /// `None` while the machine is being probed, or waits for others of its provider.
    next: HashMap<MachineId, Option<Duration>>,
    jitter: SplitMix64,
    /// Probes in progress, by provider, and due machines that wait for one to end.
    running: BTreeMap<String, usize>,
    backlog: BTreeMap<String, VecDeque<MachineId>>,
}

struct Probes {
    ports: Arc<Ports>,
    scheduler: Scheduler,
    policies: BTreeMap<String, ProbePolicy>,
    turns: Mutex<Turns>,
    /// Notified when something is due earlier than anything before.
    sooner: Notify,
}

/// Keeps the list up to date from the feed of commits, never by scanning again.
struct ProbeFeed(Arc<Probes>);

impl Listener for ProbeFeed {
    fn committed(&self, committed: &Arc<Committed>) {
        for images in committed.changes.iter().filter_map(|change| change.images::<Machine>()) {
            match (&images.before, &images.after) {
                (_, Some(machine)) => self.0.update(machine),
                (Some(gone), None) => self.0.remove(&mut self.0.lock(), &gone.id),
                (None, None) => {}
            }
        }
    }
}

/// Probes the machines of the providers that have a policy, until the engine ends.
pub(in crate::executor) fn start(
    ports: &Arc<Ports>,
    scheduler: &Scheduler,
    policies: BTreeMap<String, ProbePolicy>,
) {
    if policies.is_empty() {
        return;
    }
    let turns = Turns {
        due: BTreeSet::new(),
        next: HashMap::new(),
        jitter: SplitMix64::new(ports.random.next_u64()),
        running: BTreeMap::new(),
        backlog: BTreeMap::new(),
    };
    let probes = Arc::new(Probes {
        ports: ports.clone(),
        scheduler: scheduler.clone(),
        policies,
        turns: Mutex::new(turns),
        sooner: Notify::new(),
    });
    ports.store.listen(Arc::new(ProbeFeed(probes.clone())));
    ports.tasks.spawn(async move {
        probes.list().await;
        probes.keep_time().await;
    });
}

impl Turns {
    fn remove(&mut self, machine: &MachineId) {
        if let Some(Some(due_at)) = self.next.remove(machine) {
            self.due.remove(&(due_at, machine.clone()));
        }
    }

    /// `true` if the machine is due earlier than anything before.
    fn schedule(&mut self, machine: &MachineId, due_at: Duration) -> bool {
        let sooner = self.due.first().is_none_or(|(first, _)| due_at < *first);
        self.due.insert((due_at, machine.clone()));
        self.next.insert(machine.clone(), Some(due_at));
        sooner
    }
}

impl Probes {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn policy(&self, machine: &Machine) -> Option<&ProbePolicy> {
        let is_asked = !matches!(machine.phase, Phase::FactoryReady | Phase::Retired);
        self.policies.get(&machine.spec.provider).filter(|_| is_asked)
    }

    fn remove(&self, turns: &mut Turns, machine: &MachineId) {
        self.ports.sightings.forget(machine);
        turns.remove(machine);
    }

    /// Updates the list for a machine's present state.
    fn update(&self, machine: &Machine) {
        let mut turns = self.lock();
        let Some(policy) = self.policy(machine) else {
            return self.remove(&mut turns, &machine.id);
        };
        if turns.next.contains_key(&machine.id) {
            return;
        }
        // The first probes of a fleet are spread over one interval.
        let wait_ms = turns.jitter.next_u64() % policy.interval_ms.max(1);
        let due_at = self.ports.clock.monotonic() + Duration::from_millis(wait_ms);
        if turns.schedule(&machine.id, due_at) {
            self.sooner.notify_one();
        }
    }

    async fn list(&self) {
        let mut after = None;
        loop {
            let query = || Query { after: after.clone(), limit: PAGE, ..Query::default() };
            let page = self.scheduler.read(|| self.ports.store.machines(query())).await;
            for machine in &page.items {
                self.update(machine);
            }
            after = page.next;
            if after.is_none() {
                return;
            }
        }
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let sooner = self.sooner.notified();
            tokio::pin!(sooner);
            sooner.as_mut().enable();
            let now = self.ports.clock.monotonic();
            let due = {
                let mut turns = self.lock();
                match turns.due.first() {
                    Some((due_at, _)) if *due_at > now => Err(Some(*due_at)),
                    Some(_) | None => match turns.due.pop_first() {
                        Some((_, machine)) => Ok(machine),
                        None => Err(None),
                    },
                }
            };
            match due {
                Ok(machine) => self.clone().begin(machine).await,
                Err(None) => sooner.await,
                Err(Some(due_at)) => {
                    let nap = self.ports.clock.sleep(due_at.saturating_sub(now));
                    tokio::select! {
                        biased;
                        () = sooner => {}
                        () = nap => {}
                    }
                }
            }
        }
    }

    /// A machine is due.
    async fn begin(self: Arc<Self>, id: MachineId) {
        let machine = self.scheduler.read(|| self.ports.store.machine(&id)).await;
        let mut turns = self.lock();
        let Some((policy, machine)) =
            machine.as_ref().and_then(|machine| Some((self.policy(machine)?, machine)))
        else {
            return self.remove(&mut turns, &id);
        };
        if !turns.next.contains_key(&id) {
            return;
        }
        turns.next.insert(id.clone(), None);
        let provider = machine.spec.provider.clone();
        let running = turns.running.entry(provider.clone()).or_default();
        if *running >= policy.concurrent_max {
            turns.backlog.entry(provider).or_default().push_back(id);
            return;
        }
        *running += 1;
        drop(turns);
        let (probes, policy) = (self.clone(), *policy);
        let first = machine.clone();
        self.ports.tasks.spawn(async move {
            probes.probe(&first, policy).await;
            let mut ended = id;
            while let Some(id) = probes.ended(&ended, &provider, policy) {
                // It has waited: it may have changed by now.
                let machine = probes.scheduler.read(|| probes.ports.store.machine(&id)).await;
                if let Some(machine) = machine.filter(|one| probes.policy(one).is_some()) {
                    probes.probe(&machine, policy).await;
                }
                ended = id;
            }
        });
    }

    /// A probe has ended: the machine's next one is scheduled, and the provider's next due machine is probed.
    fn ended(&self, id: &MachineId, provider: &str, policy: ProbePolicy) -> Option<MachineId> {
        let mut turns = self.lock();
        if turns.next.get(id) == Some(&None) {
            let spread_ms = policy.interval_ms / 5;
            let jitter_ms = turns.jitter.next_u64() % (spread_ms + 1);
            let pause_ms = policy.interval_ms - spread_ms / 2 + jitter_ms;
            let due_at = self.ports.clock.monotonic() + Duration::from_millis(pause_ms);
            if turns.schedule(id, due_at) {
                self.sooner.notify_one();
            }
        }
        let next = turns.backlog.get_mut(provider).and_then(VecDeque::pop_front);
        if next.is_none()
            && let Some(running) = turns.running.get_mut(provider)
        {
            *running -= 1;
        }
        next
    }

    async fn probe(&self, machine: &Machine, policy: ProbePolicy) {
        if machine.active_run.is_some() {
            return;
        }
        let Some(provider) = self.ports.provider(&machine.spec.provider) else { return };
        let target = Target::from(machine);
        let limit = Duration::from_millis(policy.timeout_ms);
        let health = answered(&self.ports, provider.probe(&target), limit).await;
        if health.reachable {
            let (store, now) = (&*self.ports.store, self.ports.clock.now());
            self.ports.sightings.note(store, &machine.id, &health.facts, now).await;
            if !self.lock().next.contains_key(&machine.id) {
                self.ports.sightings.forget(&machine.id);
            }
        }
        if !confirms(&health, machine) {
            self.scheduler.send(&machine.id, Message::Probed { health: Box::new(health) });
        }
    }
}

/// What a look at a machine says; no answer within the limit, or an error, means that it is unreachable.
pub(in crate::executor) async fn answered(
    ports: &Ports,
    look: Fut<'_, Health>,
    limit: Duration,
) -> Health {
    let too_late = ports.clock.sleep(limit);
    let unreachable = |message: String| {
        let facts = MachineFacts::default();
        Health { reachable: false, degraded: false, message, facts }
    };
    tokio::select! {
        biased;
        answer = Caught(pin!(look)) => match answer {
            Ok(Ok(health)) => health,
            Ok(Err(error)) => unreachable(error.to_string()),
            // A panic must not leak its place among the probes of the provider.
            Err(said) => unreachable(format!("the provider panicked: {said}")),
        },
        () = too_late => unreachable(format!("no answer within {} ms", limit.as_millis())),
    }
}

/// Whether a result only confirms the known state.
fn confirms(health: &Health, machine: &Machine) -> bool {
    let known = |kind| machine.conditions.get(kind).map(|condition| condition.status);
    let hardware = machine.conditions.get(ConditionKind::HardwareMatches);
    let verdict = identity::judge(&machine.spec, &health.facts, hardware);
    known(ConditionKind::Reachable) == Some(health.reachable)
        && known(ConditionKind::Degraded).unwrap_or(false) == health.degraded
        && !identity::is_news(&verdict, hardware)
}
