//! The content of a status, cut to fit the trailers that carry it.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::reason::Reason;
use crate::text::escaped;

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "baremetal.v1";

/// Longest message and longest text inside the details, in characters.
const TEXT_CHARS_MAX: usize = 600;

/// Shortest length that a text is cut to, to make room for the others, in characters.
const TEXT_CHARS_MIN: usize = 75;

/// Most bytes of trailers for the message and details of a status. Clients refuse more than 8 KiB of trailers in all,
/// and then report RESOURCE_EXHAUSTED instead of the error; the rest is left for other trailers.
const TRAILER_BYTES_MAX: usize = 7 * 1024;

/// Most violations named by one error.
pub(super) const VIOLATIONS_MAX: usize = 16;

/// The content of a status. Texts stay whole until it is known how many there are.
pub(super) struct Answer {
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) metadata: HashMap<String, String>,
    pub(super) details: ErrorDetails,
}

impl Answer {
    pub(super) fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, metadata: HashMap::new(), details: ErrorDetails::new() }
    }

    pub(super) fn metadata(&mut self, key: &str, value: String) {
        self.metadata.insert(key.to_owned(), value);
    }

    pub(super) fn hint(&mut self, hint: String) {
        if !hint.is_empty() {
            self.metadata("hint", hint);
        }
    }

    pub(super) fn violation(&mut self, field: &str, description: &str) {
        if self.details.bad_request().is_none_or(|bad| bad.field_violations.len() < VIOLATIONS_MAX)
        {
            self.details.add_bad_request_violation(field, description);
        }
    }

    pub(super) fn precondition(&mut self, kind: &str, subject: &str, description: &str) {
        self.details.add_precondition_failure_violation(kind, subject, description);
    }

    pub(super) fn resource(&mut self, kind: &str, id: &str) {
        self.details.set_resource_info(kind, id, "", "");
    }

    pub(super) fn retry(&mut self, after: Duration) {
        self.details.set_retry_info(Some(after));
    }

    pub(super) fn help(&mut self, what: &str) {
        let url = format!("docs/errors.md#{}", self.reason.as_str().to_lowercase());
        self.details.add_help_link(what, url);
    }

    /// The status, small enough for trailers: texts are cut first, then violations are left out.
    pub(super) fn status(self) -> Status {
        let mut chars_max = TEXT_CHARS_MAX;
        let mut violations_max = VIOLATIONS_MAX;
        loop {
            let status = self.cut(chars_max, violations_max);
            if trailer_bytes(&status) <= TRAILER_BYTES_MAX || violations_max == 0 {
                return status;
            }
            if chars_max > TEXT_CHARS_MIN {
                chars_max /= 2;
            } else {
                violations_max /= 2;
            }
        }
    }

    /// The status with at most `violations_max` violations, and no text longer than `chars_max` characters.
    fn cut(&self, chars_max: usize, violations_max: usize) -> Status {
        let mut details = self.details.clone();
        let bounded = |text: &str| bounded(text, chars_max);
        if let Some(bad) = details.bad_request() {
            let kept = bad.field_violations.iter().take(violations_max);
            let kept = kept
                .map(|wrong| (bounded(&wrong.field), bounded(&wrong.description)))
                .collect::<Vec<_>>();
            details.set_bad_request(Vec::new());
            for (field, description) in kept {
                details.add_bad_request_violation(field, description);
            }
        }
        if let Some(failure) = details.precondition_failure() {
            let kept = failure.violations.iter().take(violations_max);
            let kept = kept
                .map(|wrong| {
                    (wrong.r#type.clone(), bounded(&wrong.subject), bounded(&wrong.description))
                })
                .collect::<Vec<_>>();
            details.set_precondition_failure(Vec::new());
            for (kind, subject, description) in kept {
                details.add_precondition_failure_violation(kind, subject, description);
            }
        }
        if let Some(quota) = details.quota_failure() {
            let kept = quota.violations.iter().take(violations_max);
            let kept = kept
                .map(|wrong| (wrong.subject.clone(), bounded(&wrong.description)))
                .collect::<Vec<_>>();
            details.set_quota_failure(Vec::new());
            for (subject, description) in kept {
                details.add_quota_failure_violation(subject, description);
            }
        }
        if let Some(resource) = details.resource_info() {
            let (kind, id) = (resource.resource_type.clone(), bounded(&resource.resource_name));
            details.set_resource_info(kind, id, "", "");
        }
        let metadata: HashMap<String, String> =
            self.metadata.iter().map(|(key, value)| (key.clone(), bounded(value))).collect();
        details.set_error_info(self.reason.as_str(), DOMAIN, metadata);
        Status::with_error_details(self.reason.code(), bounded(&self.message), details)
    }
}

/// Bytes of message and details as trailers: the message with everything except plain ASCII as `%XX`, the details in
/// base64.
fn trailer_bytes(status: &Status) -> usize {
    let plain =
        |byte: u8| byte == b' ' || (byte.is_ascii_graphic() && !b"\"#%<>`?{}".contains(&byte));
    let message: usize = status.message().bytes().map(|byte| if plain(byte) { 1 } else { 3 }).sum();
    message + status.details().len().div_ceil(3) * 4
}

/// A text for display: invisible characters escaped, cut to `chars_max` characters.
fn bounded(text: &str, chars_max: usize) -> String {
    // The part that is cut off need not be escaped: texts from clients can be long.
    let end = text.char_indices().nth(chars_max + 1).map_or(text.len(), |(end, _)| end);
    let shown = escaped(&text[..end]);
    match shown.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.into_owned(),
    }
}
