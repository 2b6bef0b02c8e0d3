use bmdemo::executor::Limits;
use bmdemo::lifecycle::run::Phase;
use bmdemo::model::{Change, Lock, LockTarget, Run};
use bmdemo::plan::Risk;

use super::{Verdict, ensure};
use crate::book::Book;
use crate::plans;

/// From the acknowledgement of a stop until someone asks to resume nothing that acts is sent, whatever was killed. A
/// former incarnation that was continued sends what it had decided before.
pub(crate) fn nothing_begins_while_everything_is_stopped(
    book: &Book,
    operation: &str,
    overlapped: bool,
) -> Verdict {
    ensure(overlapped || !book.is_stopped, || {
        format!("{operation} was sent while everything was stopped")
    })
}

/// A plan whose runs fail so often in a row after they have begun to destroy data is paused, in the commit that ends the
/// last of them.
pub(crate) fn a_plan_that_keeps_failing_is_paused(
    book: &mut Book,
    limits: &Limits,
    changes: &[Change],
    locks: &[std::sync::Arc<Lock>],
) -> Verdict {
    let most = limits.pause_plan_after;
    if most == 0 || !limits.destructive_on_simulated {
        return Ok(());
    }
    for run in changes.iter().filter_map(|change| change.after::<Run>()) {
        let digest = &run.spec.plan_digest;
        if plans::risk(&run.spec.plan_id) != Risk::DataDestroying {
            continue;
        }
        match run.phase() {
            Phase::Succeeded => drop(book.failures.remove(digest)),
            Phase::Failed if plans::has_destroyed(run) => {
                let failures = book.failures.entry(digest.clone()).or_default();
                *failures += 1;
                if *failures < most {
                    continue;
                }
                book.failures.remove(digest);
                let is_on = |lock: &Lock| matches!(&lock.target, LockTarget::Plan { digest: of, .. } if of == digest);
                ensure(locks.iter().any(|lock| is_on(lock)), || {
                    format!("{} failed {most} times in a row and is not paused", run.spec.plan_id)
                })?;
            }
            Phase::Failed | Phase::Canceled | Phase::Pending | Phase::Running => {}
        }
    }
    Ok(())
}
