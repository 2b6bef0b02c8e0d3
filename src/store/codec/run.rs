//! Stored shape of runs, and of what changed in them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::ActorBody;
use super::machine::{machine_id, run_id};
use super::step::StepBody;
use super::{
    DecodeError, FORMAT, Text, at, check_format, from_json, is_default, known, ms, to_json,
};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::lifecycle::run::{Ending, State};
use crate::model::{Hold, HoldReason, Run, RunDelta, RunError, RunErrorCode, RunType, Steps};

#[derive(Serialize, Deserialize)]
struct RunBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    id: Text<'a>,
    machine: &'a str,
    provider: Text<'a>,
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
    #[serde(default, rename = "logs", skip_serializing_if = "is_default")]
    log_chunks: u64,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepBody<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ErrorBody<'a> {
    code: &'a str,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    #[serde(default, rename = "retry", skip_serializing_if = "is_default")]
    retryable: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    step: Text<'a>,
}

#[derive(Serialize, Deserialize)]
struct HoldBody<'a> {
    reason: &'a str,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    since: u64,
}

#[derive(Serialize, Deserialize)]
struct DeltaBody<'a> {
    #[serde(rename = "h", borrow)]
    header: RunBody<'a>,
    #[serde(default, rename = "s", borrow, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<(usize, StepBody<'a>)>,
}

/// The stored name of a state; also a column.
pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Running => "running",
        State::Pausing => "pausing",
        State::Held => "held",
        State::Resuming => "resuming",
        State::Canceling => "canceling",
        State::Unwinding { ending: Ending::Failed } => "unwinding-failed",
        State::Unwinding { ending: Ending::Canceled } => "unwinding-canceled",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Canceled => "canceled",
    }
}

fn state(name: &str) -> Result<State, DecodeError> {
    let found = State::ALL.into_iter().find(|state| state_name(*state) == name);
    known("state of a run", name, found)
}

fn body<'a>(run: &'a Run, steps: &'a Steps) -> RunBody<'a> {
    RunBody {
        format: FORMAT,
        id: Cow::Owned(run.id.to_string()),
        machine: run.machine_id.as_str(),
        provider: Cow::Borrowed(&run.provider),
        request_id: Cow::Borrowed(&run.request_id),
        run_type: run.run_type.as_str(),
        plan: Cow::Borrowed(&run.plan_id),
        digest: Cow::Borrowed(&run.plan_digest),
        parameters: Cow::Borrowed(&run.parameters),
        state: state_name(run.state),
        current_step: run.current_step,
        error: run.error.as_ref().map(|error| ErrorBody {
            code: error.code.as_str(),
            message: Cow::Borrowed(&error.message),
            retryable: error.retryable,
            step: Cow::Borrowed(&error.step),
        }),
        hold: run.hold.as_ref().map(|hold| HoldBody {
            reason: hold.reason.as_str(),
            message: Cow::Borrowed(&hold.message),
            since: hold.since.0,
        }),
        cancel_requested_at: ms(run.cancel_requested_at),
        queued_at: ms(run.queued_at),
        retry_of: run.retry_of.map(|run| run.to_string()),
        by: ActorBody::from(&run.requested_by),
        reason: Cow::Borrowed(&run.reason),
        forced: run.forced,
        created: run.created_at.0,
        started_at: ms(run.started_at),
        finished_at: ms(run.finished_at),
        log_chunks: run.log_chunks,
        steps: steps.iter().map(StepBody::from).collect(),
    }
}

impl RunBody<'_> {
    fn decode(self, ordinal: u64, revision: Revision) -> Result<Run, DecodeError> {
        check_format(self.format)?;
        let error = self.error.map(|error| {
            Ok(RunError {
                code: known("error code", error.code, RunErrorCode::parse(error.code))?,
                message: error.message.into_owned(),
                retryable: error.retryable,
                step: error.step.into_owned(),
            })
        });
        let hold = self.hold.map(|hold| {
            Ok(Hold {
                reason: known("hold reason", hold.reason, HoldReason::parse(hold.reason))?,
                message: hold.message.into_owned(),
                since: Timestamp(hold.since),
            })
        });
        Ok(Run {
            id: run_id(&self.id)?,
            machine_id: machine_id(self.machine)?,
            provider: self.provider.into_owned(),
            request_id: self.request_id.into_owned(),
            run_type: known("run type", self.run_type, RunType::parse(self.run_type))?,
            plan_id: self.plan.into_owned(),
            plan_digest: self.digest.into_owned(),
            parameters: self.parameters.into_owned(),
            state: state(self.state)?,
            steps: self.steps.into_iter().map(StepBody::decode).collect::<Result<_, _>>()?,
            current_step: self.current_step,
            error: error.transpose()?,
            hold: hold.transpose()?,
            cancel_requested_at: at(self.cancel_requested_at),
            queued_at: at(self.queued_at),
            retry_of: self.retry_of.as_deref().map(run_id).transpose()?,
            requested_by: self.by.decode()?,
            reason: self.reason.into_owned(),
            forced: self.forced,
            created_at: Timestamp(self.created),
            started_at: at(self.started_at),
            finished_at: at(self.finished_at),
            log_chunks: self.log_chunks,
            ordinal,
            revision,
        })
    }
}

/// The stored form of a run, without ordinal and revision.
pub(crate) fn encode_run(run: &Run) -> String {
    to_json(&body(run, &run.steps))
}

/// The run of a stored form.
pub(crate) fn decode_run(text: &str, ordinal: u64, revision: Revision) -> Result<Run, DecodeError> {
    from_json::<RunBody<'_>>(text)?.decode(ordinal, revision)
}

/// The stored form of what changed in a run, without ordinal and revision.
pub(crate) fn encode_delta(delta: &RunDelta) -> String {
    let steps = delta.steps.iter().map(|(place, step)| (*place, (&**step).into())).collect();
    to_json(&DeltaBody { header: body(&delta.header, &delta.header.steps), steps })
}

/// What changed in a run, of a stored form.
pub(crate) fn decode_delta(
    text: &str,
    ordinal: u64,
    revision: Revision,
) -> Result<RunDelta, DecodeError> {
    let body: DeltaBody<'_> = from_json(text)?;
    let steps = body.steps.into_iter().map(|(place, step)| Ok((place, Arc::new(step.decode()?))));
    Ok(RunDelta {
        steps: steps.collect::<Result<_, DecodeError>>()?,
        header: body.header.decode(ordinal, revision)?,
    })
}
