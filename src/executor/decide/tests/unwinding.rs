//! Compensations, cancels and aborts.

use super::*;

#[test]
fn a_failed_run_undoes_what_it_did_newest_first() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.fail(WRITE);
    assert_eq!(bench.run.state.phase(), run::Phase::Running);
    let undone: Vec<_> = bench.run.steps.iter().skip(4).map(|step| step.name.as_str()).collect();
    assert_eq!(undone, ["undo drain", "undo boot"]);
    assert_eq!(bench.current(), 4);
    assert_eq!(bench.machine.active_run, Some(bench.run.id), "it owns the machine until then");
    bench.finish();
    assert_eq!(bench.run.state, run::State::Failed);
    assert_eq!(bench.names(State::Succeeded), ["boot", "drain", "undo drain", "undo boot"]);
    assert_eq!(bench.run.current_step, Some(WRITE), "the run points at what failed");
    // The condition that the step has set is removed: it was unknown before.
    assert_eq!(bench.condition(ConditionKind::InCustomerCluster), None);
}

#[test]
fn a_compensation_that_fails_does_not_stop_the_others() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.fail(WRITE);
    bench.fail(4);
    bench.finish();
    assert_eq!(bench.names(State::Failed), ["write", "undo drain"]);
    assert_eq!(bench.state(5), State::Succeeded);
    assert_eq!(bench.run.state, run::State::Failed);
    assert_eq!(bench.run.error.as_ref().unwrap().step, "write");
    let condition = bench.machine.conditions.get(ConditionKind::NeedsIntervention).unwrap();
    assert!(condition.message.contains("undo drain"), "{}", condition.message);
}

/// A compensation has no rule of its own: idempotent ones are repeated, the others are observed first.
#[test]
fn an_unknown_outcome_of_a_compensation_is_looked_at_unless_it_can_be_repeated() {
    for (action, repeated) in [("clear-netboot", true), ("notify", false)] {
        let mut bench = Bench::accepted("hold", &[]);
        bench.plan = compile(&PLAN.replace("RULE", "hold").replace("clear-netboot", action));
        bench.admit();
        bench.send(BOOT, Event::Observed(Seen::NotDone));
        bench.fail(BOOT);
        bench.send(4, Event::Observed(Seen::NotDone));
        bench.send(4, Event::CallFailed(ErrorClass::OutcomeUnknown));
        assert_eq!(bench.acts(), repeated, "{action}: {:?}", bench.state(4));
        assert_eq!(bench.effects.contains(&Effect::Observe { step: 4 }), !repeated, "{action}");
    }
}

#[test]
fn a_failed_compensation_of_a_canceled_run_needs_a_person() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.operate(Verb::Cancel).unwrap();
    bench.fail(4);
    assert_eq!(bench.run.state, run::State::Canceled);
    let condition = bench.machine.conditions.get(ConditionKind::NeedsIntervention).unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (true, REASON_RUN_CANCELED));
    assert!(condition.message.contains("undo boot"), "{}", condition.message);
}

#[test]
fn a_cancel_before_the_destructive_step_needs_no_operator() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.operate(Verb::Cancel).unwrap();
    assert!(bench.effects.contains(&Effect::Stop { step: BOOT }));
    assert_eq!(bench.state(BOOT), State::Canceled);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert_eq!(bench.names(State::Canceled), ["boot", "drain", "write", "check"]);
    assert_eq!(bench.names(State::Succeeded), ["undo boot"]);
    assert_eq!(bench.intervention(), None);
    assert_eq!(bench.machine.phase, Phase::Maintenance);
}

#[test]
fn a_cancel_waits_for_a_destructive_step_that_was_sent() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.run.state, run::State::Canceling);
    assert_eq!(bench.state(WRITE), State::Acting { attempt: 1 });
    assert!(bench.effects.is_empty(), "{:?}", bench.effects);
    bench.succeed(WRITE);
    assert!(matches!(bench.run.state, run::State::Unwinding { .. }));
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert_eq!(bench.names(State::Canceled), ["check"]);
    assert_eq!(bench.intervention(), Some((true, REASON_RUN_CANCELED)));
}

#[test]
fn a_destructive_step_that_fails_during_a_cancel_is_not_tried_again() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.operate(Verb::Cancel).unwrap();
    bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
    assert_eq!(bench.state(WRITE), State::Canceled);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
}

#[test]
fn a_destructive_action_is_never_sent_after_a_cancel() {
    let mut bench = Bench::acting("verify", DRAIN);
    bench.succeed(DRAIN);
    // Asked whether it is done already; nothing has been sent.
    assert!(matches!(bench.state(WRITE), State::Observing { basis: Basis::Fresh, .. }));
    bench.operate(Verb::Cancel).unwrap();
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    assert!(!bench.acts());
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert_eq!(bench.state(WRITE), State::Canceled);
}

#[test]
fn a_cancel_after_the_last_step_was_sent_may_come_too_late() {
    let mut bench = Bench::accepted("verify", &[("check", "false")]);
    bench.admit();
    for place in [BOOT, DRAIN] {
        bench.succeed(place);
    }
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    bench.operate(Verb::Cancel).unwrap();
    bench.succeed(WRITE);
    // `check` was not reached: whether its guard holds does not matter to a cancel.
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);

    let mut bench = Bench::acting("verify", WRITE);
    bench.operate(skip("check")).unwrap();
    bench.operate(Verb::Cancel).unwrap();
    bench.succeed(WRITE);
    assert_eq!(bench.run.state, run::State::Succeeded);
    assert_eq!(bench.machine.phase, Phase::Ready);
}

#[test]
fn a_cancel_that_ends_the_last_step_cancels_the_run() {
    let mut bench = Bench::acting("verify", CHECK);
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.state(CHECK), State::Canceled);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert_eq!(bench.machine.phase, Phase::Maintenance, "what the plan promises is not so");
}

#[test]
fn a_cancel_of_a_pending_run_ends_it_at_once() {
    let mut bench = Bench::accepted("verify", &[]);
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert_eq!((bench.machine.active_run, bench.intervention()), (None, None));
    assert_eq!(bench.names(State::Canceled).len(), 4);
}

#[test]
fn a_cancel_while_the_outcome_is_unknown_leaves_the_machine_blocked() {
    let mut bench = Bench::held_unknown();
    bench.operate(Verb::Cancel).unwrap();
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert_eq!(bench.intervention(), Some((true, REASON_OUTCOME_UNKNOWN)));
    assert!(bench.machine.blocked_by().is_some());
}

#[test]
fn an_outcome_that_becomes_unknown_during_a_cancel_blocks_the_machine() {
    let mut bench = Bench::acting("hold", WRITE);
    bench.operate(Verb::Cancel).unwrap();
    bench.send(WRITE, Event::TimedOut);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
    assert_eq!(bench.intervention(), Some((true, REASON_OUTCOME_UNKNOWN)));
}

#[test]
fn a_cancel_between_attempts_ends_the_step() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.send(WRITE, Event::CallFailed(ErrorClass::Transient));
    bench.operate(Verb::Cancel).unwrap();
    assert_eq!(bench.state(WRITE), State::Canceled);
    bench.finish();
    assert_eq!(bench.run.state, run::State::Canceled);
}

#[test]
fn an_abort_leaves_everything_alone_and_raises_the_fence() {
    let mut bench = Bench::acting("verify", WRITE);
    let epoch = bench.machine.epoch;
    bench.operate(Verb::Abort).unwrap();
    assert_eq!(bench.run.state, run::State::Failed);
    assert_eq!(bench.run.error.as_ref().unwrap().code.as_str(), "ABORTED");
    assert_eq!(bench.machine.epoch, epoch.next());
    assert_eq!(bench.effects, [Effect::Forget, Effect::RaiseFence { epoch: epoch.next() }]);
    assert_eq!(bench.intervention(), Some((true, REASON_ABORTED)));
    assert!(bench.machine.blocked_by().is_some());
    assert_eq!(bench.run.steps.len(), 4, "nothing is undone");
    assert_eq!(bench.names(State::Canceled), ["write", "check"]);
    // The call in flight has ended now, with an unknown outcome; the waiting steps never started.
    let record_of = |place: usize| {
        let step = &bench.run.steps[place];
        (step.message.as_str(), step.finished_at)
    };
    assert_eq!(record_of(WRITE), ("aborted; whether it took effect is unknown", Some(bench.now)));
    assert_eq!(record_of(CHECK), ("not started: the run was aborted", None));
}

#[test]
fn an_abort_ends_every_active_run() {
    for mut bench in
        [Bench::accepted("verify", &[]), Bench::started("verify"), Bench::held_unknown(), {
            let mut unwinding = Bench::acting("verify", DRAIN);
            unwinding.fail(DRAIN);
            unwinding
        }]
    {
        bench.operate(Verb::Abort).unwrap();
        assert_eq!(bench.run.state, run::State::Failed);
        assert!(bench.run.steps.iter().all(|step| step.state.is_settled()));
        assert_eq!(bench.machine.active_run, None);
    }
}
