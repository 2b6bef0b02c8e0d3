//! What every change that a client asks for is checked by.

use crate::executor::error::EngineError;
use crate::executor::request::Origin;
use crate::ids::Revision;

/// How often a command is decided again after somebody else wrote first.
pub(super) const CONFLICTS_MAX: usize = 5;

/// How often the engine tries what has failed by a bug before it gives a run up.
pub(in crate::executor) const FAULTS_MAX: u32 = 3;

pub(super) fn check_etag(
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
