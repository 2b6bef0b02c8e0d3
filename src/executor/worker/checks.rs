//! Checks of every change that a client requests.

use crate::executor::error::EngineError;
use crate::executor::request::Origin;
use crate::ids::Revision;

/// How often a command is decided again after a conflict with another writer.
pub(super) const CONFLICTS_MAX: usize = 5;

/// How often the engine retries after a failure caused by a bug before it gives up a run.
pub(in crate::executor) const FAULTS_MAX: u32 = 3;

pub(in crate::executor) fn check_etag(
    kind: &'static str,
    id: &str,
    origin: &Origin,
    current: Revision,
) -> Result<(), EngineError> {
    match origin.expected {
        Some(given) if given != current => Err(EngineError::EtagMismatch {
            kind,
            id: id.to_owned(),
            given: format!("\"{given}\""),
            current: format!("\"{current}\""),
        }),
        Some(_) | None => Ok(()),
    }
}
