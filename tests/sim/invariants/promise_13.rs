use bmdemo::ids::Revision;

use super::{Verdict, ensure};
use crate::client::{Answer, Request};

/// While the disk is full nothing new is acknowledged. `full_since` is the newest revision at the time when it became
/// full, if that was before the request and it was still full at its answer.
pub(crate) fn promise_13_a_full_disk_acknowledges_nothing(
    full_since: Option<Revision>,
    request: &Request,
    answer: &Answer,
) -> Verdict {
    let Some(full_since) = full_since else { return Ok(()) };
    let revision = match answer {
        Answer::Run(run) => run.revision,
        Answer::Machine(machine) => machine.revision,
        // No revision: that it is stored is another promise.
        Answer::Lock(_) | Answer::Refused(_) => return Ok(()),
    };
    ensure(revision <= full_since, || {
        format!("{request:?} was acknowledged at revision {revision}, and the disk is full")
    })
}
