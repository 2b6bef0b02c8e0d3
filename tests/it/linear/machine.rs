//! What clients may observe of one machine. Written from the rules, independent of the code that serves them.

use bmdemo::pb::Phase;

use super::checker::Model;

/// The phases that the histories use. A reboot is allowed in each of them and changes none.
pub(crate) const PHASES: [Phase; 4] =
    [Phase::FactoryReady, Phase::Ready, Phase::InService, Phase::Maintenance];

/// Why the server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    RunActive,
    IllegalPhase,
}

/// A request with its answer.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Started(String),
    StartRefused(Refused),
    Canceled { run: String, has_ended: bool },
    PhaseSet(Phase),
    PhaseRefused(Phase, Refused),
    Seen { phase: Phase, active: Option<String> },
}

/// A machine: its phase, and the run that owns it, which may end by itself at any time.
pub(crate) struct MachineModel;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    phase: Phase,
    active: Option<String>,
}

/// Legal transitions, as far as the histories use them.
fn is_legal(from: Phase, to: Phase) -> bool {
    from == to
        || to == Phase::Maintenance
        || matches!(
            (from, to),
            (Phase::FactoryReady | Phase::InService | Phase::Maintenance, Phase::Ready)
                | (Phase::Ready, Phase::InService)
        )
}

impl MachineModel {
    fn answer(state: &State, operation: &Operation) -> Option<State> {
        let State { phase, active } = state;
        let (kept, moved) =
            (Some(state.clone()), |phase| Some(State { phase, active: active.clone() }));
        match operation {
            Operation::Started(run) => {
                let started = State { phase: *phase, active: Some(run.clone()) };
                active.is_none().then_some(started)
            }
            Operation::StartRefused(Refused::RunActive) => kept.filter(|_| active.is_some()),
            Operation::StartRefused(Refused::IllegalPhase) => None,
            Operation::Canceled { run, has_ended } => {
                kept.filter(|_| (active.as_ref() == Some(run)) != *has_ended)
            }
            // Setting the present phase changes nothing, and may be accepted or refused while a run is active.
            Operation::PhaseSet(to) if phase == to => kept,
            Operation::PhaseSet(to) if active.is_none() && is_legal(*phase, *to) => moved(*to),
            Operation::PhaseSet(_) => None,
            Operation::PhaseRefused(_, Refused::RunActive) => kept.filter(|_| active.is_some()),
            Operation::PhaseRefused(to, Refused::IllegalPhase) => {
                kept.filter(|_| !is_legal(*phase, *to))
            }
            Operation::Seen { phase: seen, active: owner } => {
                kept.filter(|_| seen == phase && owner == active)
            }
        }
    }
}

impl Model for MachineModel {
    type State = State;
    type Operation = Operation;

    fn initial(&self) -> State {
        State { phase: Phase::FactoryReady, active: None }
    }

    fn step(&self, state: &State, operation: &Operation) -> Vec<State> {
        let mut before = vec![state.clone()];
        if state.active.is_some() {
            before.push(State { phase: state.phase, active: None });
        }
        before.iter().filter_map(|state| Self::answer(state, operation)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::checker::{Event, refute};
    use super::*;

    fn refuted(operations: Vec<Operation>) -> bool {
        let one_after_the_other = operations.into_iter().zip(0..);
        let history: Vec<_> = one_after_the_other
            .map(|(operation, at)| Event { asked: 2 * at, answered: 2 * at + 1, operation })
            .collect();
        refute(&MachineModel, &history).is_some()
    }

    fn started(run: &str) -> Operation {
        Operation::Started(run.to_owned())
    }

    fn seen(phase: Phase, active: Option<&str>) -> Operation {
        Operation::Seen { phase, active: active.map(str::to_owned) }
    }

    #[test]
    fn a_run_owns_its_machine_until_it_ends() {
        let owned = seen(Phase::FactoryReady, Some("a"));
        let free = seen(Phase::FactoryReady, None);
        let refused = Operation::StartRefused(Refused::RunActive);
        assert!(!refuted(vec![started("a"), owned.clone(), refused.clone(), free.clone()]));
        assert!(!refuted(vec![started("a"), started("b")]), "the first may have ended");
        assert!(refuted(vec![refused.clone()]), "nothing is active");
        assert!(refuted(vec![started("a"), free.clone(), owned.clone()]), "it has ended");
        assert!(refuted(vec![started("a"), started("b"), owned]), "two are active");
        assert!(refuted(vec![started("a"), free, refused]));
        let canceled = |has_ended| Operation::Canceled { run: "a".to_owned(), has_ended };
        let owned = || seen(Phase::FactoryReady, Some("a"));
        assert!(!refuted(vec![started("a"), canceled(false), owned(), canceled(true)]));
        assert!(refuted(vec![started("a"), canceled(true), owned()]));
    }

    #[test]
    fn phases_are_moved_to_legal_ones_while_nothing_is_active() {
        let set = Operation::PhaseSet;
        let no = |reason| Operation::PhaseRefused(Phase::Ready, reason);
        assert!(!refuted(vec![set(Phase::Ready), seen(Phase::Ready, None)]));
        assert!(refuted(vec![set(Phase::Ready), seen(Phase::FactoryReady, None)]), "stale");
        assert!(refuted(vec![set(Phase::InService)]), "illegal");
        assert!(refuted(vec![no(Refused::IllegalPhase)]), "legal");
        assert!(refuted(vec![no(Refused::RunActive)]), "nothing is active");
        let run = seen(Phase::Ready, Some("a"));
        assert!(refuted(vec![started("a"), set(Phase::Ready), run]), "set under a run");
    }
}
