use bmdemo::model::{Change, Run};

use super::{Verdict, ensure};
use crate::book::Book;
use crate::plans::destroys;

/// No attempt of a step that destroys data is opened while the machine's hardware is known to be another. Two
/// simultaneous incarnations know different things.
pub(crate) fn promise_22_only_the_registered_hardware_is_written(
    book: &Book,
    change: &Change,
    overlapped: bool,
) -> Verdict {
    let Some(run) = change.after::<Run>().filter(|_| !overlapped) else { return Ok(()) };
    let Some(machine) = book.machines.get(&run.machine_id) else { return Ok(()) };
    let Some(condition) = machine.wrong_hardware() else { return Ok(()) };
    let before = book.runs.get(&run.id);
    for (place, step) in run.steps.iter().enumerate() {
        let known = before.and_then(|before| before.steps.get(place));
        let opened = step.attempt > known.map_or(0, |known| known.attempt);
        ensure(!opened || !destroys(&run.spec.plan_id, &step.name), || {
            format!(
                "attempt {} of {} in run {} was opened on {}: {}",
                step.attempt, step.name, run.id, machine.id, condition.message
            )
        })?;
    }
    Ok(())
}
