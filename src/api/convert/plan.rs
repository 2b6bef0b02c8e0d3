//! Plans.

use super::duration;
use super::machine::{condition_type, phase};
use super::run::{risk, run_type};
use crate::executor::names;
use crate::pb;
use crate::plan::{
    Action, Arg, Condition, EffectiveState, Guard, OnUnknown, Output, Param, Registered, Step,
};

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
        refused_effective: plan
            .refused_effective
            .iter()
            .map(|state| refused(*state).into())
            .collect(),
        refused_hint: plan.refused_hint.as_deref().unwrap_or_default().to_owned(),
        required_conditions: conditions(&plan.required_conditions),
        result_conditions: conditions(&plan.result.conditions),
        time_limit: plan.time_limit_ms.map(duration),
        role: if plan.for_admins { pb::Role::Admin } else { pb::Role::Operator }.into(),
        allow_destructive: plan.allow_destructive,
    }
}

fn refused(state: EffectiveState) -> pb::EffectiveState {
    match state {
        EffectiveState::FactoryReady => pb::EffectiveState::FactoryReady,
        EffectiveState::Ready => pb::EffectiveState::Ready,
        EffectiveState::InService => pb::EffectiveState::InService,
        EffectiveState::Maintenance => pb::EffectiveState::Maintenance,
        EffectiveState::Rma => pb::EffectiveState::Rma,
        EffectiveState::Retired => pb::EffectiveState::Retired,
        EffectiveState::Provisioning => pb::EffectiveState::Provisioning,
    }
}

fn conditions(given: &[(Condition, bool)]) -> Vec<pb::PlanCondition> {
    let each = given.iter().map(|(kind, status)| pb::PlanCondition {
        r#type: condition_type(names::condition(*kind)).into(),
        status: *status,
    });
    each.collect()
}

fn arguments(action: &Action) -> Vec<pb::PlanArgument> {
    let each = action.args.iter().map(|(name, arg)| {
        let mut argument = pb::PlanArgument { name: name.to_string(), ..Default::default() };
        match arg {
            Arg::Literal(value) => argument.value = value.to_string(),
            Arg::Param(parameter) => argument.parameter = parameter.to_string(),
            Arg::Text(text) => argument.text = text.to_string(),
        }
        argument
    });
    each.collect()
}

fn output(output: &Output) -> pb::PlanOutput {
    pb::PlanOutput {
        step: output.step.to_string(),
        name: output.name.to_string(),
        value: output.value.to_string(),
    }
}

fn guard(guard: &Guard) -> pb::PlanGuard {
    let parameters = guard.params.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    pb::PlanGuard {
        parameters: parameters.collect(),
        conditions: conditions(&guard.conditions),
        phases: guard.phases.iter().map(|allowed| phase(names::phase(*allowed)).into()).collect(),
        labels: guard
            .labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        providers: guard.providers.iter().map(ToString::to_string).collect(),
        outputs: guard.outputs.iter().map(output).collect(),
    }
}

/// The message of a step of a plan.
pub(in crate::api) fn step(step: &Step) -> pb::PlanStep {
    let traits = step.action.traits;
    let undo = step.compensation.as_ref();
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
        arguments: arguments(&step.action),
        when: step.when.as_ref().map(guard),
        sets: conditions(&step.sets),
        retry_on: step.retry.on.iter().map(|class| class.as_str().to_owned()).collect(),
        backoff: Some(duration(step.retry.backoff_ms)),
        backoff_max: Some(duration(step.retry.backoff_max_ms)),
        compensation_arguments: undo.map(|undo| arguments(&undo.action)).unwrap_or_default(),
        compensation_timeout: undo.map(|undo| duration(undo.timeout_ms)),
        compensation_sets: undo.map(|undo| conditions(&undo.sets)).unwrap_or_default(),
        role: step.role.as_str().to_owned(),
        until: step.until.as_ref().map(guard),
        compensation_max_attempts: undo.map_or(0, |undo| {
            let attempts = undo.retry.as_ref().unwrap_or(&step.retry).max_attempts;
            i32::try_from(attempts).unwrap_or(i32::MAX)
        }),
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
