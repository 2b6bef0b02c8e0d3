//! What a step's record and the history keep.

use super::*;

fn send_with(bench: &mut Bench, place: usize, event: Event, answer: Answer) {
    bench.decide(|draft, facts| draft.step(&StepInput { place, event, answer }, facts));
}

/// The last decision's entry about the step: kind, reason, message.
fn last_entry(bench: &Bench) -> (&str, &str, &str) {
    let entry = bench.entries.iter().find(|entry| !entry.step.is_empty());
    let entry = entry.unwrap_or_else(|| panic!("no step in {:?}", bench.entries));
    (entry.kind.as_str(), &entry.reason, &entry.message)
}

#[test]
fn what_was_seen_replaces_what_was_seen_before_as_a_whole() {
    for (answer, kept) in [
        (("up", "down"), ("up", "down")),
        (("", "half"), ("", "half")),
        (("up", ""), ("up", "")),
        // No message was given.
        (("", ""), ("on", "off")),
    ] {
        let mut bench = Bench::acting("verify", WRITE);
        let record = &mut bench.run.steps[WRITE];
        (record.expected, record.observed) = ("on".to_owned(), "off".to_owned());
        let (expected, observed) = (answer.0.to_owned(), answer.1.to_owned());
        let answer = Answer { expected, observed, ..Answer::default() };
        send_with(&mut bench, WRITE, Event::Acted, answer);
        let record = &bench.run.steps[WRITE];
        assert_eq!((record.expected.as_str(), record.observed.as_str()), kept);
    }
}

#[test]
fn a_step_has_settled_once() {
    let mut bench = Bench::acting("verify", WRITE);
    let times = |bench: &Bench| {
        let record = &bench.run.steps[WRITE];
        (record.finished_at, record.deadline_at.is_some())
    };
    assert_eq!(times(&bench), (None, true));
    bench.now = bench.now.plus_ms(5_000);
    let then = bench.now;
    bench.succeed(WRITE);
    assert_eq!(times(&bench), (Some(then), false));
    bench.now = bench.now.plus_ms(5_000);
    bench.send(WRITE, Event::Cancel);
    assert_eq!(times(&bench), (Some(then), false), "a late cancel");
}

#[test]
fn attempts_are_numbered_from_the_second_one() {
    let mut bench = Bench::started("verify");
    assert_eq!(last_entry(&bench), ("step.started", "", "step boot started"));
    bench.send(BOOT, Event::CallFailed(ErrorClass::Transient));
    bench.send(BOOT, Event::Woken);
    assert_eq!(last_entry(&bench), ("step.started", "", "step boot started, attempt 2"));
}

#[test]
fn an_operation_is_noted_as_accepted_once() {
    let mut bench = Bench::acting("verify", BOOT);
    let until = bench.now.plus_ms(1_000);
    bench.send(BOOT, Event::Accepted { until });
    assert_eq!(
        last_entry(&bench),
        ("step.accepted", "", "step boot: the provider is working on it")
    );
    bench.send(BOOT, Event::Woken);
    bench.send(BOOT, Event::Observed(Seen::InProgress { until }));
    assert_eq!(bench.state(BOOT), State::Polling { attempt: 1, until });
    assert_eq!(bench.entries, [], "it is still running");
}

/// Events that end an attempt, without a message of their own: the reason and the message in the history.
#[test]
fn the_history_says_what_ended_an_attempt() {
    let done = [Event::Observed(Seen::NotDone), Event::Acted];
    let class = Event::CallFailed;
    for (before, event, reason, message) in [
        (&[][..], class(ErrorClass::Transient), "TRANSIENT", "failed"),
        (&[], class(ErrorClass::OutcomeUnknown), "OUTCOME_UNKNOWN", "failed"),
        (&[], Event::TimedOut, "TIMED_OUT", "timed out"),
        (&done, Event::NotVerified, "NOT_VERIFIED", "reported done, but it is not"),
    ] {
        let mut bench = Bench::started("verify");
        for attempt in 1..=2 {
            before.iter().for_each(|event| bench.send(BOOT, *event));
            bench.send(BOOT, event);
            let (kind, shown_reason, text) = last_entry(&bench);
            assert_eq!(shown_reason, reason, "{event:?}");
            if attempt == 1 {
                let start = format!("step boot attempt 1 failed: {message}; next attempt at ");
                assert!(kind == "step.retrying" && text.starts_with(&start), "{event:?}: {text}");
                bench.send(BOOT, Event::Woken);
            } else {
                assert_eq!((kind, text), ("step.failed", &*format!("step boot failed: {message}")));
            }
        }
    }
    for (class, reason) in
        [(ErrorClass::Permanent, "PERMANENT"), (ErrorClass::NeedsHuman, "NEEDS_HUMAN")]
    {
        let mut bench = Bench::acting("verify", BOOT);
        bench.send(BOOT, Event::CallFailed(class));
        assert_eq!(last_entry(&bench), ("step.failed", reason, "step boot failed: failed"));
    }
    let mut bench = Bench::acting("verify", WRITE);
    bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    let (kind, reason, text) = last_entry(&bench);
    assert_eq!((kind, reason), ("step.retrying", "OBSERVED"));
    assert!(text.contains("the provider no longer knows the operation"), "{text}");
}

#[test]
fn the_history_says_why_a_step_ended_otherwise() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.send(BOOT, Event::Acted);
    bench.send(BOOT, Event::Verified);
    assert_eq!(last_entry(&bench), ("step.succeeded", "", "step boot succeeded"));

    let mut bench = Bench::accepted("verify", &[("check", "false")]);
    bench.admit();
    for place in [BOOT, DRAIN] {
        bench.succeed(place);
    }
    bench.send(WRITE, Event::Observed(Seen::Done));
    let skipped = bench.entries.iter().find(|entry| entry.step == "check").unwrap();
    assert_eq!((skipped.kind.as_str(), &*skipped.reason), ("step.skipped", "GUARD"));

    let mut bench = Bench::held_unknown();
    bench.operate(resolve("write", Some(Resolution::Done))).unwrap();
    let ended = bench.entries.iter().find(|entry| entry.kind.as_str() == "step.succeeded").unwrap();
    assert_eq!(ended.reason, "OPERATOR");
}

#[test]
fn a_message_lasts_until_there_is_something_else_to_say() {
    let said = |bench: &Bench| bench.run.steps[BOOT].message.clone();
    let booting = || {
        let mut bench = Bench::acting("verify", BOOT);
        bench.run.steps[BOOT].message = "still booting".to_owned();
        bench
    };
    // A failure without a message keeps what was known; a timeout is the latest event.
    let mut bench = booting();
    bench.send(BOOT, Event::CallFailed(ErrorClass::Transient));
    assert_eq!(said(&bench), "still booting");
    bench.send(BOOT, Event::Woken);
    bench.send(BOOT, Event::TimedOut);
    assert_eq!((bench.state(BOOT), &*said(&bench)), (State::Failed, "timed out"));
    let mut bench = booting();
    bench.run.steps[BOOT].state = State::Observing { attempt: 1, basis: Basis::Fresh };
    bench.send(BOOT, Event::TimedOut);
    assert_eq!(said(&bench), "timed out");
    // A success clears complaints, and may have its own message.
    let mut bench = booting();
    bench.succeed(BOOT);
    assert_eq!(said(&bench), "");
    let mut bench = booting();
    bench.send(BOOT, Event::Acted);
    let answer = Answer { message: "up in 40 s".to_owned(), ..Answer::default() };
    send_with(&mut bench, BOOT, Event::Verified, answer);
    assert_eq!(said(&bench), "up in 40 s");
}

/// A call that could not be sent says nothing about what was sent before it.
#[test]
fn a_call_that_was_not_sent_fails_only_an_attempt_of_which_nothing_was_sent() {
    let fresh = State::Observing { attempt: 1, basis: Basis::Fresh };
    let acting = State::Acting { attempt: 1 };
    let looking = Basis::Unknown { checks: 0, cut_off: false };
    for (state, class, is_next) in [
        (fresh, ErrorClass::Permanent, (|state| state == State::Failed) as fn(State) -> bool),
        (fresh, ErrorClass::NeedsHuman, |state| state == State::Failed),
        (fresh, ErrorClass::Transient, |state| matches!(state, State::BackingOff { .. })),
        (acting, ErrorClass::Permanent, |state| matches!(state, State::Observing { .. })),
        (acting, ErrorClass::NeedsHuman, |state| matches!(state, State::Observing { .. })),
        (acting, ErrorClass::Transient, |state| matches!(state, State::BackingOff { .. })),
        (State::Observing { attempt: 1, basis: looking }, ErrorClass::Permanent, |state| {
            matches!(state, State::BackingOff { basis: Basis::Unknown { .. }, .. })
        }),
    ] {
        let mut bench = Bench::acting("verify", WRITE);
        bench.run.steps[WRITE].state = state;
        let input = StepInput::bare(WRITE, Event::CallFailed(class));
        bench.decide(|draft, facts| draft.not_sent(&input, facts));
        assert!(is_next(bench.state(WRITE)), "{state:?} {class:?}: {:?}", bench.state(WRITE));
    }
}
