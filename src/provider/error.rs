//! Errors of provider calls.

use crate::clock::Timestamp;
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;

/// A failed call: its class says what can be done next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// What the caller can do next.
    pub kind: ProviderErrorKind,
    /// What went wrong, for metrics and circuit breakers.
    pub code: ErrorCode,
    /// What happened, for people.
    pub message: String,
    /// What was expected, empty if nothing was checked.
    pub expected: String,
    /// What was observed instead.
    pub observed: String,
    /// Earliest time for a retry, if the provider gives one.
    pub retry_at: Option<Timestamp>,
}

/// What the caller of a failed call can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderErrorKind {
    /// Determined by the class.
    Class(ErrorClass),
    /// A newer epoch owns the machine: stop working on it.
    Fenced {
        /// Epoch in force at the provider.
        current: Epoch,
    },
}

/// What went wrong: a closed list whose names never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// The operation was performed and failed.
    Failed,
    /// No connection could be made.
    Unreachable,
    /// No answer came in time.
    Timeout,
    /// The connection could not be secured, or the certificate is not the known one.
    Tls,
    /// The credentials were refused.
    Unauthorized,
    /// It is working on something else, or asks to be retried later.
    Busy,
    /// The action, or an argument of it, is not supported.
    Unsupported,
    /// An argument or an input has an invalid value.
    Invalid,
    /// The machine's state does not allow it.
    Precondition,
    /// It was stopped before it took effect.
    Stopped,
    /// A newer epoch owns the machine.
    Fenced,
    /// The provider is not configured, or cannot keep its own records.
    Unavailable,
    /// A bug in the provider.
    Internal,
    /// It waited for its turn, and may not begin any more ([`LogSink::may_begin`](super::LogSink::may_begin)). Only drivers
    /// say so: no name reads as this.
    PutOff,
}

impl ErrorCode {
    /// Every code that has a name to read.
    pub const ALL: [Self; 13] = [
        Self::Failed,
        Self::Unreachable,
        Self::Timeout,
        Self::Tls,
        Self::Unauthorized,
        Self::Busy,
        Self::Unsupported,
        Self::Invalid,
        Self::Precondition,
        Self::Stopped,
        Self::Fenced,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Unauthorized => "unauthorized",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Precondition => "precondition",
            Self::Stopped => "stopped",
            Self::Fenced => "fenced",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::PutOff => "put-off",
        }
    }

    /// The code of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

impl ProviderError {
    /// A failure of a class.
    #[must_use]
    pub fn new(class: ErrorClass, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            kind: ProviderErrorKind::Class(class),
            code,
            message: message.into(),
            expected: String::new(),
            observed: String::new(),
            retry_at: None,
        }
    }

    /// A newer epoch owns the machine.
    #[must_use]
    pub fn fenced(current: Epoch, message: impl Into<String>) -> Self {
        let kind = ProviderErrorKind::Fenced { current };
        Self { kind, ..Self::new(ErrorClass::Permanent, ErrorCode::Fenced, message) }
    }

    /// An action that has not begun, and may not any more.
    #[must_use]
    pub fn put_off() -> Self {
        Self::new(ErrorClass::Transient, ErrorCode::PutOff, "it has not begun, and may not now")
    }

    /// Adds what was expected and what was observed.
    #[must_use]
    pub fn seen(mut self, expected: impl Into<String>, observed: impl Into<String>) -> Self {
        self.expected = expected.into();
        self.observed = observed.into();
        self
    }

    /// Adds the earliest time for a retry.
    #[must_use]
    pub fn retry_at(mut self, at: Timestamp) -> Self {
        self.retry_at = Some(at);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(ErrorCode::parse("bad-luck"), None);
    }
}
