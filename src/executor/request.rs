//! What clients ask of the engine.

use std::collections::BTreeMap;

use crate::ids::{MachineId, Revision};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::step::Resolution;
use crate::model::{Actor, MachineSpec, RunType};

/// What comes with every mutation.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Idempotency key, empty for none.
    pub request_id: String,
    /// Digest of the request's meaning (without the request id), to tell a repetition from a different request.
    pub body_digest: String,
    /// Who asks, as declared.
    pub actor: Actor,
    /// Why, as the client said; empty if it did not.
    pub reason: String,
    /// Revision that the object must be at, if the client gave an etag.
    pub expected: Option<Revision>,
    /// When an answer is of no use any more, on the monotonic clock: from then on the request is not carried out.
    pub deadline: Option<std::time::Duration>,
}

impl Origin {
    /// The engine itself.
    #[must_use]
    pub fn engine() -> Self {
        Self {
            request_id: String::new(),
            body_digest: String::new(),
            actor: Actor::engine(),
            reason: String::new(),
            expected: None,
            deadline: None,
        }
    }
}

/// A machine to register.
#[derive(Debug, Clone)]
pub struct NewMachine {
    /// Id.
    pub id: MachineId,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Spec.
    pub spec: MachineSpec,
}

/// Changes to a machine; `None` leaves a field alone.
#[derive(Debug, Clone, Default)]
pub struct MachineChanges {
    /// The whole machine was sent, as it was read: a phase that it is in already is no change, also while a run is active.
    pub as_it_was: bool,
    /// The provider that the client believes it has, empty for any. It never changes.
    pub provider: Option<String>,
    /// All labels anew.
    pub labels: Option<BTreeMap<String, String>>,
    /// Single labels: set, or with `None` removed. Applied after `labels`.
    pub label_edits: BTreeMap<String, Option<String>>,
    /// `spec.ssh_endpoint`.
    pub ssh_endpoint: Option<String>,
    /// `spec.bmc_endpoint`.
    pub bmc_endpoint: Option<String>,
    /// `spec.target_cluster`.
    pub target_cluster: Option<String>,
    /// `spec.mac_addresses`.
    pub mac_addresses: Option<Vec<String>>,
    /// `spec.serial`.
    pub serial: Option<String>,
    /// `status.phase`, through the phase machine.
    pub phase: Option<Phase>,
    /// Offer the machine although its disks cannot be trusted; needs a reason.
    pub force: bool,
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Machine.
    pub machine_id: MachineId,
    /// Type, if given.
    pub run_type: Option<RunType>,
    /// Plan, with or without the prefix `plan/`; empty takes the default of the type.
    pub plan_id: String,
    /// Parameters as text.
    pub parameters: BTreeMap<String, String>,
    /// Override the plan's refusal by effective state.
    pub force: bool,
}

/// An operator's verb on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// End it at the next safe point.
    Cancel,
    /// End it now, leave the step in flight alone, block the machine.
    Abort,
    /// Hold it at the next safe point.
    Pause,
    /// Let it go on.
    Resume,
    /// Skip a step that has not settled.
    Skip {
        /// Step.
        step: String,
    },
    /// Answer a step that asks for an approval.
    Answer {
        /// Step; empty for the one that asks.
        step: String,
        /// Whether the run may continue.
        yes: bool,
    },
    /// Say what an unknown outcome was.
    Resolve {
        /// Step.
        step: String,
        /// What it was; `None` gives up and aborts the run.
        resolution: Option<Resolution>,
    },
}

impl Verb {
    /// Name of the RPC, as scope of request ids.
    #[must_use]
    pub const fn rpc(&self) -> &'static str {
        match self {
            Self::Cancel => "CancelRun",
            Self::Abort => "AbortRun",
            Self::Pause => "PauseRun",
            Self::Resume => "ResumeRun",
            Self::Skip { .. } => "SkipStep",
            Self::Resolve { .. } | Self::Answer { .. } => "ResolveStep",
        }
    }
}

/// What a run that is not moving waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Why.
    pub reason: WaitReason,
    /// Why, for people.
    pub message: String,
    /// Since when.
    pub since: crate::clock::Timestamp,
    /// When it goes on by itself.
    pub next_wake_at: Option<crate::clock::Timestamp>,
    /// Place of the step that it waits in.
    pub step: Option<usize>,
}

/// What keeps a run back besides its own steps: what its record does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldBack {
    /// The server has not recovered it since it was started.
    Recovery,
    /// It waits for a slot; which limit is reached, for people.
    Capacity(String),
}

/// Why a run is not moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// Waiting for a slot within the limits.
    Capacity,
    /// Waiting for the next attempt of a step.
    Backoff,
    /// The provider works on an operation.
    Provider,
    /// An operator paused it.
    Paused,
    /// The outcome of a step is unknown.
    OutcomeUnknown,
    /// Too many destructive steps in a short time.
    LoopBreaker,
    /// The store was restored from a backup: an operator has to look first.
    Restored,
    /// The engine failed at it again and again: a bug of ours.
    EngineFault,
    /// A step asks an operator for an approval.
    Approval,
    /// A step waits for its time, or for what its plan says.
    Step,
    /// The server is recovering the run after a restart.
    Recovery,
}
