//! The serialized forms of plans. The structs here are the format and nothing else: changing one of them changes
//! digests, so it needs a new [`FORMAT`].

mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::CanonicalError;
use crate::plan::names::{
    Capability, Condition, EffectiveState, ErrorClass, OnUnknown, Phase, Risk, Role, RunType,
    ValueKind,
};
use crate::plan::schema::{
    Action, Arg, Compensation, Guard, Output, Param, Plan, PlanResult, Retry, Step, Traits,
};
use crate::plan::value::Value;

/// Version of the format written by this build. It reads this one and every older one.
pub(super) const FORMAT: u32 = 2;

/// The only role that is written.
const ADMIN: &str = "admin";

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_limit_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow_destructive: Option<bool>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    action: F::Action,
    timeout_ms: u64,
    expected_ms: u64,
    retry: RetryText,
    on_unknown: String,
    when: Option<GuardText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<GuardText>,
    needs: Vec<String>,
    compensation: Option<F::Compensation>,
    sets: BTreeMap<String, bool>,
}

/// How formats differ: how they write actions and compensations.
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
            retry: text.retry.map(retry).transpose()?,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<RetryText>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ArgText {
    Literal(ValueText),
    Param(String),
    Text(String),
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    providers: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    outputs: BTreeMap<String, BTreeMap<String, ValueText>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultText {
    phase: Option<String>,
    conditions: BTreeMap<String, bool>,
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

/// Sorted by condition, which is not alphabetical order.
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
            time_limit_ms: text.time_limit_ms,
            for_admins: match text.role.as_deref() {
                None => false,
                Some(ADMIN) => true,
                Some(name) => {
                    let name = name.to_owned();
                    return Err(CanonicalError::UnknownName { what: "role", name });
                }
            },
            allow_destructive: text.allow_destructive.unwrap_or(false),
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
        role: text.role.map_or(Ok(Role::Main), |name| parsed("role", name, Role::parse))?,
        action: F::action(text.action)?,
        timeout_ms: text.timeout_ms,
        expected_ms: text.expected_ms,
        retry: retry(text.retry)?,
        on_unknown: parsed("on_unknown", text.on_unknown, OnUnknown::parse)?,
        when: text.when.map(guard).transpose()?,
        until: text.until.map(guard).transpose()?,
        needs: Cow::Owned(text.needs.into_iter().map(Cow::Owned).collect()),
        compensation: text.compensation.map(F::compensation).transpose()?,
        sets: conditions(text.sets)?,
    })
}

fn retry(text: RetryText) -> Result<Retry, CanonicalError> {
    Ok(Retry {
        max_attempts: text.max_attempts,
        on: all_parsed("error class", text.on, ErrorClass::parse)?,
        backoff_ms: text.backoff_ms,
        backoff_max_ms: text.backoff_max_ms,
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
        labels: text.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        providers: text.providers.into_iter().map(Cow::Owned).collect(),
        outputs: text
            .outputs
            .into_iter()
            .flat_map(|(step, wanted)| {
                wanted.into_iter().map(move |(name, wanted)| Output {
                    step: step.clone().into(),
                    name: name.into(),
                    value: value(wanted),
                })
            })
            .collect(),
    })
}

/// Arguments, which the text sorts by name.
pub(super) fn args(texts: BTreeMap<String, ArgText>) -> Cow<'static, [(Cow<'static, str>, Arg)]> {
    let arg = |arg| match arg {
        ArgText::Literal(literal) => Arg::Literal(value(literal)),
        ArgText::Param(name) => Arg::Param(name.into()),
        ArgText::Text(text) => Arg::Text(text.into()),
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
