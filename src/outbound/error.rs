//! Why a call gave no answer.

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What failed.
    pub kind: CallErrorKind,
    /// Whether the request may have reached the other side: then what it asks for may have happened.
    pub may_be_sent: bool,
    /// What happened, for people.
    pub message: String,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallErrorKind {
    /// The address is in no network that may be called.
    NotAllowed,
    /// The name has no address, or nothing could be connected to.
    Unreachable,
    /// The connection could not be secured.
    Tls,
    /// A time limit has passed.
    Timeout,
    /// The connection ended early.
    Closed,
    /// The answer is larger than is read.
    TooLarge,
    /// The answer is not HTTP, or of a form that is not read.
    Malformed,
    /// The answer leads to another origin.
    Redirected,
    /// The request itself cannot be made: a bug of the caller, or its configuration.
    Invalid,
}

impl CallError {
    pub(super) fn new(kind: CallErrorKind, message: impl Into<String>) -> Self {
        Self { kind, may_be_sent: false, message: message.into() }
    }

    pub(super) fn sent(mut self) -> Self {
        self.may_be_sent = true;
        self
    }
}

/// An error with its causes, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
