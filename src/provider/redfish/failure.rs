//! What went wrong with a request, as an error of the provider.

use http::StatusCode;

use super::json;
use crate::clock::Timestamp;
use crate::lifecycle::step::ErrorClass;
use crate::outbound::{Answer, CallError, CallErrorKind};
use crate::provider::{ErrorCode, ProviderError};

/// A request that was not carried out as far as is known.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The error of the whole operation, if this ends it.
    pub(super) error: ProviderError,
    /// Whether it may have had an effect all the same.
    pub(super) may_be_done: bool,
    /// The status of the answer, if there was one.
    pub(super) status: Option<StatusCode>,
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self { error, may_be_done: false, status: None }
    }
}

impl From<Failure> for ProviderError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Failure {
    /// Whether the answer had one of these statuses.
    pub(super) fn is(&self, codes: &[u16]) -> bool {
        self.status.is_some_and(|status| codes.contains(&status.as_u16()))
    }

    /// Whether it says that the controller is broken or away, for the breaker.
    pub(super) fn is_trouble(&self) -> bool {
        let is_away = matches!(
            self.error.code,
            ErrorCode::Unreachable | ErrorCode::Timeout | ErrorCode::Failed
        );
        self.status.map_or(is_away, is_broken)
    }
}

/// Whether a status says that the controller is broken. 501 is an answer: it does not know the action.
pub(super) fn is_broken(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// No answer.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
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
        let message = json::plain(&error.message);
        Self {
            error: ProviderError::new(class, code, message),
            may_be_done: error.may_be_sent,
            status: None,
        }
    }
}

impl Failure {
    /// An answer that is a refusal.
    pub(super) fn refused(what: &str, answer: &Answer, now: Timestamp) -> Self {
        let status = answer.status;
        let (class, code) = match status.as_u16() {
            401 => (ErrorClass::Permanent, ErrorCode::Unauthorized),
            403 => (ErrorClass::NeedsHuman, ErrorCode::Unauthorized),
            404 | 410 => (ErrorClass::NeedsHuman, ErrorCode::Invalid),
            405 | 501 => (ErrorClass::NeedsHuman, ErrorCode::Unsupported),
            409 | 412 | 423 | 428 => (ErrorClass::Transient, ErrorCode::Precondition),
            408 => (ErrorClass::Transient, ErrorCode::Timeout),
            429 | 503 => (ErrorClass::Transient, ErrorCode::Busy),
            500..=599 => (ErrorClass::Transient, ErrorCode::Failed),
            _ => (ErrorClass::Permanent, ErrorCode::Invalid),
        };
        let said = json::said(&answer.body);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let mut error = ProviderError::new(
            class,
            code,
            format!("{what} was answered {}{said}", status.as_u16()),
        );
        error.retry_at = answer.retry_at(now);
        // An error of the server may come after the effect, and so may that of a gateway.
        let may_be_done = is_broken(status);
        Self { error, may_be_done, status: Some(status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ProviderErrorKind;

    #[test]
    fn every_refusal_has_a_class_and_a_code() {
        let answer = |status: u16| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: [("retry-after".parse().unwrap(), "9".parse().unwrap())].into_iter().collect(),
            body: b"no".to_vec(),
        };
        for (status, class, code, may_be_done) in [
            (400, ErrorClass::Permanent, ErrorCode::Invalid, false),
            (401, ErrorClass::Permanent, ErrorCode::Unauthorized, false),
            (403, ErrorClass::NeedsHuman, ErrorCode::Unauthorized, false),
            (404, ErrorClass::NeedsHuman, ErrorCode::Invalid, false),
            (409, ErrorClass::Transient, ErrorCode::Precondition, false),
            (429, ErrorClass::Transient, ErrorCode::Busy, false),
            (500, ErrorClass::Transient, ErrorCode::Failed, true),
            (501, ErrorClass::NeedsHuman, ErrorCode::Unsupported, false),
            (503, ErrorClass::Transient, ErrorCode::Busy, true),
        ] {
            let failure = Failure::refused("POST /reset", &answer(status), Timestamp(1_000));
            assert_eq!(failure.error.kind, ProviderErrorKind::Class(class), "{status}");
            assert_eq!((failure.error.code, failure.may_be_done), (code, may_be_done), "{status}");
            assert_eq!(failure.error.retry_at, Some(Timestamp(10_000)));
            assert_eq!(failure.error.message, format!("POST /reset was answered {status}: no"));
        }
    }
}
