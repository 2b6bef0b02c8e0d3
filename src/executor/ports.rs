//! What the rooms of the engine share: the ports to the outside world, the plans and the tasks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::brakes::Brakes;
use super::denied::Denied;
use super::error::{EngineError, Refusal};
use super::limits::Limits;
use super::plans::Plans;
use super::planted::Planted;
use super::request::Origin;
use super::sightings::Sightings;
use super::tasks::Tasks;
use super::waiting::lock_words;
use crate::clock::{Clock, Random, SplitMix64, Timestamp};
use crate::ids::{BatchId, MachineId, RunId};
use crate::model::{LockTarget, Machine, Run};
use crate::plan::Registry;
use crate::provider::Provider;
use crate::store::{Batch, Committed, Store, StoreError};

/// The parts of an engine. Everything that it does to the outside world goes through these ports.
pub struct EngineConfig {
    /// Durable storage of the records.
    pub store: Arc<dyn Store>,
    /// Providers, by their own names.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Plans that new runs can use.
    pub plans: Registry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids and jitter.
    pub random: Arc<dyn Random>,
    /// Limits.
    pub limits: Limits,
    /// A bug planted by a test.
    pub planted: Option<Planted>,
}

/// The ports of one engine.
pub(super) struct Ports {
    pub(super) store: Arc<dyn Store>,
    pub(super) providers: BTreeMap<String, Arc<dyn Provider>>,
    pub(super) plans: Plans,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    /// Seeded from `random`: every decision draws from it, and asking the operating system takes a system call.
    jitter: Mutex<SplitMix64>,
    /// Generator of batch ids.
    batches: Mutex<SplitMix64>,
    pub(super) limits: Limits,
    pub(super) planted: Option<Planted>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) sightings: Sightings,
    pub(super) denied: Denied,
    pub(super) brakes: Arc<Brakes>,
    /// Held while locks change.
    pub(super) lock_turn: tokio::sync::Mutex<()>,
}

impl Ports {
    pub(super) fn new(config: EngineConfig) -> Self {
        let seed = config.random.next_u64();
        Self {
            plans: Plans::new(config.plans, config.store.clone(), config.planted),
            store: config.store,
            providers: config
                .providers
                .into_iter()
                .map(|provider| (provider.name().to_owned(), provider))
                .collect(),
            denied: Denied::new(config.clock.clone()),
            clock: config.clock,
            jitter: Mutex::new(SplitMix64::new(seed)),
            // Another sequence of the same seed.
            batches: Mutex::new(SplitMix64::new(!seed)),
            random: config.random,
            limits: config.limits,
            planted: config.planted,
            tasks: Arc::default(),
            sightings: Sightings::default(),
            brakes: Arc::new(Brakes::new()),
            lock_turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<Arc<Committed>, StoreError> {
        if self.planted == Some(Planted::AuditOutsideCommit) {
            return self.commit_apart(batch).await;
        }
        self.store.commit(batch).await
    }

    /// The planted bug: what the audit says of a commit follows it.
    async fn commit_apart(&self, mut batch: Batch) -> Result<Arc<Committed>, StoreError> {
        let audit = std::mem::take(&mut batch.audit);
        let committed = self.store.commit(batch).await?;
        if !audit.is_empty() {
            drop(self.store.commit(Batch { audit, ..Batch::default() }).await);
        }
        Ok(committed)
    }

    pub(super) async fn commit_owned(
        self: Arc<Self>,
        batch: Batch,
    ) -> Result<Arc<Committed>, StoreError> {
        self.commit(batch).await
    }

    /// Refuses a request whose deadline has passed. Checked last before a commit: a request refused here changes
    /// nothing.
    pub(super) fn in_time(&self, origin: &Origin) -> Result<(), EngineError> {
        match origin.deadline {
            Some(deadline) if self.clock.monotonic() >= deadline => {
                Err(EngineError::DeadlineExceeded)
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) async fn run(&self, id: RunId) -> Result<Arc<Run>, EngineError> {
        self.store
            .run(id)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "run", id: id.to_string() })
    }

    /// The machine of a request, if its caller may touch it.
    pub(super) async fn machine_for(
        &self,
        origin: &Origin,
        id: &MachineId,
    ) -> Result<Arc<Machine>, EngineError> {
        let found = self.store.machine(id).await?;
        let not_found = || EngineError::NotFound { kind: "machine", id: id.to_string() };
        origin.admits(found.ok_or_else(not_found)?)
    }

    /// Whether a machine that has a MAC address may be named to a caller.
    pub(super) async fn may_name(&self, origin: &Origin, owner: &MachineId) -> bool {
        origin.scope.is_none() || self.machine_for(origin, owner).await.is_ok()
    }

    /// Refuses labels by which a machine would no longer be under a lock: that is to be lifted by someone who may.
    pub(super) fn keeps_locks(&self, before: &Machine, after: &Machine) -> Result<(), EngineError> {
        let Some(lock) = self.brakes.left(before, after, self.clock.now()) else { return Ok(()) };
        Err(EngineError::Refused {
            refusal: Refusal::MachineLocked,
            subject: format!("machines/{}", before.id),
            message: format!(
                "these labels would take {} out of lock {}: {}",
                before.id,
                lock.id,
                lock_words(&lock)
            ),
            hint: format!("an admin lifts it: bmdemo-cli unlock {} --reason ...", lock.id),
        })
    }

    pub(super) fn provider(&self, name: &str) -> Option<Arc<dyn Provider>> {
        self.providers.get(name).cloned()
    }

    /// 64 random bits for the jitter of a backoff.
    pub(super) fn jitter(&self) -> u64 {
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// An id for a batch, by which its outcome can be looked up.
    pub(super) fn next_batch(&self) -> BatchId {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        BatchId(batches.next_u64().max(1))
    }

    /// An id for a lock.
    pub(super) fn lock_id(&self, target: &LockTarget) -> String {
        format!("{}-{:08x}", target.kind(), self.random.next_u64() >> 32)
    }

    pub(super) fn next_run_id(&self, now: Timestamp) -> RunId {
        RunId::new(now, [self.random.next_u64(), self.random.next_u64()])
    }
}
