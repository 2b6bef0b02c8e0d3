//! Limits on concurrent runs, enforced by the commits that take and release slots.

use std::collections::BTreeMap;

use super::batch::Batch;
use super::error::StoreError;
use super::slots::{SlotKey, SlotMove};
use crate::ids::{Revision, RunId};
use crate::model::Run;

/// The slots that are taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    held: BTreeMap<RunId, Vec<SlotKey>>,
    used: BTreeMap<SlotKey, u64>,
}

impl Slots {
    /// How many are taken of each key.
    pub(super) fn used(&self) -> BTreeMap<SlotKey, u64> {
        self.used.clone()
    }

    /// Gives a run the keys that it is known to hold.
    pub(super) fn put(&mut self, run: RunId, keys: Vec<SlotKey>) {
        self.remove(run);
        for key in &keys {
            *self.used.entry(key.clone()).or_default() += 1;
        }
        if !keys.is_empty() {
            self.held.insert(run, keys);
        }
    }

    /// Takes from a run what it holds; returns whether it held anything.
    pub(super) fn remove(&mut self, run: RunId) -> bool {
        let Some(keys) = self.held.remove(&run) else { return false };
        for key in keys {
            if let Some(used) = self.used.get_mut(&key) {
                *used = used.saturating_sub(1);
                if *used == 0 {
                    self.used.remove(&key);
                }
            }
        }
        true
    }

    /// What the runs hold after a batch, for each whose slots it moves; `is_active` tells whether a stored run is
    /// active. Runs are served in the order of the batch, after those that end have released theirs.
    pub(super) fn check(
        &self,
        batch: &Batch,
        is_active: impl Fn(RunId) -> Result<bool, StoreError>,
    ) -> Result<Vec<(RunId, Vec<SlotKey>)>, StoreError> {
        let mut after = Moving { slots: self, held: BTreeMap::new(), change: BTreeMap::new() };
        let written = || batch.images::<Run>().filter_map(|images| images.after.as_ref());
        for run in written().filter(|run| !run.state.is_active()) {
            after.put(run.id, Vec::new());
        }
        for slot_move in &batch.slots {
            let (run, keys) = match slot_move {
                SlotMove::Give { run } => {
                    after.put(*run, Vec::new());
                    continue;
                }
                SlotMove::Take { run, keys } => (*run, keys),
            };
            let active = match written().find(|written| written.id == run) {
                Some(written) => written.state.is_active(),
                None => is_active(run)?,
            };
            if !active {
                let (kind, id) = ("slots of run", run.to_string());
                let (expected, stored) = (Revision(0), Revision(0));
                return Err(StoreError::Conflict { kind, id, expected, stored });
            }
            after.put(run, Vec::new());
            if let Some((key, max)) = keys.iter().find(|(key, max)| after.used(key) >= *max) {
                return Err(StoreError::NoSlot { key: key.clone(), max: *max });
            }
            after.put(run, keys.iter().map(|(key, _)| key.clone()).collect());
        }
        let stored = |run: &RunId| self.held.get(run).map_or(&[][..], Vec::as_slice);
        Ok(after.held.into_iter().filter(|(run, keys)| stored(run) != keys.as_slice()).collect())
    }
}

/// Slots while a batch is checked.
struct Moving<'a> {
    slots: &'a Slots,
    /// What the runs that have moved hold.
    held: BTreeMap<RunId, Vec<SlotKey>>,
    /// What the moves have added to the number of taken slots.
    change: BTreeMap<SlotKey, i64>,
}

impl Moving<'_> {
    fn put(&mut self, run: RunId, keys: Vec<SlotKey>) {
        let change = &mut self.change;
        let stored = self.slots.held.get(&run);
        let had_none = !self.held.contains_key(&run) && stored.is_none();
        if had_none && keys.is_empty() {
            return;
        }
        for key in self.held.get(&run).or(stored).into_iter().flatten() {
            *change.entry(key.clone()).or_default() -= 1;
        }
        for key in &keys {
            *change.entry(key.clone()).or_default() += 1;
        }
        self.held.insert(run, keys);
    }

    fn used(&self, key: &SlotKey) -> u64 {
        let change = self.change.get(key).copied().unwrap_or_default();
        self.slots.used.get(key).copied().unwrap_or_default().saturating_add_signed(change)
    }
}
