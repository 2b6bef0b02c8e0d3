//! The rows that a group of batches leaves behind.
//!
//! A row that several batches of a group write is written once, as the last of them leaves it; what happened is in the
//! changes, of which there is one for each write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::encoded::{Encoded, EncodedWrite};
use super::error::{ms, place};
use super::heads::Heads;
use super::load::{Counters, LOCK, STREAK};
use crate::clock::Timestamp;
use crate::ids::{BatchId, Epoch, MachineId, Revision, RunId};
use crate::model::{
    AuditHead, Change, Cursor, Images, Lock, LogChunk, Machine, Object, Record, Run,
};
use crate::store::check::{Checked, check};
use crate::store::codec::{encode_lock, encode_machine};
use crate::store::{Batch, Committed, LockMove, RequestRecord, SlotKey, StoreError};

/// What is written of a machine.
#[derive(Debug)]
pub(super) struct MachineRow {
    /// As the group leaves it; as it was, if it is deleted.
    pub(super) machine: Arc<Machine>,
    pub(super) body: String,
    pub(super) is_new: bool,
    pub(super) is_deleted: bool,
    /// As it was before the group.
    pub(super) before: Option<Arc<Machine>>,
}

/// What is written of a run.
#[derive(Debug)]
pub(super) struct RunRow {
    pub(super) run: Arc<Run>,
    pub(super) body: String,
    pub(super) is_new: bool,
    pub(super) ended_at: Option<i64>,
}

/// One change.
#[derive(Debug)]
pub(super) struct ChangeRow {
    pub(super) place: i64,
    pub(super) machine_id: MachineId,
    /// Ordinal of the machine that changed.
    pub(super) machine: Option<u64>,
    /// Ordinal of the run that changed.
    pub(super) run: Option<u64>,
    pub(super) before: Revision,
    pub(super) kind: &'static str,
    pub(super) first_entry: u32,
    pub(super) entries: String,
    pub(super) body: String,
    /// The machine before the change, if no change that is kept has it.
    pub(super) prior: Option<String>,
}

/// One entry of the audit.
#[derive(Debug)]
pub(super) struct AuditRow {
    pub(super) head: AuditHead,
    pub(super) revision: Revision,
    pub(super) body: String,
}

/// A group of batches.
#[derive(Debug)]
pub(super) struct Group {
    /// The counters before it.
    pub(super) before: Counters,
    /// The counters after it.
    pub(super) counters: Counters,
    pub(super) machines: BTreeMap<u64, MachineRow>,
    /// Ordinals of machines that get or lose a MAC address; whether they get it.
    pub(super) macs: BTreeMap<String, (u64, bool)>,
    pub(super) gone: BTreeMap<MachineId, Epoch>,
    pub(super) observed: BTreeMap<MachineId, Option<String>>,
    pub(super) installations: BTreeMap<MachineId, Option<String>>,
    pub(super) runs: BTreeMap<u64, RunRow>,
    pub(super) slots: BTreeMap<RunId, Vec<SlotKey>>,
    pub(super) changes: Vec<ChangeRow>,
    pub(super) logs: Vec<(u64, Arc<LogChunk>)>,
    pub(super) requests: Vec<RequestRecord>,
    pub(super) plans: BTreeMap<String, Arc<str>>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    pub(super) brakes: BTreeMap<String, Option<String>>,
    pub(super) audit: Vec<AuditRow>,
    /// Batches with an id.
    pub(super) named: Vec<(BatchId, Revision)>,
}

/// Numbers the changes of one commit and their entries.
#[derive(Debug, Default)]
struct Numbering {
    changes: u32,
    entries: u32,
}

impl Group {
    /// A group whose commits have the time `at`.
    pub(super) fn new(before: Counters, at: Timestamp) -> Self {
        Self {
            before,
            // Whatever the clock says, no commit is older than the one before it.
            counters: Counters { at: at.max(before.at), ..before },
            machines: BTreeMap::new(),
            macs: BTreeMap::new(),
            gone: BTreeMap::new(),
            observed: BTreeMap::new(),
            installations: BTreeMap::new(),
            runs: BTreeMap::new(),
            slots: BTreeMap::new(),
            changes: Vec::new(),
            logs: Vec::new(),
            requests: Vec::new(),
            plans: BTreeMap::new(),
            cursors: BTreeMap::new(),
            brakes: BTreeMap::new(),
            audit: Vec::new(),
            named: Vec::new(),
        }
    }

    /// Checks a batch and adds it. If it is refused, nothing has changed.
    pub(super) fn add(
        &mut self,
        heads: &mut Heads,
        batch: Batch,
        encoded: Encoded,
    ) -> Result<Committed, StoreError> {
        let revision = Revision(self.counters.revision.0 + 1);
        let Checked { ordinals, slots } = check(heads, &batch, revision)?;
        // Everything that can fail has been done once this is known.
        let new_runs: Vec<RunId> = batch
            .images::<Run>()
            .filter(|images| images.before.is_none())
            .filter_map(|images| images.last().map(|run| run.id))
            .collect();
        let mut logged = Vec::with_capacity(batch.logs.len());
        for chunk in &batch.logs {
            let known = if new_runs.contains(&chunk.run_id) {
                None
            } else {
                Some(heads.ordinal_of(chunk.run_id)?)
            };
            logged.push(known);
        }
        self.counters.revision = revision;
        if batch.id != BatchId::default() {
            self.named.push((batch.id, revision));
        }
        let at = self.counters.at;
        let mut numbering = Numbering::default();
        let mut changes = Vec::with_capacity(batch.writes.len());
        let Encoded { writes, audit, observed, installations } = encoded;
        for ((write, ordinal), encoded) in batch.writes.into_iter().zip(ordinals).zip(writes) {
            let object = match write.object {
                Object::Machine(images) => {
                    let counter = &mut self.counters.machine_ordinal;
                    let ordinal = ordinal.unwrap_or_else(|| next(counter));
                    let images = stamped(images, ordinal, revision);
                    self.machine(&images, encoded, &numbering);
                    Machine::object(images)
                }
                Object::Run(images) => {
                    let counter = &mut self.counters.run_ordinal;
                    let ordinal = ordinal.unwrap_or_else(|| next(counter));
                    let images = stamped(images, ordinal, revision);
                    self.run(&images, encoded, &numbering);
                    Run::object(images)
                }
            };
            heads.wrote(&object);
            numbering.changes += 1;
            numbering.entries += u32::try_from(write.entries.len()).unwrap_or(u32::MAX);
            let (entries, before_is_gone) = (write.entries.into(), false);
            changes.push(Change { revision, at, object, before_is_gone, entries });
        }
        if let Some(plan) = batch.plan {
            self.plans.entry(plan.digest).or_insert(plan.text);
        }
        if let Some(mut request) = batch.request {
            request.revision = revision;
            let key = (request.scope.clone(), request.request_id.clone());
            heads.found.requests.insert(key, Some(request.clone()));
            self.requests.push(request);
        }
        for ((machine, _), body) in batch.observed.into_iter().zip(observed) {
            if heads.has_machine(&machine) {
                self.observed.insert(machine, Some(body));
            }
        }
        for ((machine, _), body) in batch.installations.into_iter().zip(installations) {
            if heads.has_machine(&machine) {
                self.installations.insert(machine, Some(body));
            }
        }
        for step in batch.cursors {
            heads.found.cursors.insert(step.receiver.clone(), Some(step.after));
            self.cursors.insert(step.receiver, step.after);
        }
        let locks = batch.locks.iter().filter_map(|step| self.lock(heads, step)).collect();
        let mut logs = Vec::with_capacity(batch.logs.len());
        for (chunk, known) in batch.logs.into_iter().zip(logged) {
            // A run of this batch has its ordinal by now.
            let ordinal = known.or_else(|| heads.ordinal_of(chunk.run_id).ok());
            heads.wrote_log(chunk.run_id, chunk.offset);
            let chunk = Arc::new(chunk);
            if let Some(ordinal) = ordinal {
                self.logs.push((ordinal, chunk.clone()));
            }
            logs.push(chunk);
        }
        for (run, keys) in slots {
            heads.slots.put(run, keys.clone());
            self.slots.insert(run, keys);
        }
        for entry in audit {
            let head = self.counters.audit.then(revision, at, &entry.digest);
            self.counters.audit = head;
            self.audit.push(AuditRow { head, revision, body: entry.body });
        }
        Ok(Committed { revision, at, changes, logs, locks })
    }

    fn machine(&mut self, images: &Images<Machine>, encoded: EncodedWrite, number: &Numbering) {
        let Some(machine) = images.last() else { return };
        let is_deleted = images.is_deletion();
        let before = images.before.as_ref();
        let prior = before
            .filter(|before| !is_deleted && before.revision <= self.counters.compacted)
            .map(|before| encode_machine(before));
        self.change(
            number,
            ChangeRow {
                place: 0,
                machine_id: machine.id.clone(),
                machine: Some(machine.ordinal),
                run: None,
                before: before.map_or(Revision(0), |before| before.revision),
                kind: if is_deleted { "deleted" } else { "machine" },
                first_entry: 0,
                entries: encoded.entries,
                body: encoded.body.clone(),
                prior,
            },
        );
        let macs = |machine: Option<&Arc<Machine>>| {
            machine.map_or_else(Vec::new, |machine| machine.spec.mac_addresses.clone())
        };
        let (had, has) = (macs(before), macs(images.after.as_ref()));
        // Nearly every commit leaves them unchanged.
        if had != has {
            self.macs.extend(had.into_iter().map(|mac| (mac, (machine.ordinal, false))));
            self.macs.extend(has.into_iter().map(|mac| (mac, (machine.ordinal, true))));
        }
        if is_deleted {
            self.gone.insert(machine.id.clone(), machine.epoch);
            self.observed.insert(machine.id.clone(), None);
            self.installations.insert(machine.id.clone(), None);
        }
        let row = self.machines.entry(machine.ordinal).or_insert_with(|| MachineRow {
            machine: machine.clone(),
            body: String::new(),
            is_new: before.is_none(),
            is_deleted,
            before: before.cloned(),
        });
        row.machine = machine.clone();
        row.body = encoded.body;
        row.is_deleted = is_deleted;
    }

    fn run(&mut self, images: &Images<Run>, encoded: EncodedWrite, number: &Numbering) {
        let Some(run) = &images.after else { return };
        let before = images.before.as_ref();
        self.change(
            number,
            ChangeRow {
                place: 0,
                machine_id: run.machine_id.clone(),
                machine: None,
                run: Some(run.ordinal),
                before: before.map_or(Revision(0), |before| before.revision),
                kind: "run",
                first_entry: 0,
                entries: encoded.entries,
                body: encoded.delta,
                prior: None,
            },
        );
        let at = self.counters.at;
        let ended_at = (!run.state.is_active()).then(|| ms(run.finished_at.unwrap_or(at)));
        let is_new = before.is_none();
        let row = self.runs.entry(run.ordinal).or_insert_with(|| RunRow {
            run: run.clone(),
            body: String::new(),
            is_new,
            ended_at,
        });
        row.run = run.clone();
        row.body = encoded.body;
        row.ended_at = ended_at;
    }

    fn change(&mut self, number: &Numbering, row: ChangeRow) {
        let place = place(self.counters.revision, number.changes);
        self.changes.push(ChangeRow { place, first_entry: number.entries, ..row });
    }

    /// Carries a move out; returns the lock that it has set.
    fn lock(&mut self, heads: &mut Heads, step: &LockMove) -> Option<Arc<Lock>> {
        match step {
            LockMove::Put(lock) => {
                self.brakes.insert(format!("{LOCK}{}", lock.id), Some(encode_lock(lock)));
                Some(lock.clone())
            }
            LockMove::Forget(id) => {
                self.brakes.insert(format!("{LOCK}{id}"), None);
                None
            }
            LockMove::Tally { failed, pause, .. } => {
                let (digest, count) = heads.tally(step)?;
                let body = count.map(|count| count.to_string());
                let is_paused = *failed && body.is_none();
                self.brakes.insert(format!("{STREAK}{digest}"), body);
                if is_paused { self.lock(heads, &LockMove::Put(pause.clone())) } else { None }
            }
        }
    }
}

/// The images as stored.
fn stamped<T: Record>(mut images: Images<T>, ordinal: u64, revision: Revision) -> Images<T> {
    if let Some(after) = &mut images.after {
        Arc::make_mut(after).stamp(ordinal, revision);
    }
    images
}

/// The next ordinal; none is assigned twice, even after a deletion.
fn next(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter
}
