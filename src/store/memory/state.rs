//! The data of the store in memory, and the primitives that keep its indexes consistent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::model::{
    AuditHead, AuditRow, Cursor, Entry, Images, Installation, Lock, LogChunk, Machine, Observed,
    Run, RunDelta,
};
use crate::store::check::{MachineHead, RunHead, View};
use crate::store::outcomes::Outcomes;
use crate::store::taken::Slots;
use crate::store::{RequestRecord, StoreError};

/// Key of a change: revision of its commit, and index within the commit.
pub(super) type Place = (Revision, u32);

/// One stored change.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) at: Timestamp,
    pub(super) machine_id: MachineId,
    pub(super) entries: Arc<[Entry]>,
    /// Index of its first entry among the entries of the commit.
    pub(super) first_entry: u32,
    pub(super) image: Image,
}

/// The effect of a change on its object.
#[derive(Debug)]
pub(super) enum Image {
    /// The machine before and after it.
    Machine(Images<Machine>),
    /// What changed in a run.
    Run { ordinal: u64, id: RunId, delta: Box<RunDelta> },
}

/// A run, and when it ended.
#[derive(Debug)]
pub(super) struct RunRow {
    pub(super) run: Arc<Run>,
    pub(super) ended_at: Option<Timestamp>,
    /// Its changes, oldest first.
    pub(super) changes: Vec<Place>,
}

/// Everything, with its indexes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) revision: Revision,
    /// Time of the last commit.
    pub(super) at: Timestamp,
    pub(super) outcomes: Outcomes,
    pub(super) slots: Slots,
    /// Oldest revision from which the feed of changes is complete.
    pub(super) compacted: Revision,
    pub(super) machine_ordinal: u64,
    pub(super) run_ordinal: u64,
    pub(super) machines: BTreeMap<u64, Arc<Machine>>,
    pub(super) machine_ids: BTreeMap<MachineId, u64>,
    /// The machine that has a MAC address.
    pub(super) macs: BTreeMap<String, MachineId>,
    /// Epochs at which machines were deleted.
    pub(super) gone: BTreeMap<MachineId, Epoch>,
    pub(super) observed: BTreeMap<MachineId, Observed>,
    pub(super) installations: BTreeMap<MachineId, Installation>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    pub(super) locks: BTreeMap<String, Arc<Lock>>,
    /// How often plans have failed in a row, by digest.
    pub(super) streaks: BTreeMap<String, u32>,
    pub(super) runs: BTreeMap<u64, RunRow>,
    pub(super) run_ids: BTreeMap<RunId, u64>,
    pub(super) runs_of: BTreeMap<MachineId, BTreeSet<u64>>,
    pub(super) owners: BTreeMap<MachineId, RunId>,
    pub(super) active: BTreeSet<u64>,
    pub(super) ended: BTreeSet<(Timestamp, u64)>,
    pub(super) changes: BTreeMap<Place, Row>,
    /// Changes by machine, those of its runs included.
    pub(super) changes_of: BTreeMap<MachineId, BTreeSet<Place>>,
    /// Changes of machines, without those of runs.
    pub(super) machine_changes: BTreeSet<Place>,
    pub(super) logs: BTreeMap<RunId, Vec<Arc<LogChunk>>>,
    pub(super) requests: BTreeMap<String, BTreeMap<String, RequestRecord>>,
    pub(super) requests_by_age: BTreeSet<(Timestamp, String, String)>,
    pub(super) plans: BTreeMap<String, Arc<str>>,
    /// The audit, after the entry that was deleted last.
    pub(super) audit: VecDeque<AuditRow>,
    pub(super) audit_anchor: AuditHead,
    /// Number of runs by the digest of their plan.
    pub(super) plan_runs: BTreeMap<String, u64>,
}

impl State {
    /// The newest audit entry, deleted or not.
    pub(super) fn audit_head(&self) -> AuditHead {
        let newest = self.audit.back().map(|row| AuditHead { seq: row.seq, hash: row.hash });
        newest.unwrap_or(self.audit_anchor)
    }

    pub(super) fn request_record(&self, scope: &str, request_id: &str) -> Option<&RequestRecord> {
        self.requests.get(scope)?.get(request_id)
    }

    pub(super) fn add_change(&mut self, place: Place, record: Row) {
        self.changes_of.entry(record.machine_id.clone()).or_default().insert(place);
        match &record.image {
            Image::Machine(_) => {
                self.machine_changes.insert(place);
            }
            Image::Run { ordinal, .. } => {
                if let Some(row) = self.runs.get_mut(ordinal) {
                    row.changes.push(place);
                }
            }
        }
        self.changes.insert(place, record);
    }

    pub(super) fn remove_change(&mut self, place: Place) {
        let Some(record) = self.changes.remove(&place) else { return };
        self.machine_changes.remove(&place);
        let machine_id = &record.machine_id;
        if let Some(places) = self.changes_of.get_mut(machine_id) {
            places.remove(&place);
            if places.is_empty() {
                self.changes_of.remove(machine_id);
            }
        }
    }

    /// Stores a run under its ordinal, and updates every index.
    pub(super) fn put_run(&mut self, run: Arc<Run>, ended_at: Option<Timestamp>) {
        let ordinal = run.ordinal;
        let changes = match self.runs.remove(&ordinal) {
            Some(before) => {
                self.unindex_run(ordinal, &before);
                before.changes
            }
            None => Vec::new(),
        };
        self.run_ids.insert(run.id, ordinal);
        self.runs_of.entry(run.machine_id.clone()).or_default().insert(ordinal);
        *self.plan_runs.entry(run.spec.plan_digest.clone()).or_default() += 1;
        if let Some(ended_at) = ended_at {
            self.ended.insert((ended_at, ordinal));
        } else {
            self.active.insert(ordinal);
            self.owners.insert(run.machine_id.clone(), run.id);
        }
        self.runs.insert(ordinal, RunRow { run, ended_at, changes });
    }

    /// Deletes a run with its changes and logs, and its plan if no other run has it. Returns the number of changes.
    pub(super) fn remove_run(&mut self, ordinal: u64) -> u64 {
        let Some(row) = self.runs.remove(&ordinal) else { return 0 };
        self.unindex_run(ordinal, &row);
        self.run_ids.remove(&row.run.id);
        self.logs.remove(&row.run.id);
        if self.plan_runs.get(&row.run.spec.plan_digest).is_none_or(|runs| *runs == 0) {
            self.plan_runs.remove(&row.run.spec.plan_digest);
            self.plans.remove(&row.run.spec.plan_digest);
        }
        for place in &row.changes {
            self.remove_change(*place);
        }
        row.changes.len() as u64
    }

    fn unindex_run(&mut self, ordinal: u64, row: &RunRow) {
        let run = &row.run;
        if let Some(ordinals) = self.runs_of.get_mut(&run.machine_id) {
            ordinals.remove(&ordinal);
            if ordinals.is_empty() {
                self.runs_of.remove(&run.machine_id);
            }
        }
        if let Some(runs) = self.plan_runs.get_mut(&run.spec.plan_digest) {
            *runs = runs.saturating_sub(1);
        }
        match row.ended_at {
            Some(ended_at) => {
                self.ended.remove(&(ended_at, ordinal));
            }
            None => {
                self.active.remove(&ordinal);
                // In one batch the next owner may have been stored before this one was freed.
                if self.owners.get(&run.machine_id) == Some(&run.id) {
                    self.owners.remove(&run.machine_id);
                }
            }
        }
    }
}

impl View for State {
    fn request(&self, scope: &str, request_id: &str) -> Result<Option<RequestRecord>, StoreError> {
        Ok(self.request_record(scope, request_id).cloned())
    }

    fn machine(&self, id: &MachineId) -> Result<Option<MachineHead>, StoreError> {
        Ok(self.machine(id).map(|machine| MachineHead {
            ordinal: machine.ordinal,
            revision: machine.revision,
            epoch: machine.epoch,
        }))
    }

    fn gone(&self, id: &MachineId) -> Result<Option<Epoch>, StoreError> {
        Ok(self.gone.get(id).copied())
    }

    fn mac_owner(&self, mac: &str) -> Result<Option<MachineId>, StoreError> {
        Ok(self.macs.get(mac).cloned())
    }

    fn run(&self, id: RunId) -> Result<Option<RunHead>, StoreError> {
        Ok(self.run(id).map(|run| RunHead {
            ordinal: run.ordinal,
            revision: run.revision,
            active: run.state.is_active(),
        }))
    }

    fn active_run(&self, machine: &MachineId) -> Result<Option<RunId>, StoreError> {
        Ok(self.owners.get(machine).copied())
    }

    fn log_chunks(&self, run: RunId) -> Result<Option<u64>, StoreError> {
        let chunks = self.logs.get(&run).map_or(0, |chunks| chunks.len() as u64);
        Ok(self.run_ids.contains_key(&run).then_some(chunks))
    }

    fn slots(&self) -> &Slots {
        &self.slots
    }

    fn cursor(&self, receiver: &str) -> Result<Option<Cursor>, StoreError> {
        Ok(self.cursors.get(receiver).copied())
    }
}
