//! Properties of every state and every sequence of events.

use proptest::prelude::*;

use super::samples::*;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::{
    self, Basis, Effect, ErrorClass, Event, Facts, INTERRUPTED_MAX, OnUnknown, Resolution, Rules,
    Seen, State, UNKNOWN_CHECKS_MAX,
};

#[test]
fn nothing_changes_what_has_settled() {
    for state in step_states().into_iter().filter(|state| state.is_settled()) {
        for (event, setting) in step_events()
            .into_iter()
            .flat_map(|event| settings().into_iter().map(move |s| (event, s)))
        {
            if let Ok((next, effects)) = step::apply(setting.rules, state, event, setting.facts) {
                assert_eq!((next, effects), (state, vec![]), "{state:?} {event:?}");
            }
        }
    }
    for state in run_states().into_iter().filter(|state| !state.is_active()) {
        for event in run_events() {
            let facts = run::Facts {
                has_compensations: true,
                has_on_failure: true,
                has_finally: true,
                outcome_unknown: true,
                asks: true,
                suspended: Some(run::Suspended::Canceling),
            };
            if let Ok(next) = run::apply(state, event, facts) {
                assert_eq!(next, state, "{event:?}");
            }
        }
    }
    assert_eq!(Phase::Retired.targets(), []);
}

#[test]
fn the_declared_lists_are_complete() {
    assert_eq!(run_states(), run::State::ALL);
    assert_eq!(run_events(), run::Event::ALL);
    assert_eq!(phases(), Phase::ALL);
}

/// An operator can end every active run, and nothing moves a run's public phase back.
#[test]
fn runs_can_be_ended_and_never_go_back() {
    for state in run_states() {
        for facts in [false, true].map(|has| run::Facts {
            has_compensations: has,
            has_on_failure: has,
            has_finally: has,
            outcome_unknown: has,
            asks: has,
            suspended: has.then_some(run::Suspended::Unwinding { ending: run::Ending::Canceled }),
        }) {
            for event in run_events() {
                let Ok(next) = run::apply(state, event, facts) else { continue };
                assert!(next.phase() >= state.phase() || !state.is_active(), "{state:?} {event:?}");
            }
            if state.is_active() {
                assert_eq!(run::apply(state, run::Event::Abort, facts), Ok(run::State::Failed));
            }
            // A cancel is never refused: it is accepted, or the run is ending or has ended already.
            assert!(run::apply(state, run::Event::Cancel, facts).is_ok(), "{state:?}");
        }
    }
}

/// The event of a step in the good case.
fn benign(state: State) -> Event {
    match state {
        State::Waiting => Event::Start,
        State::Observing { .. } => Event::Observed(Seen::Done),
        State::Acting { .. } => Event::Acted,
        State::Polling { .. } | State::BackingOff { .. } => Event::Woken,
        State::Verifying { .. } => Event::Verified,
        State::Unknown { .. } => Event::Resolve(Resolution::Done),
        State::Succeeded | State::Failed | State::Skipped | State::Canceled => Event::Detach,
    }
}

/// Once the run is ending, nothing is sent, and certainly not repeated: whatever the plan's rule for unknown
/// outcomes.
#[test]
fn nothing_is_done_once_the_run_is_ending() {
    for state in step_states() {
        for event in step_events() {
            for setting in settings() {
                let facts = Facts { stopping: true, ..setting.facts };
                let Ok((_, effects)) = step::apply(setting.rules, state, event, facts) else {
                    continue;
                };
                assert!(!effects.contains(&Effect::Act), "{state:?} {event:?} {}", setting.label);
            }
        }
    }
}

#[test]
fn every_step_has_a_way_out() {
    for (mut state, setting) in
        step_states().into_iter().flat_map(|state| settings().into_iter().map(move |s| (state, s)))
    {
        let start = state;
        for _ in 0..4 {
            if !state.is_settled() {
                let event = benign(state);
                (state, _) = step::apply(setting.rules, state, event, setting.facts).unwrap();
            }
        }
        assert!(
            state.is_settled(),
            "{start:?} under {} got no further than {state:?}",
            setting.label
        );
    }
}

/// Failed observations are spaced further and further apart, and there is a last one.
#[test]
fn looks_at_an_unknown_outcome_come_further_and_further_apart() {
    let apply = |state, event| step::apply(BASE.rules, state, event, BASE.facts).unwrap().0;
    let basis = Basis::Unknown { checks: 0, cut_off: false };
    let mut state = State::Observing { attempt: 1, basis };
    let mut waits_ms = Vec::new();
    for _ in 0..UNKNOWN_CHECKS_MAX {
        let failed = apply(state, Event::CallFailed(ErrorClass::Transient));
        state = match failed {
            State::BackingOff { until, .. } => {
                waits_ms.push(until.since(NOW).as_millis());
                apply(failed, Event::Woken)
            }
            other => other,
        };
    }
    assert_eq!(waits_ms, [500, 1_000, 2_000, 4_000], "the short halves of 1, 2, 4 and 8 s");
    assert_eq!(state, State::Unknown { attempt: 1 });
}

fn any_event() -> impl Strategy<Value = Event> {
    prop::sample::select(step_events())
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let rule = prop::sample::select(vec![OnUnknown::Retry, OnUnknown::Verify, OnUnknown::Hold]);
    (1_u32..4, rule, any::<[bool; 5]>()).prop_map(|(attempts_max, on_unknown, flags)| Rules {
        attempts_max,
        on_unknown,
        retry_transient: flags[0],
        retry_permanent: flags[1],
        retry_needs_human: flags[2],
        must_settle: flags[3] && !flags[4],
        is_own: flags[4],
        ..BASE.rules
    })
}

/// An observer's knowledge of the attempts of one step.
#[derive(Debug, Default)]
struct Watcher {
    /// Attempts opened.
    opened: u32,
    /// Attempts that an operator requested.
    granted: u32,
    /// Actions sent for the open attempt.
    acts: u32,
    /// The machine was observed since the last action.
    looked: bool,
    unknowns: u32,
    /// Attempts that are not counted.
    interrupted: u32,
    /// The present attempt was interrupted by a crash of the server.
    cut_off: bool,
}

impl Watcher {
    fn see(&mut self, rules: Rules, before: State, event: Event, effects: &[Effect]) {
        if event == Event::Resolve(Resolution::Retry) {
            self.granted += 1;
        }
        if matches!((before, event), (State::Observing { .. }, Event::Observed(_))) {
            self.looked = true;
        }
        if event == Event::Recovered && before.is_open() {
            self.cut_off = true;
        }
        for effect in effects {
            match *effect {
                Effect::Open { attempt } => {
                    assert_eq!(attempt, self.opened + 1, "attempts are numbered densely");
                    self.opened = attempt;
                    assert!(
                        attempt <= rules.attempts_max + self.granted + self.interrupted,
                        "attempt {attempt} of {} ({} granted, {} interrupted)",
                        rules.attempts_max,
                        self.granted,
                        self.interrupted
                    );
                    (self.acts, self.unknowns, self.cut_off) = (0, 0, false);
                }
                Effect::Act => {
                    self.acts += 1;
                    let again = self.opened > 1 || self.acts > 1;
                    if again && rules.on_unknown != OnUnknown::Retry {
                        assert!(self.looked, "acted again without a look");
                        assert_eq!(self.acts, 1, "acted twice in one attempt");
                    }
                    assert!(self.acts <= UNKNOWN_CHECKS_MAX + 1, "acted without bound");
                    self.looked = false;
                }
                Effect::Unknown => self.unknowns += 1,
                Effect::Interrupted => {
                    assert!(self.cut_off && self.looked, "interrupted, and it was not cut off");
                    self.interrupted += 1;
                    assert!(self.interrupted <= INTERRUPTED_MAX, "interrupted without bound");
                }
                Effect::Extend
                | Effect::Observe
                | Effect::Verify
                | Effect::WakeAt(_)
                | Effect::Stop
                | Effect::Hold => {}
            }
        }
    }
}

/// Whether the attempt in progress has ended in that state, or waits for an operator.
fn rests(state: State) -> bool {
    state.is_settled() || matches!(state, State::Unknown { .. })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever happens in whatever order: attempts are dense and bounded, and nothing is done again unseen.
    #[test]
    fn attempts_are_bounded_and_never_blind(
        rules in any_rules(),
        events in prop::collection::vec((any_event(), any::<bool>(), 0_u8..4), 1..60),
    ) {
        let mut state = State::Waiting;
        let mut watcher = Watcher::default();
        for (noise, stopping, dice) in events {
            // Mostly the event that the state waits for, so that walks make progress.
            let event = if dice == 0 { benign(state) } else { noise };
            let (unknowns, interrupted) = (watcher.unknowns, watcher.interrupted);
            let facts = Facts { stopping, unknowns, interrupted, ..BASE.facts };
            let Ok((next, effects)) = step::apply(rules, state, event, facts) else { continue };
            watcher.see(rules, state, event, &effects);
            if !state.is_settled() && stopping {
                prop_assert!(
                    next == state || next.is_settled() || next.is_open() || !state.is_open()
                        || matches!(next, State::Unknown { .. }),
                    "{state:?} -> {next:?} leaves an attempt to be opened although the run is ending"
                );
            }
            state = next;
        }
    }

    /// A provider that always responds, however badly, ends the step or has it held: never an endless loop.
    #[test]
    fn bad_answers_come_to_an_end(
        rules in any_rules(),
        answers in prop::collection::vec(0_usize..6, 1_000),
    ) {
        let mut state = State::Waiting;
        let mut unknowns = 0;
        let mut taken = 0_u32;
        let class = |answer: usize| Event::CallFailed(ErrorClass::ALL[answer % 4]);
        for answer in answers {
            if rests(state) {
                break;
            }
            let event = match state {
                State::Waiting => Event::Start,
                State::Polling { .. } | State::BackingOff { .. } => Event::Woken,
                State::Observing { basis: Basis::Poll, .. } if answer < 4 => Event::TimedOut,
                State::Observing { .. } | State::Acting { .. } | State::Verifying { .. } if answer < 4 => class(answer),
                State::Observing { .. } if answer == 4 => Event::Observed(Seen::NotDone),
                State::Observing { .. } => Event::Observed(Seen::Unknowable),
                State::Acting { .. } if answer == 4 => Event::Acted,
                State::Acting { .. } => Event::Accepted { until: LATER },
                State::Verifying { .. } => Event::NotVerified,
                State::Unknown { .. } | State::Succeeded | State::Failed | State::Skipped | State::Canceled => break,
            };
            let facts = Facts { unknowns, ..BASE.facts };
            let (next, effects) = step::apply(rules, state, event, facts).unwrap();
            for effect in effects {
                if matches!(effect, Effect::Open { .. }) {
                    unknowns = 0;
                }
                unknowns += u32::from(effect == Effect::Unknown);
            }
            state = next;
            taken += 1;
        }
        prop_assert!(rests(state), "still {state:?} after {taken} answers");
        // Per attempt: each unknown outcome is acted on or observed a bounded number of times.
        prop_assert!(taken <= rules.attempts_max * 100, "{taken} answers for {rules:?}");
    }
}
