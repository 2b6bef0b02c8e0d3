//! The only place that creates a [`tonic::Status`].
//!
//! Every status carries an `ErrorInfo` with a reason from [`Reason::ALL`]; `docs/errors.md` says for each what
//! happened and what to do, and a test compares the two.

mod answer;
mod reason;

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::limits::REQUEST_BYTES_MAX;
use crate::executor::error::{EngineError, Refusal};
use crate::ids::RunId;
use crate::model::filter::FilterError;
use crate::store::StoreError;

pub use self::answer::DOMAIN;
use self::answer::{Answer, VIOLATIONS_MAX};
pub use self::reason::Reason;

/// Why a request fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// Refused by the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What blocks a dry run: every blocker, the most important first.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Blocked(Vec<EngineError>),
    /// There is no such plan; perhaps another one was meant.
    #[error("plan {id:?} not found")]
    PlanNotFound {
        /// The requested id.
        id: String,
        /// The closest id.
        suggestion: Option<String>,
    },
    /// A filter cannot be parsed.
    #[error("filter: {0}")]
    Filter(#[from] FilterError),
    /// A page token was not made by this server, or was damaged.
    #[error("page_token was not made by this server, or was damaged: start over without one")]
    PageTokenInvalid,
    /// A page token belongs to another list.
    #[error(
        "page_token belongs to a list with another filter, order or scope: repeat the request that returned it, or start over \
         without one"
    )]
    PageTokenMismatch,
    /// The request cannot be decoded as its message.
    #[error("the request cannot be decoded: {0}")]
    MessageMalformed(String),
    /// The request is larger than the server accepts.
    #[error("the request is larger than {} bytes: send a smaller one", REQUEST_BYTES_MAX)]
    MessageTooLarge,
    /// The request is compressed in a way that the server does not support.
    #[error("{0}: send it uncompressed")]
    CompressionUnsupported(String),
    /// The client's deadline passed.
    #[error(
        "the deadline passed before the answer was ready; a mutation may have happened: repeat it with the same \
         request_id"
    )]
    DeadlineExceeded,
    /// The request was not complete in time.
    #[error(
        "the request was not complete within {} s: nothing was changed; send the whole request at once",
        .limit.as_secs()
    )]
    RequestIncomplete {
        /// Time that a request has.
        limit: Duration,
    },
    /// Nothing that the caller showed says who it is, or it is not accepted. Why goes to the log of the server alone.
    #[error(
        "the credentials of this call are missing, or not accepted; the log of the server says why"
    )]
    Unauthenticated,
    /// The caller's role does not allow the request.
    #[error("{who} has the role {role}, and {what} needs the role {wanted}")]
    RoleMissing {
        /// Name of the caller.
        who: String,
        /// Its role.
        role: &'static str,
        /// What was asked for.
        what: String,
        /// The role that it needs.
        wanted: &'static str,
    },
    /// The caller is locked.
    #[error("{0}")]
    PrincipalLocked(String),
    /// The credentials of a stream's caller have expired or were revoked, or its role or scope is another.
    #[error(
        "the credentials of this stream have expired or were revoked, or allow something else now: open it again with \
         new ones"
    )]
    CredentialsEnded {
        /// Where a watch resumes; 0 if it has to start over.
        resume_from: u64,
    },
    /// There is no such method.
    #[error("bmdemo {version} has no method {0}", version = env!("CARGO_PKG_VERSION"))]
    MethodUnknown(String),
    /// The server has not recovered its runs yet.
    #[error("the server is recovering its runs and is not ready yet: try again soon")]
    NotReady,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl ApiError {
    /// The reason, as clients see it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Engine(error) => reason(error),
            Self::Blocked(errors) => errors.first().map_or(Reason::Internal, reason),
            Self::PlanNotFound { .. } => Reason::NotFound,
            Self::Filter(_) => Reason::FilterInvalid,
            Self::PageTokenInvalid => Reason::PageTokenInvalid,
            Self::PageTokenMismatch => Reason::PageTokenMismatch,
            Self::MessageMalformed(_) => Reason::MessageMalformed,
            Self::MessageTooLarge => Reason::MessageTooLarge,
            Self::CompressionUnsupported(_) => Reason::CompressionUnsupported,
            Self::DeadlineExceeded | Self::RequestIncomplete { .. } => Reason::DeadlineExceeded,
            Self::MethodUnknown(_) => Reason::MethodUnknown,
            Self::NotReady => Reason::NotReady,
            Self::Unauthenticated => Reason::Unauthenticated,
            Self::RoleMissing { .. } => Reason::RoleMissing,
            Self::PrincipalLocked(_) => Reason::PrincipalLocked,
            Self::CredentialsEnded { .. } => Reason::CredentialsEnded,
        }
    }
}

fn reason(error: &EngineError) -> Reason {
    match error {
        EngineError::Invalid(_) => Reason::FieldInvalid,
        EngineError::NotFound { .. } => Reason::NotFound,
        EngineError::OutOfScope { .. } => Reason::OutOfScope,
        EngineError::AlreadyExists { .. } => Reason::AlreadyExists,
        EngineError::Refused { refusal, .. } => (*refusal).into(),
        EngineError::ForAdmins { .. } => Reason::RoleMissing,
        EngineError::RequestIdReused { .. } => Reason::RequestIdReused,
        EngineError::EtagMismatch { .. } => Reason::EtagMismatch,
        EngineError::Exhausted { .. } => Reason::LimitReached,
        EngineError::Compacted { .. } => Reason::RevisionCompacted,
        EngineError::DeadlineExceeded => Reason::DeadlineExceeded,
        EngineError::ShuttingDown => Reason::ShuttingDown,
        EngineError::Internal(_) => Reason::Internal,
        EngineError::Store(error) => match error {
            StoreError::Conflict { .. } => Reason::RevisionConflict,
            StoreError::ActiveRun { .. } => Reason::RunActive,
            StoreError::MacTaken { .. } => Reason::AlreadyExists,
            StoreError::Fenced { .. } => Reason::LeaseLost,
            StoreError::RequestUsed(_) => Reason::RequestIdReused,
            StoreError::NoSlot { .. } => Reason::LimitReached,
            StoreError::Compacted { .. } => Reason::RevisionCompacted,
            StoreError::Full(_) => Reason::StoreFull,
            StoreError::Unknown(_) => Reason::StoreOutcomeUnknown,
            StoreError::Unavailable(_) => Reason::StoreUnavailable,
            StoreError::Corrupt { .. } => Reason::StoreCorrupt,
        },
    }
}

/// The error of one item of a batch.
pub(super) fn item_error(error: ApiError) -> crate::pb::ItemError {
    let reason = error.reason();
    let status = Status::from(error);
    let details = status.get_error_details();
    let info = details.error_info();
    crate::pb::ItemError {
        code: status.code().into(),
        reason: reason.as_str().to_owned(),
        message: status.message().to_owned(),
        hint: info.and_then(|info| info.metadata.get("hint").cloned()).unwrap_or_default(),
    }
}

/// A stream of responses.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let reason = error.reason();
        let mut answer = Answer::new(reason, error.to_string());
        match &error {
            ApiError::Engine(error) => engine(&mut answer, error),
            ApiError::Blocked(errors) => {
                for error in errors.iter().take(VIOLATIONS_MAX).rev() {
                    // The first comes last, so that its hint wins.
                    engine(&mut answer, error);
                }
            }
            ApiError::PlanNotFound { id, suggestion } => {
                answer.resource("plan", id);
                if let Some(suggestion) = suggestion {
                    answer.hint(format!("did you mean {suggestion}?"));
                }
            }
            ApiError::Filter(error) => {
                answer.violation("filter", &error.to_string());
                answer.metadata("position", error.position.to_string());
            }
            ApiError::PageTokenInvalid | ApiError::PageTokenMismatch => {
                answer.violation("page_token", &error.to_string());
            }
            ApiError::MessageTooLarge => {
                answer.metadata("bytes_max", REQUEST_BYTES_MAX.to_string());
            }
            ApiError::MessageMalformed(_)
            | ApiError::CompressionUnsupported(_)
            | ApiError::DeadlineExceeded
            | ApiError::RequestIncomplete { .. } => {}
            ApiError::Unauthenticated => {}
            ApiError::RoleMissing { wanted, .. } => {
                answer.metadata("role", (*wanted).to_owned());
            }
            ApiError::PrincipalLocked(_) => {
                answer.hint("another admin lifts it: bmdemo-cli unlock".into());
            }
            ApiError::CredentialsEnded { resume_from } => {
                answer.metadata("resume_from", resume_from.to_string());
            }
            ApiError::NotReady => answer.retry(Duration::from_secs(1)),
            ApiError::MethodUnknown(_) => {
                answer.hint(
                    "the server may be older than the client; it lists its methods by reflection"
                        .into(),
                );
            }
        }
        answer.status()
    }
}

fn engine(answer: &mut Answer, error: &EngineError) {
    match error {
        EngineError::Invalid(violations) => {
            for violation in violations {
                answer.violation(&violation.field, &violation.description);
            }
        }
        EngineError::NotFound { kind, id } | EngineError::AlreadyExists { kind, id, .. } => {
            answer.resource(kind, id);
        }
        EngineError::Refused { refusal, subject, message, hint } => {
            let kind = refusal.as_str();
            answer.precondition(kind, subject, message);
            answer.hint(hint.clone());
            if *refusal == Refusal::RunActive
                && let Some(run) = run_named_in(subject).or_else(|| run_named_in(message))
            {
                answer.metadata("active_run_id", run.to_string());
            }
        }
        EngineError::ForAdmins { .. } => {
            answer.metadata("role", "admin".to_owned());
        }
        EngineError::RequestIdReused { request_id } => {
            answer
                .violation("request_id", "was used before for a different request: use a new one");
            answer.metadata("request_id", request_id.clone());
        }
        EngineError::EtagMismatch { kind, id, given, current } => {
            answer.resource(kind, id);
            answer.metadata("given", given.clone());
            answer.metadata("current", current.clone());
            answer.hint("read the object again, then decide".into());
        }
        EngineError::Exhausted { limit, message } => {
            answer.details.add_quota_failure_violation(*limit, message.as_str());
            answer.metadata("limit", (*limit).to_owned());
            answer.retry(Duration::from_secs(1));
        }
        EngineError::Compacted { oldest } => {
            answer.metadata("oldest", oldest.to_string());
            answer.hint(
                "start a new watch from 0: it sends the present state first, then changes".into(),
            );
        }
        EngineError::OutOfScope { .. } => {}
        EngineError::DeadlineExceeded => {
            answer.hint("repeat it with a longer deadline and the same request_id".into());
        }
        EngineError::ShuttingDown => answer.retry(Duration::from_secs(1)),
        EngineError::Store(error) => store(answer, error),
        EngineError::Internal(cause) => {
            tracing::error!(%cause, "a bug made a request fail");
            answer.message = "internal error; the server's log has the cause".to_owned();
            answer.help("What to report");
        }
    }
}

fn store(answer: &mut Answer, error: &StoreError) {
    match error {
        StoreError::Conflict { kind, id, .. } => {
            answer.message = error.to_string();
            answer.resource(kind, id);
            answer.hint(
                "another request wrote at the same moment: read the object again, then decide"
                    .into(),
            );
        }
        StoreError::MacTaken { machine_id, .. } => {
            answer.message = error.to_string();
            answer.resource("machine", machine_id.as_str());
        }
        StoreError::ActiveRun { machine_id, run_id } => {
            answer.message = error.to_string();
            let subject = format!("machines/{machine_id}");
            let message = error.to_string();
            answer.precondition("RUN_ACTIVE", &subject, &message);
            answer.metadata("active_run_id", run_id.to_string());
        }
        StoreError::RequestUsed(record) => {
            answer.message = error.to_string();
            answer
                .violation("request_id", "was used before for a different request: use a new one");
            answer.metadata("request_id", record.request_id.clone());
        }
        StoreError::NoSlot { .. } => {
            answer.message = error.to_string();
            answer.retry(Duration::from_secs(1));
        }
        StoreError::Compacted { oldest } => {
            answer.message = error.to_string();
            answer.metadata("oldest", oldest.to_string());
        }
        StoreError::Fenced { .. } => {
            tracing::warn!(%error, "a request was for a machine that another server owns");
            answer.message = "another server has taken over the machine's work".to_owned();
            answer.retry(Duration::from_secs(1));
        }
        // The store logs this itself: once, not for each request.
        StoreError::Full(_) => {
            answer.message = "the store is full: nothing was changed; reads still work".to_owned();
            answer.help("How to free space");
        }
        StoreError::Unknown(_) => {
            log(error);
            answer.message =
                "whether the request was stored is not known: repeat it with the same request_id"
                    .to_owned();
            answer.retry(Duration::from_secs(1));
            answer.help("Why the outcome is unknown");
        }
        StoreError::Unavailable(_) => {
            log(error);
            answer.message = "the store is unavailable: nothing was changed".to_owned();
            answer.retry(Duration::from_millis(500));
        }
        StoreError::Corrupt { kind, id, .. } => {
            log(error);
            answer.message =
                format!("the stored {kind} {id} cannot be read; the server's log has the cause");
            answer.resource(kind, id);
            answer.help("What to do about a damaged record");
        }
    }
}

/// The causes go to the log with the whole chain, and never to clients.
fn log(error: &StoreError) {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    tracing::error!(%error, ?causes, "the store failed a request");
}

/// The first run id in a text.
fn run_named_in(text: &str) -> Option<RunId> {
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .filter(|word| word.len() == 36)
        .find_map(|word| RunId::parse(word).ok())
}

#[cfg(test)]
mod tests;
