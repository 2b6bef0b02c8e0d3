//! What can be watched, and what a watch needs to know about it.

use std::sync::Arc;

use crate::executor::planted::Planted;
use crate::ids::{MachineId, RunId};
use crate::model::filter::Filter;
use crate::model::{Machine, Record, Run};
use crate::store::{Fut, Page, Query, Store};

/// The subject of a watch, as far as its filter pins it. Publishing looks up the keys of a change and skips all other
/// watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Any record of the kind.
    Any,
    /// A machine, or the runs of one.
    Machine(MachineId),
    /// One run.
    Run(RunId),
}

/// What can be watched: runs and machines.
pub(super) trait Watched: Record {
    /// Whether an id can be reused after its record was deleted.
    const RETURNS: bool;

    fn matches(filter: &Filter, record: &Self) -> bool;
    /// Where the hub finds the watchers of what matches.
    fn key(filter: &Filter) -> Key;
    /// The keys under which watchers of a record are found.
    fn keys(&self) -> Vec<Key>;
    /// The one record that the filter pins and that can end.
    fn only(filter: &Filter) -> Option<Self::Id>;
    fn has_ended(&self) -> bool;
    fn page(store: &dyn Store, query: Query) -> Fut<'_, Page<Self>>;
    fn now<'a>(store: &'a dyn Store, id: &'a Self::Id) -> Fut<'a, Option<Arc<Self>>>;
}

/// The interest of a watch.
#[derive(Debug, Clone)]
pub(super) struct Interest<T: Watched> {
    pub(super) filter: Filter,
    pub(super) key: Key,
    /// The one record that the filter pins and that can end.
    pub(super) only: Option<T::Id>,
    /// Only with a planted bug: the record before a change is ignored.
    pub(super) misjudges: bool,
}

impl<T: Watched> Interest<T> {
    pub(super) fn new(filter: Filter, planted: Option<Planted>) -> Self {
        let misjudges = planted == Some(Planted::EventMisjudged);
        Self { key: T::key(&filter), only: T::only(&filter), filter, misjudges }
    }

    /// Whether a record matches.
    pub(super) fn takes(&self, record: &T) -> bool {
        self.filter.is_empty() || T::matches(&self.filter, record)
    }
}

impl Watched for Run {
    const RETURNS: bool = false;

    fn matches(filter: &Filter, run: &Self) -> bool {
        filter.matches_run(run)
    }

    fn key(filter: &Filter) -> Key {
        if let Some(id) = Self::only(filter) {
            return Key::Run(id);
        }
        let machine = filter.pinned("machine_id").and_then(|id| MachineId::parse(id).ok());
        machine.map_or(Key::Any, Key::Machine)
    }

    fn keys(&self) -> Vec<Key> {
        vec![Key::Any, Key::Machine(self.machine_id.clone()), Key::Run(self.id)]
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
}

impl Watched for Machine {
    const RETURNS: bool = true;

    fn matches(filter: &Filter, machine: &Self) -> bool {
        filter.matches_machine(machine)
    }

    fn key(filter: &Filter) -> Key {
        let machine = filter.pinned("machine_id").and_then(|id| MachineId::parse(id).ok());
        machine.map_or(Key::Any, Key::Machine)
    }

    fn keys(&self) -> Vec<Key> {
        vec![Key::Any, Key::Machine(self.id.clone())]
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
}
