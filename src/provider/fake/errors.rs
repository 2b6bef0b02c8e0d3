//! Errors of simulated calls.

use super::shared::Core;
use super::state::Machine;
use crate::ids::{Epoch, MachineId};
use crate::lifecycle::step::ErrorClass;
use crate::provider::{ErrorCode, ProviderError};

/// Refuses a call under an epoch that is no longer in force.
pub(super) fn fenced(core: &Core, id: &MachineId, epoch: Epoch) -> Result<(), ProviderError> {
    let fence = Epoch(core.state.machine(id).map_or(0, |machine: &Machine| machine.fence));
    if epoch >= fence {
        return Ok(());
    }
    let message = format!("epoch {epoch} of {id} is older than {fence}");
    let error = ProviderError::fenced(fence, message);
    Err(error.seen(format!("epoch {fence} or newer"), format!("epoch {epoch}")))
}

pub(super) fn unreachable_error(id: &MachineId) -> ProviderError {
    error(ErrorClass::Transient, ErrorCode::Unreachable, format!("{id} does not answer"))
}

pub(super) fn busy_error(core: &mut Core, id: &MachineId, ms: u64) -> ProviderError {
    let at_ms = core.now_ms().saturating_add(ms);
    error(ErrorClass::Transient, ErrorCode::Busy, format!("{id} asks to be retried later"))
        .retry_at(core.wall_time(at_ms))
}

pub(super) fn error(
    class: ErrorClass,
    code: ErrorCode,
    message: impl Into<String>,
) -> ProviderError {
    ProviderError::new(class, code, message)
}
