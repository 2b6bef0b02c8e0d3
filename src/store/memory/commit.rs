//! Applies a batch.

use std::sync::Arc;

use super::state::{Image, Row, State};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::audit::digest;
use crate::model::{
    AuditEntry, AuditRow, Change, Entry, Images, Lock, Machine, Object, Record, Run, RunDelta,
};
use crate::store::check::{Checked, check};
use crate::store::codec::encode_audit;
use crate::store::{Batch, Committed, LockMove, StoreError};

/// Numbers the changes of one commit and their entries.
struct Numbering {
    changes: u32,
    entries: u32,
}

impl State {
    pub(super) fn commit(&mut self, batch: Batch, now: Timestamp) -> Result<Committed, StoreError> {
        let revision = Revision(self.revision.0 + 1);
        let Checked { ordinals, slots } = check(self, &batch, revision)?;
        self.revision = revision;
        self.at = self.at.max(now);
        self.outcomes.note(batch.id, revision);
        for (run, keys) in slots {
            self.slots.put(run, keys);
        }

        let mut numbering = Numbering { changes: 0, entries: 0 };
        let mut changes = Vec::with_capacity(batch.writes.len());
        for (write, ordinal) in batch.writes.into_iter().zip(ordinals) {
            let object = match write.object {
                Object::Machine(images) => Machine::object(self.write_machine(images, ordinal)),
                Object::Run(images) => Run::object(self.write_run(images, ordinal)),
            };
            let entries: Arc<[Entry]> = write.entries.into();
            self.record(&object, &entries, &mut numbering);
            let (at, before_is_gone) = (self.at, false);
            changes.push(Change { revision, at, object, before_is_gone, entries });
        }
        if let Some(plan) = batch.plan {
            self.plans.entry(plan.digest).or_insert(plan.text);
        }
        if let Some(mut request) = batch.request {
            request.revision = revision;
            let (scope, id) = (request.scope.clone(), request.request_id.clone());
            self.requests_by_age.insert((request.at, scope.clone(), id.clone()));
            self.requests.entry(scope).or_default().insert(id, request);
        }
        for (machine, observed) in batch.observed {
            if self.machine_ids.contains_key(&machine) {
                self.observed.insert(machine, observed);
            }
        }
        for (machine, installation) in batch.installations {
            if self.machine_ids.contains_key(&machine) {
                self.installations.insert(machine, installation);
            }
        }
        for step in batch.cursors {
            self.cursors.insert(step.receiver, step.after);
        }
        let locks = batch.locks.into_iter().filter_map(|step| self.lock(step)).collect();
        let logs: Vec<_> = batch.logs.into_iter().map(Arc::new).collect();
        for chunk in &logs {
            self.logs.entry(chunk.run_id).or_default().push(chunk.clone());
        }
        batch.audit.iter().for_each(|entry| self.append_audit(entry));
        Ok(Committed { revision, at: self.at, changes, logs, locks })
    }

    /// Carries a move out; returns the lock that it has set.
    fn lock(&mut self, step: LockMove) -> Option<Arc<Lock>> {
        match step {
            LockMove::Put(lock) => {
                self.locks.insert(lock.id.clone(), lock.clone());
                Some(lock)
            }
            LockMove::Forget(id) => {
                self.locks.remove(&id);
                None
            }
            LockMove::Tally { digest, failed: false, .. } => {
                self.streaks.remove(&digest);
                None
            }
            LockMove::Tally { digest, failed: true, most, pause } => {
                let failures = self.streaks.entry(digest.clone()).or_default();
                *failures = failures.saturating_add(1);
                if *failures < most {
                    return None;
                }
                self.streaks.remove(&digest);
                self.lock(LockMove::Put(pause))
            }
        }
    }

    fn append_audit(&mut self, entry: &AuditEntry) {
        let body = encode_audit(entry);
        let (revision, at) = (self.revision, self.at);
        let head = self.audit_head().then(revision, at, &digest(&body));
        let row = AuditRow { seq: head.seq, revision, at, body: body.into(), hash: head.hash };
        self.audit.push_back(row);
    }

    fn write_machine(&mut self, images: Images<Machine>, ordinal: Option<u64>) -> Images<Machine> {
        let ordinal = ordinal.unwrap_or_else(|| next(&mut self.machine_ordinal));
        let stored = self.machines.get(&ordinal);
        debug_assert_eq!(images.before.as_ref(), stored, "the machine before is the stored one");
        let images = stamped(images, ordinal, self.revision);
        for mac in images.before.iter().flat_map(|machine| &machine.spec.mac_addresses) {
            self.macs.remove(mac);
        }
        for machine in images.after.iter() {
            let macs = machine.spec.mac_addresses.iter();
            self.macs.extend(macs.map(|mac| (mac.clone(), machine.id.clone())));
        }
        match (&images.before, &images.after) {
            (_, Some(machine)) => {
                self.machine_ids.insert(machine.id.clone(), ordinal);
                self.machines.insert(ordinal, machine.clone());
            }
            (Some(machine), None) => {
                self.machines.remove(&ordinal);
                self.machine_ids.remove(&machine.id);
                self.gone.insert(machine.id.clone(), machine.epoch);
                self.observed.remove(&machine.id);
                self.installations.remove(&machine.id);
            }
            (None, None) => {}
        }
        images
    }

    fn write_run(&mut self, images: Images<Run>, ordinal: Option<u64>) -> Images<Run> {
        let ordinal = ordinal.unwrap_or_else(|| next(&mut self.run_ordinal));
        let stored = self.runs.get(&ordinal).map(|row| &row.run);
        debug_assert_eq!(images.before.as_ref(), stored, "the run before is the stored one");
        let images = stamped(images, ordinal, self.revision);
        if let Some(run) = &images.after {
            let ended_at = (!run.state.is_active()).then(|| run.finished_at.unwrap_or(self.at));
            self.put_run(run.clone(), ended_at);
        }
        images
    }

    /// Adds the change of an object to the history.
    fn record(&mut self, object: &Object, entries: &Arc<[Entry]>, numbering: &mut Numbering) {
        let place = (self.revision, numbering.changes);
        let (machine_id, image) = match object {
            Object::Machine(images) => {
                let Some(machine) = images.last() else { return };
                (machine.id.clone(), Image::Machine(images.clone()))
            }
            Object::Run(images) => {
                let Some(run) = &images.after else { return };
                let delta = Box::new(RunDelta::between(images.before.as_deref(), run));
                (run.machine_id.clone(), Image::Run { ordinal: run.ordinal, id: run.id, delta })
            }
        };
        let first_entry = numbering.entries;
        numbering.changes += 1;
        numbering.entries += u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let row = Row { at: self.at, machine_id, entries: entries.clone(), first_entry, image };
        self.add_change(place, row);
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
