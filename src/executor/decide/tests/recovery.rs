//! The effect of a restart on every stored state.

use std::fmt::Write as _;

use super::*;
use crate::lifecycle::step::INTERRUPTED_MAX;

/// States in which the store may have kept a step, with the rest of its record.
const STORED: [State; 10] = [
    State::Waiting,
    State::Observing { attempt: 1, basis: Basis::Fresh },
    State::Observing { attempt: 1, basis: Basis::Poll },
    State::Observing { attempt: 1, basis: Basis::Unknown { checks: 2, cut_off: true } },
    State::Acting { attempt: 1 },
    State::Polling { attempt: 1, until: Timestamp(1_002_000) },
    State::Verifying { attempt: 1, checks: 0 },
    State::BackingOff { attempt: 1, until: Timestamp(1_002_000), basis: Basis::Fresh },
    State::BackingOff {
        attempt: 1,
        until: Timestamp(1_002_000),
        basis: Basis::Unknown { checks: 2, cut_off: true },
    },
    State::Unknown { attempt: 1 },
];

/// A run whose destructive step was stored in this state.
fn stored(rule: &str, state: State, run_state: run::State) -> Bench {
    let mut bench = Bench::acting(rule, WRITE);
    let record = &mut bench.run.steps[WRITE];
    record.state = state;
    if state == State::Waiting {
        *record = StepRecord::waiting("write");
    }
    if !state.is_open() {
        record.deadline_at = None;
    }
    bench.run.state = run_state;
    bench
}

fn text(bench: &Bench) -> String {
    let name = |effect: &Effect| {
        let text = format!("{effect:?}").to_lowercase();
        text.split(' ').next().map(str::to_owned)
    };
    let effects: Vec<_> = bench.effects.iter().filter_map(name).collect();
    format!("{:?}; step {:?}; {}", bench.run.state, bench.state(WRITE), effects.join(", "))
}

#[test]
fn every_stored_state_is_recovered() {
    let mut table = String::new();
    for state in STORED {
        let _ = writeln!(table, "{state:?}");
        for rule in ["verify", "retry", "hold"] {
            for run_state in [run::State::Running, run::State::Pausing, run::State::Canceling] {
                if matches!(state, State::Unknown { .. }) {
                    continue;
                }
                let mut bench = stored(rule, state, run_state);
                bench.recover();
                let _ = writeln!(table, "  {rule:<6} {run_state:?} -> {}", text(&bench));
            }
        }
        if !state.is_open() {
            let mut held = stored("verify", state, run::State::Held);
            held.recover();
            let _ = writeln!(table, "  any    Held -> {}", text(&held));
        }
    }
    crate::assert_golden!("recovery_table", table);
}

/// Whatever was stored, the run ends once the world responds; and nothing destructive is sent without an observation.
#[test]
fn no_recovered_run_is_stuck() {
    for state in STORED {
        for rule in ["verify", "retry", "hold"] {
            for run_state in
                [run::State::Running, run::State::Pausing, run::State::Canceling, run::State::Held]
            {
                // Nothing is in flight in a run that is held, and a run whose outcome is unknown is.
                if (state.is_open() && run_state == run::State::Held)
                    || (matches!(state, State::Unknown { .. }) && run_state != run::State::Held)
                {
                    continue;
                }
                let mut bench = stored(rule, state, run_state);
                bench.recover();
                assert!(rule == "retry" || !bench.acts(), "{state:?} {rule}: acted blindly");
                for _ in 0..20 {
                    if !bench.run.state.is_active() {
                        break;
                    }
                    proceed(&mut bench);
                }
                let name = format!("{state:?} {rule} {run_state:?}");
                assert!(!bench.run.state.is_active(), "{name}: {:#?}", bench.run);
                assert!(bench.run.steps.iter().all(|step| step.state.is_settled()), "{name}");
            }
        }
    }
}

/// The scheduler, the world and an operator provide what the run waits for.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other state fails the test")]
fn proceed(bench: &mut Bench) {
    match bench.run.state {
        run::State::Pending | run::State::Resuming => {
            bench.admit();
        }
        run::State::Held if matches!(bench.state(WRITE), State::Unknown { .. }) => {
            bench.run.hold = Some(crate::model::Hold {
                reason: HoldReason::OutcomeUnknown,
                message: String::new(),
                since: bench.now,
            });
            bench.operate(resolve("write", Some(Resolution::Done))).unwrap();
        }
        run::State::Held => bench.operate(Verb::Resume).unwrap(),
        _ => {
            let place = bench.current();
            match bench.state(place) {
                State::Polling { .. } | State::BackingOff { .. } => bench.send(place, Event::Woken),
                State::Observing { .. } => bench.send(place, Event::Observed(Seen::Done)),
                State::Acting { .. } => bench.send(place, Event::Acted),
                State::Verifying { .. } => bench.send(place, Event::Verified),
                other => panic!("{other:?} in {:#?}", bench.run),
            }
        }
    }
}

#[test]
fn a_pause_that_waited_for_an_attempt_still_does_after_a_restart() {
    let mut bench = stored("verify", State::Acting { attempt: 1 }, run::State::Pausing);
    bench.recover();
    assert_eq!(bench.run.state, run::State::Pausing);
    bench.send(WRITE, Event::Observed(Seen::Done));
    bench.send(WRITE, Event::Verified);
    assert_eq!(bench.run.state, run::State::Held);
    assert_eq!(bench.state(CHECK), State::Waiting);
}

#[test]
fn a_harmless_step_in_flight_is_stopped_when_a_canceled_run_is_recovered() {
    let mut bench = Bench::acting("verify", DRAIN);
    bench.run.state = run::State::Canceling;
    bench.recover();
    assert_eq!(bench.state(DRAIN), State::Canceled);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
}

#[test]
fn a_compensation_resumes_where_it_was() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.fail(WRITE);
    bench.send(4, Event::Observed(Seen::NotDone));
    bench.recover();
    assert!(matches!(bench.run.state, run::State::Unwinding { .. }));
    bench.finish();
    assert_eq!(bench.names(State::Succeeded), ["boot", "drain", "undo drain", "undo boot"]);
    assert_eq!(bench.run.state, run::State::Failed);
}

/// The wall clock was set back by a year while the server was down: nothing waits for a year.
#[test]
fn instants_from_the_future_do_not_stop_a_run() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    for state in STORED.into_iter().filter(|state| *state != State::Waiting) {
        let mut bench = stored("verify", state, run::State::Running);
        if matches!(state, State::Unknown { .. }) {
            continue;
        }
        let shift = |at: &mut Timestamp| *at = at.plus_ms(YEAR_MS);
        let record = &mut bench.run.steps[WRITE];
        if let State::Polling { until, .. } | State::BackingOff { until, .. } = &mut record.state {
            shift(until);
        }
        record.deadline_at.iter_mut().for_each(shift);
        bench.recover();
        for effect in &bench.effects {
            if let Effect::Wake { at, .. } | Effect::Deadline { at, .. } = effect {
                let wait = at.since(bench.now).as_secs();
                assert!(wait <= 3_600, "{state:?}: {effect:?} is {wait} s away");
            }
        }
    }
}

/// The longest wait that can have been meant is kept; a millisecond more was not meant, and is due now.
#[test]
fn only_waits_that_cannot_have_been_meant_are_cut_short() {
    let Bench { plan, now, .. } = Bench::started("verify");
    let polling = |until| State::Polling { attempt: 1, until };
    let backing_off = |until| State::BackingOff { attempt: 1, until, basis: Basis::Fresh };
    let longest = now.plus_ms(plan.steps[WRITE].timeout_ms);
    let longest_backoff = now.plus_ms(plan.steps[WRITE].retry.backoff_max_ms);
    for (state, at) in [
        (polling(longest), longest),
        (polling(longest.plus_ms(1)), now),
        (backing_off(longest_backoff), longest_backoff),
        (backing_off(longest_backoff.plus_ms(1)), now),
    ] {
        let mut bench = stored("verify", state, run::State::Running);
        bench.recover();
        let wake = Effect::Wake { step: WRITE, at };
        assert!(bench.effects.contains(&wake), "{state:?}: {:?}", bench.effects);
    }
}

/// The server ends while the step acts, and the observation afterwards says that it was not done: how the step
/// continues.
fn cut_off_once(bench: &mut Bench) {
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    bench.recover();
    bench.send(WRITE, Event::Observed(Seen::NotDone));
}

/// That the server crashed says nothing about the step, so it costs no attempt; unless it happens repeatedly, since
/// the step itself may crash the server.
#[test]
fn an_attempt_interrupted_by_a_crash_does_not_count() {
    let mut bench = Bench::started("verify");
    while bench.state(WRITE) == State::Waiting {
        let step = bench.current();
        bench.succeed(step);
    }
    for interrupted in 1..=INTERRUPTED_MAX {
        cut_off_once(&mut bench);
        let record = &bench.run.steps[WRITE];
        let (attempt, until) = (interrupted, bench.now);
        assert_eq!(record.state, State::BackingOff { attempt, until, basis: Basis::Fresh });
        assert_eq!(record.interrupted, interrupted);
        assert!(record.message.contains("not counted"), "{}", record.message);
        bench.send(WRITE, Event::Woken);
    }
    // From now on each one counts, and the plan allows two.
    cut_off_once(&mut bench);
    bench.send(WRITE, Event::Woken);
    assert_eq!(bench.run.steps[WRITE].attempt, INTERRUPTED_MAX + 2);
    cut_off_once(&mut bench);
    assert_eq!(bench.state(WRITE), State::Failed);
    assert_eq!(bench.run.steps[WRITE].interrupted, INTERRUPTED_MAX);
}

/// Attempts that are not counted leave the step all its attempts, and not one more.
#[test]
fn failures_count_besides_interrupted_attempts() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.recover();
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    for _ in 0..2 {
        assert!(!bench.state(WRITE).is_settled());
        bench.send(WRITE, Event::Woken);
        bench.send(WRITE, Event::Observed(Seen::NotDone));
        bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
    }
    assert_eq!(bench.state(WRITE), State::Failed);
    assert_eq!(bench.run.steps[WRITE].attempt, 3);
}

/// A result lost before the server ended was lost by the operation.
#[test]
fn an_answer_lost_before_the_server_ended_counts() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
    bench.recover();
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    assert_eq!(bench.run.steps[WRITE].interrupted, 0);
    bench.send(WRITE, Event::Woken);
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
    assert_eq!((bench.state(WRITE), bench.run.steps[WRITE].attempt), (State::Failed, 2));
}
