use bmdemo::executor::{Cap, Limits};
use bmdemo::ids::RunId;
use bmdemo::lifecycle::run::State;

use bmdemo::plan::Risk;

use super::{Verdict, ensure};
use crate::book::Book;
use crate::plans;

/// No more runs proceed than the limit allows. A run that is ending does not have to wait, and two simultaneous
/// incarnations count separately.
pub(crate) fn limits_are_exact(book: &Book, limits: &Limits, overlapped: bool) -> Verdict {
    if overlapped {
        return Ok(());
    }
    let (running, runs_max) = (forward(book).count(), limits.runs_max);
    ensure(running <= runs_max, || {
        format!("{running} runs have a slot, and the limit is {runs_max}")
    })
}

/// No more runs that put machines at risk proceed at a time than the blast radius allows, whatever was killed.
pub(crate) fn blast_radius_is_kept(book: &Book, limits: &Limits, overlapped: bool) -> Verdict {
    if overlapped {
        return Ok(());
    }
    for (risk, of_risk) in limits.on_risk(Risk::DataDestroying) {
        let Some(Cap::Number(most)) = of_risk.max else { continue };
        let at_risk = |id: &&RunId| plans::risk(&book.runs[*id].spec.plan_id) >= risk;
        let running = forward(book).filter(at_risk).count();
        ensure(running <= most, || {
            format!("{running} {risk} runs have a slot, and the limit is {most}")
        })?;
    }
    Ok(())
}

fn forward(book: &Book) -> impl Iterator<Item = &RunId> {
    let active = book.active.values().flatten();
    active.filter(|id| matches!(book.runs[*id].state, State::Running | State::Pausing))
}
