//! The shape of a plan. Every field is either borrowed for ever (the built-in plans are statics that `build.rs` writes) or owned
//! (plans of `--plans-dir`, copies pinned by a run), hence the [`Cow`]s.
//!
//! The enums carry the names that TOML, the CLI and filters use; a test elsewhere equates them with those of `lifecycle`.

use std::borrow::Cow;

use super::action::{Action, Capability};

/// Declares an enum whose variants have one stable text each, with `ALL`, `as_str` and `parse`.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable text of the value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value with exactly this text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(super) use names;

names! {
    /// Explicit lifecycle phase of a machine.
    Phase {
        /// Delivered, never provisioned.
        FactoryReady = "FACTORY_READY",
        /// Provisioned and free.
        Ready = "READY",
        /// Serving a customer.
        InService = "IN_SERVICE",
        /// Taken out by an operator.
        Maintenance = "MAINTENANCE",
        /// Being returned to its maker.
        Rma = "RMA",
        /// Gone for good.
        Retired = "RETIRED",
    }
}

names! {
    /// What a machine counts as, computed from phase, conditions and active run.
    EffectiveState {
        /// As the phase.
        FactoryReady = "FACTORY_READY",
        /// As the phase.
        Ready = "READY",
        /// As the phase, or in a customer's cluster.
        InService = "IN_SERVICE",
        /// As the phase.
        Maintenance = "MAINTENANCE",
        /// As the phase.
        Rma = "RMA",
        /// As the phase.
        Retired = "RETIRED",
        /// A run is active.
        Provisioning = "PROVISIONING",
    }
}

names! {
    /// Observed boolean of a machine.
    Condition {
        /// Answers health probes.
        Reachable = "Reachable",
        /// Member of its target cluster.
        InCustomerCluster = "InCustomerCluster",
        /// Somebody has to look at it.
        NeedsIntervention = "NeedsIntervention",
        /// Works with reduced capacity.
        Degraded = "Degraded",
    }
}

names! {
    /// What a run is for.
    RunType {
        /// Installs a machine and joins it to its cluster.
        Repave = "REPAVE",
        /// Prepares a machine for its return.
        Rma = "RMA",
        /// Restarts a machine.
        Reboot = "REBOOT",
        /// Reinstalls a serving machine.
        Upgrade = "UPGRADE",
        /// Applies network configuration.
        NetReconfig = "NET_RECONFIG",
        /// Runs a plan that is nobody's default.
        Custom = "CUSTOM",
    }
}

names! {
    /// How a provider classes a failure.
    ErrorClass {
        /// May go away by itself.
        Transient = "transient",
        /// Will fail again the same way.
        Permanent = "permanent",
        /// Only a person can mend it.
        NeedsHuman = "needs-human",
    }
}

names! {
    /// What to do when nobody can say whether a step's action happened.
    OnUnknown {
        /// Act again under the same operation id.
        Retry = "retry",
        /// Look at the machine and decide by what is seen.
        Verify = "verify",
        /// Hold the run for an operator.
        Hold = "hold",
    }
}

names! {
    /// Type of a parameter or an argument.
    ValueKind {
        /// UTF-8 text of one line.
        String = "string",
        /// Signed 64-bit integer.
        Integer = "integer",
        /// `true` or `false`.
        Boolean = "boolean",
        /// Milliseconds, written `500ms`, `30s`, `5m`, `1h30m`.
        Duration = "duration",
    }
}

/// Value of a parameter or an argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Text.
    Str(Cow<'static, str>),
    /// Integer.
    Int(i64),
    /// Boolean.
    Bool(bool),
    /// Duration in milliseconds.
    DurationMs(u64),
}

impl Value {
    /// The kind this value is of.
    pub const fn kind(&self) -> ValueKind {
        match self {
            Self::Str(_) => ValueKind::String,
            Self::Int(_) => ValueKind::Integer,
            Self::Bool(_) => ValueKind::Boolean,
            Self::DurationMs(_) => ValueKind::Duration,
        }
    }

    /// The text, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The integer, if this is one.
    pub const fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The boolean, if this is one.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// The duration in milliseconds, if this is one.
    pub const fn as_duration_ms(&self) -> Option<u64> {
        if let Self::DurationMs(ms) = self { Some(*ms) } else { None }
    }
}

/// As a plan author or an operator would write it, without quotes.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::DurationMs(ms) => f.write_str(&super::duration::format(*ms)),
        }
    }
}

/// A plan: an ordered recipe that a run carries out on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `plan/<name>`.
    pub id: Cow<'static, str>,
    /// Name for people; the id's name when the file gives none.
    pub display_name: Cow<'static, str>,
    /// What it does, for people; may be empty.
    pub description: Cow<'static, str>,
    /// The run type that picks this plan when a request names none; never [`RunType::Custom`].
    pub default_for: Option<RunType>,
    /// Whether some step's action is destructive.
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
    /// Steps in the order they are carried out; never empty.
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

    /// The step of this name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// What a provider must offer for each step, compensations included.
    pub fn capabilities(&self) -> impl Iterator<Item = (&Step, Capability)> {
        self.steps.iter().flat_map(|step| {
            std::iter::once(&step.action)
                .chain(&step.compensation)
                .map(move |action| (step, action.spec().capability))
        })
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
    /// Value taken when the run gives none.
    pub default: Option<Value>,
    /// The only values accepted; empty means any.
    pub one_of: Cow<'static, [Value]>,
    /// What it is for; may be empty.
    pub description: Cow<'static, str>,
}

impl Param {
    /// Whether a run must give it: there is no default.
    pub const fn required(&self) -> bool {
        self.default.is_none()
    }
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name, unique in the plan.
    pub name: Cow<'static, str>,
    /// What the provider is asked to do.
    pub action: Action,
    /// Longest time one attempt may take, in milliseconds; 1 to 24 hours.
    pub timeout_ms: u64,
    /// How long an attempt takes when all is well, in milliseconds; at most the timeout. Only a hint for people.
    pub expected_ms: u64,
    /// When and how a failed attempt is repeated.
    pub retry: Retry,
    /// What to do when the outcome is unknown.
    pub on_unknown: OnUnknown,
    /// The step is skipped where this does not hold.
    pub when: Option<Guard>,
    /// Earlier steps, in plan order, that a retried run repeats before this one.
    pub needs: Cow<'static, [Cow<'static, str>]>,
    /// Undoes the step when the run fails or is canceled after the step has started.
    pub compensation: Option<Action>,
    /// Conditions known once the step has succeeded, sorted by condition.
    pub sets: Cow<'static, [(Condition, bool)]>,
}

/// Retry policy of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first included; 1 to 100.
    pub max_attempts: u32,
    /// Failure classes that are tried again, sorted; never empty.
    pub on: Cow<'static, [ErrorClass]>,
    /// Pause after the first failure, in milliseconds; it doubles with each further one.
    pub backoff_ms: u64,
    /// Longest pause, in milliseconds; at least `backoff_ms`.
    pub backoff_max_ms: u64,
}

impl Retry {
    /// Whether a failure of this class on this attempt (counted from 1) is followed by another attempt.
    pub fn again(&self, class: ErrorClass, attempt: u32) -> bool {
        attempt < self.max_attempts && self.on.contains(&class)
    }
}

/// Guard of a step; everything in it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Parameters and the value each must have, sorted by name.
    pub params: Cow<'static, [(Cow<'static, str>, Value)]>,
    /// Conditions and the status each must have, sorted by condition. An unset condition counts as false.
    pub conditions: Cow<'static, [(Condition, bool)]>,
    /// Phases of which the machine must be in one; empty means any.
    pub phases: Cow<'static, [Phase]>,
}

impl Guard {
    /// Whether the step runs, given the run's bound parameters and the machine as it is when the step's turn comes.
    pub fn holds(
        &self,
        params: &std::collections::BTreeMap<String, Value>,
        phase: Phase,
        condition: impl Fn(Condition) -> bool,
    ) -> bool {
        self.params.iter().all(|(name, wanted)| params.get(name.as_ref()) == Some(wanted))
            && self.conditions.iter().all(|&(name, wanted)| condition(name) == wanted)
            && (self.phases.is_empty() || self.phases.contains(&phase))
    }
}

/// What a successful run changes on its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanResult {
    /// Phase to set; `None` leaves it.
    pub phase: Option<Phase>,
    /// Conditions to set, sorted by condition.
    pub conditions: Cow<'static, [(Condition, bool)]>,
}
