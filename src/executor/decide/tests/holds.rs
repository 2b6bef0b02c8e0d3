//! Pauses, skips, unknown outcomes, and the loop breaker.

use super::*;
use crate::model::Condition;

#[test]
fn a_pause_takes_effect_when_the_attempt_has_settled() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.operate(Verb::Pause).unwrap();
    assert_eq!(bench.run.state, run::State::Pausing);
    assert_eq!(bench.state(BOOT), State::Acting { attempt: 1 });
    bench.succeed(BOOT);
    assert_eq!(bench.run.state, run::State::Held);
    assert_eq!(bench.run.hold.as_ref().unwrap().reason, HoldReason::Paused);
    assert_eq!(bench.state(DRAIN), State::Waiting);
    bench.operate(Verb::Resume).unwrap();
    assert_eq!(bench.run.state, run::State::Resuming);
    assert_eq!(bench.run.queued_at, Some(bench.now));
    assert_eq!(bench.admit(), Admission::Admitted);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
}

#[test]
fn a_pause_between_attempts_takes_effect_at_once_and_the_attempt_waits() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.send(BOOT, Event::CallFailed(ErrorClass::Transient));
    bench.operate(Verb::Pause).unwrap();
    assert_eq!(bench.run.state, run::State::Held);
    bench.send(BOOT, Event::Woken);
    assert!(matches!(bench.state(BOOT), State::BackingOff { .. }), "nothing starts while held");
    bench.operate(Verb::Resume).unwrap();
    bench.admit();
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Wake { step: BOOT, .. })));
    bench.send(BOOT, Event::Woken);
    assert_eq!(bench.run.steps[BOOT].attempt, 2);
}

#[test]
fn an_attempt_in_flight_is_held_before_the_next_one() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.operate(Verb::Pause).unwrap();
    bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
    assert_eq!(bench.run.state, run::State::Pausing);
    // It did not happen: that ends the attempt, and the next one waits for the operator.
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    assert_eq!((bench.run.state, bench.acts()), (run::State::Held, false));
    assert_eq!(bench.run.steps[WRITE].attempt, 1);
}

#[test]
fn the_last_step_may_beat_a_pause() {
    let mut bench = Bench::acting("verify", CHECK);
    bench.operate(Verb::Pause).unwrap();
    bench.succeed(CHECK);
    assert_eq!(bench.run.state, run::State::Succeeded);
    assert_eq!(bench.run.hold, None);
}

#[test]
fn a_pause_can_be_taken_back_before_it_takes_effect() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.operate(Verb::Pause).unwrap();
    bench.operate(Verb::Resume).unwrap();
    assert_eq!((bench.run.state, bench.run.queued_at), (run::State::Running, None));
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
}

#[test]
fn a_pause_before_the_slot_holds_the_run() {
    let mut bench = Bench::accepted("verify", &[]);
    bench.operate(Verb::Pause).unwrap();
    assert_eq!((bench.run.state, bench.run.queued_at), (run::State::Held, None));
    assert_eq!(bench.admit(), Admission::NotWaiting);
    bench.operate(Verb::Resume).unwrap();
    assert_eq!(bench.admit(), Admission::Admitted);
    assert!(bench.run.started_at.is_some(), "it starts now: {:#?}", bench.run);
}

#[test]
fn skipping_a_later_step_leaves_the_one_in_flight_alone() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.operate(skip("write")).unwrap();
    assert_eq!(bench.effects, [], "the call of boot continues");
    assert_eq!(bench.kinds(), ["step.skipped"]);
    assert_eq!(bench.entries[0].actor, Actor::operator("tester"));
    assert_eq!(bench.state(BOOT), State::Acting { attempt: 1 });
    // Nor does it end a pause that waits for the step in flight.
    bench.operate(Verb::Pause).unwrap();
    bench.operate(skip("check")).unwrap();
    assert_eq!(bench.run.state, run::State::Pausing);
    bench.operate(Verb::Resume).unwrap();
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
    assert_eq!(bench.names(State::Skipped), ["write", "check"]);
}

#[test]
fn a_step_is_skipped_only_where_nothing_of_it_is_in_flight() {
    let mut bench = Bench::acting("verify", DRAIN);
    assert_eq!(
        bench.refusal(skip("drain")),
        (
            Refusal::StepState,
            "step drain cannot be skipped: a call of the step is in flight; a pause or a cancel waits for its end, an abort does not"
                .to_owned()
        )
    );
    assert_eq!(
        bench.refusal(skip("boot")),
        (Refusal::StepState, "step boot cannot be skipped: it is SUCCEEDED".to_owned())
    );
    assert!(matches!(bench.operate(skip("nope")), Err(EngineError::Invalid(_))));
    let mut unknown = Bench::held_unknown();
    assert!(unknown.refusal(skip("write")).1.contains("resolve it"));
    // Between two attempts it can be, and the run continues.
    bench.send(DRAIN, Event::CallFailed(ErrorClass::Transient));
    bench.operate(skip("drain")).unwrap();
    assert_eq!(bench.current(), WRITE);
}

#[test]
fn an_unknown_outcome_is_looked_at_before_anything_is_sent_again() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
    assert_eq!(bench.kinds(), ["step.outcome-unknown"]);
    assert!(bench.effects.contains(&Effect::Observe { step: WRITE }) && !bench.acts());
    let mut done = bench.clone();
    // An observation of success is verified too.
    done.send(WRITE, Event::Observed(Seen::Done));
    assert!(matches!(done.state(WRITE), State::Verifying { attempt: 1, .. }) && !done.acts());
    done.finish();
    assert_eq!(done.run.state, run::State::Succeeded);

    // Not done: the attempt is over, the next one takes a new operation id.
    let first = bench.run.steps[WRITE].operation.clone();
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    bench.send(WRITE, Event::Woken);
    assert_eq!(bench.run.steps[WRITE].attempt, 2);
    assert_ne!(bench.run.steps[WRITE].operation, first);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
}

#[test]
fn retry_acts_again_under_the_same_operation() {
    let mut bench = Bench::acting("retry", WRITE);
    let first = bench.run.steps[WRITE].operation.clone();
    bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
    assert!(bench.acts());
    assert_eq!((bench.run.steps[WRITE].attempt, &bench.run.steps[WRITE].operation), (1, &first));
    // Not forever.
    for _ in 0..20 {
        bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
    }
    assert_eq!(bench.run.state, run::State::Held);
}

#[test]
fn an_unknowable_outcome_holds_the_run_for_an_operator() {
    let mut bench = Bench::held_unknown();
    assert_eq!(bench.run.hold.as_ref().unwrap().reason, HoldReason::OutcomeUnknown);
    assert_eq!(bench.intervention(), Some((true, REASON_OUTCOME_UNKNOWN)));
    assert!(bench.refusal(Verb::Resume).1.contains("resolve the step"));
    assert_eq!(bench.refusal(resolve("boot", None)).0, Refusal::StepState);
}

#[test]
fn an_operator_resolves_an_unknown_outcome() {
    for (resolution, attempts, state) in [
        (Resolution::Done, 1, State::Succeeded),
        (Resolution::Retry, 2, State::Succeeded),
        (Resolution::Skip, 1, State::Skipped),
    ] {
        let mut bench = Bench::held_unknown();
        bench.operate(resolve("write", Some(resolution))).unwrap();
        let resolved = bench.kinds().iter().filter(|kind| **kind == "step.resolved").count();
        assert_eq!(resolved, 1, "{:?}", bench.entries);
        assert_eq!(bench.intervention(), Some((false, "RESOLVED")));
        assert_eq!(bench.run.state, run::State::Resuming);
        assert_eq!(bench.state(CHECK), State::Waiting, "it has no slot yet");
        bench.admit();
        bench.send(WRITE, Event::Woken);
        bench.finish();
        assert_eq!(bench.run.state, run::State::Succeeded, "{resolution:?}");
        assert_eq!((bench.run.steps[WRITE].attempt, bench.state(WRITE)), (attempts, state));
    }
    let mut given_up = Bench::held_unknown();
    given_up.operate(resolve("write", None)).unwrap();
    assert_eq!(given_up.run.state, run::State::Failed);
    assert_eq!(given_up.intervention(), Some((true, REASON_ABORTED)));
}

/// Other reasons for a look remain.
#[test]
fn resolving_a_step_answers_only_for_its_outcome() {
    for (status, reason) in [(true, "FAN"), (false, "CLEARED")] {
        let mut bench = Bench::held_unknown();
        let other =
            bench.decide(|draft, facts| draft.observed(facts.now, status, reason, String::new()));
        bench.machine.conditions.set(ConditionKind::NeedsIntervention, other);
        bench.operate(resolve("write", Some(Resolution::Done))).unwrap();
        assert_eq!(bench.intervention(), Some((status, reason)));
    }
}

#[test]
fn a_refused_verb_says_what_the_run_is_doing() {
    let controlled = |mut bench: Bench, verb| {
        bench.operate(verb).unwrap();
        bench
    };
    let unwinding = || {
        let mut bench = Bench::acting("verify", DRAIN);
        bench.fail(DRAIN);
        bench
    };
    for (mut bench, verb, message) in [
        (Bench::accepted("verify", &[]), Verb::Resume, "resumed: it is PENDING"),
        (Bench::started("verify"), Verb::Resume, "resumed: it is RUNNING"),
        (
            controlled(Bench::acting("verify", WRITE), Verb::Cancel),
            Verb::Pause,
            "paused: it is being canceled",
        ),
        (unwinding(), Verb::Resume, "resumed: it is being unwound"),
    ] {
        let wanted = (Refusal::RunState, format!("run RUN cannot be {message}"));
        assert_eq!(bench.refusal(verb), wanted);
    }
}

#[test]
fn a_resolved_retry_may_exceed_the_attempts_by_one() {
    let mut bench = Bench::acting("hold", WRITE);
    bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
    bench.send(WRITE, Event::Woken);
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    bench.send(WRITE, Event::TimedOut);
    bench.operate(resolve("write", Some(Resolution::Retry))).unwrap();
    bench.admit();
    bench.send(WRITE, Event::Woken);
    assert_eq!(bench.run.steps[WRITE].attempt, 3);
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
    assert_eq!(bench.state(WRITE), State::Failed);
}

/// A run whose destructive step is about to start, on a machine with recent destructive attempts.
fn about_to_write(destroyed_ms_ago: &[u64]) -> Bench {
    let mut bench = Bench::acting("verify", DRAIN);
    bench.loop_breaker = Some((2, 60_000));
    bench.now = bench.now.plus_ms(1_000_000);
    let now = bench.now.0;
    bench.machine.destructive_at =
        destroyed_ms_ago.iter().map(|ago| Timestamp(now - ago)).collect();
    bench.succeed(DRAIN);
    bench
}

#[test]
fn the_loop_breaker_holds_a_run_that_destroys_too_often() {
    let mut bench = about_to_write(&[50_000, 10_000]);
    assert_eq!(bench.run.state, run::State::Held);
    let hold = bench.run.hold.clone().unwrap();
    assert_eq!(hold.reason, HoldReason::LoopBreaker);
    assert_eq!(
        hold.message,
        "2 destructive attempts on machine-1 within 60 s; resume the run if that is intended"
    );
    assert_eq!(bench.state(WRITE), State::Waiting);
    // The operator takes responsibility: counting starts over.
    bench.operate(Verb::Resume).unwrap();
    bench.admit();
    assert_eq!(bench.current(), WRITE);
    assert_eq!(bench.machine.destructive_at, [bench.now]);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
}

fn other_hardware(bench: &mut Bench) {
    let condition = Condition {
        status: false,
        reason: "SERIAL_DIFFERS".to_owned(),
        message: "serial number: S-1 registered, S-2 observed".to_owned(),
        last_transition_at: Timestamp(1),
        observed_by: "probe".to_owned(),
        plan_id: String::new(),
    };
    bench.machine.conditions.set(ConditionKind::HardwareMatches, condition);
}

#[test]
fn the_data_of_hardware_that_is_not_the_registered_one_is_left_alone() {
    let mut bench = Bench::acting("verify", DRAIN);
    other_hardware(&mut bench);
    bench.succeed(DRAIN);
    let hold = bench.run.hold.clone().unwrap();
    assert_eq!((bench.run.state, hold.reason), (run::State::Held, HoldReason::WrongHardware));
    assert!(hold.message.ends_with("serial number: S-1 registered, S-2 observed"), "{hold:?}");
    assert_eq!(bench.state(WRITE), State::Waiting);
    // An operator who resumes it has not changed that.
    bench.operate(Verb::Resume).unwrap();
    bench.admit();
    assert_eq!(bench.run.state, run::State::Held);
    bench.machine.conditions.unset(ConditionKind::HardwareMatches);
    bench.operate(Verb::Resume).unwrap();
    bench.admit();
    assert_eq!(bench.current(), WRITE);
}

/// What is found out between two attempts counts for the second one.
#[test]
fn another_attempt_is_not_opened_on_other_hardware() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
    assert!(matches!(bench.state(WRITE), State::BackingOff { .. }));
    other_hardware(&mut bench);
    bench.send(WRITE, Event::Woken);
    assert_eq!(bench.run.hold.as_ref().unwrap().reason, HoldReason::WrongHardware);
    assert!(matches!(bench.state(WRITE), State::BackingOff { .. }));
}

#[test]
fn the_loop_breaker_forgets_what_is_long_ago() {
    let bench = about_to_write(&[70_000, 60_000, 10_000]);
    assert_eq!(bench.current(), WRITE);
}

#[test]
fn the_loop_breaker_counts_every_attempt_of_a_step() {
    for unknown in [false, true] {
        let mut bench = about_to_write(&[10_000]);
        bench.send(WRITE, Event::Observed(Seen::NotDone));
        if unknown {
            bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
            bench.send(WRITE, Event::Observed(Seen::NotDone));
        } else {
            bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
        }
        bench.send(WRITE, Event::Woken);
        assert_eq!(bench.run.state, run::State::Held, "unknown: {unknown}");
        assert_eq!(bench.run.steps[WRITE].attempt, 1);
        bench.operate(Verb::Resume).unwrap();
        bench.admit();
        bench.send(WRITE, Event::Woken);
        assert_eq!(bench.run.steps[WRITE].attempt, 2);
    }
}

#[test]
fn the_loop_breaker_holds_nothing_that_destroys_nothing() {
    let mut bench = about_to_write(&[10_000]);
    bench.succeed(WRITE);
    assert_eq!(bench.machine.destructive_at.len(), 2, "as many as there may be");
    assert_eq!(bench.current(), CHECK);
}

#[test]
fn compensations_are_never_held_by_the_loop_breaker() {
    let mut bench = about_to_write(&[]);
    bench.loop_breaker = Some((0, 60_000));
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    bench.fail(WRITE);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Failed);
}
