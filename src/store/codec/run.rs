//! Stored form of runs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::ActorBody;
use super::format::{
    DecodeError, FORMAT, Text, at, check_format, from_json, is_default, known, ms, to_json,
};
use super::machine::{machine_id, run_id};
use super::step::StepBody;
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::lifecycle::run::{Ending, State};
use crate::model::{Hold, HoldReason, Run, RunError, RunErrorCode, RunSpec, RunType};

#[derive(Serialize, Deserialize)]
pub(super) struct RunBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    id: Text<'a>,
    machine: &'a str,
    provider: Text<'a>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    labels: Option<Cow<'a, BTreeMap<String, String>>>,
    #[serde(default, rename = "req", skip_serializing_if = "is_default")]
    request_id: Text<'a>,
    #[serde(rename = "type")]
    run_type: &'a str,
    plan: Text<'a>,
    digest: Text<'a>,
    #[serde(default, rename = "params", skip_serializing_if = "is_default")]
    parameters: Cow<'a, BTreeMap<String, String>>,
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
    #[serde(default, rename = "retry", skip_serializing_if = "is_default")]
    retry_of: Option<String>,
    #[serde(borrow)]
    by: ActorBody<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    reason: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    forced: bool,
    created: u64,
    #[serde(default, rename = "t0", skip_serializing_if = "is_default")]
    started_at: Option<u64>,
    #[serde(default, rename = "t1", skip_serializing_if = "is_default")]
    finished_at: Option<u64>,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepBody<'a>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ErrorBody<'a> {
    code: &'a str,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    #[serde(default, rename = "retry", skip_serializing_if = "is_default")]
    retryable: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    step: Text<'a>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HoldBody<'a> {
    reason: &'a str,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    since: u64,
}

/// The stored name of a state; also a column.
pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Running => "running",
        State::Pausing => "pausing",
        State::Held => "held",
        State::Deferred => "deferred",
        State::Resuming => "resuming",
        State::Canceling => "canceling",
        State::Stopping => "stopping",
        // A run that has succeeded has nothing to undo.
        State::Unwinding { ending: Ending::Succeeded } => "unwinding-succeeded",
        State::Unwinding { ending: Ending::Failed } => "unwinding-failed",
        State::Unwinding { ending: Ending::Canceled } => "unwinding-canceled",
        State::Closing { ending: Ending::Succeeded } => "closing-succeeded",
        State::Closing { ending: Ending::Failed } => "closing-failed",
        State::Closing { ending: Ending::Canceled } => "closing-canceled",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Canceled => "canceled",
    }
}

pub(super) fn state(name: &str) -> Result<State, DecodeError> {
    let found = State::ALL.into_iter().find(|state| state_name(*state) == name);
    known("state of a run", name, found)
}

impl<'a> From<&'a RunError> for ErrorBody<'a> {
    fn from(error: &'a RunError) -> Self {
        Self {
            code: error.code.as_str(),
            message: Cow::Borrowed(&error.message),
            retryable: error.retryable,
            step: Cow::Borrowed(&error.step),
        }
    }
}

impl ErrorBody<'_> {
    pub(super) fn decode(self) -> Result<RunError, DecodeError> {
        Ok(RunError {
            code: known("error code", self.code, RunErrorCode::parse(self.code))?,
            message: self.message.into_owned(),
            retryable: self.retryable,
            step: self.step.into_owned(),
        })
    }
}

impl<'a> From<&'a Hold> for HoldBody<'a> {
    fn from(hold: &'a Hold) -> Self {
        Self {
            reason: hold.reason.as_str(),
            message: Cow::Borrowed(&hold.message),
            since: hold.since.0,
        }
    }
}

impl HoldBody<'_> {
    pub(super) fn decode(self) -> Result<Hold, DecodeError> {
        Ok(Hold {
            reason: known("hold reason", self.reason, HoldReason::parse(self.reason))?,
            message: self.message.into_owned(),
            since: Timestamp(self.since),
        })
    }
}

impl<'a> From<&'a Run> for RunBody<'a> {
    fn from(run: &'a Run) -> Self {
        let spec = &*run.spec;
        Self {
            format: FORMAT,
            id: Cow::Owned(run.id.to_string()),
            machine: run.machine_id.as_str(),
            provider: Cow::Borrowed(&spec.provider),
            labels: spec.labels.as_ref().map(Cow::Borrowed),
            request_id: Cow::Borrowed(&spec.request_id),
            run_type: spec.run_type.as_str(),
            plan: Cow::Borrowed(&spec.plan_id),
            digest: Cow::Borrowed(&spec.plan_digest),
            parameters: Cow::Borrowed(&spec.parameters),
            state: state_name(run.state),
            current_step: run.current_step,
            error: run.error.as_ref().map(ErrorBody::from),
            hold: run.hold.as_ref().map(HoldBody::from),
            cancel_requested_at: ms(run.cancel_requested_at),
            queued_at: ms(run.queued_at),
            retry_of: spec.retry_of.map(|run| run.to_string()),
            by: ActorBody::from(&spec.requested_by),
            reason: Cow::Borrowed(&spec.reason),
            forced: spec.forced,
            created: run.created_at.0,
            started_at: ms(run.started_at),
            finished_at: ms(run.finished_at),
            steps: run.steps.iter().map(|step| StepBody::new(step, run.id)).collect(),
        }
    }
}

impl RunBody<'_> {
    pub(super) fn decode(self, ordinal: u64, revision: Revision) -> Result<Run, DecodeError> {
        check_format(self.format)?;
        let id = run_id(&self.id)?;
        Ok(Run {
            id,
            machine_id: machine_id(self.machine)?,
            spec: Arc::new(RunSpec {
                provider: self.provider.into_owned(),
                labels: self.labels.map(Cow::into_owned),
                request_id: self.request_id.into_owned(),
                run_type: known("run type", self.run_type, RunType::parse(self.run_type))?,
                plan_id: self.plan.into_owned(),
                plan_digest: self.digest.into_owned(),
                parameters: self.parameters.into_owned(),
                retry_of: self.retry_of.as_deref().map(run_id).transpose()?,
                requested_by: self.by.decode()?,
                reason: self.reason.into_owned(),
                forced: self.forced,
            }),
            created_at: Timestamp(self.created),
            state: state(self.state)?,
            steps: self.steps.into_iter().map(|step| step.decode(id)).collect::<Result<_, _>>()?,
            current_step: self.current_step,
            error: self.error.map(ErrorBody::decode).transpose()?,
            hold: self.hold.map(HoldBody::decode).transpose()?,
            cancel_requested_at: at(self.cancel_requested_at),
            queued_at: at(self.queued_at),
            started_at: at(self.started_at),
            finished_at: at(self.finished_at),
            ordinal,
            revision,
        })
    }
}

/// The stored form of a run, without ordinal and revision.
pub(crate) fn encode_run(run: &Run) -> String {
    to_json(&RunBody::from(run))
}

/// Decodes a run from its stored form.
pub(crate) fn decode_run(text: &str, ordinal: u64, revision: Revision) -> Result<Run, DecodeError> {
    from_json::<RunBody<'_>>(text)?.decode(ordinal, revision)
}
