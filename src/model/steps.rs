//! The steps of a run, shared between its copies until one of them changes.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::condition::ConditionKind;
use crate::clock::Timestamp;
use crate::ids::OperationId;
use crate::lifecycle::step;
use crate::plan::Values;

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Name from the plan; `undo <name>` for a compensation.
    pub name: String,
    /// State.
    pub state: step::State,
    /// Attempt in progress or the last one, from 1; 0 before the first.
    pub attempt: u32,
    /// How often the outcome of the present attempt has been unknown.
    pub unknowns: u32,
    /// Attempts that are not counted: a crash of the server interrupted them, and they had no effect.
    pub interrupted: u32,
    /// Operation id of the present attempt at the provider.
    pub operation: Option<OperationId>,
    /// Handle that the provider gave to the operation, if any.
    pub handle: Option<String>,
    /// When the first attempt started.
    pub started_at: Option<Timestamp>,
    /// When the present attempt started.
    pub attempt_at: Option<Timestamp>,
    /// When the present attempt times out.
    pub deadline_at: Option<Timestamp>,
    /// When the step ended.
    pub finished_at: Option<Timestamp>,
    /// Last result or error, for people.
    pub message: String,
    /// What the last failed check expected.
    pub expected: String,
    /// What it observed instead; for a success the evidence.
    pub observed: String,
    /// Outputs for later steps, for example the handle of join material. Never a secret.
    pub output: Values,
    /// Nothing has been sent to the provider, whatever attempts were opened.
    pub unsent: bool,
    /// Earliest time of the next attempt requested by the provider, if the last call failed with one.
    pub retry_at: Option<Timestamp>,
    /// Conditions that its success has set, each with its previous status; `None` if it was never observed.
    pub set: Vec<(ConditionKind, Option<bool>)>,
    /// Index of the step that this one undoes; `None` for a step of the plan.
    pub compensates: Option<usize>,
}

impl StepRecord {
    /// A step that is not reached yet.
    #[must_use]
    pub fn waiting(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: step::State::Waiting,
            attempt: 0,
            unknowns: 0,
            interrupted: 0,
            operation: None,
            handle: None,
            started_at: None,
            attempt_at: None,
            deadline_at: None,
            finished_at: None,
            message: String::new(),
            expected: String::new(),
            observed: String::new(),
            output: Values::new(),
            unsent: false,
            retry_at: None,
            set: Vec::new(),
            compensates: None,
        }
    }
}

/// Steps in order. A run is copied at every decision and for every watcher; a copy shares all steps until one of them
/// is written to, and each of the others after that, so that it costs one pointer, or one pointer per step.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Steps(Arc<Vec<Arc<StepRecord>>>);

impl Steps {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &StepRecord> + ExactSizeIterator + Clone {
        self.0.iter().map(|step| &**step)
    }

    /// In order, as shared pointers.
    pub(crate) fn shared(&self) -> impl ExactSizeIterator<Item = &Arc<StepRecord>> {
        self.0.iter()
    }

    /// The step at an index.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&StepRecord> {
        self.0.get(place).map(|step| &**step)
    }

    /// The step at an index, to be changed in this copy only.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut StepRecord> {
        Arc::make_mut(&mut self.0).get_mut(place).map(Arc::make_mut)
    }

    /// The last step.
    #[must_use]
    pub fn last(&self) -> Option<&StepRecord> {
        self.0.last().map(|step| &**step)
    }

    /// Appends a step.
    pub fn push(&mut self, step: impl Into<Arc<StepRecord>>) {
        Arc::make_mut(&mut self.0).push(step.into());
    }

    /// Puts a step at an index, or at the end if there is no such index.
    pub(super) fn put(&mut self, place: usize, step: Arc<StepRecord>) {
        let steps = Arc::make_mut(&mut self.0);
        match steps.get_mut(place) {
            Some(old) => *old = step,
            None => steps.push(step),
        }
    }
}

impl Index<usize> for Steps {
    type Output = StepRecord;

    fn index(&self, place: usize) -> &StepRecord {
        &self.0[place]
    }
}

impl IndexMut<usize> for Steps {
    fn index_mut(&mut self, place: usize) -> &mut StepRecord {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0)[place])
    }
}

impl FromIterator<StepRecord> for Steps {
    fn from_iter<I: IntoIterator<Item = StepRecord>>(steps: I) -> Self {
        Self(Arc::new(steps.into_iter().map(Arc::new).collect()))
    }
}

impl From<Vec<StepRecord>> for Steps {
    fn from(steps: Vec<StepRecord>) -> Self {
        steps.into_iter().collect()
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
