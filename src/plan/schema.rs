//! The schema of a plan. Every field is either borrowed forever (the built-in plans are statics that `build.rs`
//! writes) or owned (plans of `--plans-dir`, copies pinned by a run), hence the [`Cow`]s.
//!
//! What an engine must know of an action to decide about it is pinned in the step: a plan never needs the table of
//! actions again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::names::{
    Capability, Condition, EffectiveState, ErrorClass, OnUnknown, Phase, Risk, Role, RunType,
    ValueKind,
};
use super::template;
use super::value::Value;

/// A plan: an ordered list of steps that a run executes on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `plan/<name>`.
    pub id: Cow<'static, str>,
    /// Name for people; taken from the id if the file gives none.
    pub display_name: Cow<'static, str>,
    /// What it does, for people; may be empty.
    pub description: Cow<'static, str>,
    /// The run type that uses this plan when a request names none; never [`RunType::Custom`].
    pub default_for: Option<RunType>,
    /// Whether some step's action is destructive, in either class of risk.
    pub destructive: bool,
    /// Phases a machine may be in when a run starts, in lifecycle order; never empty.
    pub allowed_phases: Cow<'static, [Phase]>,
    /// Effective states in which a run is refused unless forced.
    pub refused_effective: Cow<'static, [EffectiveState]>,
    /// Advice shown with such a refusal.
    pub refused_hint: Option<Cow<'static, str>>,
    /// Conditions that must hold when a run starts, sorted by condition.
    pub required_conditions: Cow<'static, [(Condition, bool)]>,
    /// Parameters, sorted by name.
    pub params: Cow<'static, [Param]>,
    /// Longest time of a whole run in milliseconds, counted from its first step; `None`: no limit beyond those of its
    /// steps.
    pub time_limit_ms: Option<u64>,
    /// Whether its runs are for admins: to start them, and to control them.
    pub for_admins: bool,
    /// Whether it may destroy data although its runs are of a type that is not expected to.
    pub allow_destructive: bool,
    /// Steps in execution order, at least one of them [`Role::Main`]; those come first, then the on_failure steps,
    /// then the finally steps.
    pub steps: Cow<'static, [Step]>,
    /// What success changes on the machine.
    pub result: PlanResult,
}

impl Plan {
    /// Type of the runs of this plan: what it is the default for, else [`RunType::Custom`].
    pub fn run_type(&self) -> RunType {
        self.default_for.unwrap_or(RunType::Custom)
    }

    /// The id without its `plan/`.
    pub fn name(&self) -> &str {
        self.id.strip_prefix("plan/").unwrap_or(&self.id)
    }

    /// The action of the step at `place`, if the engine performs it itself. Never true for a compensation.
    pub fn own(&self, place: usize) -> Option<&Action> {
        self.steps.get(place).map(|step| &step.action).filter(|action| action.is_own())
    }

    /// The step of this name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Whether it has a step of this role.
    pub fn has(&self, role: Role) -> bool {
        self.steps.iter().any(|step| step.role == role)
    }

    /// What a provider must support for each step, compensations included.
    pub fn capabilities(&self) -> impl Iterator<Item = (&Step, Capability)> {
        self.actions()
            .map(|(step, action)| (step, action.traits.capability))
            .filter(|(_, capability)| *capability != Capability::Engine)
    }

    /// The actions, compensations included, each with its step.
    pub fn actions(&self) -> impl Iterator<Item = (&Step, &Action)> {
        self.steps.iter().flat_map(|step| {
            std::iter::once(&step.action)
                .chain(step.compensation.as_ref().map(|undo| &undo.action))
                .map(move |action| (step, action))
        })
    }

    /// The actions that a server declares, compensations included, each with its step.
    pub fn declared(&self) -> impl Iterator<Item = (&Step, &Action)> {
        self.actions().filter(|(_, action)| action.traits.capability == Capability::Custom)
    }

    /// The most severe risk of its steps.
    pub fn risk(&self) -> Risk {
        self.steps.iter().map(|step| step.action.traits.risk).max().unwrap_or(Risk::None)
    }

    /// The parameter of this name.
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name == name)
    }
}

/// A typed parameter that a run may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name, unique in the plan.
    pub name: Cow<'static, str>,
    /// Type of its values.
    pub kind: ValueKind,
    /// Value used when the run gives none.
    pub default: Option<Value>,
    /// The only values accepted; empty means any.
    pub one_of: Cow<'static, [Value]>,
    /// What it is for; may be empty.
    pub description: Cow<'static, str>,
}

impl Param {
    /// Whether a run must give it, since there is no default.
    pub const fn required(&self) -> bool {
        self.default.is_none()
    }
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name, unique in the plan.
    pub name: Cow<'static, str>,
    /// When it runs.
    pub role: Role,
    /// What the provider is asked to do.
    pub action: Action,
    /// Longest time one attempt may take, in milliseconds; 1 to 24 hours.
    pub timeout_ms: u64,
    /// Usual duration of an attempt, in milliseconds; at most the timeout. Only a hint for people.
    pub expected_ms: u64,
    /// When and how a failed attempt is repeated.
    pub retry: Retry,
    /// What to do when the outcome is unknown.
    pub on_unknown: OnUnknown,
    /// Guard: the step is skipped where this does not hold.
    pub when: Option<Guard>,
    /// What a wait step waits for, at most for its timeout; it has no parameters and outputs.
    pub until: Option<Guard>,
    /// Earlier steps, in plan order, that a retried run repeats before this one.
    pub needs: Cow<'static, [Cow<'static, str>]>,
    /// Undoes the step when the run fails or is canceled after the step has started.
    pub compensation: Option<Compensation>,
    /// Conditions set once the step has succeeded, sorted by condition.
    pub sets: Cow<'static, [(Condition, bool)]>,
}

/// An action as used by a plan, with its properties when the plan was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its name. A name that is not (any more) in the table of actions is up to the provider.
    pub name: Cow<'static, str>,
    /// Every argument of the action's specification, sorted by name; optional ones only if the plan gives them. Defaults were filled in when the plan was compiled, so that a
    /// pinned plan keeps its meaning when a later version changes a default.
    pub args: Cow<'static, [(Cow<'static, str>, Arg)]>,
    /// Properties that decisions depend on.
    pub traits: Traits,
}

/// What an engine must know of an action to decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// What the machine's provider must offer.
    pub capability: Capability,
    /// What it puts at risk.
    pub risk: Risk,
    /// Whether doing it twice has the same effect as doing it once: only then may `on_unknown` be `retry`.
    pub idempotent: bool,
    /// Whether a cancel may stop it midway, because that leaves nothing half done: a drain, but not a reboot.
    pub interruptible: bool,
}

impl Traits {
    /// Whether it must finish once it has been sent: a cancel waits for it, the loop breaker counts it, and its
    /// machine needs a look if the run is canceled. True for either class of risk, unless a cancel may stop it
    /// midway.
    pub const fn must_settle(self) -> bool {
        self.risk.is_destructive() && !self.interruptible
    }
}

impl Action {
    /// Whether the engine performs it itself, without calling a provider.
    pub fn is_own(&self) -> bool {
        self.traits.capability == Capability::Engine
    }

    /// Whether it asks an operator for approval.
    pub fn asks(&self) -> bool {
        self.is_own() && self.name == APPROVE
    }
}

/// Name of the action that asks for approval.
pub const APPROVE: &str = "approve";
/// Name of the action that waits.
pub const WAIT: &str = "wait";

/// Value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A value in the plan, or a default.
    Literal(Value),
    /// Taken from the parameter of this name.
    Param(Cow<'static, str>),
    /// Text with parameters in it: `firmware {version}`. A literal brace is doubled.
    Text(Cow<'static, str>),
}

impl Action {
    /// The argument values for one run, by name, given its parameters as `Plan::bind` returns them.
    ///
    /// A parameter that is not in `params` is left out; that cannot happen with the parameters bound by the same
    /// plan.
    pub fn resolve(&self, params: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        self.args
            .iter()
            .filter_map(|(name, arg)| {
                let value = match arg {
                    Arg::Literal(value) => value.clone(),
                    Arg::Param(param) => params.get(param.as_ref())?.clone(),
                    Arg::Text(text) => Value::Str(template::fill(text, params).into()),
                };
                Some((name.to_string(), value))
            })
            .collect()
    }
}

/// What undoes a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compensation {
    /// What the provider is asked to do.
    pub action: Action,
    /// Longest time one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// Usual duration of an attempt, in milliseconds. Only a hint for people.
    pub expected_ms: u64,
    /// Conditions set once it has succeeded, sorted by condition. Conditions that the step itself has set go back to
    /// their previous values, unless they are named here.
    pub sets: Cow<'static, [(Condition, bool)]>,
    /// When and how a failed attempt is repeated; `None`: like the step itself.
    pub retry: Option<Retry>,
}

/// Retry policy of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, including the first; 1 to 100.
    pub max_attempts: u32,
    /// Failure classes that are retried, sorted; never empty.
    pub on: Cow<'static, [ErrorClass]>,
    /// Delay after the first failure, in milliseconds; it doubles with each further one.
    pub backoff_ms: u64,
    /// Longest delay, in milliseconds; at least `backoff_ms`.
    pub backoff_max_ms: u64,
}

impl Retry {
    /// Whether a failure of this class on this attempt (counted from 1) is followed by another attempt.
    pub fn again(&self, class: ErrorClass, attempt: u32) -> bool {
        attempt < self.max_attempts && self.on.contains(&class)
    }
}

/// Guard of a step; everything in it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Parameters and the value each must have, sorted by name.
    pub params: Cow<'static, [(Cow<'static, str>, Value)]>,
    /// Conditions and the status each must have, sorted by condition. An unset condition counts as false.
    pub conditions: Cow<'static, [(Condition, bool)]>,
    /// Phases that the machine may be in; empty means any.
    pub phases: Cow<'static, [Phase]>,
    /// Labels of the machine and the value each must have, sorted by key. A missing label counts as empty.
    pub labels: Cow<'static, [(Cow<'static, str>, Cow<'static, str>)]>,
    /// Providers that the machine may have, sorted; empty means any.
    pub providers: Cow<'static, [Cow<'static, str>]>,
    /// Outputs that earlier steps must have, sorted by step and name.
    pub outputs: Cow<'static, [Output]>,
}

/// An output that an earlier step must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    /// The step.
    pub step: Cow<'static, str>,
    /// Name of the output.
    pub name: Cow<'static, str>,
    /// The value that it must have, compared as text: an output may have a type that a plan cannot write.
    pub value: Value,
}

/// The facts that a guard depends on.
pub trait Around {
    /// The value of a parameter of the run.
    fn param(&self, name: &str) -> Option<&Value>;
    /// Whether a condition of the machine is true.
    fn condition(&self, condition: Condition) -> bool;
    /// Phase of the machine.
    fn phase(&self) -> Phase;
    /// A label of the machine.
    fn label(&self, key: &str) -> Option<&str>;
    /// Provider of the machine.
    fn provider(&self) -> &str;
    /// An output of a step of the run.
    fn output(&self, step: &str, name: &str) -> Option<&Value>;
}

/// In words: `Reachable and label work=done`.
impl std::fmt::Display for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> =
            self.params.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        parts.extend(self.conditions.iter().map(|(condition, wanted)| {
            let not = if *wanted { "" } else { "not " };
            format!("{not}{condition}")
        }));
        let either = |names: Vec<String>| names.join(" or ");
        if !self.phases.is_empty() {
            let phases = self.phases.iter().map(ToString::to_string).collect();
            parts.push(format!("the phase is {}", either(phases)));
        }
        parts.extend(self.labels.iter().map(|(key, value)| {
            if value.is_empty() {
                format!("no label {key}")
            } else {
                format!("label {key}={value}")
            }
        }));
        if !self.providers.is_empty() {
            let providers = self.providers.iter().map(ToString::to_string).collect();
            parts.push(format!("the provider is {}", either(providers)));
        }
        parts.extend(
            self.outputs
                .iter()
                .map(|Output { step, name, value }| format!("{step} has given {name} = {value}")),
        );
        f.write_str(&parts.join(" and "))
    }
}

impl Guard {
    /// Whether it holds now.
    pub fn holds(&self, around: &dyn Around) -> bool {
        self.params.iter().all(|(name, wanted)| around.param(name) == Some(wanted))
            && self.conditions.iter().all(|&(name, wanted)| around.condition(name) == wanted)
            && (self.phases.is_empty() || self.phases.contains(&around.phase()))
            && self.labels.iter().all(|(key, wanted)| around.label(key).unwrap_or("") == wanted)
            && (self.providers.is_empty()
                || self.providers.iter().any(|name| name == around.provider()))
            && self.outputs.iter().all(|wanted| {
                let given = around.output(&wanted.step, &wanted.name);
                given.is_some_and(|given| given.to_string() == wanted.value.to_string())
            })
    }
}

/// What a successful run changes on its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanResult {
    /// Phase to set; `None` leaves it unchanged.
    pub phase: Option<Phase>,
    /// Conditions to set, sorted by condition.
    pub conditions: Cow<'static, [(Condition, bool)]>,
}
