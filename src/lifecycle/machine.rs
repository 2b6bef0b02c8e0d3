//! Phase of a machine: which transitions are legal is declared here and nowhere else.

#![expect(missing_docs, reason = "statig generates undocumented items")]
#![allow(unused_qualifications, reason = "in statig's expansion")]

use statig::blocking::*;

use super::hsm::{self, Verdict};

/// Explicit lifecycle phase, set by an operator or by the declared result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Delivered, never provisioned.
    FactoryReady,
    /// Provisioned and free.
    Ready,
    /// Serving.
    InService,
    /// Taken out of service for work.
    Maintenance,
    /// Returned to the manufacturer.
    Rma,
    /// Gone for good; no transition leads out of it.
    Retired,
}

impl Phase {
    /// Every phase, in the order of the lifecycle.
    pub const ALL: [Self; 6] = [
        Self::FactoryReady,
        Self::Ready,
        Self::InService,
        Self::Maintenance,
        Self::Rma,
        Self::Retired,
    ];

    /// Name in TOML, tables and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FactoryReady => "FACTORY_READY",
            Self::Ready => "READY",
            Self::InService => "IN_SERVICE",
            Self::Maintenance => "MAINTENANCE",
            Self::Rma => "RMA",
            Self::Retired => "RETIRED",
        }
    }

    /// The phase of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == name)
    }

    /// Phases that a machine in this phase may change to.
    #[must_use]
    pub fn targets(self) -> Vec<Self> {
        Self::ALL.into_iter().filter(|to| *to != self && self.moved_to(*to).is_ok()).collect()
    }

    /// The phase after an operator or a run requests `to`. Requesting the present phase changes nothing.
    ///
    /// # Errors
    /// [`IllegalPhase`] if no transition leads there.
    pub fn moved_to(self, to: Self) -> Result<Self, IllegalPhase> {
        let mut phase = self;
        match hsm::dispatch(&mut phase, &mut PhaseMachine, &MoveTo(to), &mut ()) {
            Verdict::Moved | Verdict::Kept => Ok(phase),
            Verdict::Unhandled => Err(IllegalPhase { from: self, to }),
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// No transition leads from one phase to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a machine in {from} cannot be moved to {to}; legal targets: {}", list(&from.targets()))]
pub struct IllegalPhase {
    /// Phase the machine is in.
    pub from: Phase,
    /// Requested phase.
    pub to: Phase,
}

fn list(phases: &[Phase]) -> String {
    if phases.is_empty() {
        return "none".to_owned();
    }
    phases.iter().map(|phase| phase.as_str()).collect::<Vec<_>>().join(", ")
}

/// The one event of the phase machine: a phase is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveTo(pub Phase);

#[derive(Debug, Clone, Copy, Default)]
pub struct PhaseMachine;

#[state_machine(
    initial = "Phase::FactoryReady",
    state(custom, name = "Phase"),
    superstate(name = "PhaseGroup", derive(Debug))
)]
impl PhaseMachine {
    #[state(superstate = "operable")]
    fn factory_ready(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::FactoryReady => Handled,
            Phase::Ready | Phase::Retired => Transition(event.0),
            Phase::InService | Phase::Maintenance | Phase::Rma => Super,
        }
    }

    #[state(superstate = "operable")]
    fn ready(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::Ready => Handled,
            Phase::InService => Transition(event.0),
            Phase::FactoryReady | Phase::Maintenance | Phase::Rma | Phase::Retired => Super,
        }
    }

    #[state(superstate = "operable")]
    fn in_service(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::InService => Handled,
            Phase::Ready => Transition(event.0),
            Phase::FactoryReady | Phase::Maintenance | Phase::Rma | Phase::Retired => Super,
        }
    }

    #[superstate(superstate = "in_fleet")]
    fn operable(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::Maintenance => Transition(event.0),
            Phase::FactoryReady | Phase::Ready | Phase::InService | Phase::Rma | Phase::Retired => {
                Super
            }
        }
    }

    #[state(superstate = "out_of_service")]
    fn maintenance(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::Maintenance => Handled,
            Phase::Ready => Transition(event.0),
            Phase::FactoryReady | Phase::InService | Phase::Rma | Phase::Retired => Super,
        }
    }

    #[state(superstate = "out_of_service")]
    fn rma(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::Rma => Handled,
            // Repaired and delivered again.
            Phase::FactoryReady => Transition(event.0),
            Phase::Ready | Phase::InService | Phase::Maintenance | Phase::Retired => Super,
        }
    }

    #[superstate(superstate = "in_fleet")]
    fn out_of_service(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::Retired => Transition(event.0),
            Phase::FactoryReady
            | Phase::Ready
            | Phase::InService
            | Phase::Maintenance
            | Phase::Rma => Super,
        }
    }

    #[superstate]
    fn in_fleet(event: &MoveTo) -> Outcome<Phase> {
        match event.0 {
            Phase::Rma => Transition(event.0),
            Phase::FactoryReady
            | Phase::Ready
            | Phase::InService
            | Phase::Maintenance
            | Phase::Retired => Super,
        }
    }

    #[state]
    fn retired(event: &MoveTo) -> Outcome<Phase> {
        let _ = event;
        Super
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_illegal_move_names_both_phases_and_the_legal_targets() {
        let error = Phase::Maintenance.moved_to(Phase::InService).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a machine in MAINTENANCE cannot be moved to IN_SERVICE; legal targets: READY, RMA, RETIRED"
        );
        let error = Phase::Retired.moved_to(Phase::Retired).unwrap_err();
        assert!(error.to_string().ends_with("legal targets: none"));
    }

    #[test]
    fn names_read_back() {
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.as_str()), Some(phase));
        }
        assert_eq!(Phase::parse("ready"), None);
    }
}
