//! Recovery: after a start every run that was active is recovered, while the server serves already; later, a periodic
//! sweep looks for active runs without a worker.
//!
//! First all of them are listed, so that slots and the queue are restored before any new run gets a slot. Then each
//! is recovered by its worker, a bounded number at a time. A message for a machine does not wait for that: its worker
//! recovers the run first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::dispatch::{Recovery, Scheduler};
use super::queue::{Queued, in_order};
use crate::executor::planted::Planted;
use crate::executor::worker::Rest;
use crate::ids::MachineId;
use crate::lifecycle::run::State;
use crate::model::Run;
use crate::plan::Risk;
use crate::store::{Fut, Lease, Page, Position, Query, SHARDS, Shard, StoreError};

/// Most runs read at once.
const PAGE: usize = 500;

/// Most runs that are recovered at the same time.
const RECOVERING_MAX: usize = 64;

/// Time between two sweeps, in milliseconds.
const SWEEP_MS: u64 = 60_000;

/// Delay before a failed read is retried, in milliseconds.
const RETRY_MS: u64 = 250;

/// The shards of machines that this server owns.
struct Owned(Vec<Lease>);

impl Owned {
    fn holds(&self, machine: &MachineId) -> bool {
        let shard = Shard::of(machine);
        self.0.iter().any(|lease| lease.shard == shard)
    }
}

impl Scheduler {
    /// Recovers every active run, then sweeps for lost ones forever.
    pub(in crate::executor) async fn recover(self) {
        let began = self.ports().clock.monotonic();
        let owned = self.claim().await;
        let machines = self.list_active(&owned).await;
        self.recovery().send_replace(Recovery::Recovering);
        self.open_slots();
        let permits = Arc::new(Semaphore::new(RECOVERING_MAX));
        for machine in &machines {
            let permit = permits.clone().acquire_owned().await.ok();
            self.recover_now(machine, permit);
        }
        let all = u32::try_from(RECOVERING_MAX).unwrap_or(u32::MAX);
        drop(permits.acquire_many(all).await);
        self.recovery().send_replace(Recovery::Done);
        if !machines.is_empty() {
            let took = self.ports().clock.monotonic().saturating_sub(began);
            tracing::info!(runs = machines.len(), ?took, "recovered the active runs");
        }
        drop(machines);
        if self.ports().planted != Some(Planted::LostWorker) {
            self.sweep(owned).await;
        }
    }

    /// Claims the shards of machines that no other server owns.
    async fn claim(&self) -> Owned {
        let all = usize::from(SHARDS);
        Owned(self.read(|| self.ports().store.ownership().claim(all)).await)
    }

    /// Renews the shards that this server still owns, and claims those that others have released.
    async fn renew(&self, owned: Owned) -> Owned {
        let ownership = self.ports().store.ownership();
        let mut leases = self.read(|| ownership.renew(&owned.0)).await;
        if leases.len() < usize::from(SHARDS) {
            leases.extend(self.claim().await.0);
        }
        Owned(leases)
    }

    /// Resolves when every run that was active before the start has been recovered.
    pub(in crate::executor) async fn recovered(&self) {
        let mut recovery = self.recovery().subscribe();
        // The sender lives as long as the scheduler.
        drop(recovery.wait_for(|recovery| *recovery == Recovery::Done).await);
    }

    /// Reads from the store until it answers; returns the default if a record cannot be read.
    pub(super) async fn read<'a, T: Default>(&'a self, read: impl Fn() -> Fut<'a, T>) -> T {
        loop {
            match read().await {
                Ok(answer) => return answer,
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%error, "a record is left out");
                    return T::default();
                }
                Err(error) => {
                    tracing::warn!(%error, "the store could not be read; retrying");
                    self.ports().clock.sleep(Duration::from_millis(RETRY_MS)).await;
                }
            }
        }
    }

    async fn active_runs(&self, after: Option<Position>) -> Page<Run> {
        let query =
            || Query { after: after.clone(), limit: PAGE, active_only: true, ..Query::default() };
        self.read(|| self.ports().store.runs(query())).await
    }

    /// Lists the active runs: those that had a slot have it again, those that waited for one are in the queue.
    /// Returns their machines, those with work in progress first.
    async fn list_active(&self, owned: &Owned) -> Vec<MachineId> {
        let (mut working, mut idle, mut queued) = (Vec::new(), Vec::new(), Vec::new());
        let mut after = None;
        loop {
            let page = self.active_runs(after).await;
            for run in page.items.iter().filter(|run| owned.holds(&run.machine_id)) {
                let is_queued = matches!(run.state, State::Pending | State::Resuming);
                if run.state.has_slot() || is_queued {
                    let set = self.key_set(run).await;
                    if is_queued {
                        queued.push(Queued::new(run, set));
                    } else {
                        self.slots().restore(run.id, set);
                    }
                }
                if self.seats().expect(&run.machine_id) {
                    let list = if run.state.has_slot() { &mut working } else { &mut idle };
                    list.push(run.machine_id.clone());
                }
            }
            for left_out in &page.unreadable {
                tracing::error!(
                    kind = left_out.kind,
                    id = left_out.id,
                    why = left_out.message,
                    "a stored record cannot be read; its machine is blocked"
                );
                if let Some(machine) = &left_out.machine_id
                    && owned.holds(machine)
                    && self.seats().expect(machine)
                {
                    idle.push(machine.clone());
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let queued = in_order(self, queued).await;
        let mut slots = self.slots();
        for (place, queued) in queued.into_iter().enumerate() {
            queued.enter(&mut slots, place);
        }
        drop(slots);
        working.append(&mut idle);
        working
    }

    async fn key_set(&self, run: &Run) -> super::slots::KeySet {
        let limits = self.slots().limits().clone();
        let labels = if limits.count_labels() {
            let machine = self.read(|| self.ports().store.machine(&run.machine_id)).await;
            machine.map(|machine| machine.labels.clone()).unwrap_or_default()
        } else {
            Default::default()
        };
        let risk = match limits.count_risk() {
            true => self.ports().plans.pinned_risk(run).await,
            false => Risk::None,
        };
        self.slots().key_set(risk, &run.spec.provider, &labels)
    }

    /// Periodic sweep: is there an active run without a worker and without an entry? There should be none.
    async fn sweep(&self, mut owned: Owned) {
        loop {
            self.ports().clock.sleep(Duration::from_millis(SWEEP_MS)).await;
            if self.ports().tasks.is_draining() {
                return;
            }
            owned = self.renew(owned).await;
            let mut after = None;
            loop {
                let page = self.active_runs(after).await;
                for run in page.items.iter().filter(|run| owned.holds(&run.machine_id)) {
                    self.find(run).await;
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
    }

    /// Recovers a run if nothing here knows about it, and it is still active.
    async fn find(&self, run: &Run) {
        if self.seats().is_unrecovered(&run.machine_id).is_some() {
            return;
        }
        let machine = self.read(|| self.ports().store.machine(&run.machine_id)).await;
        if machine.is_none_or(|machine| machine.active_run != Some(run.id)) {
            return;
        }
        let mut seats = self.seats();
        if seats.expect(&run.machine_id) {
            tracing::warn!(run = %run.id, machine = %run.machine_id, "recovering an active run without a worker");
            self.employ(&mut seats, &run.machine_id, Rest::Unrecovered(None));
        }
    }
}
