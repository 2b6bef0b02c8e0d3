//! Whether a history of concurrent operations could have happened one after the other (Wing and Gong, with the states
//! that were tried remembered as Lowe does).
//!
//! A model may have several states that an observer cannot tell apart, because the object also changes by itself: a
//! configuration is therefore the set of states that are possible.

use std::collections::{BTreeSet, HashSet};

/// A correct object.
pub(crate) trait Model {
    /// State of the object.
    type State: Clone + Ord + std::hash::Hash;
    /// An operation with its answer.
    type Operation: std::fmt::Debug;

    /// The state in which every history begins.
    fn initial(&self) -> Self::State;

    /// Possible states of the object after an operation with this answer took effect; none if the answer is
    /// impossible.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Vec<Self::State>;
}

/// An operation with the times of its call and its answer, in an order that all clients share.
#[derive(Debug)]
pub(crate) struct Event<O> {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) operation: O,
}

/// The first operations that fit no order, for people; `None` if the history is linearizable.
pub(crate) fn refute<M: Model>(model: &M, history: &[Event<M::Operation>]) -> Option<String> {
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|&index| history[index].asked);
    let mut search =
        Search { model, history, order, tried: HashSet::new(), longest: 0, stuck: Vec::new() };
    let mut done = vec![false; history.len()];
    let start = BTreeSet::from([model.initial()]);
    if search.linearize(&mut done, 0, &start) {
        return None;
    }
    let stuck = search.stuck.iter().map(|&index| format!("\n  {:?}", history[index]));
    let (longest, count) = (search.longest, history.len());
    Some(format!(
        "after {longest} of {count} operations none of these can be next:{}",
        stuck.collect::<String>()
    ))
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Event<M::Operation>],
    /// Indices by the time of the call.
    order: Vec<usize>,
    tried: HashSet<(Vec<bool>, Vec<M::State>)>,
    longest: usize,
    /// Candidates where the longest order ended.
    stuck: Vec<usize>,
}

impl<M: Model> Search<'_, M> {
    /// Whether the operations that are not `done` fit after those that are.
    fn linearize(
        &mut self,
        done: &mut Vec<bool>,
        count: usize,
        states: &BTreeSet<M::State>,
    ) -> bool {
        if count == self.history.len() {
            return true;
        }
        if !self.tried.insert((done.clone(), states.iter().cloned().collect())) {
            return false;
        }
        let candidates = self.candidates(done);
        if count >= self.longest {
            self.longest = count;
            self.stuck.clone_from(&candidates);
        }
        for index in candidates {
            let operation = &self.history[index].operation;
            let after: BTreeSet<M::State> =
                states.iter().flat_map(|state| self.model.step(state, operation)).collect();
            if after.is_empty() {
                continue;
            }
            done[index] = true;
            if self.linearize(done, count + 1, &after) {
                return true;
            }
            done[index] = false;
        }
        false
    }

    /// Operations called before any other remaining one was answered.
    fn candidates(&self, done: &[bool]) -> Vec<usize> {
        let left = || self.order.iter().copied().filter(|&index| !done[index]);
        let first_answer = left().map(|index| self.history[index].answered).min();
        let Some(first_answer) = first_answer else { return Vec::new() };
        left().filter(|&index| self.history[index].asked < first_answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that can be written and read.
    struct Register;

    #[derive(Debug, Clone, Copy)]
    enum Call {
        Write(u32),
        Read(u32),
    }

    impl Model for Register {
        type State = u32;
        type Operation = Call;

        fn initial(&self) -> u32 {
            0
        }

        fn step(&self, state: &u32, operation: &Call) -> Vec<u32> {
            match *operation {
                Call::Write(value) => vec![value],
                Call::Read(seen) if seen == *state => vec![seen],
                Call::Read(_) => Vec::new(),
            }
        }
    }

    fn refuted(history: &[(u64, u64, Call)]) -> bool {
        let events = history.iter().map(|&(asked, answered, operation)| Event {
            asked,
            answered,
            operation,
        });
        refute(&Register, &events.collect::<Vec<_>>()).is_some()
    }

    #[test]
    fn what_could_have_happened_in_some_order_is_accepted() {
        assert!(!refuted(&[]));
        assert!(!refuted(&[(0, 1, Call::Write(1)), (2, 3, Call::Read(1))]));
        // Concurrent with the write, both answers are right.
        assert!(!refuted(&[(0, 5, Call::Write(1)), (1, 2, Call::Read(0)), (3, 4, Call::Read(1))]));
        let crossed = [
            (0, 9, Call::Write(1)),
            (1, 8, Call::Write(2)),
            (2, 3, Call::Read(2)),
            (4, 5, Call::Read(1)),
        ];
        assert!(!refuted(&crossed));
    }

    #[test]
    fn stale_reads_lost_writes_and_going_back_are_refuted() {
        assert!(refuted(&[(0, 1, Call::Write(1)), (2, 3, Call::Read(0))]), "stale");
        assert!(refuted(&[(0, 1, Call::Read(7))]), "out of thin air");
        let back = [(0, 9, Call::Write(1)), (1, 2, Call::Read(1)), (3, 4, Call::Read(0))];
        assert!(refuted(&back), "back in time");
        let lost = [
            (0, 1, Call::Write(1)),
            (2, 3, Call::Write(2)),
            (4, 5, Call::Read(2)),
            (6, 7, Call::Read(1)),
        ];
        assert!(refuted(&lost), "an overwritten value returns");
    }
}
