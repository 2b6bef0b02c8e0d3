//! One execution of a plan on a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::actor::Actor;
use super::steps::{StepRecord, Steps};
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::run;

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunType {
    /// Image the machine anew and join it.
    Repave,
    /// Drain, wipe and hand back.
    Rma,
    /// Restart.
    Reboot,
    /// Drain, then image anew and join.
    Upgrade,
    /// Change the network configuration.
    NetReconfig,
    /// A plan that is nobody's default.
    Custom,
}

impl RunType {
    /// Every type.
    pub const ALL: [Self; 6] =
        [Self::Repave, Self::Rma, Self::Reboot, Self::Upgrade, Self::NetReconfig, Self::Custom];

    /// Name in TOML, tables and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repave => "REPAVE",
            Self::Rma => "RMA",
            Self::Reboot => "REBOOT",
            Self::Upgrade => "UPGRADE",
            Self::NetReconfig => "NET_RECONFIG",
            Self::Custom => "CUSTOM",
        }
    }

    /// The type of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Why a run ended as FAILED: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunErrorCode {
    /// A step gave up.
    StepFailed,
    /// A step gave up because its attempts took too long, or the time limit of the run has passed.
    TimedOut,
    /// Nobody knows whether an action took effect.
    OutcomeUnknown,
    /// An operator ended the run at once.
    Aborted,
    /// The provider of the machine is gone, or lost a capability.
    ProviderMissing,
    /// A bug of ours.
    Internal,
}

impl RunErrorCode {
    /// Every code.
    pub const ALL: [Self; 6] = [
        Self::StepFailed,
        Self::TimedOut,
        Self::OutcomeUnknown,
        Self::Aborted,
        Self::ProviderMissing,
        Self::Internal,
    ];

    /// Name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StepFailed => "STEP_FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::Aborted => "ABORTED",
            Self::ProviderMissing => "PROVIDER_MISSING",
            Self::Internal => "INTERNAL",
        }
    }

    /// The code of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

/// Why a run ended as FAILED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunError {
    /// Closed list.
    pub code: RunErrorCode,
    /// What happened, for people.
    pub message: String,
    /// Whether starting it again may help without changing anything.
    pub retryable: bool,
    /// Step that failed, empty if none.
    pub step: String,
}

/// Why a run is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldReason {
    /// An operator paused it.
    Paused,
    /// The outcome of a step is unknown.
    OutcomeUnknown,
    /// Too many destructive steps on the machine in a short time.
    LoopBreaker,
    /// The store was restored from a backup: what the machine has gone through since is not known.
    Restored,
    /// The engine failed at it again and again: a bug of ours.
    EngineFault,
    /// A step asks an operator for an approval.
    Approval,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Paused,
        Self::OutcomeUnknown,
        Self::LoopBreaker,
        Self::Restored,
        Self::EngineFault,
        Self::Approval,
    ];

    /// Name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "PAUSED",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::LoopBreaker => "LOOP_BREAKER",
            Self::Restored => "RESTORED",
            Self::EngineFault => "ENGINE_FAULT",
            Self::Approval => "APPROVAL",
        }
    }

    /// The reason of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Why a run is held, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Why, for people.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a run was started with. It never changes, so that copies of a run share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// Provider of the machine when the run was accepted.
    pub provider: String,
    /// Idempotency key of the request that made it.
    pub request_id: String,
    /// Type.
    pub run_type: RunType,
    /// Plan it executes.
    pub plan_id: String,
    /// Digest of the plan; the store keeps the copy under it.
    pub plan_digest: String,
    /// Parameters as text, defaults filled in.
    pub parameters: BTreeMap<String, String>,
    /// The run that this one retries.
    pub retry_of: Option<RunId>,
    /// Who started it.
    pub requested_by: Actor,
    /// Why it was started, as the client said.
    pub reason: String,
    /// Whether the plan's refusal by effective state was overridden.
    pub forced: bool,
}

/// One execution of a plan on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Id.
    pub id: RunId,
    /// Machine it runs on.
    pub machine_id: MachineId,
    /// What it was started with.
    pub spec: Arc<RunSpec>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// State.
    pub state: run::State,
    /// Steps of the plan in its order, those for a failure and for the end included, then compensations.
    pub steps: Steps,
    /// Place of the step in progress, or of the one that failed.
    pub current_step: Option<usize>,
    /// Why it failed.
    pub error: Option<RunError>,
    /// Why it is held.
    pub hold: Option<Hold>,
    /// When a cancel was first requested.
    pub cancel_requested_at: Option<Timestamp>,
    /// When it began to wait for a slot; `None` while it has one or needs none.
    pub queued_at: Option<Timestamp>,
    /// When its first step started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Place in the order of creation; given by the store, zero before.
    pub ordinal: u64,
    /// Revision of the last change; given by the store.
    pub revision: Revision,
}

impl Run {
    /// Public phase.
    #[must_use]
    pub fn phase(&self) -> run::Phase {
        self.state.phase()
    }

    /// Whether a step asks an operator for an approval.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::Approval)
    }

    /// Steps of the plan, without compensations.
    pub fn plan_steps(&self) -> impl Iterator<Item = &StepRecord> {
        self.steps.iter().filter(|step| step.compensates.is_none())
    }
}
