use super::{Verdict, ensure};
use crate::book::Book;
use crate::oracle::Asked;

/// Intent is durable before an effect starts: for the same operation, under an epoch that was claimed by then.
pub(crate) fn promise_03_intent_is_durable_before_an_effect(
    book: &Book,
    asked: &Asked,
    operation: &str,
) -> Verdict {
    let Some(intent) = book.intents.get(operation) else {
        return Err(format!("{operation} began, and no commit says that it would"));
    };
    ensure(intent.epoch <= asked.epoch, || {
        format!(
            "{operation} began under epoch {}, and its intent of revision {} is of epoch {}",
            asked.epoch, intent.revision, intent.epoch
        )
    })?;
    let claimed = book.machines.get(&asked.machine).map_or(0, |machine| machine.epoch.0);
    ensure(asked.epoch.0 <= claimed, || {
        format!("{operation} began under epoch {}, and only {claimed} was claimed", asked.epoch)
    })
}
