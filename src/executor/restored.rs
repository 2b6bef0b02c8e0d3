//! What a restore means for a run that was active when its backup was made. Pure.
//!
//! The run may have ended since, or another one may have started on its machine: it must not act until an operator
//! has looked. So it is held, whatever it was doing. Its record keeps what it was doing, and it returns to that when
//! it is resumed: an open attempt is recovered as after a crash, a cancel or the compensations continue.

use crate::clock::Timestamp;
use crate::lifecycle::run::{self, Event, Facts};
use crate::model::{Actor, Entry, EntryKind, Hold, HoldReason, Run};

/// Holds an active run for an operator; `backup` names the backup. A run whose step has an unknown outcome is held
/// for that already, and stays so.
///
/// # Errors
/// [`run::Rejected`] if the run is not active.
pub fn hold(run: &mut Run, backup: &str, now: Timestamp) -> Result<Vec<Entry>, run::Rejected> {
    let state = run::apply(run.state, Event::Restore, Facts::default())?;
    let text = format!("{backup}; what happened to the machine since is unknown");
    let unknown = run.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::OutcomeUnknown);
    let (reason, message, since) = match &run.hold {
        Some(hold) if unknown => (hold.reason, format!("{} ({text})", hold.message), hold.since),
        Some(_) | None => {
            let next = "look at it, then resume or abort the run";
            (HoldReason::Restored, format!("{text}: {next}"), now)
        }
    };
    run.state = state;
    run.queued_at = None;
    run.hold = Some(Hold { reason, message, since });
    let entry =
        Entry::new(EntryKind::RunHeld, Actor::engine()).reason(HoldReason::Restored.as_str());
    Ok(vec![entry.message(format!("run held: {text}"))])
}
