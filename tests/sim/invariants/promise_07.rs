use super::{Verdict, ensure};
use crate::client::{Acknowledged, Answer, Request};

/// The same request id gets the first answer again if the request is the same, and a specific error if it is not;
/// whatever happened in between.
pub(crate) fn promise_07_request_ids_are_idempotent(
    first: &Acknowledged,
    request: &Request,
    answer: &Answer,
) -> Verdict {
    let same = first.request.body() == request.body();
    match answer {
        Answer::Refused(why) if why == "RequestIdReused" => {
            ensure(!same, || format!("{request:?} was refused as different from its equal"))
        }
        Answer::Refused(_) => Ok(()),
        Answer::Run(_) | Answer::Machine(_) | Answer::Lock(_) => {
            ensure(same, || {
                format!("{request:?} was accepted, and its id was used by {:?}", first.request)
            })?;
            ensure(*answer == first.answer, || {
                format!("{request:?} was answered differently from the first time")
            })
        }
    }
}
