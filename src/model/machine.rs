//! A managed server.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::lifecycle::effective::{EffectiveState, Rule, effective};
use crate::lifecycle::machine::Phase;

/// What clients say of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineSpec {
    /// Name of the provider that drives the machine; immutable.
    pub provider: String,
    /// Where remote commands go, `host:port`.
    pub ssh_endpoint: String,
    /// Where the baseboard management controller answers.
    pub bmc_endpoint: String,
    /// Cluster that the machine is to join.
    pub target_cluster: String,
    /// MAC addresses, lower case with colons.
    pub mac_addresses: Vec<String>,
    /// Serial number.
    pub serial: String,
}

/// Kind of an observed signal (seed, "Conditions").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionKind {
    /// The machine responds to health probes.
    Reachable,
    /// The machine has joined its target cluster.
    InCustomerCluster,
    /// The machine requires manual action.
    NeedsIntervention,
    /// The machine operates with reduced capacity.
    Degraded,
}

impl ConditionKind {
    /// Every kind, in the order of the seed.
    pub const ALL: [Self; 4] =
        [Self::Reachable, Self::InCustomerCluster, Self::NeedsIntervention, Self::Degraded];

    /// Name in TOML, tables and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "Reachable",
            Self::InCustomerCluster => "InCustomerCluster",
            Self::NeedsIntervention => "NeedsIntervention",
            Self::Degraded => "Degraded",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One observed signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its value.
    pub status: bool,
    /// Reason in UPPER_SNAKE_CASE, for programs.
    pub reason: String,
    /// What was seen, for people.
    pub message: String,
    /// When the status last changed.
    pub last_transition_at: Timestamp,
    /// Who observed it: `run/<id>`, `probe` or `operator/<name>`.
    pub observed_by: String,
    /// Plan whose run set it, empty if none did. A later success of the same plan clears NeedsIntervention.
    pub plan_id: String,
}

/// The signals of a machine; one that was never observed is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions(BTreeMap<ConditionKind, Condition>);

impl Conditions {
    /// The signal, if it was ever observed.
    #[must_use]
    pub fn get(&self, kind: ConditionKind) -> Option<&Condition> {
        self.0.get(&kind)
    }

    /// Whether the signal was observed and is true.
    #[must_use]
    pub fn is_true(&self, kind: ConditionKind) -> bool {
        self.get(kind).is_some_and(|condition| condition.status)
    }

    /// Sets a signal. The transition time moves only when the status changes. Returns whether it did.
    pub fn set(&mut self, kind: ConditionKind, mut condition: Condition) -> bool {
        let moved = match self.0.get(&kind) {
            Some(before) if before.status == condition.status => {
                condition.last_transition_at = before.last_transition_at;
                false
            }
            Some(_) | None => true,
        };
        self.0.insert(kind, condition);
        moved
    }

    /// Every signal that was observed, in the order of [`ConditionKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (ConditionKind, &Condition)> {
        self.0.iter().map(|(kind, condition)| (*kind, condition))
    }
}

/// Reason of NeedsIntervention after a run failed. Does not block a new run.
pub const REASON_RUN_FAILED: &str = "RUN_FAILED";
/// Reason of NeedsIntervention after a cancel came when a destructive step had started. Does not block a new run.
pub const REASON_RUN_CANCELED: &str = "RUN_CANCELED";
/// Reason of NeedsIntervention while nobody knows whether an action took effect. Blocks a new run.
pub const REASON_OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
/// Reason of NeedsIntervention after an abort. Blocks a new run.
pub const REASON_ABORTED: &str = "ABORTED";

/// A managed server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Id.
    pub id: MachineId,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// What clients say.
    pub spec: MachineSpec,
    /// Explicit phase.
    pub phase: Phase,
    /// Observed signals.
    pub conditions: Conditions,
    /// The run that owns the machine.
    pub active_run: Option<RunId>,
    /// Fencing epoch; grows at every claim and, while a run is active, at every restart. Never reused.
    pub epoch: Epoch,
    /// When destructive attempts were opened lately, oldest first; the loop breaker counts them.
    pub destructive_at: Vec<Timestamp>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Place in the order of registration; given by the store, zero before.
    pub ordinal: u64,
    /// Revision of the last change; given by the store.
    pub revision: Revision,
}

impl Machine {
    /// A machine as it is registered: FACTORY_READY, nothing observed, no run.
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
            created_at: now,
            updated_at: now,
            ordinal: 0,
            revision: Revision(0),
        }
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

    /// The reason that forbids a new run until an operator clears it, if there is one.
    #[must_use]
    pub fn blocked_by(&self) -> Option<&Condition> {
        self.conditions.get(ConditionKind::NeedsIntervention).filter(|condition| {
            condition.status
                && [REASON_OUTCOME_UNKNOWN, REASON_ABORTED].contains(&condition.reason.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: bool, at: u64) -> Condition {
        Condition {
            status,
            reason: String::new(),
            message: format!("seen at {at}"),
            last_transition_at: Timestamp(at),
            observed_by: "probe".to_owned(),
            plan_id: String::new(),
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Conditions::default();
        assert!(conditions.set(ConditionKind::Reachable, condition(true, 1)));
        assert!(!conditions.set(ConditionKind::Reachable, condition(true, 2)));
        let kept = conditions.get(ConditionKind::Reachable).unwrap();
        assert_eq!((kept.last_transition_at, kept.message.as_str()), (Timestamp(1), "seen at 2"));
        assert!(conditions.set(ConditionKind::Reachable, condition(false, 3)));
        assert_eq!(
            conditions.get(ConditionKind::Reachable).unwrap().last_transition_at,
            Timestamp(3)
        );
    }
}
