//! What can be watched, and what a watch needs to know of it.

use std::sync::Arc;

use super::Key;
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};
use crate::model::filter::Filter;
use crate::model::{Change, Entry, Machine, Record, Run};
use crate::store::{Fut, Page, Query, Store};

/// What can be watched: runs and machines.
pub(super) trait Watched: Sized + Send + Sync + 'static {
    type Id: Ord + Clone + Send + Sync;
    /// Whether an id can be given again after its object was deleted.
    const RETURNS: bool;

    fn id(&self) -> Self::Id;
    fn ordinal(&self) -> u64;
    fn revision(&self) -> Revision;
    fn matches(filter: &Filter, object: &Self) -> bool;
    /// Where the hub finds those who are interested in the matches.
    fn key(filter: &Filter) -> Key;
    /// Whether the fields that the filter looks at never change, so that no object leaves it.
    fn never_leaves(filter: &Filter) -> bool;
    /// The one object that the filter pins and that can end.
    fn only(filter: &Filter) -> Option<Self::Id>;
    fn has_ended(&self) -> bool;
    fn page(store: &dyn Store, query: Query) -> Fut<'_, Page<Self>>;
    fn now<'a>(store: &'a dyn Store, id: &'a Self::Id) -> Fut<'a, Option<Arc<Self>>>;
    fn at<'a>(store: &'a dyn Store, id: &'a Self::Id, at: Revision) -> Fut<'a, Option<Arc<Self>>>;
    fn of(change: Change) -> Option<Happened<Self>>;
}

/// A change of one kind of object.
pub(super) struct Happened<T> {
    pub(super) at: Timestamp,
    pub(super) object: Arc<T>,
    pub(super) entries: Arc<[Entry]>,
    pub(super) deleted: bool,
}

impl<T: Record> Happened<T> {
    fn of(change: Change) -> Option<Self> {
        let images = T::images(&change.object)?;
        let (object, deleted) = (images.last()?.clone(), images.is_deletion());
        Some(Self { at: change.at, object, entries: change.entries, deleted })
    }
}

impl Watched for Run {
    type Id = RunId;
    const RETURNS: bool = false;

    fn id(&self) -> RunId {
        self.id
    }

    fn ordinal(&self) -> u64 {
        self.ordinal
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn matches(filter: &Filter, run: &Self) -> bool {
        filter.matches_run(run)
    }

    fn key(filter: &Filter) -> Key {
        if let Some(id) = Self::only(filter) {
            return Key::Run(id);
        }
        let machine = filter.pinned("machine_id").and_then(|id| MachineId::parse(id).ok());
        machine.map_or(Key::Runs, Key::RunsOf)
    }

    fn never_leaves(filter: &Filter) -> bool {
        filter.is_empty()
    }

    fn only(filter: &Filter) -> Option<RunId> {
        filter.pinned("run_id").and_then(|id| RunId::parse(id).ok())
    }

    fn has_ended(&self) -> bool {
        !self.state.is_active()
    }

    fn page(store: &dyn Store, query: Query) -> Fut<'_, Page<Self>> {
        store.runs(query)
    }

    fn now<'a>(store: &'a dyn Store, id: &'a RunId) -> Fut<'a, Option<Arc<Self>>> {
        store.run(*id)
    }

    fn at<'a>(store: &'a dyn Store, id: &'a RunId, at: Revision) -> Fut<'a, Option<Arc<Self>>> {
        store.run_at(*id, at)
    }

    fn of(change: Change) -> Option<Happened<Self>> {
        Happened::of(change)
    }
}

impl Watched for Machine {
    type Id = MachineId;
    const RETURNS: bool = true;

    fn id(&self) -> MachineId {
        self.id.clone()
    }

    fn ordinal(&self) -> u64 {
        self.ordinal
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn matches(filter: &Filter, machine: &Self) -> bool {
        filter.matches_machine(machine)
    }

    fn key(filter: &Filter) -> Key {
        let machine = filter.pinned("machine_id").and_then(|id| MachineId::parse(id).ok());
        machine.map_or(Key::Machines, Key::Machine)
    }

    fn never_leaves(filter: &Filter) -> bool {
        filter.is_empty()
    }

    fn only(_: &Filter) -> Option<MachineId> {
        None
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn page(store: &dyn Store, query: Query) -> Fut<'_, Page<Self>> {
        store.machines(query)
    }

    fn now<'a>(store: &'a dyn Store, id: &'a MachineId) -> Fut<'a, Option<Arc<Self>>> {
        store.machine(id)
    }

    fn at<'a>(store: &'a dyn Store, id: &'a MachineId, at: Revision) -> Fut<'a, Option<Arc<Self>>> {
        store.machine_at(id, at)
    }

    fn of(change: Change) -> Option<Happened<Self>> {
        Happened::of(change)
    }
}
