//! Reads: by id, by page, as of a revision, and the feed of changes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::state::{Image, Place, State};
use crate::ids::{MachineId, Revision, RunId, natural_key};
use crate::model::filter::Filter;
use crate::model::{Change, HistoryRow, Images, LogChunk, Machine, Record as _, Run, RunDelta};
use crate::store::page::Filling;
use crate::store::{LogHead, Order, Page, Position, Query, StoreError, Subject};

impl State {
    pub(super) fn machine(&self, id: &MachineId) -> Option<Arc<Machine>> {
        self.machines.get(self.machine_ids.get(id)?).cloned()
    }

    pub(super) fn machine_at(&self, id: &MachineId, at: Revision) -> Option<Arc<Machine>> {
        let places = self.changes_of.get(id).into_iter();
        let descending = places.flat_map(|places| places.range(..=(at, u32::MAX)).rev());
        for place in descending {
            match &self.changes[place].image {
                Image::Machine(images) => return images.after.clone(),
                Image::Run { .. } => {}
            }
        }
        // No change of it is kept: it is known only if it has not changed since.
        self.machine(id).filter(|machine| machine.revision <= at)
    }

    pub(super) fn run(&self, id: RunId) -> Option<Arc<Run>> {
        self.runs.get(self.run_ids.get(&id)?).map(|row| row.run.clone())
    }

    pub(super) fn run_at(&self, id: RunId, at: Revision) -> Option<Run> {
        self.fold_before(*self.run_ids.get(&id)?, (Revision(at.0.saturating_add(1)), 0))
    }

    /// The run as of before `end`.
    fn fold_before(&self, ordinal: u64, end: Place) -> Option<Run> {
        let places = self.runs.get(&ordinal)?.changes.iter().take_while(|place| **place < end);
        places.fold(None, |before, place| match &self.changes[place].image {
            Image::Run { delta, .. } => RunDelta::clone(delta).apply(before),
            Image::Machine(_) => before,
        })
    }

    pub(super) fn machines(&self, query: &Query) -> Page<Machine> {
        let ordinals: Box<dyn DoubleEndedIterator<Item = u64>> =
            match query.filter.pinned("machine_id") {
                Some(id) => {
                    let machine = MachineId::parse(id).ok();
                    let found = machine.and_then(|id| self.machine_ids.get(&id).copied());
                    Box::new(found.into_iter().filter(|ordinal| contains(query, *ordinal)))
                }
                None => Box::new(self.machines.range(bounds(query)).map(|(ordinal, _)| *ordinal)),
            };
        let key = |ordinal: &u64| self.machines[ordinal].id.natural_key();
        let mut page = Filling::new(query);
        for ordinal in directed(query, ordinals, key, natural_key) {
            if page.is_full() {
                break;
            }
            let machine = &self.machines[&ordinal];
            let wanted = query.filter.matches_machine(machine);
            page.push(ordinal, &machine.id, wanted.then(|| machine.clone()));
        }
        page.finish(self.revision)
    }

    pub(super) fn runs(&self, query: &Query) -> Page<Run> {
        let mut page = Filling::new(query);
        let pinned = query.filter.pinned("machine_id");
        let ordinals: Box<dyn DoubleEndedIterator<Item = u64>> = match pinned {
            Some(machine) => {
                let machine = MachineId::parse(machine).ok();
                let runs = machine.and_then(|machine| self.runs_of.get(&machine));
                Box::new(runs.into_iter().flat_map(|runs| runs.range(bounds(query))).copied())
            }
            None if query.active_only => Box::new(self.active.range(bounds(query)).copied()),
            None => Box::new(self.runs.range(bounds(query)).map(|(ordinal, _)| *ordinal)),
        };
        let key = |ordinal: &u64| self.runs[ordinal].run.id.to_string();
        for ordinal in directed(query, ordinals, key, str::to_owned) {
            if page.is_full() {
                break;
            }
            let run = &self.runs[&ordinal].run;
            let wanted =
                (!query.active_only || run.state.is_active()) && query.filter.matches_run(run);
            page.push(ordinal, &run.id, wanted.then(|| run.clone()));
        }
        page.finish(self.revision)
    }

    pub(super) fn count_machines(&self, filter: &Filter) -> u64 {
        if filter.is_empty() {
            return self.machines.len() as u64;
        }
        self.machines.values().filter(|machine| filter.matches_machine(machine)).count() as u64
    }

    pub(super) fn count_runs(&self, filter: &Filter) -> u64 {
        if filter.is_empty() {
            return self.runs.len() as u64;
        }
        self.runs.values().filter(|row| filter.matches_run(&row.run)).count() as u64
    }

    pub(super) fn history(
        &self,
        subject: &Subject,
        after: Option<(Revision, u32)>,
        limit: usize,
    ) -> Vec<HistoryRow> {
        let from = (after.map_or(Revision(0), |(revision, _)| revision), 0);
        let places: Box<dyn Iterator<Item = &Place>> = match subject {
            Subject::Machine(id) => {
                let places = self.changes_of.get(id).into_iter();
                Box::new(places.flat_map(move |places| places.range(from..)))
            }
            Subject::Run(id) => {
                let row = self.run_ids.get(id).and_then(|ordinal| self.runs.get(ordinal));
                let places = row.map_or(&[][..], |row| &row.changes);
                Box::new(places.iter().skip_while(move |place| **place < from))
            }
        };
        let rows = places.flat_map(|place| {
            let record = &self.changes[place];
            let run_id = match &record.image {
                Image::Run { id, .. } => Some(*id),
                Image::Machine(_) => None,
            };
            (record.first_entry..).zip(record.entries.iter()).map(move |(index, entry)| {
                HistoryRow {
                    revision: place.0,
                    index,
                    at: record.at,
                    machine_id: record.machine_id.clone(),
                    run_id,
                    entry: entry.clone(),
                }
            })
        });
        rows.filter(|row| after.is_none_or(|after| (row.revision, row.index) > after))
            .take(limit)
            .collect()
    }

    pub(super) fn changes_after(
        &self,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted { oldest: self.compacted });
        }
        let mut changes: Vec<Change> = Vec::new();
        // Runs of this page after their last change in it.
        let mut folded: BTreeMap<u64, Arc<Run>> = BTreeMap::new();
        let places = (Bound::Excluded((after, u32::MAX)), Bound::Unbounded);
        for (place, record) in self.changes.range(places) {
            let revision = place.0;
            let commit_ended = changes.last().is_some_and(|last| last.revision != revision);
            if commit_ended && changes.len() >= limit {
                break;
            }
            let object = match &record.image {
                Image::Machine(images) => Machine::object(images.clone()),
                Image::Run { ordinal, id, delta, .. } => {
                    let before = match folded.remove(ordinal) {
                        Some(before) => Some(before),
                        None => self.fold_before(*ordinal, *place).map(Arc::new),
                    };
                    let run = RunDelta::clone(delta).apply(before.as_deref().cloned());
                    let run = run.map(Arc::new).ok_or_else(|| StoreError::Corrupt {
                        kind: "run",
                        id: id.to_string(),
                        message: "its changes outlived it".to_owned(),
                    })?;
                    folded.insert(*ordinal, run.clone());
                    Run::object(Images { before, after: Some(run) })
                }
            };
            let (at, entries) = (record.at, record.entries.clone());
            changes.push(Change { revision, at, object, before_is_gone: false, entries });
        }
        Ok(changes)
    }

    pub(super) fn log_head(&self, run: RunId) -> LogHead {
        let mut head = LogHead::default();
        for chunk in self.logs.get(&run).into_iter().flatten() {
            head.chunks += 1;
            *head.step_bytes.entry(chunk.step.clone()).or_default() += chunk.text.len() as u64;
        }
        head
    }

    pub(super) fn logs_from(&self, run: RunId, from: u64, limit: usize) -> Vec<Arc<LogChunk>> {
        let chunks = self.logs.get(&run).into_iter().flatten();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        chunks.skip(from).take(limit).cloned().collect()
    }
}

/// The range of ordinals of a query.
fn bounds(query: &Query) -> (Bound<u64>, Bound<u64>) {
    let after = match query.order {
        Order::Created => query.after.as_ref().and_then(Position::ordinal),
        Order::Id => None,
    };
    match (after, query.descending) {
        (None, _) => (Bound::Unbounded, Bound::Unbounded),
        (Some(after), false) => (Bound::Excluded(after), Bound::Unbounded),
        (Some(after), true) => (Bound::Unbounded, Bound::Excluded(after)),
    }
}

fn contains(query: &Query, ordinal: u64) -> bool {
    std::ops::RangeBounds::contains(&bounds(query), &ordinal)
}

/// The ordinals in the order of the query; in the order of ids, only those after its position. `key` is the sort key
/// of an object, `key_of` that of an id.
fn directed<'a>(
    query: &Query,
    ordinals: impl DoubleEndedIterator<Item = u64> + 'a,
    key: impl Fn(&u64) -> String,
    key_of: fn(&str) -> String,
) -> Box<dyn Iterator<Item = u64> + 'a> {
    match query.order {
        Order::Created if query.descending => Box::new(ordinals.rev()),
        Order::Created => Box::new(ordinals),
        Order::Id => {
            let after = match &query.after {
                Some(Position::Id(id)) => Some(key_of(id)),
                Some(Position::Ordinal(_)) | None => None,
            };
            let comes = |found: &String| {
                after
                    .as_ref()
                    .is_none_or(|after| (found < after) == query.descending && found != after)
            };
            let mut keyed: Vec<_> = ordinals.map(|ordinal| (key(&ordinal), ordinal)).collect();
            keyed.retain(|(key, _)| comes(key));
            keyed.sort_unstable();
            if query.descending {
                keyed.reverse();
            }
            Box::new(keyed.into_iter().map(|(_, ordinal)| ordinal))
        }
    }
}
