//! Plans.

use super::duration;
use super::machine::phase;
use super::run::{risk, run_type};
use crate::executor::names;
use crate::pb;
use crate::plan::{OnUnknown, Param, Registered, Step};

/// The message of a plan.
pub(in crate::api) fn plan(registered: &Registered) -> pb::Plan {
    let plan = &registered.plan;
    let phases = plan.allowed_phases.iter().map(|allowed| phase(names::phase(*allowed)).into());
    let result = plan.result.phase.map(|result| phase(names::phase(result)));
    pb::Plan {
        plan_id: plan.id.to_string(),
        display_name: plan.display_name.to_string(),
        steps: plan.steps.iter().map(step).collect(),
        description: plan.description.to_string(),
        run_type: run_type(names::run_type(plan.run_type())).into(),
        is_default: plan.default_for.is_some(),
        destructive: plan.destructive,
        allowed_phases: phases.collect(),
        parameters: plan.params.iter().map(parameter).collect(),
        digest: registered.digest().to_owned(),
        result_phase: result.unwrap_or_default().into(),
        risk: risk(plan.risk()).into(),
    }
}

/// The message of a step of a plan.
pub(in crate::api) fn step(step: &Step) -> pb::PlanStep {
    let traits = step.action.traits;
    pb::PlanStep {
        name: step.name.to_string(),
        action: step.action.name.to_string(),
        destructive: traits.risk.is_destructive(),
        timeout: Some(duration(step.timeout_ms)),
        expected_duration: Some(duration(step.expected_ms)),
        max_attempts: i32::try_from(step.retry.max_attempts).unwrap_or(i32::MAX),
        on_unknown: on_unknown(step.on_unknown).into(),
        needs: step.needs.iter().map(ToString::to_string).collect(),
        compensation: step
            .compensation
            .as_ref()
            .map_or_else(String::new, |undo| undo.action.name.to_string()),
        capability: traits.capability.as_str().to_owned(),
        risk: risk(traits.risk).into(),
    }
}

fn on_unknown(rule: OnUnknown) -> pb::OnUnknown {
    match rule {
        OnUnknown::Retry => pb::OnUnknown::Retry,
        OnUnknown::Verify => pb::OnUnknown::Verify,
        OnUnknown::Hold => pb::OnUnknown::Hold,
    }
}

fn parameter(param: &Param) -> pb::PlanParameter {
    pb::PlanParameter {
        name: param.name.to_string(),
        r#type: param.kind.as_str().to_owned(),
        default_value: param.default.as_ref().map(ToString::to_string).unwrap_or_default(),
        required: param.required(),
        one_of: param.one_of.iter().map(ToString::to_string).collect(),
        description: param.description.to_string(),
    }
}
