use bmdemo::ids::Revision;

use super::{Verdict, ensure};
use crate::client::{Answer, Request};

/// While there is no room nothing new is acknowledged. `full_since` is the newest revision at the time when the room
/// ran out, if that was before the request and there was none until its answer.
pub(crate) fn promise_13_a_full_disk_acknowledges_nothing(
    full_since: Option<Revision>,
    request: &Request,
    answer: &Answer,
) -> Verdict {
    let Some(full_since) = full_since else { return Ok(()) };
    let revision = match answer {
        Answer::Run(run) => run.revision,
        Answer::Machine(machine) => machine.revision,
        Answer::Refused(_) => return Ok(()),
    };
    ensure(revision <= full_since, || {
        format!("{request:?} was acknowledged at revision {revision}, and the disk is full")
    })
}
