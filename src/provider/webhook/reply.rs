//! What an answer of the receiver means.

use http::StatusCode;
use serde_json::{Map, Value as Json};

use crate::clock::Timestamp;
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::outbound::{Answer, CallError, CallErrorKind};
use crate::plan::duration;
use crate::provider::message;
use crate::provider::{Acted, Call, ErrorCode, Observation, ProviderError, ProviderErrorKind};

/// When to ask again if the receiver does not say.
const POLL_AFTER_MS: u64 = 10_000;

/// The body of an answer; every key is optional, and unknown ones mean nothing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Reply {
    state: String,
    evidence: String,
    message: String,
    outputs: Map<String, Json>,
    handle: Option<String>,
    poll_after: Option<String>,
    epoch: Option<u64>,
}

/// What *act* led to. `is_asked`: whether the receiver can be asked later.
pub(super) fn acted(
    call: &Call,
    answer: Result<Answer, CallError>,
    is_asked: bool,
    now: Timestamp,
) -> Result<Acted, ProviderError> {
    let action = call.action.as_str();
    let answer = answer.map_err(|error| not_answered(&error))?;
    if !answer.status.is_success() {
        return Err(refused(call, &answer, now));
    }
    let reply = read(action, &answer)?;
    let continues = answer.status == StatusCode::ACCEPTED;
    match &reply.handle {
        Some(handle) if continues => {
            let poll_at = poll_at(action, &reply, now)?;
            Ok(Acted::Accepted { handle: message::short(handle), poll_at })
        }
        // Asked about by its operation id. Who cannot be asked has taken the message, and that is all there is.
        None if continues && is_asked => {
            let poll_at = poll_at(action, &reply, now)?;
            Ok(Acted::Accepted { handle: call.operation.as_str().to_owned(), poll_at })
        }
        Some(_) | None => {
            let output =
                message::outputs(&reply.outputs).map_err(|why| unreadable(action, &why))?;
            Ok(Acted::Done { evidence: evidence(&reply, &answer), output })
        }
    }
}

/// What *observe* saw.
pub(super) fn observed(
    call: &Call,
    answer: Result<Answer, CallError>,
    now: Timestamp,
) -> Result<Observation, ProviderError> {
    let action = call.action.as_str();
    let could_not_look = |error: ProviderError| match error.kind {
        ProviderErrorKind::Fenced { .. } => error,
        ProviderErrorKind::Class(_) => {
            ProviderError { kind: ProviderErrorKind::Class(ErrorClass::Transient), ..error }
        }
    };
    let answer = answer.map_err(|error| could_not_look(not_answered(&error)))?;
    if !answer.status.is_success() {
        return Err(could_not_look(refused(call, &answer, now)));
    }
    let reply = read(action, &answer).map_err(could_not_look)?;
    let said = match message::short(&reply.message) {
        none if none.is_empty() => format!("the receiver says {:?}", message::short(&reply.state)),
        said => said,
    };
    match reply.state.as_str() {
        "done" => {
            let output = message::outputs(&reply.outputs)
                .map_err(|why| could_not_look(unreadable(action, &why)))?;
            Ok(Observation::Done { evidence: evidence(&reply, &answer), output })
        }
        "not-done" => Ok(Observation::NotDone { observed: said }),
        "in-progress" => {
            let poll_at = poll_at(action, &reply, now).map_err(could_not_look)?;
            Ok(Observation::InProgress { poll_at })
        }
        "unknowable" => Ok(Observation::Unknowable { why: said }),
        _ => Err(could_not_look(unreadable(
            action,
            "state is none of done, not-done, in-progress and unknowable",
        ))),
    }
}

/// An empty body says nothing; one that is no object leaves open what was done.
fn read(action: &str, answer: &Answer) -> Result<Reply, ProviderError> {
    if answer.body.trim_ascii().is_empty() {
        return Ok(Reply::default());
    }
    let is_json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
    if !is_json {
        return Ok(Reply::default());
    }
    serde_json::from_slice(&answer.body).map_err(|error| unreadable(action, &error.to_string()))
}

fn evidence(reply: &Reply, answer: &Answer) -> String {
    match message::short(&reply.evidence) {
        none if none.is_empty() => format!("the receiver has answered {}", answer.status.as_u16()),
        evidence => evidence,
    }
}

fn poll_at(action: &str, reply: &Reply, now: Timestamp) -> Result<Timestamp, ProviderError> {
    let Some(text) = &reply.poll_after else { return Ok(now.plus_ms(POLL_AFTER_MS)) };
    let ms = duration::parse(text)
        .map_err(|error| unreadable(action, &format!("poll_after: {error}")))?;
    Ok(now.plus_ms(ms))
}

/// The receiver has done something and does not say what.
fn unreadable(action: &str, why: &str) -> ProviderError {
    let message = format!("the answer to {action} cannot be read: {}", message::short(why));
    ProviderError::new(ErrorClass::OutcomeUnknown, ErrorCode::Internal, message)
}

fn not_answered(error: &CallError) -> ProviderError {
    use CallErrorKind as Kind;
    let (class, code) = match error.kind {
        Kind::NotAllowed => (ErrorClass::Permanent, ErrorCode::Precondition),
        Kind::Unreachable => (ErrorClass::Transient, ErrorCode::Unreachable),
        Kind::Tls => (ErrorClass::Permanent, ErrorCode::Tls),
        Kind::Timeout => (ErrorClass::Transient, ErrorCode::Timeout),
        Kind::Closed | Kind::TooLarge | Kind::Malformed => {
            (ErrorClass::Transient, ErrorCode::Failed)
        }
        Kind::Redirected => (ErrorClass::NeedsHuman, ErrorCode::Invalid),
        Kind::Invalid => (ErrorClass::Permanent, ErrorCode::Invalid),
    };
    let class = match (error.may_be_sent, error.kind) {
        // A redirect is an answer, and says that it was not done.
        (true, Kind::Redirected) | (false, _) => class,
        (true, _) => ErrorClass::OutcomeUnknown,
    };
    ProviderError::new(class, code, message::short(&error.message))
}

fn refused(call: &Call, answer: &Answer, now: Timestamp) -> ProviderError {
    let action = call.action.as_str();
    let status = answer.status.as_u16();
    let (class, code) = match status {
        401 | 403 => (ErrorClass::NeedsHuman, ErrorCode::Unauthorized),
        404 | 405 | 410 => (ErrorClass::NeedsHuman, ErrorCode::Invalid),
        408 | 425 => (ErrorClass::Transient, ErrorCode::Timeout),
        409 | 412 | 423 => (ErrorClass::Transient, ErrorCode::Precondition),
        429 | 503 => (ErrorClass::Transient, ErrorCode::Busy),
        501 => (ErrorClass::Permanent, ErrorCode::Unsupported),
        // It may come after the effect, and so may that of a gateway.
        500..=599 => (ErrorClass::OutcomeUnknown, ErrorCode::Failed),
        _ => (ErrorClass::Permanent, ErrorCode::Invalid),
    };
    let reply = read(action, answer).unwrap_or_default();
    let said = match message::short(&reply.message) {
        none if none.is_empty() => none,
        said => format!(": {said}"),
    };
    let text = format!("{action} was answered {status}{said}");
    // The receiver has seen a newer owner of the machine.
    let newer = reply.epoch.map(Epoch).filter(|epoch| *epoch > call.epoch);
    if let (409 | 412, Some(current)) = (status, newer) {
        return ProviderError::fenced(current, text);
    }
    let mut error = ProviderError::new(class, code, text);
    error.retry_at = answer.retry_at(now);
    error
}
