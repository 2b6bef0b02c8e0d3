//! What the end of a program means for its call.
//!
//! The exit code decides. The line `bmdemo: {…}` adds what an exit code cannot say.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::material::{MATERIAL_BYTES_MAX, Material};
use super::supervisor::{End, Ended};
use crate::clock::Timestamp;
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::model::identity::normal_mac;
use crate::model::{MachineFacts, Power};
use crate::plan::Values;
use crate::plan::duration;
use crate::provider::message::{self, Purpose, short};
use crate::provider::{Acted, ErrorCode, Health, Observation, ProviderError, Verification};

/// Not done, does not hold, does not answer, is fenced: the answer of a program that looks is no.
const NO: i32 = 10;
/// In progress; for a probe: answers, with reduced capacity.
const PARTLY: i32 = 11;
/// It cannot be known.
const UNKNOWABLE: i32 = 12;

const EX_USAGE: i32 = 64;
const EX_DATAERR: i32 = 65;
const EX_UNAVAILABLE: i32 = 69;
const EX_IOERR: i32 = 74;
const EX_TEMPFAIL: i32 = 75;
const EX_NOPERM: i32 = 77;
const EX_CONFIG: i32 = 78;
/// A shell could not execute what it was asked to.
const NOT_EXECUTABLE: i32 = 126;
/// A shell did not find what it was asked to execute.
const NOT_FOUND: i32 = 127;
/// `ssh` has lost its connection, before or after the remote command ran.
const SSH_FAILED: i32 = 255;

/// When to ask again if a program does not say.
const POLL_AFTER_MS: u64 = 10_000;
/// Most MAC addresses of a machine.
const ADAPTERS_MAX: usize = 32;

/// The answer of a program; every key is optional.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Answer {
    evidence: String,
    message: String,
    expected: String,
    observed: String,
    outputs: Map<String, Json>,
    handle: Option<String>,
    poll_after: Option<String>,
    retry_after: Option<String>,
    epoch: Option<u64>,
    power: String,
    firmware: String,
    serial: String,
    health: String,
    material: Option<Material>,
    model: String,
    mac_addresses: Vec<String>,
}

/// A program that has ended, with its answer.
struct Report<'a> {
    purpose: Purpose,
    /// What it was called for, as in "act of drain".
    what: String,
    ended: &'a Ended,
    answer: Answer,
    now: Timestamp,
}

/// What *act* led to.
pub(super) fn acted(action: &str, ended: &Ended, now: Timestamp) -> Result<Acted, ProviderError> {
    let report = Report::read(Purpose::Act, action, ended, now)?;
    if report.code() != Some(0) {
        return Err(report.failure());
    }
    let output = report.outputs()?;
    if let Some(material) = &report.answer.material {
        let count = material.reveal().len();
        if !(1..=MATERIAL_BYTES_MAX).contains(&count) {
            let why = format!("{count} bytes of material, expected 1 to {MATERIAL_BYTES_MAX}");
            return Err(report.unreadable(&why));
        }
        if report.answer.handle.is_some() {
            return Err(report.unreadable("material of an operation that is not done"));
        }
    }
    match report.answer.handle.clone() {
        None => Ok(Acted::Done { evidence: report.evidence(), output }),
        Some(handle) => Ok(Acted::Accepted { handle: short(&handle), poll_at: report.poll_at()? }),
    }
}

/// The secret that a program hands over that has acted.
pub(super) fn material(ended: &Ended) -> Option<Material> {
    let answer: Option<Answer> =
        ended.answer.as_ref().and_then(|text| serde_json::from_str(text).ok());
    answer.and_then(|answer| answer.material)
}

/// What *observe* saw.
pub(super) fn observed(
    action: &str,
    ended: &Ended,
    now: Timestamp,
) -> Result<Observation, ProviderError> {
    let report = Report::read(Purpose::Observe, action, ended, now)?;
    match report.code() {
        Some(0) => Ok(Observation::Done { evidence: report.evidence(), output: report.outputs()? }),
        Some(NO) => Ok(Observation::NotDone { observed: report.seen() }),
        Some(PARTLY) => Ok(Observation::InProgress { poll_at: report.poll_at()? }),
        Some(UNKNOWABLE) => Ok(Observation::Unknowable { why: report.seen() }),
        Some(_) | None => Err(report.failure()),
    }
}

/// What *verify* found.
pub(super) fn verified(
    action: &str,
    ended: &Ended,
    now: Timestamp,
) -> Result<Verification, ProviderError> {
    let report = Report::read(Purpose::Verify, action, ended, now)?;
    match report.code() {
        Some(0) => Ok(Verification::Holds { evidence: report.evidence() }),
        Some(NO) => Ok(Verification::Broken {
            expected: match short(&report.answer.expected) {
                expected if expected.is_empty() => format!("{action} done"),
                expected => expected,
            },
            observed: report.seen(),
        }),
        Some(_) | None => Err(report.failure()),
    }
}

/// How the machine is.
pub(super) fn probed(ended: &Ended, now: Timestamp) -> Result<Health, ProviderError> {
    let report = Report::read(Purpose::Probe, "", ended, now)?;
    let (reachable, degraded) = match report.code() {
        Some(0) => (true, false),
        Some(PARTLY) => (true, true),
        Some(NO) => (false, false),
        Some(_) | None => return Err(report.failure()),
    };
    let answer = &report.answer;
    let power = match answer.power.as_str() {
        "on" => Power::On,
        "off" => Power::Off,
        _ => Power::Unknown,
    };
    let macs: BTreeSet<String> =
        answer.mac_addresses.iter().take(ADAPTERS_MAX).filter_map(|mac| normal_mac(mac)).collect();
    let facts = MachineFacts {
        power,
        power_word: match power {
            Power::Unknown => short(&answer.power),
            Power::On | Power::Off => String::new(),
        },
        model: short(&answer.model),
        mac_addresses: macs.into_iter().collect(),
        firmware: short(&answer.firmware),
        serial: short(&answer.serial),
        health: short(&answer.health),
    };
    Ok(Health { reachable, degraded, message: report.seen(), facts })
}

/// Whether the program that raises an epoch, or one that stops an operation, has done so.
pub(super) fn done(
    purpose: Purpose,
    action: &str,
    ended: &Ended,
    now: Timestamp,
) -> Result<(), ProviderError> {
    let report = Report::read(purpose, action, ended, now)?;
    match (report.code(), report.answer.epoch) {
        (Some(0), _) => Ok(()),
        (Some(NO), Some(current)) if purpose == Purpose::Fence => {
            Err(ProviderError::fenced(Epoch(current), report.text()))
        }
        (Some(_) | None, _) => Err(report.failure()),
    }
}

impl<'a> Report<'a> {
    fn read(
        purpose: Purpose,
        action: &str,
        ended: &'a Ended,
        now: Timestamp,
    ) -> Result<Self, ProviderError> {
        let what = match action {
            "" => purpose.as_str().to_owned(),
            _ => format!("{} of {action}", purpose.as_str()),
        };
        let read = ended.answer.as_ref().map(|text| serde_json::from_str(text)).transpose();
        let (answer, wrong) = match read {
            Ok(answer) => (answer.unwrap_or_default(), None),
            Err(error) => (Answer::default(), Some(error)),
        };
        let report = Self { purpose, what, ended, answer, now };
        match wrong {
            // What the parser says can quote the answer.
            Some(error)
                if report.code() == Some(0)
                    && ended.answer.as_ref().is_some_and(|text| text.contains("material")) =>
            {
                let column = error.column();
                let why = format!(
                    "its answer cannot be read at column {column}; it has material, so it is not shown"
                );
                Err(report.unreadable(&why))
            }
            Some(error) if report.code() == Some(0) => {
                Err(report.unreadable(&format!("its answer cannot be read: {error}")))
            }
            // Its exit code says enough.
            Some(_) | None => Ok(report),
        }
    }

    fn code(&self) -> Option<i32> {
        match self.ended.end {
            End::Exited(code) => Some(code),
            End::Signaled(_) | End::TimedOut(_) | End::Asked => None,
        }
    }

    /// A program that has ended well, with an answer that makes no sense: if it acts, it has acted.
    fn unreadable(&self, why: &str) -> ProviderError {
        let class = match self.purpose {
            Purpose::Act => ErrorClass::OutcomeUnknown,
            Purpose::Observe
            | Purpose::Verify
            | Purpose::Stop
            | Purpose::Fence
            | Purpose::Probe => ErrorClass::Transient,
        };
        ProviderError::new(class, ErrorCode::Internal, short(&format!("{}: {why}", self.what)))
    }

    fn failure(&self) -> ProviderError {
        let (class, code) = match self.purpose {
            Purpose::Act => class_of_act(self.ended.end),
            // That it could not look says nothing about the action, unless the program means the action.
            Purpose::Observe
            | Purpose::Verify
            | Purpose::Stop
            | Purpose::Fence
            | Purpose::Probe => match class_of_act(self.ended.end) {
                (ErrorClass::Permanent, code) => (ErrorClass::Permanent, code),
                (ErrorClass::NeedsHuman, ErrorCode::Unauthorized) => {
                    (ErrorClass::NeedsHuman, ErrorCode::Unauthorized)
                }
                (
                    ErrorClass::Transient | ErrorClass::NeedsHuman | ErrorClass::OutcomeUnknown,
                    code,
                ) => (ErrorClass::Transient, code),
            },
        };
        let Answer { expected, observed, retry_after, .. } = &self.answer;
        let error = ProviderError::new(class, code, self.text());
        let error = error.seen(short(expected), short(observed));
        match retry_after.as_deref().map(duration::parse) {
            Some(Ok(ms)) => error.retry_at(self.now.plus_ms(ms)),
            Some(Err(_)) | None => error,
        }
    }

    fn evidence(&self) -> String {
        match short(&self.answer.evidence) {
            none if none.is_empty() => format!("{} {}", self.what, self.ended.end),
            evidence => evidence,
        }
    }

    /// What it saw: in its words if it has any.
    fn seen(&self) -> String {
        match short(&self.answer.observed) {
            none if none.is_empty() => self.text(),
            observed => observed,
        }
    }

    /// How it ended, and what it said last.
    fn text(&self) -> String {
        let words = match short(&self.answer.message) {
            none if none.is_empty() => short(&self.ended.last_error),
            message => message,
        };
        match words.as_str() {
            "" => format!("{} {}", self.what, self.ended.end),
            _ => format!("{} {}: {words}", self.what, self.ended.end),
        }
    }

    fn poll_at(&self) -> Result<Timestamp, ProviderError> {
        let Some(text) = &self.answer.poll_after else {
            return Ok(self.now.plus_ms(POLL_AFTER_MS));
        };
        let ms = duration::parse(text)
            .map_err(|error| self.unreadable(&format!("poll_after of its answer: {error}")))?;
        Ok(self.now.plus_ms(ms))
    }

    fn outputs(&self) -> Result<Values, ProviderError> {
        message::outputs(&self.answer.outputs).map_err(|why| self.unreadable(&why))
    }
}

/// What the end of a program that acts means. Without a word that it does not know, a program that fails has done nothing.
const fn class_of_act(end: End) -> (ErrorClass, ErrorCode) {
    match end {
        End::Exited(EX_USAGE | EX_DATAERR) => (ErrorClass::Permanent, ErrorCode::Invalid),
        End::Exited(EX_UNAVAILABLE) => (ErrorClass::Transient, ErrorCode::Unreachable),
        End::Exited(EX_IOERR) => (ErrorClass::OutcomeUnknown, ErrorCode::Failed),
        End::Exited(SSH_FAILED) => (ErrorClass::OutcomeUnknown, ErrorCode::Unreachable),
        End::Exited(EX_TEMPFAIL) => (ErrorClass::Transient, ErrorCode::Busy),
        End::Exited(EX_NOPERM) => (ErrorClass::NeedsHuman, ErrorCode::Unauthorized),
        End::Exited(EX_CONFIG | NOT_EXECUTABLE | NOT_FOUND) => {
            (ErrorClass::NeedsHuman, ErrorCode::Unavailable)
        }
        End::Exited(_) => (ErrorClass::Transient, ErrorCode::Failed),
        End::Signaled(_) => (ErrorClass::OutcomeUnknown, ErrorCode::Failed),
        End::TimedOut(_) => (ErrorClass::OutcomeUnknown, ErrorCode::Timeout),
        End::Asked => (ErrorClass::OutcomeUnknown, ErrorCode::Stopped),
    }
}

#[cfg(test)]
mod tests;
