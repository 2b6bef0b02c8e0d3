//! Conversion of plans to their serialized forms.

use std::collections::BTreeMap;

use super::{
    ADMIN, ActionText, ArgText, CompensationText, FORMAT, Form, GuardText, ParamText, PlanText,
    ResultText, RetryText, StepText, ValueText,
};
use crate::plan::names::{Condition, EffectiveState, ErrorClass, Phase, Role};
use crate::plan::schema::{Action, Arg, Compensation, Guard, Output, Param, Plan, Retry, Step};
use crate::plan::value::Value;

fn texts<T: Copy>(values: &[T], as_str: impl Fn(T) -> &'static str) -> Vec<String> {
    values.iter().map(|&value| as_str(value).to_owned()).collect()
}

fn condition_texts(conditions: &[(Condition, bool)]) -> BTreeMap<String, bool> {
    conditions.iter().map(|&(condition, status)| (condition.as_str().to_owned(), status)).collect()
}

impl From<&Plan> for PlanText {
    fn from(plan: &Plan) -> Self {
        Self {
            format: FORMAT,
            id: plan.id.to_string(),
            display_name: plan.display_name.to_string(),
            description: plan.description.to_string(),
            default_for: plan.default_for.map(|run_type| run_type.as_str().to_owned()),
            destructive: plan.destructive,
            allowed_phases: texts(&plan.allowed_phases, Phase::as_str),
            refused_effective: texts(&plan.refused_effective, EffectiveState::as_str),
            refused_hint: plan.refused_hint.as_ref().map(ToString::to_string),
            required_conditions: condition_texts(&plan.required_conditions),
            params: plan
                .params
                .iter()
                .map(|param| (param.name.to_string(), param.into()))
                .collect(),
            time_limit_ms: plan.time_limit_ms,
            role: plan.for_admins.then(|| ADMIN.to_owned()),
            allow_destructive: plan.allow_destructive.then_some(true),
            steps: plan.steps.iter().map(StepText::from).collect(),
            result: ResultText {
                phase: plan.result.phase.map(|phase| phase.as_str().to_owned()),
                conditions: condition_texts(&plan.result.conditions),
            },
        }
    }
}

impl From<&Param> for ParamText {
    fn from(param: &Param) -> Self {
        Self {
            kind: param.kind.as_str().to_owned(),
            default: param.default.as_ref().map(ValueText::from),
            one_of: param.one_of.iter().map(ValueText::from).collect(),
            description: param.description.to_string(),
        }
    }
}

impl From<&Step> for StepText<Form> {
    fn from(step: &Step) -> Self {
        Self {
            name: step.name.to_string(),
            role: Some(step.role)
                .filter(|role| *role != Role::Main)
                .map(|role| role.as_str().to_owned()),
            action: (&step.action).into(),
            timeout_ms: step.timeout_ms,
            expected_ms: step.expected_ms,
            retry: (&step.retry).into(),
            on_unknown: step.on_unknown.as_str().to_owned(),
            when: step.when.as_ref().map(GuardText::from),
            until: step.until.as_ref().map(GuardText::from),
            needs: step.needs.iter().map(ToString::to_string).collect(),
            compensation: step.compensation.as_ref().map(CompensationText::from),
            sets: condition_texts(&step.sets),
        }
    }
}

impl From<&Retry> for RetryText {
    fn from(retry: &Retry) -> Self {
        Self {
            max_attempts: retry.max_attempts,
            on: texts(&retry.on, ErrorClass::as_str),
            backoff_ms: retry.backoff_ms,
            backoff_max_ms: retry.backoff_max_ms,
        }
    }
}

impl From<&Guard> for GuardText {
    fn from(guard: &Guard) -> Self {
        let params = guard.params.iter();
        let labels = guard.labels.iter();
        let mut outputs: BTreeMap<String, BTreeMap<String, ValueText>> = BTreeMap::new();
        for Output { step, name, value } in guard.outputs.iter() {
            outputs.entry(step.to_string()).or_default().insert(name.to_string(), value.into());
        }
        Self {
            params: params.map(|(name, value)| (name.to_string(), value.into())).collect(),
            conditions: condition_texts(&guard.conditions),
            phases: texts(&guard.phases, Phase::as_str),
            labels: labels.map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            providers: guard.providers.iter().map(ToString::to_string).collect(),
            outputs,
        }
    }
}

impl From<&Action> for ActionText {
    fn from(action: &Action) -> Self {
        let arg = |arg: &Arg| match arg {
            Arg::Literal(value) => ArgText::Literal(value.into()),
            Arg::Param(name) => ArgText::Param(name.to_string()),
            Arg::Text(text) => ArgText::Text(text.to_string()),
        };
        Self {
            name: action.name.to_string(),
            args: action.args.iter().map(|(name, given)| (name.to_string(), arg(given))).collect(),
            capability: action.traits.capability.as_str().to_owned(),
            risk: action.traits.risk.as_str().to_owned(),
            idempotent: action.traits.idempotent,
            interruptible: action.traits.interruptible,
        }
    }
}

impl From<&Compensation> for CompensationText {
    fn from(undo: &Compensation) -> Self {
        Self {
            action: (&undo.action).into(),
            timeout_ms: undo.timeout_ms,
            expected_ms: undo.expected_ms,
            sets: condition_texts(&undo.sets),
            retry: undo.retry.as_ref().map(RetryText::from),
        }
    }
}

impl From<&Value> for ValueText {
    fn from(value: &Value) -> Self {
        match value {
            Value::Str(text) => Self::String(text.to_string()),
            Value::Int(number) => Self::Integer(*number),
            Value::Bool(truth) => Self::Boolean(*truth),
            Value::DurationMs(ms) => Self::DurationMs(*ms),
        }
    }
}
