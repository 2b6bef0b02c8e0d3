//! What tonic refuses by itself, in our terms.

use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::api::status::ApiError;
use crate::executor::EngineError;

/// Metadata that lists a peer's supported compressions.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Longest part of a method's name that an error repeats.
const PATH_CHARS_MAX: usize = 256;

/// Too many calls of a connection wait for room.
pub(super) fn too_many_wait() -> Status {
    let message = "too many calls of this connection wait until answers are read: read them, and ask for less at a time";
    let message = message.to_owned();
    ApiError::Engine(EngineError::Exhausted { limit: "CALLS_WAITING", message }).into()
}

/// Rewrites tonic's own refusals as ours: with a reason, and as the client's error where it is one. By itself tonic
/// answers an unknown method without a message, and broken framing with INTERNAL.
pub(super) fn in_our_terms(response: Response<Body>, path: &str) -> Response<Body> {
    let refused = Status::from_header_map(response.headers());
    let Some(status) = refused.filter(|status| status.details().is_empty()) else {
        return response;
    };
    let (code, message) = (status.code(), status.message());
    let error = if code == Code::Unimplemented && message.is_empty() {
        ApiError::MethodUnknown(path.chars().take(PATH_CHARS_MAX).collect())
    } else if code == Code::Unimplemented && message.starts_with("Content is compressed") {
        ApiError::CompressionUnsupported(message.to_owned())
    } else if code == Code::OutOfRange && message.contains("message length too large") {
        ApiError::MessageTooLarge
    } else if code == Code::Internal {
        // Our own statuses have details.
        ApiError::MessageMalformed(message.to_owned())
    } else {
        return response;
    };
    let mut ours = Status::from(error).into_http();
    // Lists the compressions that a client may use.
    if let Some(encodings) = response.headers().get(ACCEPT_ENCODING) {
        ours.headers_mut().insert(ACCEPT_ENCODING, encodings.clone());
    }
    ours
}
