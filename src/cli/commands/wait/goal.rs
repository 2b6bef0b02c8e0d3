//! What can be waited for.

use crate::pb;

use super::super::super::error::Error;
use super::super::super::output::condition_name;
use super::super::phase::parse_phase;

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    Effective(pb::EffectiveState),
    Phase(pb::Phase),
    Condition(pb::ConditionType, bool),
    NoRun,
    Deleted,
}

impl Goal {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |message: String| {
            Error::usage(
                message,
                "wait for effective=STATE, phase=PHASE, condition=NAME, condition=NAME=false, run=done or deleted",
            )
        };
        match text.split_once('=') {
            Some(("effective", state)) => {
                let state = state.to_ascii_uppercase().replace('-', "_");
                let state = state.trim_start_matches("EFFECTIVE_STATE_");
                match pb::EffectiveState::from_str_name(&format!("EFFECTIVE_STATE_{state}")) {
                    Some(state) if state != pb::EffectiveState::Unspecified => {
                        Ok(Self::Effective(state))
                    }
                    _ => Err(wrong(format!("{state:?} is not an effective state"))),
                }
            }
            Some(("phase", phase)) => parse_phase(phase).map(Self::Phase),
            Some(("condition", condition)) => {
                let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
                let kind = (1..=4)
                    .find(|kind| names_condition(*kind, name))
                    .and_then(|kind| pb::ConditionType::try_from(kind).ok())
                    .ok_or_else(|| wrong(format!("{name:?} is not a condition")))?;
                match value {
                    "true" => Ok(Self::Condition(kind, true)),
                    "false" => Ok(Self::Condition(kind, false)),
                    _ => Err(wrong(format!("{value:?} is neither true nor false"))),
                }
            }
            Some(("run", "done")) => Ok(Self::NoRun),
            None if text.eq_ignore_ascii_case("deleted") => Ok(Self::Deleted),
            _ => Err(wrong(format!("{text:?} is nothing to wait for"))),
        }
    }

    /// Whether a machine has reached the goal. A condition that was never observed is false.
    pub(super) fn is_met(&self, machine: &pb::Machine) -> bool {
        let status = machine.status.clone().unwrap_or_default();
        match self {
            Self::Effective(state) => status.effective_state() == *state,
            Self::Phase(phase) => status.phase() == *phase,
            Self::Condition(kind, wanted) => {
                let seen = status.conditions.iter().find(|condition| condition.r#type() == *kind);
                seen.is_some_and(|condition| condition.status) == *wanted
            }
            Self::NoRun => status.active_run_id.is_empty(),
            Self::Deleted => false,
        }
    }

    /// Whether a machine can never reach the goal: nothing leads out of RETIRED, no run starts there and nothing is
    /// probed, so only NeedsIntervention can change, which an operator clears.
    pub(super) fn is_out_of_reach(&self, machine: &pb::Machine) -> bool {
        let retired =
            machine.status.as_ref().is_some_and(|status| status.phase() == pb::Phase::Retired);
        retired
            && !self.is_met(machine)
            && match self {
                Self::Effective(_) | Self::Phase(_) => true,
                Self::Condition(kind, wanted) => {
                    *wanted || *kind != pb::ConditionType::NeedsIntervention
                }
                Self::NoRun | Self::Deleted => false,
            }
    }
}

/// Whether this is the name of a condition, as filters write it or as protobuf JSON does.
fn names_condition(kind: i32, name: &str) -> bool {
    let in_json = pb::ConditionType::try_from(kind).map(|kind| kind.as_str_name()).unwrap_or("");
    condition_name(kind).eq_ignore_ascii_case(name) || in_json.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals() {
        use pb::ConditionType::{NeedsIntervention, Reachable};
        assert_eq!(
            Goal::parse("effective=in_service").unwrap(),
            Goal::Effective(pb::EffectiveState::InService)
        );
        assert_eq!(Goal::parse("phase=RMA").unwrap(), Goal::Phase(pb::Phase::Rma));
        assert_eq!(Goal::parse("condition=reachable").unwrap(), Goal::Condition(Reachable, true));
        let cleared = Goal::parse("condition=NeedsIntervention=false").unwrap();
        assert_eq!(cleared, Goal::Condition(NeedsIntervention, false));
        assert_eq!(Goal::parse("run=done").unwrap(), Goal::NoRun);
        assert_eq!(
            Goal::parse("effective=EFFECTIVE_STATE_IN_SERVICE").unwrap(),
            Goal::Effective(pb::EffectiveState::InService)
        );
        assert_eq!(
            Goal::parse("condition=CONDITION_TYPE_NEEDS_INTERVENTION=false").unwrap(),
            cleared
        );
        assert_eq!(Goal::parse("deleted").unwrap(), Goal::Deleted);
        for wrong in [
            "",
            "effective",
            "effective=X",
            "condition=Hot",
            "condition=Reachable=maybe",
            "run=later",
        ] {
            assert_eq!(Goal::parse(wrong).unwrap_err().code(), 2, "{wrong}");
        }
        let machine = pb::Machine::default();
        assert!(cleared.is_met(&machine), "never observed is false");
        assert!(!Goal::Condition(Reachable, true).is_met(&machine));
        assert!(Goal::NoRun.is_met(&machine));
    }

    #[test]
    fn nothing_leads_out_of_retired() {
        let in_phase = |phase: pb::Phase| pb::Machine {
            status: Some(pb::MachineStatus { phase: phase.into(), ..Default::default() }),
            ..Default::default()
        };
        let (retired, ready) = (in_phase(pb::Phase::Retired), in_phase(pb::Phase::Ready));
        for goal in [
            "phase=READY",
            "effective=in_service",
            "condition=Reachable",
            "condition=NeedsIntervention",
        ] {
            assert!(Goal::parse(goal).unwrap().is_out_of_reach(&retired), "{goal}");
            assert!(!Goal::parse(goal).unwrap().is_out_of_reach(&ready), "{goal}");
        }
        for goal in [
            "phase=RETIRED",
            "run=done",
            "deleted",
            "condition=NeedsIntervention=false",
            "condition=Degraded=false",
        ] {
            assert!(!Goal::parse(goal).unwrap().is_out_of_reach(&retired), "{goal}");
        }
    }
}
