//! Queries of a state: its public phase, whether something is in flight, whether it counts towards a limit.

use super::samples::*;
use crate::lifecycle::run::{self, Ending};
use crate::lifecycle::step::{self, Basis, State};

#[test]
fn runs() {
    use run::Phase::{Canceled, Failed, Pending, Running, Succeeded};
    // State, phase, owns its machine, has a slot.
    let answers = [
        (run::State::Pending, Pending, true, false),
        (run::State::Running, Running, true, true),
        (run::State::Pausing, Running, true, true),
        (run::State::Held, Running, true, false),
        (run::State::Deferred, Running, true, false),
        (run::State::Resuming, Running, true, false),
        (run::State::Canceling, Running, true, true),
        (run::State::Stopping, Running, true, true),
        (run::State::Unwinding { ending: Ending::Failed }, Running, true, true),
        (run::State::Unwinding { ending: Ending::Canceled }, Running, true, true),
        (run::State::Closing { ending: Ending::Succeeded }, Running, true, true),
        (run::State::Closing { ending: Ending::Failed }, Running, true, true),
        (run::State::Closing { ending: Ending::Canceled }, Running, true, true),
        (run::State::Succeeded, Succeeded, false, false),
        (run::State::Failed, Failed, false, false),
        (run::State::Canceled, Canceled, false, false),
    ];
    for (state, phase, is_active, has_slot) in answers {
        let found = (state.phase(), state.is_active(), state.has_slot());
        assert_eq!(found, (phase, is_active, has_slot), "{state:?}");
    }
    assert_eq!(answers.map(|(state, ..)| state).to_vec(), run_states());
}

#[test]
fn steps() {
    use step::Phase::{Canceled, Failed, Running, Skipped, Succeeded, Waiting};
    const ATTEMPT: u32 = 7;
    let until = LATER;
    let looking = Basis::Unknown { checks: 2, cut_off: false };
    let observing = |basis| State::Observing { attempt: ATTEMPT, basis };
    let backing_off = |basis| State::BackingOff { attempt: ATTEMPT, until, basis };
    // State, phase, an attempt is open, the attempt in progress.
    let answers = [
        (State::Waiting, Waiting, false, None),
        (observing(Basis::Fresh), Running, true, Some(ATTEMPT)),
        (observing(Basis::Poll), Running, true, Some(ATTEMPT)),
        (observing(looking), Running, true, Some(ATTEMPT)),
        (State::Acting { attempt: ATTEMPT }, Running, true, Some(ATTEMPT)),
        (State::Polling { attempt: ATTEMPT, until }, Running, true, Some(ATTEMPT)),
        (State::Verifying { attempt: ATTEMPT, checks: 2 }, Running, true, Some(ATTEMPT)),
        // The attempt has failed and the next one is due later; or it is still open, and observed again.
        (backing_off(Basis::Fresh), Running, false, Some(ATTEMPT)),
        (backing_off(Basis::Poll), Running, true, Some(ATTEMPT)),
        (backing_off(looking), Running, true, Some(ATTEMPT)),
        (State::Unknown { attempt: ATTEMPT }, Running, false, Some(ATTEMPT)),
        (State::Succeeded, Succeeded, false, None),
        (State::Failed, Failed, false, None),
        (State::Skipped, Skipped, false, None),
        (State::Canceled, Canceled, false, None),
    ];
    for (state, phase, is_open, attempt) in answers {
        let found = (state.phase(), state.is_open(), state.attempt());
        assert_eq!(found, (phase, is_open, attempt), "{state:?}");
        let is_settled = [Succeeded, Failed, Skipped, Canceled].contains(&phase);
        assert_eq!(state.is_settled(), is_settled, "{state:?}");
    }
    let named: std::collections::BTreeSet<_> =
        answers.iter().map(|(state, ..)| step_state_name(*state)).collect();
    assert_eq!(named, step_states().into_iter().map(step_state_name).collect());
}
