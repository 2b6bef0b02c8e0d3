//! Why the engine refused a request.

use crate::ids::Revision;
use crate::store::StoreError;

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, as in the proto: `machine.spec.provider`.
    pub field: String,
    /// What is wrong with it and how to fix it.
    pub description: String,
}

impl FieldViolation {
    /// A violation of one field.
    #[must_use]
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why the present state forbids the request: a closed list, named in ErrorInfo and PreconditionFailure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Another run is active on the machine.
    RunActive,
    /// No transition leads from the machine's phase to the requested one.
    IllegalPhase,
    /// The plan does not allow the machine's phase.
    PhaseNotAllowed,
    /// The plan refuses the machine's effective state.
    EffectiveStateRefused,
    /// A condition that the plan requires does not hold.
    ConditionNotMet,
    /// NeedsIntervention blocks the machine until an operator clears it.
    InterventionNeeded,
    /// The machine's provider is not configured on this server.
    ProviderMissing,
    /// The provider cannot do what a step needs.
    CapabilityMissing,
    /// The provider refuses an argument of a step, for example an image that it does not know.
    ArgumentRefused,
    /// The verb is not possible in the run's state.
    RunState,
    /// The verb is not possible in the step's state.
    StepState,
    /// Only a RETIRED machine can be deleted.
    NotRetired,
    /// A data-destroying step has begun on the machine and did not succeed.
    DisksUntrusted,
    /// The hardware is not the registered one, and a step would destroy its data.
    HardwareMismatch,
    /// Everything is stopped.
    Stopped,
    /// The machine is locked.
    MachineLocked,
    /// The plan is paused.
    PlanPaused,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 17] = [
        Self::RunActive,
        Self::IllegalPhase,
        Self::PhaseNotAllowed,
        Self::EffectiveStateRefused,
        Self::ConditionNotMet,
        Self::InterventionNeeded,
        Self::ProviderMissing,
        Self::CapabilityMissing,
        Self::ArgumentRefused,
        Self::RunState,
        Self::StepState,
        Self::NotRetired,
        Self::DisksUntrusted,
        Self::HardwareMismatch,
        Self::Stopped,
        Self::MachineLocked,
        Self::PlanPaused,
    ];

    /// Name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunActive => "RUN_ACTIVE",
            Self::IllegalPhase => "ILLEGAL_PHASE",
            Self::PhaseNotAllowed => "PHASE_NOT_ALLOWED",
            Self::EffectiveStateRefused => "EFFECTIVE_STATE_REFUSED",
            Self::ConditionNotMet => "CONDITION_NOT_MET",
            Self::InterventionNeeded => "INTERVENTION_NEEDED",
            Self::ProviderMissing => "PROVIDER_MISSING",
            Self::CapabilityMissing => "CAPABILITY_MISSING",
            Self::ArgumentRefused => "ARGUMENT_REFUSED",
            Self::RunState => "RUN_STATE",
            Self::StepState => "STEP_STATE",
            Self::NotRetired => "NOT_RETIRED",
            Self::DisksUntrusted => "DISKS_UNTRUSTED",
            Self::HardwareMismatch => "HARDWARE_MISMATCH",
            Self::Stopped => "STOPPED",
            Self::MachineLocked => "MACHINE_LOCKED",
            Self::PlanPaused => "PLAN_PAUSED",
        }
    }
}

/// Why the engine did not carry out a request. Nothing was changed, unless the variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Fields of the request are wrong.
    #[error("{}", describe(.0))]
    Invalid(Vec<FieldViolation>),
    /// There is no such object.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// "machine", "run", "plan" or "lock".
        kind: &'static str,
        /// The requested id.
        id: String,
    },
    /// The scope of the caller forbids it.
    #[error("{message}")]
    OutOfScope {
        /// What was asked for, and the scope. Says nothing about what is outside of it.
        message: String,
    },
    /// The object exists already, and differs.
    #[error("{kind} {id:?} exists already: {difference}")]
    AlreadyExists {
        /// "machine".
        kind: &'static str,
        /// Its id.
        id: String,
        /// What is different.
        difference: String,
    },
    /// The present state forbids it.
    #[error("{message}")]
    Refused {
        /// The rule that refuses.
        refusal: Refusal,
        /// The object: `machines/machine-1`, `runs/<id>`.
        subject: String,
        /// The facts, with both sides named.
        message: String,
        /// What to do about it, empty if there is no advice.
        hint: String,
    },
    /// The plan is for admins, and the caller is none.
    #[error("{who} has the role {role}, and {what} needs the role admin: the plan is for admins")]
    ForAdmins {
        /// Name of the caller.
        who: String,
        /// Its role.
        role: &'static str,
        /// What was asked for.
        what: String,
    },
    /// The request id was used for a different request.
    #[error("request_id {request_id:?} was used before for a different request")]
    RequestIdReused {
        /// The idempotency key.
        request_id: String,
    },
    /// The object has changed since the client read it.
    #[error("{kind} {id:?} has changed: its etag is {current}, not {given}")]
    EtagMismatch {
        /// "machine", "run" or "plan", whose etag is its digest.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Etag in the request.
        given: String,
        /// Etag of the object.
        current: String,
    },
    /// A limit is reached; retrying later may help.
    #[error("{message}")]
    Exhausted {
        /// Which limit, in UPPER_SNAKE_CASE.
        limit: &'static str,
        /// Which limit, for people.
        message: String,
    },
    /// The watch's revision is older than what is kept.
    #[error("history before revision {oldest} has been compacted")]
    Compacted {
        /// Oldest revision from which a watch can resume.
        oldest: Revision,
    },
    /// The deadline passed before the request was carried out.
    #[error("the deadline passed before the request was carried out: nothing was changed")]
    DeadlineExceeded,
    /// The server is shutting down, or not ready yet; use another one or retry later.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The store failed. After `StoreError::Unknown` the request may or may not be durable.
    #[error("the request could not be stored")]
    Store(#[source] StoreError),
    /// A bug in the engine.
    #[error("internal error: {0}")]
    Internal(String),
}

fn describe(violations: &[FieldViolation]) -> String {
    violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect::<Vec<_>>()
        .join("; ")
}

impl EngineError {
    /// One wrong field.
    #[must_use]
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldViolation::new(field, description)])
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { oldest } => Self::Compacted { oldest },
            StoreError::MacTaken { mac, machine_id } => Self::AlreadyExists {
                kind: "machine",
                id: machine_id.to_string(),
                difference: format!(
                    "it has the MAC address {mac}, which belongs to one machine only: use another one, or remove it \
                     from that machine first"
                ),
            },
            other @ (StoreError::Conflict { .. }
            | StoreError::ActiveRun { .. }
            | StoreError::Fenced { .. }
            | StoreError::RequestUsed(_)
            | StoreError::NoSlot { .. }
            | StoreError::Full(_)
            | StoreError::Unknown(_)
            | StoreError::Unavailable(_)
            | StoreError::Corrupt { .. }) => Self::Store(other),
        }
    }
}
