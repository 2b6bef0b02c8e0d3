//! Effective state of a machine: computed on read, never stored (seed, "Hybrid Lifecycle Model").

use super::machine::Phase;

/// Effective state of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectiveState {
    /// Same as the phase, or IN_SERVICE because of being in a customer's cluster.
    Phase(Phase),
    /// A run is active.
    Provisioning,
}

impl EffectiveState {
    /// Every effective state.
    pub const ALL: [Self; 7] = [
        Self::Phase(Phase::FactoryReady),
        Self::Phase(Phase::Ready),
        Self::Phase(Phase::InService),
        Self::Phase(Phase::Maintenance),
        Self::Phase(Phase::Rma),
        Self::Phase(Phase::Retired),
        Self::Provisioning,
    ];

    /// Name in TOML, tables and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Phase(phase) => phase.as_str(),
            Self::Provisioning => "PROVISIONING",
        }
    }

    /// The effective state of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl std::fmt::Display for EffectiveState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which rule of precedence fired; the numbers are the seed's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// 1: a run is PENDING or RUNNING.
    ActiveRun,
    /// 2: the phase is RMA, RETIRED or MAINTENANCE.
    ExplicitPhase,
    /// 3: InCustomerCluster is true.
    InCustomerCluster,
    /// 4: the phase; no other rule applied.
    Phase,
}

/// The effective state and the rule that gave it.
#[must_use]
pub fn effective(
    phase: Phase,
    in_customer_cluster: bool,
    run_active: bool,
) -> (EffectiveState, Rule) {
    if run_active {
        return (EffectiveState::Provisioning, Rule::ActiveRun);
    }
    match phase {
        Phase::Rma | Phase::Retired | Phase::Maintenance => {
            (EffectiveState::Phase(phase), Rule::ExplicitPhase)
        }
        Phase::FactoryReady | Phase::Ready | Phase::InService if in_customer_cluster => {
            (EffectiveState::Phase(Phase::InService), Rule::InCustomerCluster)
        }
        Phase::FactoryReady | Phase::Ready | Phase::InService => {
            (EffectiveState::Phase(phase), Rule::Phase)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for state in EffectiveState::ALL {
            assert_eq!(EffectiveState::parse(state.as_str()), Some(state));
        }
        assert_eq!(EffectiveState::parse("NOBODY"), None);
        assert_eq!(EffectiveState::parse("in_service"), None);
    }

    proptest! {
        /// The four rules of the seed, stated independently of the code: the first that applies wins.
        #[test]
        fn precedence_is_the_seeds(index in 0_usize..6, in_cluster: bool, active: bool) {
            let phase = Phase::ALL[index];
            let explicit = ["RMA", "RETIRED", "MAINTENANCE"].contains(&phase.as_str());
            let rules = [
                (active, "PROVISIONING", Rule::ActiveRun),
                (explicit, phase.as_str(), Rule::ExplicitPhase),
                (in_cluster, "IN_SERVICE", Rule::InCustomerCluster),
                (true, phase.as_str(), Rule::Phase),
            ];
            let (_, name, rule) = rules.into_iter().find(|(applies, ..)| *applies).unwrap();
            let (state, fired) = effective(phase, in_cluster, active);
            prop_assert_eq!((state.as_str(), fired), (name, rule));
        }
    }

    #[test]
    fn all_combinations_are_locked() {
        let mut table =
            String::from("PHASE          IN_CLUSTER  ACTIVE_RUN  EFFECTIVE      RULE\n");
        for phase in Phase::ALL {
            for in_cluster in [false, true] {
                for active in [false, true] {
                    let (state, rule) = effective(phase, in_cluster, active);
                    table += &format!(
                        "{phase:<14} {in_cluster:<11} {active:<11} {state:<14} {rule:?}\n"
                    );
                }
            }
        }
        crate::assert_golden!("effective_state_table", table);
    }
}
