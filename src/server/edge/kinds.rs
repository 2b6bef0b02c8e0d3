//! What is known of a call by its path: whether it lasts, and what it needs before it begins.

use crate::api::methods;
use crate::server::limits::{ANSWER_LARGE_BYTES, ANSWER_SMALL_BYTES, JSON_ANSWER_FACTOR};
use crate::server::room::Need;

/// Whether a call lasts as long as it says itself, or until its client leaves.
pub(super) fn lasts(path: &str) -> bool {
    is_stream(path) || methods::by_path(path).is_some_and(|method| method.name == "WaitRun")
}

/// Whether a call is answered by several messages.
pub(super) fn is_stream(path: &str) -> bool {
    methods::by_path(path).is_some_and(|method| method.is_stream)
        || path == "/grpc.health.v1.Health/Watch"
        || is_reflection(path)
}

/// What a call needs before it begins; `None` for calls that last.
pub(super) fn need(path: &str, is_json: bool) -> Option<Need> {
    if lasts(path) {
        return None;
    }
    let begins = |with| methods::by_path(path).is_some_and(|method| method.name.starts_with(with));
    let (is_scan, is_batch) = (begins("List"), begins("Batch"));
    let bytes = match is_scan || is_batch {
        true if is_json => ANSWER_LARGE_BYTES * JSON_ANSWER_FACTOR,
        true => ANSWER_LARGE_BYTES,
        false => ANSWER_SMALL_BYTES,
    };
    Some(Need { bytes, is_scan })
}

pub(super) fn is_reflection(path: &str) -> bool {
    path.starts_with("/grpc.reflection.")
}
