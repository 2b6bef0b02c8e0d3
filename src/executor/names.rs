//! Conversions between the enums of the plan schema, which build.rs compiles too, and those of the lifecycles.

use crate::lifecycle::effective::EffectiveState;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::step::{ErrorClass, OnUnknown};
use crate::model::{ConditionKind, RunType};
use crate::plan;

/// Phase of the lifecycle.
#[must_use]
pub fn phase(phase: plan::Phase) -> Phase {
    match phase {
        plan::Phase::FactoryReady => Phase::FactoryReady,
        plan::Phase::Ready => Phase::Ready,
        plan::Phase::InService => Phase::InService,
        plan::Phase::Maintenance => Phase::Maintenance,
        plan::Phase::Rma => Phase::Rma,
        plan::Phase::Retired => Phase::Retired,
    }
}

/// Phase of the plan schema.
#[must_use]
pub fn plan_phase(phase: Phase) -> plan::Phase {
    match phase {
        Phase::FactoryReady => plan::Phase::FactoryReady,
        Phase::Ready => plan::Phase::Ready,
        Phase::InService => plan::Phase::InService,
        Phase::Maintenance => plan::Phase::Maintenance,
        Phase::Rma => plan::Phase::Rma,
        Phase::Retired => plan::Phase::Retired,
    }
}

/// Effective state of the plan schema.
#[must_use]
pub fn plan_effective(state: EffectiveState) -> plan::EffectiveState {
    match state {
        EffectiveState::Provisioning => plan::EffectiveState::Provisioning,
        EffectiveState::Phase(phase) => match phase {
            Phase::FactoryReady => plan::EffectiveState::FactoryReady,
            Phase::Ready => plan::EffectiveState::Ready,
            Phase::InService => plan::EffectiveState::InService,
            Phase::Maintenance => plan::EffectiveState::Maintenance,
            Phase::Rma => plan::EffectiveState::Rma,
            Phase::Retired => plan::EffectiveState::Retired,
        },
    }
}

/// Condition of the records.
#[must_use]
pub fn condition(kind: plan::Condition) -> ConditionKind {
    match kind {
        plan::Condition::Reachable => ConditionKind::Reachable,
        plan::Condition::InCustomerCluster => ConditionKind::InCustomerCluster,
        plan::Condition::NeedsIntervention => ConditionKind::NeedsIntervention,
        plan::Condition::Degraded => ConditionKind::Degraded,
    }
}

/// Run type of the records.
#[must_use]
pub fn run_type(kind: plan::RunType) -> RunType {
    match kind {
        plan::RunType::Repave => RunType::Repave,
        plan::RunType::Rma => RunType::Rma,
        plan::RunType::Reboot => RunType::Reboot,
        plan::RunType::Upgrade => RunType::Upgrade,
        plan::RunType::NetReconfig => RunType::NetReconfig,
        plan::RunType::Custom => RunType::Custom,
    }
}

/// Run type of the plan schema.
#[must_use]
pub fn plan_run_type(kind: RunType) -> plan::RunType {
    match kind {
        RunType::Repave => plan::RunType::Repave,
        RunType::Rma => plan::RunType::Rma,
        RunType::Reboot => plan::RunType::Reboot,
        RunType::Upgrade => plan::RunType::Upgrade,
        RunType::NetReconfig => plan::RunType::NetReconfig,
        RunType::Custom => plan::RunType::Custom,
    }
}

/// Rule of the step lifecycle.
#[must_use]
pub fn on_unknown(rule: plan::OnUnknown) -> OnUnknown {
    match rule {
        plan::OnUnknown::Retry => OnUnknown::Retry,
        plan::OnUnknown::Verify => OnUnknown::Verify,
        plan::OnUnknown::Hold => OnUnknown::Hold,
    }
}

/// Error class of the plan schema; `None` for an unknown outcome, which is never retried as a failure.
#[must_use]
pub fn plan_error_class(class: ErrorClass) -> Option<plan::ErrorClass> {
    match class {
        ErrorClass::Transient => Some(plan::ErrorClass::Transient),
        ErrorClass::Permanent => Some(plan::ErrorClass::Permanent),
        ErrorClass::NeedsHuman => Some(plan::ErrorClass::NeedsHuman),
        ErrorClass::OutcomeUnknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_schema_and_the_lifecycles_use_the_same_names() {
        for &name in plan::Phase::ALL {
            assert_eq!(phase(name).as_str(), name.as_str());
            assert_eq!(plan_phase(phase(name)), name);
        }
        assert_eq!(plan::Phase::ALL.len(), Phase::ALL.len());
        for &name in plan::Condition::ALL {
            assert_eq!(condition(name).as_str(), name.as_str());
        }
        // HardwareMatches protects machines from plans: no plan sets it, or asks for it.
        assert_eq!(plan::Condition::ALL.len() + 1, ConditionKind::ALL.len());
        for &name in plan::RunType::ALL {
            assert_eq!(run_type(name).as_str(), name.as_str());
            assert_eq!(plan_run_type(run_type(name)), name);
        }
        assert_eq!(plan::RunType::ALL.len(), RunType::ALL.len());
        for state in EffectiveState::ALL {
            assert_eq!(plan_effective(state).as_str(), state.as_str());
        }
        assert_eq!(plan::EffectiveState::ALL.len(), EffectiveState::ALL.len());
    }
}
