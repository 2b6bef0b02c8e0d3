//! Waits, approvals, time limits, on_failure and finally steps.

use super::*;
use crate::model::{EntryKind, RunErrorCode};

const LANGUAGE: &str = r#"
id = "plan/language"
allowed_phases = ["READY", "MAINTENANCE"]
time_limit = "2h"

[params.who]
kind = "string"
default = "ops"

[[steps]]
name = "drain"
action = "drain"
on_unknown = "verify"
sets = { InCustomerCluster = false }
compensation = { action = "undrain", timeout = "7m", retry = { max_attempts = 1 } }

[[steps]]
name = "soak"
action = "wait"
args = { for = "10m" }

[[steps]]
name = "ask"
action = "approve"
args = { message = "Reboot for {who}?" }
timeout = "30m"

[[steps]]
name = "reboot"
action = "reboot"
on_unknown = "verify"

[[steps]]
name = "tested"
action = "wait"
until = { label = { burn-in = "passed" } }
timeout = "1h"

[[on_failure]]
name = "tell"
action = "notify"

[[finally]]
name = "bye"
action = "notify"
"#;

const SOAK: usize = 1;
const ASK: usize = 2;
const REBOOT: usize = 3;
const TESTED: usize = 4;
const TELL: usize = 5;
const BYE: usize = 6;
const UNDO: usize = 7;
const MINUTE: u64 = 60_000;

impl Bench {
    /// A run of [`LANGUAGE`] whose first step is open.
    fn language() -> Self {
        let mut bench = Self::accepted("verify", &[]);
        bench.plan = compile(LANGUAGE);
        bench.params = admission::bind(&bench.plan, &BTreeMap::new()).unwrap();
        let names = bench.plan.steps.iter().map(|step| step.name.to_string());
        bench.run.steps = names.map(StepRecord::waiting).collect();
        bench.admit();
        bench
    }

    /// The same, held for an approval.
    fn asking() -> Self {
        let mut bench = Self::language();
        bench.succeed(DRAIN_FIRST);
        bench.pass(10 * MINUTE);
        bench.send(SOAK, Event::Woken);
        bench
    }

    /// The same, with an answer.
    fn answered(yes: bool) -> Self {
        let mut bench = Self::asking();
        bench.operate(answer(yes)).unwrap();
        bench
    }

    /// The same, waiting for a label.
    fn waiting_for_label() -> Self {
        let mut bench = Self::answered(true);
        bench.admit();
        bench.succeed(REBOOT);
        bench
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// What the run waits for, as people read it.
    fn says(&self) -> String {
        crate::executor::waiting::waiting(&self.run, None).unwrap().message
    }

    fn error(&self) -> (RunErrorCode, &str) {
        let error = self.run.error.as_ref().unwrap();
        (error.code, error.step.as_str())
    }
}

const DRAIN_FIRST: usize = 0;

fn answer(yes: bool) -> Verb {
    Verb::Answer { step: String::new(), yes }
}

#[test]
fn a_step_waits_and_no_provider_is_asked() {
    let mut bench = Bench::language();
    bench.succeed(DRAIN_FIRST);
    let until = bench.now.plus_ms(10 * MINUTE);
    assert_eq!(bench.state(SOAK), State::Polling { attempt: 1, until });
    assert!(bench.effects.contains(&Effect::Wake { step: SOAK, at: until }));
    assert!(!bench.effects.iter().any(|effect| {
        matches!(effect, Effect::Observe { .. } | Effect::Act { .. } | Effect::Deadline { .. })
    }));
    assert_eq!(bench.run.steps[SOAK].deadline_at, None, "it ends with its time");
    assert_eq!(bench.says(), format!("step soak waits until {until}"));
    bench.recover();
    assert!(bench.effects.contains(&Effect::Wake { step: SOAK, at: until }));
    bench.pass(10 * MINUTE);
    bench.send(SOAK, Event::Woken);
    assert_eq!(bench.state(SOAK), State::Succeeded);
}

/// A pause takes effect at once, and the step resumes where it was.
#[test]
fn a_wait_can_be_paused_skipped_and_canceled() {
    let mut bench = Bench::language();
    bench.succeed(DRAIN_FIRST);
    let mut paused = bench.clone();
    paused.operate(Verb::Pause).unwrap();
    assert_eq!(paused.run.state, run::State::Held);
    paused.operate(Verb::Resume).unwrap();
    paused.admit();
    assert!(paused.effects.iter().any(|effect| matches!(effect, Effect::Wake { step: SOAK, .. })));
    let mut skipped = bench.clone();
    skipped.operate(skip("soak")).unwrap();
    assert_eq!((skipped.state(SOAK), skipped.run.state), (State::Skipped, run::State::Held));
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.state(SOAK), State::Canceled);
    assert!(!bench.effects.iter().any(|effect| matches!(effect, Effect::Stop { .. })));
}

#[test]
fn a_step_that_asks_holds_the_run_until_a_yes() {
    let mut bench = Bench::asking();
    assert_eq!(bench.run.state, run::State::Held);
    let hold = bench.run.hold.as_ref().unwrap();
    assert_eq!(hold.reason, HoldReason::Approval);
    assert_eq!(hold.message, "step ask asks for approval: Reboot for ops?");
    for (verb, why) in [
        (
            Verb::Resume,
            "run RUN cannot be resumed: a step asks for approval: approve or reject it instead",
        ),
        (
            Verb::Pause,
            "run RUN cannot be paused: it is held until an approval is answered, and continues then: answer with no or cancel the run instead",
        ),
        (
            skip("ask"),
            "step ask cannot be skipped: it asks for approval: approve or reject it instead",
        ),
        (
            resolve("ask", Some(Resolution::Done)),
            "step ask cannot be resolved: its outcome is not unknown, it is RUNNING",
        ),
        (
            Verb::Answer { step: "soak".to_owned(), yes: true },
            "step soak cannot be answered: it does not ask for approval, it is SUCCEEDED",
        ),
    ] {
        assert_eq!(bench.refusal(verb).1, why);
    }
    bench.operate(answer(true)).unwrap();
    assert_eq!(bench.run.state, run::State::Resuming);
    assert_eq!(bench.state(ASK), State::Succeeded);
    assert!(bench.entries.iter().any(|entry| entry.kind == EntryKind::StepAnswered));
    assert_eq!(
        bench.refusal(answer(true)).1,
        "run RUN cannot be answered: none of its steps asks for approval"
    );
    bench.admit();
    assert_eq!(bench.current(), REBOOT);
}

#[test]
fn a_no_fails_the_run_and_undoes_what_was_done() {
    let mut bench = Bench::answered(false);
    assert_eq!((bench.state(ASK), bench.current()), (State::Failed, TELL));
    assert_eq!(bench.run.hold, None);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Failed);
    assert_eq!(bench.error(), (RunErrorCode::StepFailed, "ask"));
    assert!(bench.run.error.as_ref().unwrap().message.contains("refused by"));
    assert_eq!(bench.names(State::Succeeded), ["drain", "soak", "tell", "bye", "undo drain"]);
    assert_eq!(bench.run.current_step, Some(ASK), "the run points at what failed");
}

#[test]
fn no_answer_in_time_counts_as_a_no_over_a_restart_too() {
    let mut bench = Bench::asking();
    bench.recover();
    assert_eq!(bench.run.state, run::State::Held);
    let at = bench.now.plus_ms(30 * MINUTE);
    assert!(bench.effects.contains(&Effect::Deadline { step: ASK, at }), "{:?}", bench.effects);
    bench.pass(30 * MINUTE - 1);
    bench.send(ASK, Event::Woken);
    assert_eq!(bench.run.state, run::State::Held, "it is not time yet");
    bench.pass(1);
    bench.send(ASK, Event::TimedOut);
    assert_eq!((bench.state(ASK), bench.current()), (State::Failed, TELL));
    let message = &bench.run.error.as_ref().unwrap().message;
    assert_eq!(message, "step ask: no answer within 30m, which counts as a rejection");
}

#[test]
fn a_step_waits_until_the_machine_is_as_it_says() {
    let mut bench = Bench::waiting_for_label();
    let deadline_at = bench.now.plus_ms(60 * MINUTE);
    assert_eq!(bench.run.steps[TESTED].deadline_at, Some(deadline_at));
    let said = format!("step tested waits until label burn-in=passed, at most until {deadline_at}");
    assert_eq!(bench.says(), said);
    let before = bench.clone();
    bench.pass(10_000);
    bench.send(TESTED, Event::Woken);
    assert_eq!(bench.kinds(), Vec::<&str>::new(), "a look that changes nothing is not stored");
    assert_eq!(bench.says(), said);
    let until = bench.now.plus_ms(10_000);
    assert_eq!(bench.state(TESTED), State::Polling { attempt: 1, until });
    bench.machine.labels.insert("burn-in".to_owned(), "passed".to_owned());
    bench.send(TESTED, Event::Woken);
    assert_eq!(bench.state(TESTED), State::Succeeded);
    assert_eq!(bench.run.steps[TESTED].message, "it is so: label burn-in=passed");
    assert_eq!(bench.current(), BYE);
    // It does not wait forever.
    let mut bench = before;
    bench.pass(60 * MINUTE);
    bench.send(TESTED, Event::TimedOut);
    assert_eq!((bench.state(TESTED), bench.current()), (State::Failed, TELL));
    let why = "it waited 1h, and still it is not so: label burn-in=passed";
    assert_eq!(bench.run.steps[TESTED].message, why);
}

#[test]
fn what_comes_last_comes_last_and_changes_nothing() {
    let mut bench = Bench::waiting_for_label();
    bench.machine.labels.insert("burn-in".to_owned(), "passed".to_owned());
    bench.send(TESTED, Event::Woken);
    let closing = run::State::Closing { ending: run::Ending::Succeeded };
    assert_eq!((bench.run.state, bench.current()), (closing, BYE));
    assert_eq!(bench.state(TELL), State::Waiting);
    bench.recover();
    assert_eq!((bench.run.state, bench.current()), (closing, BYE));
    // Unknown whether it took effect: recorded, nothing more.
    for end in [Event::CallFailed(ErrorClass::Permanent), Event::Observed(Seen::Unknowable)] {
        let mut bench = bench.clone();
        bench.send(BYE, end);
        assert_eq!(bench.run.state, run::State::Succeeded, "{end:?}");
        assert_eq!(bench.state(TELL), State::Skipped, "the run did not fail");
        assert_eq!(bench.intervention(), None);
    }
}

#[test]
fn a_failed_step_for_a_failure_does_not_stop_the_others() {
    let mut bench = Bench::answered(false);
    bench.fail(TELL);
    assert_eq!(bench.current(), UNDO);
    // A compensation has its own timeout and attempts.
    let at = bench.now.plus_ms(7 * MINUTE);
    assert_eq!(bench.run.steps[UNDO].deadline_at, Some(at));
    bench.send(UNDO, Event::CallFailed(ErrorClass::Transient));
    assert_eq!(bench.state(UNDO), State::Failed);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Failed);
    assert_eq!(bench.error().1, "ask");
}

#[test]
fn a_cancel_undoes_and_closes_and_an_abort_does_neither() {
    let mut canceled = Bench::asking();
    let mut aborted = canceled.clone();
    canceled.operate(Verb::Cancel).unwrap();
    assert_eq!(canceled.current(), UNDO, "{:#?}", canceled.run);
    canceled.finish();
    assert_eq!(canceled.run.state, run::State::Canceled);
    assert_eq!(canceled.names(State::Succeeded), ["drain", "soak", "bye", "undo drain"]);
    assert_eq!(canceled.state(TELL), State::Canceled);
    aborted.operate(Verb::Abort).unwrap();
    assert_eq!(aborted.run.state, run::State::Failed);
    assert_eq!(aborted.names(State::Succeeded), ["drain", "soak"]);
    assert_eq!(aborted.run.steps.len(), 7);
}

/// The limit waits for what must finish, and starts nothing after it.
#[test]
fn the_time_of_a_whole_run_is_limited() {
    let mut bench = Bench::language();
    let limit = Effect::TimeLimit { at: bench.now.plus_ms(120 * MINUTE) };
    assert!(bench.effects.contains(&limit));
    bench.recover();
    assert!(bench.effects.contains(&limit), "it is watched after a restart");
    bench = Bench::answered(true);
    bench.admit();
    bench.send(REBOOT, Event::Observed(Seen::NotDone));
    bench.pass(120 * MINUTE);
    bench.decide(|draft, facts| draft.time_up(facts));
    assert_eq!((bench.run.state, bench.current()), (run::State::Stopping, REBOOT));
    bench.send(REBOOT, Event::Acted);
    bench.send(REBOOT, Event::Verified);
    assert_eq!((bench.state(REBOOT), bench.current()), (State::Succeeded, TELL));
    bench.finish();
    assert_eq!(bench.run.state, run::State::Failed);
    assert_eq!(bench.error(), (RunErrorCode::TimedOut, "reboot"));
    assert_eq!(bench.state(TESTED), State::Canceled);
}

#[test]
fn nothing_is_opened_once_the_time_is_up() {
    // The timer may be late: the store or the server was unavailable.
    let mut late = Bench::language();
    late.send(DRAIN_FIRST, Event::Observed(Seen::NotDone));
    late.send(DRAIN_FIRST, Event::Acted);
    late.pass(120 * MINUTE);
    let mut restarted = late.clone();
    late.send(DRAIN_FIRST, Event::Verified);
    assert_eq!((late.state(SOAK), late.current()), (State::Waiting, TELL));
    assert_eq!(late.error(), (RunErrorCode::TimedOut, "soak"));
    restarted.recover();
    assert_eq!(restarted.state(DRAIN_FIRST), State::Canceled, "a drain is stopped");
    assert_eq!(restarted.current(), TELL);
    // A held run ends when it continues.
    let mut held = Bench::asking();
    held.pass(15 * MINUTE);
    held.operate(answer(true)).unwrap();
    held.pass(120 * MINUTE);
    assert_eq!(held.run.state, run::State::Resuming);
    held.admit();
    assert_eq!((held.state(REBOOT), held.current()), (State::Waiting, TELL));
}

/// Data is not destroyed for a run that is being canceled, whatever its plan's rule for unknown outcomes.
#[test]
fn a_destructive_step_is_not_repeated_once_the_run_is_canceled() {
    let mut bench = Bench::acting("retry", WRITE);
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.run.state, run::State::Canceling);
    for event in [Event::TimedOut, Event::CallFailed(ErrorClass::OutcomeUnknown), Event::Recovered]
    {
        let mut bench = bench.clone();
        if event == Event::Recovered {
            bench.recover();
        } else {
            bench.send(WRITE, event);
        }
        assert!(!bench.acts(), "{event:?}: {:?}", bench.effects);
        assert_eq!(bench.state(WRITE), State::Canceled);
        assert_eq!(bench.intervention(), Some((true, REASON_OUTCOME_UNKNOWN)));
    }
}

/// A restore holds a run whatever it was doing, and the run returns to that.
#[test]
fn a_restored_run_asks_again_and_closes_as_it_was_going_to() {
    let restored = |bench: &mut Bench| {
        crate::executor::restored::hold(&mut bench.run, "restored", bench.now).unwrap();
        bench.recover();
        bench.operate(Verb::Resume).unwrap();
        bench.admit();
    };
    let mut asking = Bench::asking();
    restored(&mut asking);
    assert!(asking.run.asks(), "{:?} {:?}", asking.run.state, asking.run.hold);
    asking.operate(answer(true)).unwrap();
    asking.admit();
    assert_eq!(asking.current(), REBOOT);
    let mut closing = Bench::waiting_for_label();
    closing.machine.labels.insert("burn-in".to_owned(), "passed".to_owned());
    closing.send(TESTED, Event::Woken);
    restored(&mut closing);
    let ending = run::Ending::Succeeded;
    assert_eq!((closing.run.state, closing.current()), (run::State::Closing { ending }, BYE));
    let mut telling = Bench::answered(false);
    restored(&mut telling);
    let ending = run::Ending::Failed;
    assert_eq!((telling.run.state, telling.current()), (run::State::Unwinding { ending }, TELL));
}

/// It waits for a person, however long its step is expected to take.
#[test]
fn a_step_of_a_held_run_is_not_overdue() {
    use crate::executor::waiting::is_overdue;
    let mut run = Bench::asking().run;
    let later = run.steps[ASK].attempt_at.unwrap().plus_ms(30 * 24 * 60 * MINUTE);
    assert!(!is_overdue(&run, ASK, 0, later));
    run.state = run::State::Running;
    assert!(is_overdue(&run, ASK, 0, later));
}
