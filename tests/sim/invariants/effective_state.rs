use bmdemo::lifecycle::machine::Phase;
use bmdemo::model::ConditionKind;

use super::{Verdict, ensure};
use crate::book::Book;

/// The effective state of every machine follows the seed's four rules, given the runs that are active at the same
/// revision.
pub(crate) fn effective_state_follows_its_rules(book: &Book) -> Verdict {
    for machine in book.machines.values() {
        let active = book.active.get(&machine.id).is_some_and(|runs| !runs.is_empty());
        let in_cluster = machine.conditions.is_true(ConditionKind::InCustomerCluster);
        let explicit = [Phase::Rma, Phase::Retired, Phase::Maintenance].contains(&machine.phase);
        let expected = if active {
            "PROVISIONING"
        } else if explicit {
            machine.phase.as_str()
        } else if in_cluster {
            "IN_SERVICE"
        } else {
            machine.phase.as_str()
        };
        let (state, _) = machine.effective();
        ensure(state.as_str() == expected, || {
            format!("{} is effectively {state}, not {expected}", machine.id)
        })?;
    }
    Ok(())
}
