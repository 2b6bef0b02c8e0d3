//! The stored state that batches are checked against.
//!
//! Only the writer writes, so what it wrote last is what is stored: the rows of active runs and their machines are
//! cached as long as the run is active. What else a group of batches needs is looked up before it is checked, in one
//! round trip, and follows the batches of the group as they are accepted.

use std::collections::{HashMap, HashSet};

use super::error::unavailable;
use crate::ids::{Epoch, MachineId, RunId};
use crate::model::{Cursor, Images, Machine, Object, Run};
use crate::store::check::{MachineHead, RunHead, View};
use crate::store::taken::Slots;
use crate::store::{Batch, LockMove, RequestRecord, SlotMove, StoreError};

/// A run that is active.
#[derive(Debug, Clone, Copy)]
struct Active {
    head: RunHead,
    /// Number of stored log chunks, if it has been looked up.
    chunks: Option<u64>,
}

/// What was looked up for a group.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) machines: HashMap<MachineId, Option<MachineHead>>,
    pub(super) gone: HashMap<MachineId, Option<Epoch>>,
    pub(super) macs: HashMap<String, Option<MachineId>>,
    pub(super) runs: HashMap<RunId, Option<RunHead>>,
    /// The active runs of machines.
    pub(super) owners: HashMap<MachineId, Option<RunId>>,
    /// Numbers of chunks.
    pub(super) chunks: HashMap<RunId, Option<u64>>,
    pub(super) requests: HashMap<(String, String), Option<RequestRecord>>,
    pub(super) cursors: HashMap<String, Option<Cursor>>,
}

/// What has to be looked up.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) machines: HashSet<MachineId>,
    pub(super) macs: HashSet<String>,
    pub(super) runs: HashSet<RunId>,
    pub(super) owners: HashSet<MachineId>,
    pub(super) chunks: HashSet<RunId>,
    pub(super) requests: HashSet<(String, String)>,
    pub(super) cursors: HashSet<String>,
}

/// The cache, and what was looked up for the group in progress.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Machines whose run is active.
    machines: HashMap<MachineId, MachineHead>,
    runs: HashMap<RunId, Active>,
    pub(super) found: Found,
    pub(super) slots: Slots,
    /// How often plans have failed in a row, by digest.
    pub(super) streaks: HashMap<String, u32>,
    /// No machine is registered below this epoch.
    pub(super) epoch_floor: Epoch,
}

impl Heads {
    /// An empty cache.
    pub(super) fn new(slots: Slots, streaks: HashMap<String, u32>, epoch_floor: Epoch) -> Self {
        Self { slots, streaks, epoch_floor, ..Self::default() }
    }

    /// What the check of a batch needs and the cache does not have.
    pub(super) fn want(&self, batch: &Batch, wanted: &mut Wanted) {
        if let Some(request) = &batch.request {
            wanted.requests.insert((request.scope.clone(), request.request_id.clone()));
        }
        let held = batch.holds.iter().map(|(id, _)| id);
        let observed = batch.observed.iter().map(|(id, _)| id);
        let installed = batch.installations.iter().map(|(id, _)| id);
        let written = batch.images::<Machine>().filter_map(|images| images.last()).map(|m| &m.id);
        for id in held.chain(observed).chain(installed).chain(written) {
            if !self.machines.contains_key(id) {
                wanted.machines.insert(id.clone());
            }
        }
        for images in batch.images::<Machine>() {
            let had = images.before.as_ref().map_or(&[][..], |m| &m.spec.mac_addresses);
            let macs = images.after.iter().flat_map(|m| &m.spec.mac_addresses);
            wanted.macs.extend(macs.filter(|mac| !had.contains(mac)).cloned());
        }
        for run in batch.images::<Run>().filter_map(|images| images.after.as_ref()) {
            if !self.runs.contains_key(&run.id) {
                wanted.runs.insert(run.id);
                wanted.owners.insert(run.machine_id.clone());
            }
        }
        let moved = batch.slots.iter().map(|step| match step {
            SlotMove::Take { run, .. } | SlotMove::Give { run } => *run,
        });
        for run in moved.chain(batch.logs.iter().map(|chunk| chunk.run_id)) {
            if !self.runs.contains_key(&run) {
                wanted.runs.insert(run);
            }
        }
        for chunk in &batch.logs {
            if self.runs.get(&chunk.run_id).is_none_or(|run| run.chunks.is_none()) {
                wanted.chunks.insert(chunk.run_id);
            }
        }
        wanted.cursors.extend(batch.cursors.iter().map(|step| step.receiver.clone()));
    }

    /// Follows a change of a machine.
    pub(super) fn wrote_machine(&mut self, images: &Images<Machine>) {
        let Some(machine) = images.last() else { return };
        for mac in images.before.iter().flat_map(|machine| &machine.spec.mac_addresses) {
            self.found.macs.insert(mac.clone(), None);
        }
        for mac in images.after.iter().flat_map(|machine| &machine.spec.mac_addresses) {
            self.found.macs.insert(mac.clone(), Some(machine.id.clone()));
        }
        if images.is_deletion() {
            self.machines.remove(&machine.id);
            self.found.machines.insert(machine.id.clone(), None);
            let epoch = machine.epoch.max(self.epoch_floor);
            self.found.gone.insert(machine.id.clone(), Some(epoch));
            return;
        }
        let Machine { ordinal, revision, epoch, .. } = **machine;
        let head = MachineHead { ordinal, revision, epoch };
        if machine.active_run.is_some() {
            self.machines.insert(machine.id.clone(), head);
        } else {
            self.machines.remove(&machine.id);
            self.found.machines.insert(machine.id.clone(), Some(head));
        }
    }

    /// Follows a change of a run.
    pub(super) fn wrote_run(&mut self, run: &Run, is_new: bool) {
        let active = run.state.is_active();
        let head = RunHead { ordinal: run.ordinal, revision: run.revision, active };
        let before = self.runs.remove(&run.id);
        let chunks = if is_new { Some(0) } else { before.and_then(|run| run.chunks) };
        if active {
            self.runs.insert(run.id, Active { head, chunks });
            self.found.owners.insert(run.machine_id.clone(), Some(run.id));
            return;
        }
        self.found.runs.insert(run.id, Some(head));
        if let Some(chunks) = chunks {
            self.found.chunks.insert(run.id, Some(chunks));
        }
        if let Some(owner) = self.found.owners.get_mut(&run.machine_id)
            && *owner == Some(run.id)
        {
            *owner = None;
        }
    }

    /// A chunk with this offset was written.
    pub(super) fn wrote_log(&mut self, run: RunId, offset: u64) {
        if let Some(active) = self.runs.get_mut(&run) {
            active.chunks = Some(offset + 1);
        }
        self.found.chunks.insert(run, Some(offset + 1));
    }

    /// Counts failures in a row; returns whether the plan is to be paused, and what is counted from now on.
    pub(super) fn tally(&mut self, step: &LockMove) -> Option<(String, Option<u32>)> {
        let LockMove::Tally { digest, failed, most, .. } = step else { return None };
        let count = self.streaks.remove(digest).unwrap_or_default().saturating_add(1);
        let count = (*failed && count < *most).then_some(count);
        if let Some(count) = count {
            self.streaks.insert(digest.clone(), count);
        }
        Some((digest.clone(), count))
    }

    /// Whether a machine is stored.
    pub(super) fn has_machine(&self, id: &MachineId) -> bool {
        self.machines.contains_key(id) || matches!(self.found.machines.get(id), Some(Some(_)))
    }

    /// The ordinal of a run that is stored or was written by the group.
    pub(super) fn ordinal_of(&self, run: RunId) -> Result<u64, StoreError> {
        let head = self.run(run)?;
        head.map(|head| head.ordinal).ok_or_else(|| unavailable("a run was not looked up"))
    }

    /// Follows the writes of a batch that was accepted, except for its logs and slots.
    pub(super) fn wrote(&mut self, object: &Object) {
        match object {
            Object::Machine(images) => self.wrote_machine(images),
            Object::Run(images) => {
                if let Some(run) = &images.after {
                    self.wrote_run(run, images.before.is_none());
                }
            }
        }
    }
}

/// What was looked up; that it was not is a bug.
fn looked_up<T: Clone>(found: Option<&T>) -> Result<T, StoreError> {
    found.cloned().ok_or_else(|| unavailable("a precondition was not looked up"))
}

impl View for Heads {
    fn request(&self, scope: &str, request_id: &str) -> Result<Option<RequestRecord>, StoreError> {
        looked_up(self.found.requests.get(&(scope.to_owned(), request_id.to_owned())))
    }

    fn machine(&self, id: &MachineId) -> Result<Option<MachineHead>, StoreError> {
        match self.machines.get(id) {
            Some(head) => Ok(Some(*head)),
            None => looked_up(self.found.machines.get(id)),
        }
    }

    fn gone(&self, id: &MachineId) -> Result<Option<Epoch>, StoreError> {
        looked_up(self.found.gone.get(id))
    }

    fn mac_owner(&self, mac: &str) -> Result<Option<MachineId>, StoreError> {
        looked_up(self.found.macs.get(mac))
    }

    fn run(&self, id: RunId) -> Result<Option<RunHead>, StoreError> {
        match self.runs.get(&id) {
            Some(run) => Ok(Some(run.head)),
            None => looked_up(self.found.runs.get(&id)),
        }
    }

    fn active_run(&self, machine: &MachineId) -> Result<Option<RunId>, StoreError> {
        looked_up(self.found.owners.get(machine))
    }

    fn log_chunks(&self, run: RunId) -> Result<Option<u64>, StoreError> {
        match self.runs.get(&run).and_then(|run| run.chunks) {
            Some(chunks) => Ok(Some(chunks)),
            None => looked_up(self.found.chunks.get(&run)),
        }
    }

    fn slots(&self) -> &Slots {
        &self.slots
    }

    fn cursor(&self, receiver: &str) -> Result<Option<Cursor>, StoreError> {
        looked_up(self.found.cursors.get(receiver))
    }
}
