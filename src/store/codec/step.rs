//! Stored form of steps.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::format::{DecodeError, Text, at, is_default, known, ms};
use crate::clock::Timestamp;
use crate::ids::{OperationId, RunId};
use crate::lifecycle::step::{Basis, State};
use crate::model::{ConditionKind, StepRecord};
use crate::plan::{Value, Values};

#[derive(Serialize, Deserialize)]
pub(super) struct StepBody<'a> {
    name: Text<'a>,
    #[serde(rename = "st", borrow)]
    state: StateBody<'a>,
    #[serde(default, rename = "a", skip_serializing_if = "is_default")]
    attempt: u32,
    #[serde(default, rename = "unk", skip_serializing_if = "is_default")]
    unknowns: u32,
    #[serde(default, rename = "fg", skip_serializing_if = "is_default")]
    interrupted: u32,
    /// Empty for the usual id of an attempt, which is most of the bytes of a step.
    #[serde(default, rename = "op", skip_serializing_if = "is_default")]
    operation: Option<Text<'a>>,
    #[serde(default, rename = "h", skip_serializing_if = "is_default")]
    handle: Option<Text<'a>>,
    #[serde(default, rename = "t0", skip_serializing_if = "is_default")]
    started_at: Option<u64>,
    #[serde(default, rename = "ta", skip_serializing_if = "is_default")]
    attempt_at: Option<u64>,
    #[serde(default, rename = "dl", skip_serializing_if = "is_default")]
    deadline_at: Option<u64>,
    #[serde(default, rename = "t1", skip_serializing_if = "is_default")]
    finished_at: Option<u64>,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    #[serde(default, rename = "exp", skip_serializing_if = "is_default")]
    expected: Text<'a>,
    #[serde(default, rename = "obs", skip_serializing_if = "is_default")]
    observed: Text<'a>,
    #[serde(default, rename = "out", skip_serializing_if = "is_default")]
    output: Option<OutputBody>,
    #[serde(default, rename = "un", skip_serializing_if = "is_default")]
    unsent: bool,
    #[serde(default, rename = "ra", skip_serializing_if = "is_default")]
    retry_at: Option<u64>,
    #[serde(default, rename = "set", borrow, skip_serializing_if = "is_default")]
    set: Vec<(&'a str, Option<bool>)>,
    #[serde(default, rename = "undo", skip_serializing_if = "is_default")]
    compensates: Option<usize>,
}

/// Outputs of a step. A bare text is a handle: the only output before outputs had names, and still the most frequent
/// one.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum OutputBody {
    Handle(String),
    Values(BTreeMap<String, ValueBody>),
}

#[derive(PartialEq, Serialize, Deserialize)]
enum ValueBody {
    #[serde(rename = "s")]
    Str(String),
    #[serde(rename = "i")]
    Int(i64),
    #[serde(rename = "b")]
    Bool(bool),
    #[serde(rename = "ms")]
    DurationMs(u64),
}

/// Name of the output that is written as a bare text.
const HANDLE: &str = "handle";

impl OutputBody {
    fn new(output: &Values) -> Option<Self> {
        let mut values = output.iter();
        match (values.next(), values.next()) {
            (None, _) => None,
            (Some((name, Value::Str(text))), None) if name == HANDLE => {
                Some(Self::Handle(text.to_string()))
            }
            (Some(_), _) => Some(Self::Values(
                output.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
            )),
        }
    }

    fn decode(self) -> Values {
        match self {
            Self::Handle(text) => Values::from([(HANDLE.to_owned(), Value::Str(text.into()))]),
            Self::Values(values) => {
                values.into_iter().map(|(name, value)| (name, value.into())).collect()
            }
        }
    }
}

impl From<&Value> for ValueBody {
    fn from(value: &Value) -> Self {
        match value {
            Value::Str(text) => Self::Str(text.to_string()),
            Value::Int(number) => Self::Int(*number),
            Value::Bool(truth) => Self::Bool(*truth),
            Value::DurationMs(ms) => Self::DurationMs(*ms),
        }
    }
}

impl From<ValueBody> for Value {
    fn from(body: ValueBody) -> Self {
        match body {
            ValueBody::Str(text) => Self::Str(text.into()),
            ValueBody::Int(number) => Self::Int(number),
            ValueBody::Bool(truth) => Self::Bool(truth),
            ValueBody::DurationMs(ms) => Self::DurationMs(ms),
        }
    }
}

/// A state as its name and the numbers that the name requires.
#[derive(Serialize, Deserialize)]
struct StateBody<'a> {
    #[serde(rename = "s")]
    name: &'a str,
    #[serde(default, rename = "a", skip_serializing_if = "is_default")]
    attempt: Option<u32>,
    #[serde(default, rename = "u", skip_serializing_if = "is_default")]
    until: Option<u64>,
    #[serde(default, rename = "b", borrow, skip_serializing_if = "is_default")]
    basis: Option<&'a str>,
    #[serde(default, rename = "c", skip_serializing_if = "is_default")]
    checks: Option<u32>,
    #[serde(default, rename = "co", skip_serializing_if = "is_default")]
    cut_off: bool,
}

impl From<State> for StateBody<'static> {
    fn from(state: State) -> Self {
        let name = match state {
            State::Waiting => "waiting",
            State::Observing { .. } => "observing",
            State::Acting { .. } => "acting",
            State::Polling { .. } => "polling",
            State::Verifying { .. } => "verifying",
            State::BackingOff { .. } => "backing-off",
            State::Unknown { .. } => "unknown",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Skipped => "skipped",
            State::Canceled => "canceled",
        };
        let attempt = state.attempt();
        let mut body =
            Self { name, attempt, until: None, basis: None, checks: None, cut_off: false };
        match state {
            State::Observing { basis, .. } => body.set_basis(basis),
            State::Polling { until, .. } => body.until = Some(until.0),
            State::Verifying { checks, .. } => body.checks = Some(checks),
            State::BackingOff { until, basis, .. } => {
                body.until = Some(until.0);
                body.set_basis(basis);
            }
            State::Waiting
            | State::Acting { .. }
            | State::Unknown { .. }
            | State::Succeeded
            | State::Failed
            | State::Skipped
            | State::Canceled => {}
        }
        body
    }
}

impl StateBody<'_> {
    fn set_basis(&mut self, basis: Basis) {
        let (name, checks, cut_off) = match basis {
            Basis::Fresh => ("fresh", None, false),
            Basis::Poll => ("poll", None, false),
            Basis::Unknown { checks, cut_off } => ("unknown", Some(checks), cut_off),
        };
        self.basis = Some(name);
        self.checks = checks;
        self.cut_off = cut_off;
    }

    fn decode(&self) -> Result<State, DecodeError> {
        Ok(match self.name {
            "waiting" => State::Waiting,
            "observing" => State::Observing { attempt: self.attempt()?, basis: self.basis()? },
            "acting" => State::Acting { attempt: self.attempt()? },
            "polling" => State::Polling { attempt: self.attempt()?, until: self.until()? },
            "verifying" => State::Verifying { attempt: self.attempt()?, checks: self.checks()? },
            "backing-off" => State::BackingOff {
                attempt: self.attempt()?,
                until: self.until()?,
                basis: self.basis()?,
            },
            "unknown" => State::Unknown { attempt: self.attempt()? },
            "succeeded" => State::Succeeded,
            "failed" => State::Failed,
            "skipped" => State::Skipped,
            "canceled" => State::Canceled,
            other => return Err(unknown("state of a step", other)),
        })
    }

    fn attempt(&self) -> Result<u32, DecodeError> {
        self.attempt.ok_or(DecodeError::Missing("attempt of a step's state"))
    }

    fn until(&self) -> Result<Timestamp, DecodeError> {
        at(self.until).ok_or(DecodeError::Missing("wake time of a step's state"))
    }

    fn checks(&self) -> Result<u32, DecodeError> {
        self.checks.ok_or(DecodeError::Missing("number of checks of a step's state"))
    }

    fn basis(&self) -> Result<Basis, DecodeError> {
        match self.basis {
            Some("fresh") => Ok(Basis::Fresh),
            Some("poll") => Ok(Basis::Poll),
            Some("unknown") => Ok(Basis::Unknown { checks: self.checks()?, cut_off: self.cut_off }),
            Some(other) => Err(unknown("basis of a step's state", other)),
            None => Err(DecodeError::Missing("basis of a step's state")),
        }
    }
}

fn unknown(what: &'static str, name: &str) -> DecodeError {
    DecodeError::Unknown { what, name: name.to_owned() }
}

impl<'a> StepBody<'a> {
    /// The stored form of a step of `run`.
    pub(super) fn new(step: &'a StepRecord, run: RunId) -> Self {
        let operation = step.operation.as_ref().map(|id| {
            let usual = id.is_of(run, &step.name, step.attempt);
            Cow::Borrowed(if usual { "" } else { id.as_str() })
        });
        Self {
            name: Cow::Borrowed(&step.name),
            state: step.state.into(),
            attempt: step.attempt,
            unknowns: step.unknowns,
            interrupted: step.interrupted,
            operation,
            handle: step.handle.as_deref().map(Cow::Borrowed),
            started_at: ms(step.started_at),
            attempt_at: ms(step.attempt_at),
            deadline_at: ms(step.deadline_at),
            finished_at: ms(step.finished_at),
            message: Cow::Borrowed(&step.message),
            expected: Cow::Borrowed(&step.expected),
            observed: Cow::Borrowed(&step.observed),
            output: OutputBody::new(&step.output),
            unsent: step.unsent,
            retry_at: ms(step.retry_at),
            set: step.set.iter().map(|(kind, before)| (kind.as_str(), *before)).collect(),
            compensates: step.compensates,
        }
    }
}

impl StepBody<'_> {
    /// The step, of `run`.
    pub(super) fn decode(self, run: RunId) -> Result<StepRecord, DecodeError> {
        let operation = self.operation.map(|id| match &*id {
            "" => OperationId::new(run, &self.name, self.attempt),
            other => OperationId::from_stored(other),
        });
        let set = self
            .set
            .into_iter()
            .map(|(name, before)| {
                Ok((known("condition", name, ConditionKind::parse(name))?, before))
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(StepRecord {
            state: self.state.decode()?,
            name: self.name.into_owned(),
            attempt: self.attempt,
            unknowns: self.unknowns,
            interrupted: self.interrupted,
            operation,
            handle: self.handle.map(Cow::into_owned),
            started_at: at(self.started_at),
            attempt_at: at(self.attempt_at),
            deadline_at: at(self.deadline_at),
            finished_at: at(self.finished_at),
            message: self.message.into_owned(),
            expected: self.expected.into_owned(),
            observed: self.observed.into_owned(),
            output: self.output.map(OutputBody::decode).unwrap_or_default(),
            unsent: self.unsent,
            retry_at: at(self.retry_at),
            set,
            compensates: self.compensates,
        })
    }
}
