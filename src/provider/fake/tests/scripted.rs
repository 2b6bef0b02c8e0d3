//! Faults: one test for each, and tests that they replay.

use super::*;

#[tokio::test(start_paused = true)]
async fn failures_happen_before_any_effect_and_stay_what_they_are() {
    for (fault, expected) in [
        ("fail", ErrorClass::Transient),
        ("fail-permanent", ErrorClass::Permanent),
        ("fail-human", ErrorClass::NeedsHuman),
    ] {
        let fixture = Fixture::timed(&format!("step=repave do={fault} times=1"));
        let first = call(1, "repave", 1);
        for _again in 0..2 {
            let error = fixture.act(&first).await.unwrap_err();
            assert_eq!(class(&error), expected);
            assert_eq!(error.message, "simulated failure of repave on machine-1");
        }
        let seen = fixture.observe(&first).await;
        match (fault, seen) {
            ("fail", Ok(Observation::NotDone { .. })) => {}
            (_, Err(error)) => assert_eq!(class(&error), expected),
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(fixture.machine().image, None);
        fixture.carry_out(&call(1, "repave", 2)).await;
        let outcomes: Vec<_> =
            fixture.provider.world().ledger().into_iter().map(|entry| entry.outcome).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Done]);
    }
}

#[tokio::test(start_paused = true)]
async fn fail_late_is_found_when_asked() {
    let fixture = Fixture::timed("do=fail-late");
    let repave = call(1, "repave", 1);
    assert!(matches!(fixture.act(&repave).await, Ok(Acted::Accepted { .. })));
    fixture.pass(1_000).await;
    assert_eq!(class(&fixture.observe(&repave).await.unwrap_err()), ErrorClass::Permanent);
    assert_eq!(fixture.machine().image, None);
}

#[tokio::test(start_paused = true)]
async fn fail_after_takes_effect_but_does_not_say_so() {
    for fixture in [Fixture::zero("do=fail-after"), Fixture::timed("do=fail-after")] {
        let repave = call(1, "repave", 1);
        assert_eq!(class(&fixture.act(&repave).await.unwrap_err()), ErrorClass::OutcomeUnknown);
        fixture.pass(1_000).await;
        assert!(matches!(fixture.observe(&repave).await, Ok(Observation::Done { .. })));
        assert!(fixture.machine().image.is_some());
        // Asked again, the world reports what it knows.
        assert!(matches!(fixture.act(&repave).await, Ok(Acted::Done { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_delays_no_other() {
    let fixture = Fixture::timed("machine=machine-1 do=hang times=1");
    let repave = call(1, "repave", 1);
    let mut hanging = fixture.provider.act(&fixture.target, &repave, fixture.logs());
    assert!(is_pending(&mut hanging));
    let other = target("machine-2");
    assert!(fixture.provider.probe(&other).await.unwrap().reachable);
    let elsewhere = call(2, "repave", 1);
    assert!(fixture.provider.act(&other, &elsewhere, fixture.logs()).await.is_ok());
    fixture.pass(1_000).await;
    assert!(is_pending(&mut hanging));
    drop(hanging);
    assert!(matches!(fixture.observe(&repave).await, Ok(Observation::Done { .. })));
    let fixture = Fixture::zero("call=verify do=hang");
    fixture.act(&repave).await.unwrap();
    assert!(is_pending(&mut fixture.provider.verify(&fixture.target, &repave, fixture.logs())));
}

#[tokio::test(start_paused = true)]
async fn lies_are_found_by_the_check_of_every_action_that_leaves_a_trace() {
    let actions = ["set-netboot", "repave", "mint-join", "drain", "wipe", "notify", "reboot"];
    for action in actions.into_iter().chain(["apply-net-config", "verify-connectivity"]) {
        let fixture = Fixture::zero("attempt=1 do=lie");
        let lie = call(1, action, 1);
        assert!(matches!(fixture.act(&lie).await, Ok(Acted::Done { .. })), "{action}");
        assert!(matches!(fixture.observe(&lie).await, Ok(Observation::Done { .. })), "{action}");
        let verification = fixture.verify(&lie).await.unwrap();
        assert!(matches!(verification, Verification::Broken { .. }), "{action}: {verification:?}");
        let ledger = fixture.provider.world().ledger();
        assert_eq!(ledger[0].outcome, Outcome::Lied);
        fixture.carry_out(&call(1, action, 2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_takes_its_time() {
    let fixture = Fixture::zero("step=wipe do=slow:1m");
    let Acted::Accepted { poll_at, .. } = fixture.act(&call(1, "wipe", 1)).await.unwrap() else {
        panic!()
    };
    assert_eq!(poll_at, Timestamp(START_MS + 60_000));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_machine_gets_no_call() {
    let fixture = Fixture::zero("machine=machine-1 do=unreachable times=5");
    let repave = call(1, "repave", 1);
    let errors = [
        fixture.act(&repave).await.unwrap_err(),
        fixture.observe(&repave).await.unwrap_err(),
        fixture.verify(&repave).await.unwrap_err(),
        fixture.provider.fence(&fixture.target, Epoch(9), Capabilities::all()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            (class(&error), error.message.as_str()),
            (ErrorClass::Transient, "machine-1 does not answer")
        );
    }
    assert!(!fixture.provider.probe(&fixture.target).await.unwrap().reachable);
    assert!(fixture.provider.world().ledger().is_empty());
    assert!(fixture.act(&repave).await.is_ok(), "the rule is used up");
}

#[tokio::test(start_paused = true)]
async fn a_flapping_machine_answers_every_other_call() {
    let fixture = Fixture::zero("do=flap times=2");
    let mut reachable = Vec::new();
    for _ in 0..6 {
        reachable.push(fixture.provider.probe(&fixture.target).await.unwrap().reachable);
    }
    assert_eq!(reachable, [false, true, false, true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn unknowable_and_degraded() {
    let fixture = Fixture::zero("do=unknowable times=1; do=degraded times=1");
    let repave = call(1, "repave", 1);
    fixture.act(&repave).await.unwrap();
    assert!(matches!(fixture.observe(&repave).await, Ok(Observation::Unknowable { .. })));
    assert!(matches!(fixture.observe(&repave).await, Ok(Observation::Done { .. })));
    let health = fixture.provider.probe(&fixture.target).await.unwrap();
    assert!(health.reachable && health.degraded, "{health:?}");
    assert!(!fixture.provider.probe(&fixture.target).await.unwrap().degraded);
}

#[tokio::test(start_paused = true)]
async fn rules_count_runs_and_attempts_of_a_machine() {
    let fixture = Fixture::zero("run=2 attempt=1 do=fail");
    for (run, attempt, fails) in [(7, 1, false), (8, 1, true), (8, 2, false), (9, 1, false)] {
        let reboot = call(run, "reboot", attempt);
        assert_eq!(fixture.act(&reboot).await.is_err(), fails, "run {run} attempt {attempt}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_used_up_rule_stays_so_for_the_next_engine_on_the_world() {
    let fixture = Fixture::zero("do=fail-permanent times=1");
    fixture.act(&call(1, "repave", 1)).await.unwrap_err();
    let options = FakeOptions {
        timing: Timing::Zero,
        script: Script::parse("do=fail-permanent times=1").unwrap(),
        world: fixture.provider.world().clone(),
        ..FakeOptions::default()
    };
    let next = Fixture::new(options);
    assert!(next.act(&call(2, "repave", 1)).await.is_ok());
}

/// The results of 300 operations of 3 machines, made in the given order.
async fn ledger_of(seed: u64, order: impl Iterator<Item = u64>) -> BTreeMap<String, String> {
    let options = FakeOptions {
        timing: Timing::Zero,
        seed,
        script: Script::parse("step=wipe do=fail-human p=0.2").unwrap(),
        chaos: Chaos {
            fail_permille: 100,
            hang_permille: 100,
            lie_permille: 100,
            fail_after_permille: 100,
            unknowable_permille: 200,
            busy_permille: 0,
        },
        ..FakeOptions::default()
    };
    let fixture = Fixture::new(options);
    let mut looks = BTreeMap::new();
    for number in order {
        let machine = target(&format!("machine-{}", number % 3));
        let call = call(number, if number % 2 == 0 { "wipe" } else { "repave" }, 1);
        let mut act = fixture.provider.act(&machine, &call, fixture.logs());
        let acted = if is_pending(&mut act) { "hangs".to_owned() } else { "answers".to_owned() };
        let seen = fixture.provider.observe(&machine, &call, fixture.logs()).await;
        looks.insert(call.operation.to_string(), format!("{acted} {seen:?}"));
    }
    for entry in fixture.provider.world().ledger() {
        let look = looks.get_mut(entry.operation.as_str()).unwrap();
        *look += &format!(" {:?}", entry.outcome);
    }
    looks
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults_in_any_order() {
    let forward = ledger_of(7, 0..300).await;
    assert_eq!(forward, ledger_of(7, 0..300).await);
    let mut backward = ledger_of(7, (0..300).rev()).await;
    // Handles number the operations of a machine in the order in which they started.
    let unnumbered = |looks: &mut BTreeMap<String, String>| {
        for look in looks.values_mut() {
            let end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let parts: Vec<_> = look.split("fake-").map(|part| &part[end(part)..]).collect();
            *look = parts.join("fake-");
        }
    };
    let mut forward = forward;
    unnumbered(&mut forward);
    unnumbered(&mut backward);
    assert_eq!(forward, backward);
    assert_ne!(forward, ledger_of(8, 0..300).await);
}
