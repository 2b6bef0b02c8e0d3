//! Runs whose store was restored: held whatever they were doing, and back to it when an operator resumes them.

use super::*;
use crate::executor::restored;

/// The run as it is after a restore and a start of the server.
fn restore(bench: &mut Bench) {
    let entries = restored::hold(&mut bench.run, "restored from a backup", bench.now).unwrap();
    assert_eq!(entries.len(), 1);
    bench.recover();
    assert_eq!(bench.run.state, run::State::Held);
    assert_eq!(bench.effects, [], "nothing is done before an operator's word");
}

fn resume(bench: &mut Bench) {
    bench.operate(Verb::Resume).unwrap();
    assert_eq!((bench.run.state, &bench.run.hold), (run::State::Resuming, &None));
    assert_eq!(bench.effects, []);
    assert_eq!(bench.admit(), Admission::Admitted);
}

/// The provider has completed the open attempt since.
fn found_done(bench: &mut Bench) {
    bench.send(WRITE, Event::Observed(Seen::Done));
}

fn reason(bench: &Bench) -> HoldReason {
    bench.run.hold.as_ref().unwrap().reason
}

#[test]
fn an_open_attempt_is_held_and_recovered_when_the_run_is_resumed() {
    for (rule, acts) in [("retry", true), ("verify", false)] {
        let mut bench = Bench::acting(rule, WRITE);
        restore(&mut bench);
        assert_eq!(reason(&bench), HoldReason::Restored);
        assert!(bench.run.hold.as_ref().unwrap().message.contains("resume or abort"));
        // Days later its deadline has passed long ago: the attempt gets its time again.
        bench.now = bench.now.plus_ms(1_000_000_000);
        resume(&mut bench);
        assert_eq!((bench.run.state, bench.acts()), (run::State::Running, acts), "{rule}");
        assert!(bench.run.steps[WRITE].deadline_at.unwrap() > bench.now);
        assert_eq!(bench.run.steps[WRITE].attempt, 1, "the operation is the same");
        if !acts {
            found_done(&mut bench);
        }
        bench.finish();
        assert_eq!(bench.run.state, run::State::Succeeded);
    }
}

/// The provider had promised an hour; the operator who has looked at the machine does not wait for that.
#[test]
fn a_step_that_waited_for_the_provider_is_looked_at_when_the_run_is_resumed() {
    let mut bench = Bench::acting("verify", WRITE);
    let until = bench.now.plus_ms(3_600_000);
    bench.send(WRITE, Event::Accepted { until });
    restore(&mut bench);
    bench.now = bench.now.plus_ms(1_000);
    resume(&mut bench);
    let now = bench.now;
    assert!(bench.effects.contains(&Effect::Wake { step: WRITE, at: now }), "{:?}", bench.effects);
    bench.send(WRITE, Event::Woken);
    found_done(&mut bench);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
}

#[test]
fn a_run_that_waited_for_its_slot_waits_for_an_operator_first() {
    let mut bench = Bench::accepted("verify", &[]);
    restore(&mut bench);
    assert_eq!(bench.run.queued_at, None);
    resume(&mut bench);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
}

#[test]
fn a_cancel_continues_when_the_run_is_resumed() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.run.state, run::State::Canceling);
    restore(&mut bench);
    // It is requested already; that alone is no reason to act.
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!((bench.run.state, bench.effects.len()), (run::State::Held, 0));
    resume(&mut bench);
    assert_eq!(bench.run.state, run::State::Canceling);
    found_done(&mut bench);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert!(bench.names(State::Succeeded).contains(&"undo drain"), "{:#?}", bench.run);
}

#[test]
fn an_unwinding_continues_when_the_run_is_resumed() {
    for (canceled, expected) in [(false, run::State::Failed), (true, run::State::Canceled)] {
        let mut bench = Bench::acting("verify", WRITE);
        if canceled {
            bench.operate(Verb::Cancel).unwrap();
        }
        bench.send(WRITE, Event::CallFailed(ErrorClass::Permanent));
        assert!(matches!(bench.run.state, run::State::Unwinding { .. }));
        restore(&mut bench);
        bench.operate(Verb::Cancel).unwrap();
        assert_eq!((bench.run.state, bench.effects.len()), (run::State::Held, 0));
        resume(&mut bench);
        bench.finish();
        assert_eq!(bench.run.state, expected);
        let undone = bench.names(State::Succeeded);
        assert!(undone.ends_with(&["undo drain", "undo boot"]), "{undone:?}");
    }
}

#[test]
fn a_pause_between_resume_and_the_slot_keeps_what_the_run_was_doing() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.fail(WRITE);
    restore(&mut bench);
    bench.operate(Verb::Resume).unwrap();
    bench.operate(Verb::Pause).unwrap();
    assert_eq!(reason(&bench), HoldReason::Paused);
    resume(&mut bench);
    assert!(matches!(bench.run.state, run::State::Unwinding { .. }));
}

#[test]
fn a_restored_run_can_be_canceled_or_aborted() {
    let mut bench = Bench::acting("verify", WRITE);
    restore(&mut bench);
    let mut aborted = bench.clone();
    aborted.operate(Verb::Abort).unwrap();
    assert_eq!(aborted.run.state, run::State::Failed);
    assert!(!aborted.acts());
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.run.state, run::State::Canceling);
    assert!(bench.effects.contains(&Effect::Observe { step: WRITE }), "{:?}", bench.effects);
    found_done(&mut bench);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
}

#[test]
fn an_unknown_outcome_is_still_the_question() {
    let mut bench = Bench::held_unknown();
    restore(&mut bench);
    assert_eq!(reason(&bench), HoldReason::OutcomeUnknown);
    bench.refusal(Verb::Resume);
    bench.operate(resolve("write", Some(Resolution::Done))).unwrap();
    bench.admit();
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
}

#[test]
fn a_run_that_has_ended_is_left_alone() {
    let mut bench = Bench::started("verify");
    bench.finish();
    let before = bench.run.clone();
    restored::hold(&mut bench.run, "restored", bench.now).unwrap_err();
    assert_eq!(bench.run, before);
}
