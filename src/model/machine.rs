//! A managed server.

use std::collections::BTreeMap;

use super::run::RunType;
use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::lifecycle::effective::{EffectiveState, Rule, effective};
use crate::lifecycle::machine::Phase;

pub use super::condition::{Condition, ConditionKind, Conditions};

/// Fields of a machine that clients set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineSpec {
    /// Name of the provider that drives the machine.
    pub provider: String,
    /// Address for remote commands, `host:port`.
    pub ssh_endpoint: String,
    /// URL of the baseboard management controller.
    pub bmc_endpoint: String,
    /// Cluster that the machine is to join.
    pub target_cluster: String,
    /// MAC addresses, lower case with colons.
    pub mac_addresses: Vec<String>,
    /// Serial number.
    pub serial: String,
    /// Id of its system at the controller.
    pub bmc_system_id: String,
    /// Name of the controller's credentials: a reference.
    pub bmc_credentials: String,
    /// SHA-256 of the controller's certificate in lower-case hexadecimal digits, if it is pinned.
    pub bmc_certificate_sha256: String,
}

/// Reason of a condition that went back to its value before a step that was undone.
pub const REASON_STEP_UNDONE: &str = "STEP_UNDONE";
/// Reason of InCustomerCluster while it is unknown whether a machine that was in service is again: it counts as in
/// service.
pub const REASON_MAY_SERVE: &str = "MAY_SERVE";
/// Reason of InCustomerCluster of a machine that was in service when it was registered.
pub const REASON_ADOPTED: &str = "ADOPTED";
/// Reason of NeedsIntervention after a run failed. Does not block a new run.
pub const REASON_RUN_FAILED: &str = "RUN_FAILED";
/// Reason of NeedsIntervention after a cancel that came once a destructive step had started. Does not block a new
/// run.
pub const REASON_RUN_CANCELED: &str = "RUN_CANCELED";
/// Reason of NeedsIntervention while it is unknown whether an action took effect. Blocks a new run.
pub const REASON_OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
/// Reason of NeedsIntervention after an abort. Blocks a new run.
pub const REASON_ABORTED: &str = "ABORTED";
/// The engine failed at the machine's run repeatedly, because of a bug.
pub const REASON_ENGINE_FAULT: &str = "ENGINE_FAULT";
/// The machine's active run, or the plan that it pinned, cannot be read from the store.
pub const REASON_RECORD_UNREADABLE: &str = "RECORD_UNREADABLE";

/// A data-destroying step that has begun and did not succeed: the contents of the machine's disks cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntrustedDisks {
    /// Run of the step.
    pub run_id: RunId,
    /// Its type and plan: a later successful run of the same kind makes the disks trusted again.
    pub run_type: RunType,
    /// Its plan.
    pub plan_id: String,
    /// The step.
    pub step: String,
    /// When the run ended.
    pub at: Timestamp,
}

impl UntrustedDisks {
    /// Whether a run with this type and plan is of the same kind. Plans that are not the default of any type have
    /// only their type in common.
    #[must_use]
    pub fn is_kind(&self, run_type: RunType, plan_id: &str) -> bool {
        self.run_type == run_type && (run_type != RunType::Custom || self.plan_id == plan_id)
    }
}

/// A managed server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Id.
    pub id: MachineId,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Fields that clients set.
    pub spec: MachineSpec,
    /// Explicit phase.
    pub phase: Phase,
    /// Conditions.
    pub conditions: Conditions,
    /// The run that owns the machine.
    pub active_run: Option<RunId>,
    /// Fencing epoch; grows at every claim and, while a run is active, at every restart. Never reused.
    pub epoch: Epoch,
    /// Times of the recent destructive attempts, oldest first; the loop breaker counts them.
    pub destructive_at: Vec<Timestamp>,
    /// Set while the contents of the disks cannot be trusted.
    pub untrusted_disks: Option<UntrustedDisks>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Position in the order of registration; assigned by the store, zero before.
    pub ordinal: u64,
    /// Revision of the last change; assigned by the store.
    pub revision: Revision,
}

impl Machine {
    /// A newly registered machine: FACTORY_READY, nothing observed, no run.
    #[must_use]
    pub fn registered(
        id: MachineId,
        labels: BTreeMap<String, String>,
        spec: MachineSpec,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            labels,
            spec,
            phase: Phase::FactoryReady,
            conditions: Conditions::default(),
            active_run: None,
            epoch: Epoch(0),
            destructive_at: Vec::new(),
            untrusted_disks: None,
            created_at: now,
            updated_at: now,
            ordinal: 0,
            revision: Revision(0),
        }
    }

    /// Records that the machine was in service when it was registered: whatever refuses such machines refuses it.
    pub fn adopt(&mut self, actor: &str, why: &str) {
        self.phase = Phase::InService;
        let condition = Condition {
            status: true,
            reason: REASON_ADOPTED.to_owned(),
            message: format!("in service when it was registered: {why}"),
            last_transition_at: self.created_at,
            observed_by: format!("operator/{actor}"),
            plan_id: String::new(),
        };
        self.conditions.set(ConditionKind::InCustomerCluster, condition);
    }

    /// Whether it is recorded as serving, whatever runs on it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.phase == Phase::InService || self.conditions.is_true(ConditionKind::InCustomerCluster)
    }

    /// The effective state and the rule that gave it (seed).
    #[must_use]
    pub fn effective(&self) -> (EffectiveState, Rule) {
        effective(
            self.phase,
            self.conditions.is_true(ConditionKind::InCustomerCluster),
            self.active_run.is_some(),
        )
    }

    /// The condition that says that the hardware is not the registered one, if it says so.
    #[must_use]
    pub fn wrong_hardware(&self) -> Option<&Condition> {
        self.conditions.get(ConditionKind::HardwareMatches).filter(|condition| !condition.status)
    }

    /// The reason that forbids a new run until an operator clears it, if there is one.
    #[must_use]
    pub fn blocked_by(&self) -> Option<&Condition> {
        self.conditions.get(ConditionKind::NeedsIntervention).filter(|condition| {
            condition.status
                && [REASON_OUTCOME_UNKNOWN, REASON_ABORTED, REASON_RECORD_UNREADABLE]
                    .contains(&condition.reason.as_str())
        })
    }
}
