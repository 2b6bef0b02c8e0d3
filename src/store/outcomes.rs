//! Outcomes of the last batches that have an id.

use std::collections::{BTreeMap, VecDeque};

use super::OUTCOMES_MAX;
use super::batch::Outcome;
use crate::ids::{BatchId, Revision};

/// The last commits that have an id.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    revisions: BTreeMap<BatchId, Revision>,
    /// Oldest first.
    ids: VecDeque<BatchId>,
    /// Every commit after this one that has an id is remembered.
    since: Revision,
}

impl Outcomes {
    /// Remembers the commits after `since`, of which there are none yet.
    pub(super) fn after(since: Revision) -> Self {
        Self { since, ..Self::default() }
    }

    /// A batch has become durable.
    pub(super) fn note(&mut self, id: BatchId, revision: Revision) {
        if id == BatchId::default() {
            return;
        }
        if self.ids.len() >= OUTCOMES_MAX
            && let Some(oldest) = self.ids.pop_front()
            && let Some(revision) = self.revisions.remove(&oldest)
        {
            self.since = self.since.max(revision);
        }
        self.ids.push_back(id);
        self.revisions.insert(id, revision);
    }

    /// Outcome of a batch that would have come after `since`.
    pub(super) fn of(&self, id: BatchId, since: Revision) -> Outcome {
        match self.revisions.get(&id) {
            Some(revision) => Outcome::Committed(*revision),
            None if since >= self.since => Outcome::NotCommitted,
            None => Outcome::Forgotten,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_remembered_is_not_guessed() {
        let mut outcomes = Outcomes::after(Revision(10));
        let max = OUTCOMES_MAX as u64;
        assert_eq!(outcomes.of(BatchId(1), Revision(9)), Outcome::Forgotten);
        assert_eq!(outcomes.of(BatchId(1), Revision(10)), Outcome::NotCommitted);
        for number in 1..=max + 1 {
            outcomes.note(BatchId(number), Revision(10 + number));
            outcomes.note(BatchId(0), Revision(10 + number));
        }
        assert_eq!(outcomes.of(BatchId(1), Revision(10)), Outcome::Forgotten);
        assert_eq!(outcomes.of(BatchId(2), Revision(10)), Outcome::Committed(Revision(12)));
        assert_eq!(outcomes.of(BatchId(max + 2), Revision(10)), Outcome::Forgotten);
        assert_eq!(outcomes.of(BatchId(max + 2), Revision(11)), Outcome::NotCommitted);
        assert_eq!(outcomes.of(BatchId(0), Revision(11)), Outcome::NotCommitted);
    }
}
