//! From step to step, and the effects of a success.

use super::*;

#[test]
fn a_run_completes_its_steps_and_sets_its_result() {
    let mut bench = Bench::started("verify");
    assert_eq!(bench.kinds(), ["run.started", "step.started"]);
    bench.succeed(BOOT);
    assert_eq!(bench.machine.conditions.get(ConditionKind::InCustomerCluster), None);
    bench.succeed(DRAIN);
    // A step's own conditions are set as soon as it has succeeded.
    let learned = bench.condition(ConditionKind::InCustomerCluster);
    assert_eq!(learned, Some((false, "STEP_SUCCEEDED")));
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
    assert_eq!(bench.machine.phase, Phase::Ready);
    assert_eq!(bench.condition(ConditionKind::Reachable), Some((true, "STEP_SUCCEEDED")));
    assert_eq!(bench.condition(ConditionKind::Degraded), Some((false, "RUN_SUCCEEDED")));
    assert_eq!((bench.machine.active_run, bench.intervention()), (None, None));
    assert_eq!(bench.run.finished_at, Some(bench.now));
    assert_eq!(bench.run.steps.len(), 4, "a success undoes nothing");
}

#[test]
fn a_guard_that_does_not_hold_skips_its_step() {
    let mut bench = Bench::accepted("verify", &[("check", "false")]);
    bench.admit();
    bench.finish();
    assert_eq!(bench.run.state, run::State::Succeeded);
    assert_eq!(bench.names(State::Skipped), ["check"]);
    assert_eq!(bench.run.steps[CHECK].message, "its guard does not hold");
    assert_eq!(bench.run.steps[CHECK].attempt, 0);
    // Conditions that a skipped step would have set stay unknown.
    assert_eq!(bench.condition(ConditionKind::Reachable), None);
}

#[test]
fn a_guard_looks_at_the_machine_as_it_is_when_the_steps_turn_comes() {
    let text = PLAN.replace("RULE", "verify").replace(
        "when = { param = { check = true } }",
        "when = { param = { check = true }, condition = { InCustomerCluster = true } }",
    );
    let mut bench = Bench::accepted("verify", &[]);
    bench.plan = compile(&text);
    let inside =
        bench.decide(|draft, facts| draft.observed(facts.now, true, "PROBE", String::new()));
    bench.machine.conditions.set(ConditionKind::InCustomerCluster, inside);
    bench.admit();
    bench.finish();
    // `drain` has set it to false by then.
    assert_eq!(bench.names(State::Skipped), ["check"]);
}

#[test]
fn a_step_that_is_so_already_is_not_done_again() {
    let mut bench = Bench::started("verify");
    bench.send(BOOT, Event::Observed(Seen::Done));
    assert_eq!(bench.state(BOOT), State::Succeeded);
    assert!(!bench.acts());
    assert_eq!(bench.current(), DRAIN);
}

#[test]
fn a_failure_sets_needs_intervention_and_leaves_the_phase() {
    let mut bench = Bench::acting("verify", WRITE);
    let answer = Answer {
        message: "no such image".to_owned(),
        expected: "image-1".to_owned(),
        observed: "image-0".to_owned(),
        ..Answer::default()
    };
    let event = Event::CallFailed(ErrorClass::Permanent);
    bench.decide(|draft, facts| draft.step(&StepInput { place: WRITE, event, answer }, facts));
    bench.finish();
    assert_eq!(bench.run.state, run::State::Failed);
    let error = bench.run.error.clone().unwrap();
    assert_eq!((error.step.as_str(), error.code.as_str()), ("write", "STEP_FAILED"));
    assert_eq!(error.message, "step write: no such image (expected image-1; saw image-0)");
    assert!(!error.retryable);
    assert_eq!(bench.machine.phase, Phase::Maintenance);
    assert_eq!(bench.intervention(), Some((true, REASON_RUN_FAILED)));
    assert_eq!(bench.names(State::Canceled), ["check"]);
    assert_eq!(bench.machine.blocked_by(), None, "a failure does not block the next run");

    // A later success of the same plan clears it; one of another plan would not.
    for (plan_id, cleared) in [("plan/other", false), ("plan/bench", true)] {
        let mut later = Bench::accepted("verify", &[]);
        later.machine.conditions = bench.machine.conditions.clone();
        Arc::make_mut(&mut later.run.spec).plan_id = plan_id.to_owned();
        later.admit();
        later.finish();
        assert_eq!(later.intervention().map(|(status, _)| !status), Some(cleared), "{plan_id}");
    }
}

#[test]
fn attempts_that_are_used_up_fail_the_step_as_what_ended_it() {
    for (event, code, message) in [
        (Event::CallFailed(ErrorClass::Transient), "STEP_FAILED", "step boot: failed"),
        (Event::NotVerified, "STEP_FAILED", "step boot: reported done, but it is not"),
    ] {
        let mut bench = Bench::started("verify");
        for attempt in 1..=2 {
            bench.send(BOOT, Event::Observed(Seen::NotDone));
            if event == Event::NotVerified {
                bench.send(BOOT, Event::Acted);
            }
            bench.send(BOOT, event);
            if attempt == 1 {
                assert!(matches!(bench.state(BOOT), State::BackingOff { attempt: 1, .. }));
                assert_eq!(bench.kinds(), ["step.retrying"]);
                bench.send(BOOT, Event::Woken);
                assert_eq!(bench.kinds(), ["step.started"]);
            }
        }
        assert_eq!(bench.state(BOOT), State::Failed);
        let error = bench.run.error.clone().unwrap();
        assert_eq!((error.code.as_str(), error.message.as_str()), (code, message));
        assert!(error.retryable);
    }
}

#[test]
fn late_echoes_change_nothing() {
    let mut bench = Bench::acting("verify", DRAIN);
    let before = (bench.run.clone(), bench.machine.clone());
    for (place, event) in [
        (BOOT, Event::Acted),
        (BOOT, Event::TimedOut),
        (DRAIN, Event::Woken),
        (WRITE, Event::Verified),
        (99, Event::Acted),
    ] {
        bench.send(place, event);
        assert_eq!((&bench.run, &bench.machine), (&before.0, &before.1), "{place} {event:?}");
        assert_eq!((bench.effects.len(), bench.entries.len()), (0, 0));
    }
}

#[test]
fn a_server_that_shuts_down_opens_no_attempt() {
    // Neither the next step,
    let mut bench = Bench::acting("verify", BOOT);
    bench.draining = true;
    bench.succeed(BOOT);
    assert_eq!(bench.state(DRAIN), State::Waiting);
    // nor the next attempt after a failure,
    let mut bench = Bench::acting("verify", BOOT);
    bench.draining = true;
    bench.send(BOOT, Event::CallFailed(ErrorClass::Transient));
    bench.send(BOOT, Event::Woken);
    assert!(matches!(bench.state(BOOT), State::BackingOff { attempt: 1, .. }));
    // nor the next attempt after observing an unknown outcome,
    let mut bench = Bench::acting("verify", WRITE);
    bench.draining = true;
    bench.send(WRITE, Event::CallFailed(ErrorClass::OutcomeUnknown));
    bench.send(WRITE, Event::Observed(Seen::NotDone));
    assert_eq!((bench.run.steps[WRITE].attempt, bench.acts()), (1, false));
    // nor a compensation. After the restart all of them continue.
    let mut unwinding = Bench::acting("verify", DRAIN);
    unwinding.draining = true;
    unwinding.fail(DRAIN);
    assert!(unwinding.run.steps.iter().skip(4).all(|step| step.state == State::Waiting));
    for mut bench in [bench, unwinding] {
        bench.draining = false;
        bench.recover();
        if let State::BackingOff { .. } = bench.state(WRITE) {
            bench.send(WRITE, Event::Woken);
        }
        bench.finish();
        assert!(!bench.run.state.is_active(), "{:#?}", bench.run);
    }
}
