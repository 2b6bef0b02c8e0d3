//! Stored form of what changed in a run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::format::{DecodeError, FORMAT, at, check_format, from_json, is_default, ms, to_json};
use super::run::{ErrorBody, HoldBody, RunBody, state, state_name};
use super::step::StepBody;
use crate::ids::{Revision, RunId};
use crate::model::{Header, Progress, RunDelta};

/// Has the header of its change: one of the two.
#[derive(Serialize, Deserialize)]
struct DeltaBody<'a> {
    #[serde(default, rename = "h", borrow, skip_serializing_if = "Option::is_none")]
    whole: Option<RunBody<'a>>,
    #[serde(default, rename = "p", borrow, skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressBody<'a>>,
    #[serde(default, rename = "s", borrow, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<(usize, StepBody<'a>)>,
}

#[derive(Serialize, Deserialize)]
struct ProgressBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    #[serde(rename = "st")]
    state: &'a str,
    #[serde(default, rename = "cur", skip_serializing_if = "is_default")]
    current_step: Option<usize>,
    #[serde(default, rename = "err", borrow, skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    hold: Option<HoldBody<'a>>,
    #[serde(default, rename = "cancel", skip_serializing_if = "is_default")]
    cancel_requested_at: Option<u64>,
    #[serde(default, rename = "queued", skip_serializing_if = "is_default")]
    queued_at: Option<u64>,
    #[serde(default, rename = "t0", skip_serializing_if = "is_default")]
    started_at: Option<u64>,
    #[serde(default, rename = "t1", skip_serializing_if = "is_default")]
    finished_at: Option<u64>,
}

impl<'a> From<&'a Progress> for ProgressBody<'a> {
    fn from(progress: &'a Progress) -> Self {
        Self {
            format: FORMAT,
            state: state_name(progress.state),
            current_step: progress.current_step,
            error: progress.error.as_ref().map(ErrorBody::from),
            hold: progress.hold.as_ref().map(HoldBody::from),
            cancel_requested_at: ms(progress.cancel_requested_at),
            queued_at: ms(progress.queued_at),
            started_at: ms(progress.started_at),
            finished_at: ms(progress.finished_at),
        }
    }
}

impl ProgressBody<'_> {
    fn decode(self, revision: Revision) -> Result<Progress, DecodeError> {
        check_format(self.format)?;
        Ok(Progress {
            state: state(self.state)?,
            current_step: self.current_step,
            error: self.error.map(ErrorBody::decode).transpose()?,
            hold: self.hold.map(HoldBody::decode).transpose()?,
            cancel_requested_at: at(self.cancel_requested_at),
            queued_at: at(self.queued_at),
            started_at: at(self.started_at),
            finished_at: at(self.finished_at),
            revision,
        })
    }
}

/// The stored form of a change of the run `id`, without ordinal and revision.
pub(crate) fn encode_delta(delta: &RunDelta, id: RunId) -> String {
    let (id, whole, progress) = match &delta.header {
        Header::Whole(run) => (run.id, Some(RunBody::from(&**run)), None),
        Header::Progress(progress) => (id, None, Some(ProgressBody::from(&**progress))),
    };
    let steps = delta.steps.iter().map(|(place, step)| (*place, StepBody::new(step, id)));
    to_json(&DeltaBody { whole, progress, steps: steps.collect() })
}

/// Decodes a change of a run; `id` is the run's, unless this is its first change.
pub(crate) fn decode_delta(
    text: &str,
    id: Option<RunId>,
    ordinal: u64,
    revision: Revision,
) -> Result<RunDelta, DecodeError> {
    let body: DeltaBody<'_> = from_json(text)?;
    let (id, header) = match (body.whole, body.progress, id) {
        (Some(whole), None, _) => {
            let run = whole.decode(ordinal, revision)?;
            (run.id, Header::Whole(Box::new(run)))
        }
        (None, Some(progress), Some(id)) => {
            (id, Header::Progress(Box::new(progress.decode(revision)?)))
        }
        (None, Some(_), None) => return Err(DecodeError::Missing("the change before it")),
        (Some(_), Some(_), _) | (None, None, _) => {
            return Err(DecodeError::Missing("one header, and one only,"));
        }
    };
    let steps = body.steps.into_iter().map(|(place, step)| Ok((place, Arc::new(step.decode(id)?))));
    Ok(RunDelta { header, steps: steps.collect::<Result<_, DecodeError>>()? })
}
