//! Applying a batch.

use std::sync::Arc;

use super::state::{Image, Record, State};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::{Change, Entry, Header, LogChunk, Machine, Run};
use crate::store::check::check;
use crate::store::{Batch, Committed, MachineWrite, RunWrite, StoreError};

/// What a batch did, for its writer and for the listeners.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) committed: Committed,
    pub(super) changes: Vec<Change>,
    pub(super) logs: Vec<Arc<LogChunk>>,
}

/// Numbers the changes of one commit and their entries.
struct Numbering {
    revision: Revision,
    at: Timestamp,
    changes: u32,
    entries: u32,
}

impl Numbering {
    fn record(&mut self, state: &mut State, image: Image, entries: &Arc<[Entry]>) {
        let place = (self.revision, self.changes);
        let record =
            Record { at: self.at, entries: entries.clone(), first_entry: self.entries, image };
        self.changes += 1;
        self.entries += u32::try_from(entries.len()).unwrap_or(u32::MAX);
        state.add_change(place, record);
    }
}

impl State {
    pub(super) fn commit(&mut self, batch: Batch) -> Result<Applied, StoreError> {
        let revision = Revision(self.revision.0 + 1);
        let heads = check(self, &batch, revision)?;
        self.revision = revision;

        let mut numbering = Numbering { revision, at: batch.at, changes: 0, entries: 0 };
        let committed = Committed { revision, machines: Vec::new(), runs: Vec::new() };
        let mut applied = Applied { committed, changes: Vec::new(), logs: Vec::new() };
        for (write, head) in batch.machines.into_iter().zip(heads.machines) {
            let ordinal = head.map_or_else(|| next(&mut self.machine_ordinal), |head| head.ordinal);
            self.write_machine(write, ordinal, &mut numbering, &mut applied);
        }
        for (deletion, head) in batch.deleted.into_iter().zip(heads.deleted) {
            let entries = deletion.entries.into();
            self.delete_machine(head.ordinal, entries, &mut numbering, &mut applied);
        }
        for (write, head) in batch.runs.into_iter().zip(heads.runs) {
            let ordinal = head.map_or_else(|| next(&mut self.run_ordinal), |head| head.ordinal);
            self.write_run(write, ordinal, &mut numbering, &mut applied);
        }
        if let Some(plan) = batch.plan {
            self.plans.entry(plan.digest).or_insert_with(|| plan.text.into());
        }
        if let Some(mut request) = batch.request {
            request.revision = revision;
            let (scope, id) = (request.scope.clone(), request.request_id.clone());
            self.requests_by_age.insert((request.at, scope.clone(), id.clone()));
            self.requests.entry(scope).or_default().insert(id, request);
        }
        for chunk in batch.logs {
            let chunk = Arc::new(chunk);
            self.logs.entry(chunk.run_id).or_default().push(chunk.clone());
            applied.logs.push(chunk);
        }
        Ok(applied)
    }

    fn write_machine(
        &mut self,
        write: MachineWrite,
        ordinal: u64,
        numbering: &mut Numbering,
        applied: &mut Applied,
    ) {
        let revision = numbering.revision;
        let machine = Arc::new(Machine { ordinal, revision, ..write.machine });
        let entries: Arc<[Entry]> = write.entries.into();
        self.machine_ids.insert(machine.id.clone(), ordinal);
        self.machines.insert(ordinal, machine.clone());
        numbering.record(self, Image::Machine(machine.clone()), &entries);
        let (at, change) = (numbering.at, machine.clone());
        applied.changes.push(Change::Machine { revision, at, machine: change, entries });
        applied.committed.machines.push(machine);
    }

    fn delete_machine(
        &mut self,
        ordinal: u64,
        entries: Arc<[Entry]>,
        numbering: &mut Numbering,
        applied: &mut Applied,
    ) {
        let Some(machine) = self.machines.remove(&ordinal) else { return };
        self.machine_ids.remove(&machine.id);
        self.gone.insert(machine.id.clone(), machine.epoch);
        numbering.record(self, Image::Deleted(machine.clone()), &entries);
        let (revision, at) = (numbering.revision, numbering.at);
        applied.changes.push(Change::MachineDeleted { revision, at, machine, entries });
    }

    fn write_run(
        &mut self,
        write: RunWrite,
        ordinal: u64,
        numbering: &mut Numbering,
        applied: &mut Applied,
    ) {
        let revision = numbering.revision;
        let mut delta = write.delta;
        match &mut delta.header {
            Header::Whole(run) => (run.ordinal, run.revision) = (ordinal, revision),
            Header::Progress(progress) => progress.revision = revision,
        }
        let run = Arc::new(Run { ordinal, revision, ..write.run });
        debug_assert_eq!(
            delta.clone().apply(self.runs.get(&ordinal).map(|row| (*row.run).clone())),
            Some(Run::clone(&run)),
            "the delta leads from the stored run to the written one"
        );
        let ended_at = (!run.state.is_active()).then(|| run.finished_at.unwrap_or(numbering.at));
        self.put_run(run.clone(), ended_at);
        let entries: Arc<[Entry]> = write.entries.into();
        let (id, machine_id) = (run.id, run.machine_id.clone());
        numbering.record(
            self,
            Image::Run { ordinal, id, machine_id, delta: Box::new(delta) },
            &entries,
        );
        let (at, change) = (numbering.at, run.clone());
        applied.changes.push(Change::Run { revision, at, run: change, entries });
        applied.committed.runs.push(run);
    }
}

/// The ordinal after the last one given; none is given twice, even after a deletion.
fn next(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter
}
