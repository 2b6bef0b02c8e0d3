//! One execution of a plan on a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::actor::Actor;
use super::steps::{StepRecord, Steps};
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::run;

/// Purpose of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunType {
    /// Image the machine again and join it.
    Repave,
    /// Drain, wipe and return.
    Rma,
    /// Restart.
    Reboot,
    /// Drain, then image and join again.
    Upgrade,
    /// Change the network configuration.
    NetReconfig,
    /// A plan that is not the default of any type.
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
    /// A step failed for good.
    StepFailed,
    /// A step failed because its attempts took too long, or the time limit of the run has passed.
    TimedOut,
    /// It is unknown whether an action took effect.
    OutcomeUnknown,
    /// An operator ended the run at once.
    Aborted,
    /// The provider of the machine is gone, or lost a capability.
    ProviderMissing,
    /// A bug in the engine.
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
    /// Whether starting it again may help without any other change.
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
    /// The store was restored from a backup: what happened to the machine since is unknown.
    Restored,
    /// The engine failed at it repeatedly, because of a bug.
    EngineFault,
    /// A step asks an operator for approval.
    Approval,
    /// The hardware is not the registered one, and the next step would destroy its data.
    WrongHardware,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Paused,
        Self::OutcomeUnknown,
        Self::LoopBreaker,
        Self::Restored,
        Self::EngineFault,
        Self::Approval,
        Self::WrongHardware,
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
            Self::WrongHardware => "WRONG_HARDWARE",
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

/// The parameters that a run was started with. They never change, so that copies of a run share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// Provider of the machine when the run was accepted.
    pub provider: String,
    /// Labels of the machine when the run was accepted: by them it is judged who may see it. Runs of older versions do
    /// not know theirs.
    pub labels: Option<BTreeMap<String, String>>,
    /// Idempotency key of the request that created it.
    pub request_id: String,
    /// Type.
    pub run_type: RunType,
    /// Plan it executes.
    pub plan_id: String,
    /// Digest of the plan; the store keeps the copy under it.
    pub plan_digest: String,
    /// Parameters as text, with defaults filled in.
    pub parameters: BTreeMap<String, String>,
    /// The run that this one retries.
    pub retry_of: Option<RunId>,
    /// Who started it.
    pub requested_by: Actor,
    /// Why it was started, as given by the client.
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
    /// Steps of the plan in its order, on_failure and finally steps included, then compensations.
    pub steps: Steps,
    /// Index of the step in progress, or of the one that failed.
    pub current_step: Option<usize>,
    /// Why it failed.
    pub error: Option<RunError>,
    /// Why it is held.
    pub hold: Option<Hold>,
    /// When a cancel was first requested.
    pub cancel_requested_at: Option<Timestamp>,
    /// When it started to wait for a slot; `None` while it has one or needs none.
    pub queued_at: Option<Timestamp>,
    /// When its first step started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Position in the order of creation; assigned by the store, zero before.
    pub ordinal: u64,
    /// Revision of the last change; assigned by the store.
    pub revision: Revision,
}

impl Run {
    /// Public phase.
    #[must_use]
    pub fn phase(&self) -> run::Phase {
        self.state.phase()
    }

    /// Whether an operator has aborted it.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.code == RunErrorCode::Aborted)
    }

    /// How it ended, as lists show it: the public phase of a run that was aborted is FAILED.
    #[must_use]
    pub fn ended_as(&self) -> &'static str {
        if self.is_aborted() { RunErrorCode::Aborted.as_str() } else { self.phase().as_str() }
    }

    /// Whether a step asks an operator for approval.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::Approval)
    }

    /// Steps of the plan, without compensations.
    pub fn plan_steps(&self) -> impl Iterator<Item = &StepRecord> {
        self.steps.iter().filter(|step| step.compensates.is_none())
    }
}
