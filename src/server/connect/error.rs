//! Statuses of gRPC as errors of Connect: the same code, message and details.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::StatusCode;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde::Serialize;
use tonic::{Code, Status};

use crate::json::{self, Canonical};

/// An error in JSON.
#[derive(Serialize)]
pub(super) struct ErrorBody {
    code: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

#[derive(Serialize)]
struct Detail {
    r#type: String,
    /// Base64 without padding.
    value: String,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<Canonical>,
}

impl ErrorBody {
    pub(super) fn new(status: &Status) -> Self {
        // A status of ours always has details that decode.
        let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
        Self {
            code: name(status.code()),
            message: status.message().to_owned(),
            details: details.iter().map(detail).collect(),
        }
    }
}

fn detail(any: &prost_types::Any) -> Detail {
    let r#type = any.type_url.rsplit('/').next().unwrap_or_default();
    let descriptor = json::pool().and_then(|pool| pool.get_message_by_name(r#type));
    let message = descriptor
        .and_then(|descriptor| DynamicMessage::decode(descriptor, any.value.as_slice()).ok());
    Detail {
        r#type: r#type.to_owned(),
        value: STANDARD_NO_PAD.encode(&any.value),
        debug: message.map(Canonical::new),
    }
}

/// The name of a code.
pub(super) const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The status of HTTP that goes with a code, by the table of Connect.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // 499 has no name.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
