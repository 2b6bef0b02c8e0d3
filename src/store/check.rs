//! The preconditions of a batch, checked before its first write so that a refused batch leaves no trace.

use std::collections::BTreeMap;

use super::batch::{Batch, RequestRecord};
use super::error::StoreError;
use super::slots::SlotKey;
use super::taken::Slots;
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::model::{Cursor, Images, Machine, Object, Record, Run};

/// The stored state of a machine, as far as preconditions need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineHead {
    pub(super) ordinal: u64,
    pub(super) revision: Revision,
    pub(super) epoch: Epoch,
}

/// The stored state of a run, as far as preconditions need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunHead {
    pub(super) ordinal: u64,
    pub(super) revision: Revision,
    pub(super) active: bool,
}

/// The stored state that a batch is checked against.
pub(super) trait View {
    fn request(&self, scope: &str, request_id: &str) -> Result<Option<RequestRecord>, StoreError>;
    fn machine(&self, id: &MachineId) -> Result<Option<MachineHead>, StoreError>;
    /// Epoch from which a machine that is registered with this id must continue: that at which the last one was
    /// deleted, or the floor of a restored store.
    fn gone(&self, id: &MachineId) -> Result<Option<Epoch>, StoreError>;
    /// The machine that has a MAC address.
    fn mac_owner(&self, mac: &str) -> Result<Option<MachineId>, StoreError>;
    fn run(&self, id: RunId) -> Result<Option<RunHead>, StoreError>;
    fn active_run(&self, machine: &MachineId) -> Result<Option<RunId>, StoreError>;
    /// Number of log chunks stored of a run: the next offset. `None` if the run is not stored.
    fn log_chunks(&self, run: RunId) -> Result<Option<u64>, StoreError>;
    fn slots(&self) -> &Slots;
    fn cursor(&self, receiver: &str) -> Result<Option<Cursor>, StoreError>;
}

/// What is known about a batch that may be written.
#[derive(Debug)]
pub(super) struct Checked {
    /// The ordinals of the records that it replaces, in the order of its writes; `None` for a new one.
    pub(super) ordinals: Vec<Option<u64>>,
    /// What the runs whose slots it moves hold after it.
    pub(super) slots: Vec<(RunId, Vec<SlotKey>)>,
}

/// Checks every precondition of `batch`, whose revision would be `next`.
pub(super) fn check(view: &dyn View, batch: &Batch, next: Revision) -> Result<Checked, StoreError> {
    if let Some(request) = &batch.request
        && let Some(used) = view.request(&request.scope, &request.request_id)?
    {
        return Err(StoreError::RequestUsed(Box::new(used)));
    }
    for (machine_id, held) in &batch.holds {
        // A deleted machine has no epoch in force, and a writer that held one no longer owns anything.
        let current = view.machine(machine_id)?.map(|head| head.epoch);
        if current != Some(*held) {
            return Err(StoreError::Fenced {
                machine_id: machine_id.clone(),
                held: *held,
                current: current.unwrap_or_default(),
            });
        }
    }
    let mut writes = Writes {
        view,
        next,
        machines: Named::default(),
        runs: Named::default(),
        owners: Owners::default(),
        macs: BTreeMap::new(),
    };
    let ordinals = batch.writes.iter().map(|write| match &write.object {
        Object::Machine(images) => writes.machine(images),
        Object::Run(images) => writes.run(images),
    });
    let ordinals = ordinals.collect::<Result<_, _>>()?;
    let is_active = |run| Ok(view.run(run)?.is_some_and(|head| head.active));
    let slots = view.slots().check(batch, is_active)?;
    check_logs(view, batch, next)?;
    check_cursors(view, batch)?;
    Ok(Checked { ordinals, slots })
}

/// The records of one kind that a batch has named so far.
struct Named<'a, T>(Vec<&'a T>);

impl<T> Default for Named<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T: Ord> Named<'a, T> {
    /// Whether `item` was named before; remembers it.
    fn again(&mut self, item: &'a T) -> bool {
        match self.0.binary_search(&item) {
            Ok(_) => true,
            Err(place) => {
                self.0.insert(place, item);
                false
            }
        }
    }
}

/// How the runs named so far change the ownership of machines.
#[derive(Default)]
struct Owners<'a> {
    freed: Vec<RunId>,
    taken: Vec<(&'a MachineId, RunId)>,
}

struct Writes<'a> {
    view: &'a dyn View,
    next: Revision,
    machines: Named<'a, MachineId>,
    runs: Named<'a, RunId>,
    owners: Owners<'a>,
    /// MAC addresses that machines take.
    macs: BTreeMap<&'a str, &'a MachineId>,
}

/// Whether the stored revision is the one that the writer saw. A record that the batch names twice conflicts with
/// itself, at the revision that the batch would have.
fn unchanged<T: Record>(images: &Images<T>, stored: Revision) -> Result<(), StoreError> {
    let expected = images.before.as_ref().map_or(Revision(0), |before| before.revision());
    // A record that does not exist cannot be deleted, whatever was expected.
    let nothing = stored == Revision(0) && images.is_deletion();
    if stored == expected && !nothing {
        return Ok(());
    }
    let id = images.last().map_or_else(String::new, |record| record.id().to_string());
    Err(StoreError::Conflict { kind: T::KIND.as_str(), id, expected, stored })
}

impl<'a> Writes<'a> {
    fn machine(&mut self, images: &'a Images<Machine>) -> Result<Option<u64>, StoreError> {
        let Some(machine) = images.last() else { return Ok(None) };
        let head = self.view.machine(&machine.id)?;
        let again = self.machines.again(&machine.id);
        let stored = head.map_or(Revision(0), |head| head.revision);
        unchanged(images, if again { self.next } else { stored })?;
        if head.is_none()
            && let Some(current) = self.view.gone(&machine.id)?
            && machine.epoch < current
        {
            let (machine_id, held) = (machine.id.clone(), machine.epoch);
            return Err(StoreError::Fenced { machine_id, held, current });
        }
        self.take_macs(images)?;
        Ok(head.map(|head| head.ordinal))
    }

    /// A MAC address belongs to one machine. Addresses that a machine has already are not checked again: older
    /// versions accepted duplicates.
    fn take_macs(&mut self, images: &'a Images<Machine>) -> Result<(), StoreError> {
        let Some(machine) = &images.after else { return Ok(()) };
        let has = images.before.as_ref().map_or(&[][..], |before| &before.spec.mac_addresses);
        for mac in machine.spec.mac_addresses.iter().filter(|mac| !has.contains(mac)) {
            let named = self.macs.insert(mac, &machine.id).cloned();
            let owner = named.map_or_else(|| self.view.mac_owner(mac), |owner| Ok(Some(owner)))?;
            if let Some(machine_id) = owner.filter(|owner| *owner != machine.id) {
                return Err(StoreError::MacTaken { mac: mac.clone(), machine_id });
            }
        }
        Ok(())
    }

    fn run(&mut self, images: &'a Images<Run>) -> Result<Option<u64>, StoreError> {
        let Some(run) = &images.after else {
            // Runs are not deleted this way: they are trimmed.
            return unchanged(images, self.next).map(|()| None);
        };
        let head = self.view.run(run.id)?;
        let again = self.runs.again(&run.id);
        let stored = head.map_or(Revision(0), |head| head.revision);
        unchanged(images, if again { self.next } else { stored })?;
        let Owners { freed, taken } = &mut self.owners;
        if !run.state.is_active() {
            freed.push(run.id);
        } else if !head.is_some_and(|head| head.active) {
            let owner = match taken.iter().find(|(machine, _)| **machine == run.machine_id) {
                Some((_, owner)) => Some(*owner),
                None => {
                    let owner = self.view.active_run(&run.machine_id)?;
                    owner.filter(|owner| !freed.contains(owner))
                }
            };
            if let Some(owner) = owner {
                return Err(StoreError::ActiveRun {
                    machine_id: run.machine_id.clone(),
                    run_id: owner,
                });
            }
            taken.push((&run.machine_id, run.id));
        }
        Ok(head.map(|head| head.ordinal))
    }
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
                let is_inserted =
                    |images: &Images<Run>| images.last().is_some_and(|one| one.id == run);
                let inserted = || batch.images::<Run>().any(is_inserted).then_some(0);
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

fn check_cursors(view: &dyn View, batch: &Batch) -> Result<(), StoreError> {
    for step in &batch.cursors {
        let stored = view.cursor(&step.receiver)?;
        if stored != step.before {
            let next = |cursor: Option<Cursor>| cursor.map_or(Revision(0), |cursor| cursor.next);
            let (expected, stored) = (next(step.before), next(stored));
            let id = step.receiver.clone();
            return Err(StoreError::Conflict { kind: "cursor", id, expected, stored });
        }
    }
    Ok(())
}
