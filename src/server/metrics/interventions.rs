//! Machines that need an operator, by reason: read once from the store, then updated by its commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::{MachineId, Revision};
use crate::model::filter::{Filter, Subject};
use crate::model::{ConditionKind, Images, Machine};
use crate::store::{Committed, Listener, Query, Store, StoreError};

const PAGE: usize = 500;

/// The machines, with the revision at which each was seen. While the store is being read those that need no operator
/// are kept too, so that a late read does not undo a newer commit.
#[derive(Debug, Default)]
struct Known {
    machines: BTreeMap<MachineId, (Revision, Option<String>)>,
    is_read: bool,
}

/// Machines that need an operator.
#[derive(Debug, Default)]
pub(super) struct Interventions(Mutex<Known>);

impl Known {
    fn see(&mut self, machine: &Machine, is_gone: bool) {
        if self.machines.get(&machine.id).is_some_and(|(seen, _)| *seen > machine.revision) {
            return;
        }
        let condition = machine.conditions.get(ConditionKind::NeedsIntervention);
        let reason = condition.filter(|condition| condition.status && !is_gone);
        if reason.is_none() && self.is_read {
            self.machines.remove(&machine.id);
            return;
        }
        let reason = reason.map(|condition| condition.reason.clone());
        self.machines.insert(machine.id.clone(), (machine.revision, reason));
    }
}

impl Interventions {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, by reason.
    pub(super) fn count(&self) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        for (_, reason) in self.known().machines.values() {
            if let Some(reason) = reason {
                *counts.entry(reason.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// Reads the store once.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn read(&self, store: &dyn Store) -> Result<(), StoreError> {
        let filter = Filter::parse("conditions.NeedsIntervention = true", Subject::Machine);
        let filter = filter.unwrap_or_default();
        let mut after = None;
        loop {
            let query = Query { filter: filter.clone(), after, limit: PAGE, ..Query::default() };
            let page = store.machines(query).await?;
            for machine in &page.items {
                self.known().see(machine, false);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let mut known = self.known();
        known.is_read = true;
        known.machines.retain(|_, (_, reason)| reason.is_some());
        Ok(())
    }
}

impl Listener for Interventions {
    fn committed(&self, committed: &Arc<Committed>) {
        for change in &committed.changes {
            if let Some(images) = change.images::<Machine>()
                && let Some(machine) = images.last()
                && (touches(images) || !self.known().is_read)
            {
                self.known().see(machine, images.is_deletion());
            }
        }
    }
}

/// Whether the machine needs an operator, or needed one before: most changes concern machines that do not.
fn touches(images: &Images<Machine>) -> bool {
    let needs =
        |machine: &Arc<Machine>| machine.conditions.is_true(ConditionKind::NeedsIntervention);
    images.before.as_ref().is_some_and(needs) || images.after.as_ref().is_some_and(needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::{Condition, MachineSpec};

    fn machine(id: &str, revision: u64, reason: Option<&str>) -> Machine {
        let id = MachineId::parse(id).unwrap();
        let mut machine =
            Machine::registered(id, BTreeMap::new(), MachineSpec::default(), Timestamp(0));
        machine.revision = Revision(revision);
        if let Some(reason) = reason {
            let condition = Condition {
                status: true,
                reason: reason.to_owned(),
                message: String::new(),
                last_transition_at: Timestamp(0),
                observed_by: String::new(),
                plan_id: String::new(),
            };
            machine.conditions.set(ConditionKind::NeedsIntervention, condition);
        }
        machine
    }

    #[test]
    fn what_was_heard_is_not_undone_by_what_is_read_late() {
        let interventions = Interventions::default();
        let see = |machine: &Machine, is_gone| interventions.known().see(machine, is_gone);
        see(&machine("m-1", 5, None), false);
        see(&machine("m-1", 4, Some("RUN_FAILED")), false);
        see(&machine("m-2", 3, Some("ABORTED")), false);
        see(&machine("m-3", 6, Some("RUN_FAILED")), true);
        assert_eq!(interventions.count(), BTreeMap::from([("ABORTED".to_owned(), 1)]));
        interventions.known().is_read = true;
        see(&machine("m-2", 9, None), false);
        see(&machine("m-4", 9, Some("RUN_FAILED")), false);
        assert_eq!(interventions.count(), BTreeMap::from([("RUN_FAILED".to_owned(), 1)]));
    }
}
