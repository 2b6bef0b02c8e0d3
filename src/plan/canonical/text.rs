//! The texts of plans. The structs here are the format and nothing else: changing one of them changes digests, so it needs a new
//! [`FORMAT`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::CanonicalError;
use crate::plan::names::{
    Capability, Condition, EffectiveState, ErrorClass, OnUnknown, Phase, Risk, RunType, ValueKind,
};
use crate::plan::schema::{
    Action, Arg, Compensation, Guard, Param, Plan, PlanResult, Retry, Step, Traits,
};
use crate::plan::value::Value;

/// Version of the format written by this build. It reads this one and every older one.
pub(super) const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub(super) struct PlanText<F: Format = Form> {
    format: u32,
    id: String,
    display_name: String,
    description: String,
    default_for: Option<String>,
    destructive: bool,
    allowed_phases: Vec<String>,
    refused_effective: Vec<String>,
    refused_hint: Option<String>,
    required_conditions: BTreeMap<String, bool>,
    params: BTreeMap<String, ParamText>,
    steps: Vec<StepText<F>>,
    result: ResultText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParamText {
    kind: String,
    default: Option<ValueText>,
    one_of: Vec<ValueText>,
    description: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct StepText<F: Format> {
    name: String,
    action: F::Action,
    timeout_ms: u64,
    expected_ms: u64,
    retry: RetryText,
    on_unknown: String,
    when: Option<GuardText>,
    needs: Vec<String>,
    compensation: Option<F::Compensation>,
    sets: BTreeMap<String, bool>,
}

/// What sets one format apart from another: how it writes actions and what undoes a step.
pub(super) trait Format {
    /// Text of an action.
    type Action: Serialize + DeserializeOwned;
    /// Text of a compensation.
    type Compensation: Serialize + DeserializeOwned;

    /// The action of a text.
    fn action(text: Self::Action) -> Result<Action, CanonicalError>;

    /// The compensation of a text.
    fn compensation(text: Self::Compensation) -> Result<Compensation, CanonicalError>;
}

/// The format of this build.
pub(super) struct Form;

impl Format for Form {
    type Action = ActionText;
    type Compensation = CompensationText;

    fn action(text: ActionText) -> Result<Action, CanonicalError> {
        Ok(Action {
            name: text.name.into(),
            args: args(text.args),
            traits: Traits {
                capability: parsed("capability", text.capability, Capability::parse)?,
                risk: parsed("risk", text.risk, Risk::parse)?,
                idempotent: text.idempotent,
                interruptible: text.interruptible,
            },
        })
    }

    fn compensation(text: CompensationText) -> Result<Compensation, CanonicalError> {
        Ok(Compensation {
            action: Self::action(text.action)?,
            timeout_ms: text.timeout_ms,
            expected_ms: text.expected_ms,
            sets: conditions(text.sets)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionText {
    name: String,
    args: BTreeMap<String, ArgText>,
    capability: String,
    risk: String,
    idempotent: bool,
    interruptible: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompensationText {
    action: ActionText,
    timeout_ms: u64,
    expected_ms: u64,
    sets: BTreeMap<String, bool>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ArgText {
    Literal(ValueText),
    Param(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ValueText {
    String(String),
    Integer(i64),
    Boolean(bool),
    DurationMs(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryText {
    max_attempts: u32,
    on: Vec<String>,
    backoff_ms: u64,
    backoff_max_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardText {
    params: BTreeMap<String, ValueText>,
    conditions: BTreeMap<String, bool>,
    phases: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultText {
    phase: Option<String>,
    conditions: BTreeMap<String, bool>,
}

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
            action: (&step.action).into(),
            timeout_ms: step.timeout_ms,
            expected_ms: step.expected_ms,
            retry: RetryText {
                max_attempts: step.retry.max_attempts,
                on: texts(&step.retry.on, ErrorClass::as_str),
                backoff_ms: step.retry.backoff_ms,
                backoff_max_ms: step.retry.backoff_max_ms,
            },
            on_unknown: step.on_unknown.as_str().to_owned(),
            when: step.when.as_ref().map(|guard| GuardText {
                params: guard
                    .params
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.into()))
                    .collect(),
                conditions: condition_texts(&guard.conditions),
                phases: texts(&guard.phases, Phase::as_str),
            }),
            needs: step.needs.iter().map(ToString::to_string).collect(),
            compensation: step.compensation.as_ref().map(CompensationText::from),
            sets: condition_texts(&step.sets),
        }
    }
}

impl From<&Action> for ActionText {
    fn from(action: &Action) -> Self {
        let arg = |arg: &Arg| match arg {
            Arg::Literal(value) => ArgText::Literal(value.into()),
            Arg::Param(name) => ArgText::Param(name.to_string()),
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

pub(super) fn parsed<T>(
    what: &'static str,
    name: String,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, CanonicalError> {
    parse(&name).ok_or(CanonicalError::UnknownName { what, name })
}

fn all_parsed<T: Clone>(
    what: &'static str,
    names: Vec<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Cow<'static, [T]>, CanonicalError> {
    names
        .into_iter()
        .map(|name| parsed(what, name, &parse))
        .collect::<Result<Vec<T>, _>>()
        .map(Cow::Owned)
}

/// Sorted by condition, which is not the order of their names.
fn conditions(
    texts: BTreeMap<String, bool>,
) -> Result<Cow<'static, [(Condition, bool)]>, CanonicalError> {
    let mut conditions = texts
        .into_iter()
        .map(|(name, status)| Ok((parsed("condition", name, Condition::parse)?, status)))
        .collect::<Result<Vec<_>, CanonicalError>>()?;
    conditions.sort();
    Ok(Cow::Owned(conditions))
}

impl<F: Format> TryFrom<PlanText<F>> for Plan {
    type Error = CanonicalError;

    fn try_from(text: PlanText<F>) -> Result<Self, CanonicalError> {
        let params = text.params.into_iter().map(param).collect::<Result<Vec<_>, _>>()?;
        let steps = text.steps.into_iter().map(step::<F>).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            id: text.id.into(),
            display_name: text.display_name.into(),
            description: text.description.into(),
            default_for: text
                .default_for
                .map(|name| parsed("run type", name, RunType::parse))
                .transpose()?,
            destructive: text.destructive,
            allowed_phases: all_parsed("phase", text.allowed_phases, Phase::parse)?,
            refused_effective: all_parsed(
                "effective state",
                text.refused_effective,
                EffectiveState::parse,
            )?,
            refused_hint: text.refused_hint.map(Cow::Owned),
            required_conditions: conditions(text.required_conditions)?,
            params: Cow::Owned(params),
            steps: Cow::Owned(steps),
            result: PlanResult {
                phase: text
                    .result
                    .phase
                    .map(|name| parsed("phase", name, Phase::parse))
                    .transpose()?,
                conditions: conditions(text.result.conditions)?,
            },
        })
    }
}

fn param((name, text): (String, ParamText)) -> Result<Param, CanonicalError> {
    Ok(Param {
        name: name.into(),
        kind: parsed("kind", text.kind, ValueKind::parse)?,
        default: text.default.map(value),
        one_of: Cow::Owned(text.one_of.into_iter().map(value).collect()),
        description: text.description.into(),
    })
}

fn step<F: Format>(text: StepText<F>) -> Result<Step, CanonicalError> {
    Ok(Step {
        name: text.name.into(),
        action: F::action(text.action)?,
        timeout_ms: text.timeout_ms,
        expected_ms: text.expected_ms,
        retry: Retry {
            max_attempts: text.retry.max_attempts,
            on: all_parsed("error class", text.retry.on, ErrorClass::parse)?,
            backoff_ms: text.retry.backoff_ms,
            backoff_max_ms: text.retry.backoff_max_ms,
        },
        on_unknown: parsed("on_unknown", text.on_unknown, OnUnknown::parse)?,
        when: text.when.map(guard).transpose()?,
        needs: Cow::Owned(text.needs.into_iter().map(Cow::Owned).collect()),
        compensation: text.compensation.map(F::compensation).transpose()?,
        sets: conditions(text.sets)?,
    })
}

fn guard(text: GuardText) -> Result<Guard, CanonicalError> {
    Ok(Guard {
        params: Cow::Owned(
            text.params
                .into_iter()
                .map(|(name, wanted)| (Cow::Owned(name), value(wanted)))
                .collect(),
        ),
        conditions: conditions(text.conditions)?,
        phases: all_parsed("phase", text.phases, Phase::parse)?,
    })
}

/// Arguments, which the text sorts by name.
pub(super) fn args(texts: BTreeMap<String, ArgText>) -> Cow<'static, [(Cow<'static, str>, Arg)]> {
    let arg = |arg| match arg {
        ArgText::Literal(literal) => Arg::Literal(value(literal)),
        ArgText::Param(name) => Arg::Param(name.into()),
    };
    Cow::Owned(texts.into_iter().map(|(name, given)| (Cow::Owned(name), arg(given))).collect())
}

fn value(text: ValueText) -> Value {
    match text {
        ValueText::String(text) => Value::Str(text.into()),
        ValueText::Integer(number) => Value::Int(number),
        ValueText::Boolean(truth) => Value::Bool(truth),
        ValueText::DurationMs(ms) => Value::DurationMs(ms),
    }
}
