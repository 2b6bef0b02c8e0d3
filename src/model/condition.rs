//! Conditions of a machine: observed signals.

use std::collections::BTreeMap;

use crate::clock::Timestamp;

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
    /// The hardware has the registered serial number and MAC addresses, as far as it reports any.
    HardwareMatches,
}

impl ConditionKind {
    /// Every kind, those of the seed first.
    pub const ALL: [Self; 5] = [
        Self::Reachable,
        Self::InCustomerCluster,
        Self::NeedsIntervention,
        Self::Degraded,
        Self::HardwareMatches,
    ];

    /// Name in TOML, tables and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "Reachable",
            Self::InCustomerCluster => "InCustomerCluster",
            Self::NeedsIntervention => "NeedsIntervention",
            Self::Degraded => "Degraded",
            Self::HardwareMatches => "HardwareMatches",
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
    /// What was observed, for people.
    pub message: String,
    /// When the status last changed.
    pub last_transition_at: Timestamp,
    /// Who observed it: `run/<id>`, `probe` or `operator/<name>`.
    pub observed_by: String,
    /// Plan whose run set it, empty if none did. A later success of the same plan clears NeedsIntervention.
    pub plan_id: String,
}

/// The conditions of a machine; one that was never observed is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions(BTreeMap<ConditionKind, Condition>);

impl Conditions {
    /// The condition, if it was ever observed.
    #[must_use]
    pub fn get(&self, kind: ConditionKind) -> Option<&Condition> {
        self.0.get(&kind)
    }

    /// Whether the condition was observed and is true.
    #[must_use]
    pub fn is_true(&self, kind: ConditionKind) -> bool {
        self.get(kind).is_some_and(|condition| condition.status)
    }

    /// Sets a condition. The transition time changes only with the status. Returns whether it did.
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

    /// Removes a condition, as if it had never been observed.
    pub fn unset(&mut self, kind: ConditionKind) {
        self.0.remove(&kind);
    }

    /// Every condition that was observed, in the order of [`ConditionKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (ConditionKind, &Condition)> {
        self.0.iter().map(|(kind, condition)| (*kind, condition))
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
