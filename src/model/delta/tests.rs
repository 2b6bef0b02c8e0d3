use proptest::prelude::*;

use super::*;
use crate::ids::{MachineId, RunId};
use crate::lifecycle::step::State;
use crate::model::{HoldReason, RunErrorCode};

fn empty() -> Run {
    let id = RunId::new(Timestamp(1), [1, 2]);
    crate::testing::run(id, MachineId::parse("machine-1").unwrap(), Timestamp(1))
}

/// One thing that a commit may change.
#[derive(Debug, Clone)]
enum Edit {
    Push(String),
    Step(prop::sample::Index, State, String),
    State(run::State),
    Hold(bool),
    Failed(bool),
    Parameter(String),
}

fn edit() -> impl Strategy<Value = Edit> {
    let steps = prop::sample::select(vec![
        State::Waiting,
        State::Acting { attempt: 2 },
        State::Polling { attempt: 1, until: Timestamp(7) },
        State::Succeeded,
    ]);
    prop_oneof![
        "[a-z]{1,5}".prop_map(Edit::Push),
        (any::<prop::sample::Index>(), steps, "[a-z]{0,3}")
            .prop_map(|(at, s, m)| Edit::Step(at, s, m)),
        prop::sample::select(run::State::ALL.to_vec()).prop_map(Edit::State),
        any::<bool>().prop_map(Edit::Hold),
        any::<bool>().prop_map(Edit::Failed),
        "[a-z]{1,2}".prop_map(Edit::Parameter),
    ]
}

fn apply(run: &mut Run, edit: Edit) {
    match edit {
        Edit::Push(name) => run.steps.push(StepRecord::waiting(name)),
        Edit::Step(index, state, message) if !run.steps.is_empty() => {
            let place = index.index(run.steps.len());
            run.steps[place].state = state;
            run.steps[place].message = message;
            run.current_step = Some(place);
        }
        Edit::Step(..) => {}
        Edit::State(state) => run.state = state,
        Edit::Hold(held) => {
            let (reason, since) = (HoldReason::Paused, Timestamp(3));
            run.hold = held.then(|| Hold { reason, message: String::new(), since });
        }
        Edit::Failed(failed) => {
            let code = RunErrorCode::StepFailed;
            run.error = failed.then(|| RunError {
                code,
                message: "no".to_owned(),
                retryable: true,
                step: "a".to_owned(),
            });
        }
        Edit::Parameter(name) => {
            Arc::make_mut(&mut run.spec).parameters.insert(name, "1".to_owned());
        }
    }
}

proptest! {
    /// Folding the deltas of any history gives the run at every point, and no delta names a step that did not change.
    #[test]
    fn folded_deltas_are_the_run(commits in prop::collection::vec(prop::collection::vec(edit(), 0..6), 1..30)) {
        let mut run = empty();
        let mut stored: Option<Run> = None;
        let mut folded: Option<Run> = None;
        for (number, edits) in commits.into_iter().enumerate() {
            for edit in edits {
                apply(&mut run, edit);
            }
            run.revision = Revision(number as u64 + 1);
            let delta = RunDelta::between(stored.as_ref(), &run);
            for (place, step) in &delta.steps {
                let before = stored.as_ref().and_then(|run| run.steps.get(*place));
                prop_assert_ne!(before, Some(&**step));
            }
            folded = delta.apply(folded);
            prop_assert_eq!(folded.as_ref(), Some(&run));
            stored = Some(run.clone());
        }
    }
}
