//! Restores the order of the runs that waited for a slot before a restart: that of the commits that made them wait.
//!
//! New runs wait since they were accepted, so in the order of their ordinals. Runs released after a hold wait since
//! the release; the history says when that was, and between which new runs it falls.

use super::dispatch::Scheduler;
use super::slots::{KeySet, Order, Slots};
use crate::executor::decide::REASON_DUE;
use crate::executor::planted::Planted;
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::run::State;
use crate::model::{ActorKind, EntryKind, Run};
use crate::store::Subject;

/// Most entries read at once.
const ENTRIES: usize = 500;

/// A run that waited.
pub(super) struct Queued {
    run: RunId,
    machine: MachineId,
    set: KeySet,
    ordinal: u64,
    /// It was released after a hold, and is not new.
    is_released: bool,
}

impl Queued {
    pub(super) fn new(run: &Run, set: KeySet) -> Self {
        Self {
            run: run.id,
            machine: run.machine_id.clone(),
            set,
            ordinal: run.ordinal,
            is_released: run.state == State::Resuming,
        }
    }

    /// Enters the queue at its position among those that waited.
    pub(super) fn enter(self, slots: &mut Slots, place: usize) {
        let order = Order::recovered(u64::try_from(place).unwrap_or(u64::MAX >> 1));
        slots.restore_queued(self.run, self.machine, self.set, order);
    }
}

/// Sorts runs by when they started to wait.
pub(super) async fn in_order(scheduler: &Scheduler, queued: Vec<Queued>) -> Vec<Queued> {
    let (released, mut new): (Vec<_>, Vec<_>) =
        queued.into_iter().partition(|queued| queued.is_released);
    new.sort_by_key(|queued| queued.ordinal);
    if scheduler.ports().planted == Some(Planted::QueueByName) {
        new.sort_by(|a, b| b.machine.cmp(&a.machine));
    }
    let mut placed = Vec::with_capacity(released.len());
    for queued in released {
        let at = released_at(scheduler, queued.run).await;
        placed.push((at, queued));
    }
    placed.sort_by_key(|(at, _)| *at);
    // From the back, so that positions that were found stay valid. Before the last of them are only new runs, which are
    // in the order in which they were accepted.
    let mut end = new.len();
    for (at, queued) in placed.into_iter().rev() {
        let (mut from, mut to) = (0, end);
        while from < to {
            let middle = from.midpoint(to);
            if accepted_at(scheduler, new[middle].run).await < at {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        new.insert(from, queued);
        end = from;
    }
    new
}

/// Revision of the commit that accepted a run.
async fn accepted_at(scheduler: &Scheduler, run: RunId) -> Revision {
    let store = &scheduler.ports().store;
    let rows = scheduler.read(|| store.history(Subject::Run(run), None, 1)).await;
    rows.first().map_or(Revision(0), |row| row.revision)
}

/// Revision of the commit that released a run after its last hold, or since when it has been due again.
async fn released_at(scheduler: &Scheduler, run: RunId) -> Revision {
    let store = &scheduler.ports().store;
    let (mut released_at, mut after) = (Revision(0), None);
    loop {
        let rows = scheduler.read(|| store.history(Subject::Run(run), after, ENTRIES)).await;
        for row in &rows {
            let releases = matches!(
                row.entry.kind,
                EntryKind::RunResumed | EntryKind::StepResolved | EntryKind::StepAnswered
            );
            let is_due = row.entry.reason == REASON_DUE;
            if releases && (is_due || row.entry.actor.kind == ActorKind::Operator) {
                released_at = row.revision;
            }
        }
        match rows.last() {
            Some(last) if rows.len() == ENTRIES => after = Some((last.revision, last.index)),
            Some(_) | None => return released_at,
        }
    }
}
