//! Condition reconciler: asks providers how their machines are, and lets Reachable and Degraded follow.
//!
//! A machine is asked once an interval, with jitter so that a fleet is not asked at once, and never twice at the same
//! time; how many are asked at once is bounded for each provider, so that a dead machine, or a dead provider, delays
//! no other. FACTORY_READY and RETIRED machines are never asked (design section 3), and neither is a machine with an
//! active run: its steps know better.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::dispatch::Scheduler;
use crate::clock::Random;
use crate::executor::ports::Ports;
use crate::executor::worker::Message;
use crate::ids::MachineId;
use crate::lifecycle::machine::Phase;
use crate::model::{Change, Machine};
use crate::provider::{Health, Provider, Target};
use crate::store::{Committed, Listener, Query, StoreError};

/// How probes of one provider are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbePolicy {
    /// Time between two probes of one machine, in milliseconds; each is off by up to a tenth.
    pub interval_ms: u64,
    /// Longest time a probe may take, in milliseconds; then the machine counts as unreachable.
    pub timeout_ms: u64,
    /// Most probes of the provider's machines at the same time.
    pub concurrent_max: usize,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self { interval_ms: 60_000, timeout_ms: 10_000, concurrent_max: 64 }
    }
}

/// Who is to be probed: kept up to date by the feed of commits, never by scanning again.
#[derive(Debug, Default)]
struct Roster(Mutex<BTreeMap<MachineId, Arc<Machine>>>);

impl Roster {
    fn update(&self, machine: &Arc<Machine>, policies: &BTreeMap<String, ProbePolicy>) {
        let mut machines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let probed = policies.contains_key(&machine.spec.provider)
            && !matches!(machine.phase, Phase::FactoryReady | Phase::Retired);
        if probed {
            machines.insert(machine.id.clone(), machine.clone());
        } else {
            machines.remove(&machine.id);
        }
    }

    fn get(&self, id: &MachineId) -> Option<Arc<Machine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn ids(&self) -> BTreeSet<MachineId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

struct RosterFeed {
    roster: Arc<Roster>,
    policies: BTreeMap<String, ProbePolicy>,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Listener for RosterFeed {
    fn committed(&self, committed: &Arc<Committed>) {
        let mut touched = false;
        for images in committed.changes.iter().filter_map(Change::images::<Machine>) {
            touched = true;
            match (&images.before, &images.after) {
                (_, Some(machine)) => self.roster.update(machine, &self.policies),
                (Some(machine), None) => {
                    let mut gone = Machine::clone(machine);
                    gone.phase = Phase::Retired;
                    self.roster.update(&Arc::new(gone), &self.policies);
                }
                (None, None) => {}
            }
        }
        if touched {
            self.changed.send_replace(committed.revision.0);
        }
    }
}

/// Starts probing the machines of the providers that have a policy. Ends with the engine.
///
/// # Errors
/// [`StoreError`] if the machines cannot be listed.
pub(in crate::executor) async fn start(
    ports: &Arc<Ports>,
    scheduler: &Scheduler,
    policies: BTreeMap<String, ProbePolicy>,
) -> Result<(), StoreError> {
    if policies.is_empty() {
        return Ok(());
    }
    let roster = Arc::new(Roster::default());
    let (changed, mut changes) = tokio::sync::watch::channel(0);
    let feed = RosterFeed { roster: roster.clone(), policies: policies.clone(), changed };
    ports.store.listen(Arc::new(feed));
    let mut after = None;
    loop {
        let page = ports.store.machines(Query { after, limit: 500, ..Query::default() }).await?;
        for machine in &page.items {
            roster.update(machine, &policies);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let permits: BTreeMap<String, Arc<Semaphore>> = policies
        .iter()
        .map(|(name, policy)| (name.clone(), Arc::new(Semaphore::new(policy.concurrent_max))))
        .collect();
    let (ports, scheduler) = (ports.clone(), scheduler.clone());
    ports.tasks.clone().spawn(async move {
        let probed: Arc<Mutex<BTreeSet<MachineId>>> = Arc::default();
        loop {
            let missing: Vec<_> = {
                let running = probed.lock().unwrap_or_else(PoisonError::into_inner);
                roster.ids().into_iter().filter(|id| !running.contains(id)).collect()
            };
            for id in missing {
                let Some(machine) = roster.get(&id) else { continue };
                let Some((policy, permit)) = policies
                    .get(&machine.spec.provider)
                    .zip(permits.get(&machine.spec.provider).cloned())
                else {
                    continue;
                };
                let Some(provider) = ports.providers.get(&machine.spec.provider).cloned() else {
                    continue;
                };
                probed.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
                let task = Probe {
                    ports: ports.clone(),
                    scheduler: scheduler.clone(),
                    roster: roster.clone(),
                    id: id.clone(),
                    policy: *policy,
                    permit,
                    provider,
                };
                let done = probed.clone();
                ports.tasks.spawn(async move {
                    task.run().await;
                    done.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                });
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Probes one machine for as long as it is on the roster.
struct Probe {
    ports: Arc<Ports>,
    scheduler: Scheduler,
    roster: Arc<Roster>,
    id: MachineId,
    policy: ProbePolicy,
    permit: Arc<Semaphore>,
    provider: Arc<dyn Provider>,
}

impl Probe {
    async fn run(self) {
        // Spread the first probes of a fleet over one interval.
        let first = self.ports.random.next_u64() % self.policy.interval_ms.max(1);
        self.ports.clock.sleep(Duration::from_millis(first)).await;
        loop {
            let Some(machine) = self.roster.get(&self.id) else { return };
            if machine.active_run.is_none() {
                let Ok(_permit) = self.permit.acquire().await else { return };
                let health = self.ask(&machine).await;
                self.scheduler.send(&self.id, Message::Probed { health });
            }
            self.ports.clock.sleep(self.pause(&*self.ports.random)).await;
        }
    }

    async fn ask(&self, machine: &Machine) -> Health {
        let target = Target::from(machine);
        let too_late = self.ports.clock.sleep(Duration::from_millis(self.policy.timeout_ms));
        let unreachable = |message: String| Health { reachable: false, degraded: false, message };
        tokio::select! {
            biased;
            answer = self.provider.probe(&target) => {
                answer.unwrap_or_else(|error| unreachable(error.to_string()))
            }
            () = too_late => {
                unreachable(format!("no answer within {} ms", self.policy.timeout_ms))
            }
        }
    }

    fn pause(&self, random: &dyn Random) -> Duration {
        let spread = self.policy.interval_ms / 5;
        let jitter = random.next_u64() % (spread + 1);
        Duration::from_millis(self.policy.interval_ms - spread / 2 + jitter)
    }
}
