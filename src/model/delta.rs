//! What one commit changed in a run.

use std::sync::Arc;

use super::run::{Hold, Run, RunError};
use super::steps::{StepRecord, Steps};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::lifecycle::run;

/// After-image of what one commit changed in a run: the history keeps this instead of a whole copy.
///
/// Folding the deltas of a run from its first gives the run at any revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDelta {
    /// The run without its steps.
    pub header: Header,
    /// Steps that changed, by position.
    pub steps: Vec<(usize, Arc<StepRecord>)>,
}

/// A run without its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// All fields except steps: in the first commit of a run, and in commits written by an older version.
    Whole(Box<Run>),
    /// The fields that change while a run is active.
    Progress(Box<Progress>),
}

/// The fields of a run that change while it is active, without its steps. They are those of [`Run`].
#[expect(missing_docs, reason = "they are those of a run")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub state: run::State,
    pub current_step: Option<usize>,
    pub error: Option<RunError>,
    pub hold: Option<Hold>,
    pub cancel_requested_at: Option<Timestamp>,
    pub queued_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub revision: Revision,
}

impl Progress {
    fn of(run: &Run) -> Self {
        Self {
            state: run.state,
            current_step: run.current_step,
            error: run.error.clone(),
            hold: run.hold.clone(),
            cancel_requested_at: run.cancel_requested_at,
            queued_at: run.queued_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            revision: run.revision,
        }
    }
}

impl RunDelta {
    /// What changed from `before` (nothing for the first commit of a run) to `after`.
    #[must_use]
    pub fn between(before: Option<&Run>, after: &Run) -> Self {
        let steps = after
            .steps
            .shared()
            .enumerate()
            // Steps that are still shared are equal without comparing them.
            .filter(|(place, step)| {
                before.and_then(|run| run.steps.shared().nth(*place)) != Some(*step)
            })
            .map(|(place, step)| (place, step.clone()))
            .collect();
        // Compared although it never changes: if it did, a change without it would be wrong.
        let goes_on = before.is_some_and(|before| {
            before.id == after.id
                && before.machine_id == after.machine_id
                && before.spec == after.spec
                && before.created_at == after.created_at
        });
        let header = if goes_on {
            Header::Progress(Box::new(Progress::of(after)))
        } else {
            Header::Whole(Box::new(Run { steps: Steps::default(), ..after.clone() }))
        };
        Self { header, steps }
    }

    /// The run after this change, given the run before it. `None` if there was none before it and this is not its
    /// first change.
    #[must_use]
    pub fn apply(self, before: Option<Run>) -> Option<Run> {
        let mut run = match (self.header, before) {
            (Header::Whole(run), None) => *run,
            (Header::Whole(run), Some(before)) => Run { steps: before.steps, ..*run },
            (Header::Progress(progress), Some(before)) => {
                let Progress {
                    state,
                    current_step,
                    error,
                    hold,
                    cancel_requested_at,
                    queued_at,
                    started_at,
                    finished_at,
                    revision,
                } = *progress;
                Run {
                    state,
                    current_step,
                    error,
                    hold,
                    cancel_requested_at,
                    queued_at,
                    started_at,
                    finished_at,
                    revision,
                    ..before
                }
            }
            (Header::Progress(_), None) => return None,
        };
        for (place, step) in self.steps {
            run.steps.put(place, step);
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests;
