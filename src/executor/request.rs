//! Requests to the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::EngineError;
use crate::ids::{MachineId, Revision};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::step::Resolution;
use crate::model::scope::Scope;
use crate::model::{Actor, CallFacts, Lock, Machine, MachineSpec, RunType};
use crate::plan::Plan;

/// Data of every mutation besides its subject.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Idempotency key, empty for none.
    pub request_id: String,
    /// Digest of the request's content (without the request id), to tell a repetition from a different request.
    pub body_digest: String,
    /// Who makes the request, as declared.
    pub actor: Actor,
    /// Why, as given by the client; may be empty.
    pub reason: String,
    /// Revision that the object must have, if the client gave an etag.
    pub expected: Option<Revision>,
    /// When the caller stops waiting, on the monotonic clock: after that the request is not carried out.
    pub deadline: Option<std::time::Duration>,
    /// The only machines that the caller may touch; all of them if there is none.
    pub scope: Option<Arc<Scope>>,
    /// How the server came to know who calls, for the audit.
    pub call: CallFacts,
}

impl Origin {
    /// Refuses a caller below an admin what is to be done with a plan that is for admins.
    ///
    /// # Errors
    /// [`EngineError::ForAdmins`].
    pub fn may_run(&self, plan: &Plan) -> Result<(), EngineError> {
        match self.call.below_admin {
            Some(role) if plan.for_admins => Err(EngineError::ForAdmins {
                who: self.actor.name.to_string(),
                role,
                what: format!("{} of {}", self.call.rpc, plan.id),
            }),
            Some(_) | None => Ok(()),
        }
    }

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
            scope: None,
            call: CallFacts::default(),
        }
    }
}

impl Origin {
    /// Whether the caller may touch a machine with these labels.
    #[must_use]
    pub fn may_touch(&self, labels: &BTreeMap<String, String>) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.takes_labels(labels))
    }

    /// The machine, if the caller may touch it.
    pub(super) fn admits(&self, machine: Arc<Machine>) -> Result<Arc<Machine>, EngineError> {
        match self.may_touch(&machine.labels) {
            true => Ok(machine),
            false => Err(EngineError::NotFound { kind: "machine", id: machine.id.to_string() }),
        }
    }

    /// The refusal of a registration. It says the same of labels outside of the scope, and of an id or a MAC address that
    /// is taken there: not which it is.
    pub(super) fn may_not_register(&self, id: &MachineId) -> EngineError {
        EngineError::OutOfScope {
            message: format!(
                "{} may not register machine {id}: its labels must be in the scope {}, and its id and MAC addresses free",
                self.actor.name,
                self.scope_text()
            ),
        }
    }

    /// The refusal of a MAC address that a machine outside of the scope has.
    pub(super) fn may_not_have(&self, id: &MachineId) -> EngineError {
        EngineError::OutOfScope {
            message: format!(
                "machine {id} cannot have these MAC addresses: one of them is not free (the scope of {} is {})",
                self.actor.name,
                self.scope_text()
            ),
        }
    }

    /// Refuses a change of labels that decide whether the caller may touch the machine.
    pub(super) fn keeps_scope(&self, before: &Machine, after: &Machine) -> Result<(), EngineError> {
        let Some(scope) = &self.scope else { return Ok(()) };
        let moved = |key: &&String| before.labels.get(*key) != after.labels.get(*key);
        if let Some(key) = scope.keys().iter().find(moved) {
            return Err(EngineError::OutOfScope {
                message: format!(
                    "{} may not change the label {key} of machine {}: the scope {scope} depends on it",
                    self.actor.name, before.id
                ),
            });
        }
        Ok(())
    }

    fn scope_text(&self) -> String {
        self.scope.as_ref().map_or_else(String::new, |scope| scope.to_string())
    }

    /// What a request id belongs to: method and object. Callers with different scopes do not meet in one.
    #[must_use]
    pub fn key(&self, rpc: &str, object: &dyn std::fmt::Display) -> String {
        match &self.scope {
            None => format!("{rpc}/{object}"),
            Some(scope) => format!("{rpc}/{object} {}", scope.tag()),
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
    /// It already serves: it is registered IN_SERVICE.
    pub in_service: bool,
}

/// Changes to a machine; `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct MachineChanges {
    /// The whole machine was sent, as it was read: the phase that it is in already is no change, even while a run is
    /// active.
    pub as_it_was: bool,
    /// `spec.provider`; another one needs a reason.
    pub provider: Option<String>,
    /// Replacement for all labels.
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
    /// `spec.bmc_system_id`.
    pub bmc_system_id: Option<String>,
    /// `spec.bmc_credentials`.
    pub bmc_credentials: Option<String>,
    /// `spec.bmc_certificate_sha256`.
    pub bmc_certificate_sha256: Option<String>,
    /// `status.phase`, through the phase machine.
    pub phase: Option<Phase>,
    /// Return the machine to use although its disks are not trusted; needs a reason.
    pub force: bool,
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Machine.
    pub machine_id: MachineId,
    /// Type, if given.
    pub run_type: Option<RunType>,
    /// Plan, with or without the prefix `plan/`; empty for the default of the type.
    pub plan_id: String,
    /// Parameters as text.
    pub parameters: BTreeMap<String, String>,
    /// Override the plan's refusal by effective state.
    pub force: bool,
    /// Digest that the plan must have; empty for any.
    pub plan_digest: String,
}

/// An operator's verb on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// End it at the next safe point.
    Cancel,
    /// End it now, abandon the step in flight, block the machine.
    Abort,
    /// Hold it at the next safe point.
    Pause,
    /// Resume it.
    Resume,
    /// Skip a step that has not ended.
    Skip {
        /// Step.
        step: String,
    },
    /// Answer a step that asks for approval.
    Answer {
        /// Step; empty for the one that asks.
        step: String,
        /// Whether the run may continue.
        yes: bool,
    },
    /// Resolve an unknown outcome.
    Resolve {
        /// Step.
        step: String,
        /// The resolution; `None` gives up and aborts the run.
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
    /// When it continues by itself.
    pub next_wake_at: Option<crate::clock::Timestamp>,
    /// Index of the step that it waits in.
    pub step: Option<usize>,
}

/// What keeps a run waiting besides its own steps: what its record does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldBack {
    /// The server has not recovered it since the restart.
    Recovery,
    /// It waits for a slot; which limit is reached, for people.
    Capacity(String),
    /// Everything is stopped, its machine is locked, or its plan is paused.
    Locked(Arc<Lock>),
}

/// Why a run is not moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// Waiting for a slot within the limits.
    Capacity,
    /// Waiting for the next attempt of a step.
    Backoff,
    /// The provider is working on an operation.
    Provider,
    /// An operator paused it.
    Paused,
    /// The outcome of a step is unknown.
    OutcomeUnknown,
    /// Too many destructive steps in a short time.
    LoopBreaker,
    /// The store was restored from a backup: an operator must look first.
    Restored,
    /// The engine failed at it repeatedly, because of a bug.
    EngineFault,
    /// A step asks an operator for approval.
    Approval,
    /// The hardware is not the registered one.
    WrongHardware,
    /// A step waits for its time, or for its `until`.
    Step,
    /// The server is recovering the run after a restart.
    Recovery,
    /// Everything is stopped.
    Stopped,
    /// Its machine is locked.
    Locked,
    /// Its plan is paused.
    PlanPaused,
}
