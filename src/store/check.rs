//! The preconditions of a batch, checked before its first write so that a refused batch leaves no trace.

use super::{Batch, Deletion, RequestRecord, StoreError};
use crate::ids::{Epoch, MachineId, Revision, RunId};

/// What is stored of a machine, as far as preconditions go.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineHead {
    pub(super) ordinal: u64,
    pub(super) revision: Revision,
    pub(super) epoch: Epoch,
}

/// What is stored of a run, as far as preconditions go.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunHead {
    pub(super) ordinal: u64,
    pub(super) revision: Revision,
    pub(super) active: bool,
}

/// The stored state that a batch meets.
pub(super) trait View {
    fn request(&self, scope: &str, request_id: &str) -> Result<Option<RequestRecord>, StoreError>;
    fn machine(&self, id: &MachineId) -> Result<Option<MachineHead>, StoreError>;
    /// Epoch at which the last machine of this name was deleted.
    fn gone(&self, id: &MachineId) -> Result<Option<Epoch>, StoreError>;
    fn run(&self, id: RunId) -> Result<Option<RunHead>, StoreError>;
    fn active_run(&self, machine: &MachineId) -> Result<Option<RunId>, StoreError>;
    /// Number of log chunks stored of a run: the next offset. `None` if the run is not stored.
    fn log_chunks(&self, run: RunId) -> Result<Option<u64>, StoreError>;
}

/// What a batch that may be written replaces; in the order of the batch.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub(super) machines: Vec<Option<MachineHead>>,
    pub(super) deleted: Vec<MachineHead>,
    pub(super) runs: Vec<Option<RunHead>>,
}

/// Checks every precondition of `batch`, whose revision would be `next`.
pub(super) fn check(view: &dyn View, batch: &Batch, next: Revision) -> Result<Heads, StoreError> {
    if let Some(request) = &batch.request
        && let Some(used) = view.request(&request.scope, &request.request_id)?
    {
        return Err(StoreError::RequestUsed(Box::new(used)));
    }
    if let Some((machine_id, held)) = &batch.holds {
        // A machine that is gone has no epoch in force, and whoever held one owns nothing any more.
        let current = view.machine(machine_id)?.map(|head| head.epoch);
        if current != Some(*held) {
            return Err(StoreError::Fenced {
                machine_id: machine_id.clone(),
                held: *held,
                current: current.unwrap_or_default(),
            });
        }
    }
    let mut heads = Heads::default();
    check_machines(view, batch, next, &mut heads)?;
    check_runs(view, batch, next, &mut heads)?;
    check_logs(view, batch, next)?;
    Ok(heads)
}

fn check_machines(
    view: &dyn View,
    batch: &Batch,
    next: Revision,
    heads: &mut Heads,
) -> Result<(), StoreError> {
    let mut named: Vec<&MachineId> = Vec::new();
    let mut head = |id, expected| {
        let stored = view.machine(id)?;
        let revision = if named_before(&mut named, id) {
            next
        } else {
            stored.map_or(Revision(0), |head| head.revision)
        };
        if revision == expected {
            return Ok(stored);
        }
        let id = id.to_string();
        Err(StoreError::Conflict { kind: "machine", id, expected, stored: revision })
    };
    for write in &batch.machines {
        let machine = &write.machine;
        let stored = head(&machine.id, machine.revision)?;
        if stored.is_none()
            && let Some(current) = view.gone(&machine.id)?
            && machine.epoch < current
        {
            let (machine_id, held) = (machine.id.clone(), machine.epoch);
            return Err(StoreError::Fenced { machine_id, held, current });
        }
        heads.machines.push(stored);
    }
    for Deletion { id, revision: expected, .. } in &batch.deleted {
        let Some(stored) = head(id, *expected)? else {
            // Expected at revision zero: there is nothing to delete.
            return Err(StoreError::Conflict {
                kind: "machine",
                id: id.to_string(),
                expected: *expected,
                stored: Revision(0),
            });
        };
        heads.deleted.push(stored);
    }
    Ok(())
}

/// Whether `item` was named before; remembers it.
fn named_before<'a, T: Ord>(named: &mut Vec<&'a T>, item: &'a T) -> bool {
    match named.binary_search(&item) {
        Ok(_) => true,
        Err(place) => {
            named.insert(place, item);
            false
        }
    }
}

fn check_runs(
    view: &dyn View,
    batch: &Batch,
    next: Revision,
    heads: &mut Heads,
) -> Result<(), StoreError> {
    let mut named: Vec<&RunId> = Vec::new();
    // What the runs before this one in the batch do to the ownership of machines.
    let mut freed: Vec<RunId> = Vec::new();
    let mut taken: Vec<(&MachineId, RunId)> = Vec::new();
    for write in &batch.runs {
        let run = &write.run;
        let head = view.run(run.id)?;
        let stored = if named_before(&mut named, &run.id) {
            next
        } else {
            head.map_or(Revision(0), |head| head.revision)
        };
        if stored != run.revision {
            return Err(StoreError::Conflict {
                kind: "run",
                id: run.id.to_string(),
                expected: run.revision,
                stored,
            });
        }
        if !run.state.is_active() {
            freed.push(run.id);
        } else if !head.is_some_and(|head| head.active) {
            let owner = match taken.iter().find(|(machine, _)| **machine == run.machine_id) {
                Some((_, owner)) => Some(*owner),
                None => view.active_run(&run.machine_id)?.filter(|owner| !freed.contains(owner)),
            };
            if let Some(owner) = owner {
                return Err(StoreError::ActiveRun {
                    machine_id: run.machine_id.clone(),
                    run_id: owner,
                });
            }
            taken.push((&run.machine_id, run.id));
        }
        heads.runs.push(head);
    }
    Ok(())
}

fn check_logs(view: &dyn View, batch: &Batch, next: Revision) -> Result<(), StoreError> {
    let conflict = |kind, run: RunId, expected, stored| {
        Err(StoreError::Conflict { kind, id: run.to_string(), expected, stored })
    };
    let mut counts: Vec<(RunId, u64)> = Vec::new();
    for chunk in &batch.logs {
        let run = chunk.run_id;
        let place = match counts.iter().position(|(counted, _)| *counted == run) {
            Some(place) => place,
            None => {
                let inserted = || batch.runs.iter().any(|write| write.run.id == run).then_some(0);
                let Some(stored) = view.log_chunks(run)?.or_else(inserted) else {
                    return conflict("run", run, next, Revision(0));
                };
                counts.push((run, stored));
                counts.len() - 1
            }
        };
        let count = &mut counts[place].1;
        if chunk.offset != *count {
            return conflict("log of run", run, Revision(chunk.offset), Revision(*count));
        }
        *count += 1;
    }
    Ok(())
}
