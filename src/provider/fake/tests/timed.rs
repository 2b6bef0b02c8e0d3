//! Operations that take time: they run in world time, whether or not anyone watches.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_repave_join_takes_two_and_a_half_seconds_of_virtual_time() {
    let fixture = Fixture::timed("");
    fixture.repave_join(1).await;
    assert_eq!(fixture.clock.now(), Timestamp(START_MS + 2_500));
    let ledger = fixture.provider.world().ledger();
    assert_eq!(ledger.len(), 5);
    assert_eq!(violations(&ledger), Vec::<String>::new());
    let machine = fixture.machine();
    assert_eq!(machine.image.as_deref(), Some("ubuntu-24.04"));
    assert_eq!(machine.cluster.as_deref(), Some("prod-1"));
    assert_eq!((machine.boots, machine.boot_override), (1, None));
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_accepted_continues_and_ends_by_itself() {
    let fixture = Fixture::timed("");
    let repave = call(1, "repave", 1);
    let Acted::Accepted { handle, poll_at } = fixture.act(&repave).await.unwrap() else { panic!() };
    assert_eq!((handle.as_str(), poll_at), ("fake-1", Timestamp(START_MS + 1_000)));
    fixture.pass(400).await;
    let Observation::InProgress { poll_at } = fixture.observe(&repave).await.unwrap() else {
        panic!()
    };
    assert_eq!(poll_at, Timestamp(START_MS + 1_000));
    assert!(!fixture.provider.is_real() && fixture.machine().busy);
    // The engine dies here; another comes back to the same world, hours later, with its own clock.
    let world = fixture.provider.world().clone();
    fixture.pass(10_000_000).await;
    let clock = Arc::new(TokioClock::new(fixture.clock.now()));
    let provider = FakeProvider::new(FakeOptions { world, ..FakeOptions::default() }, clock);
    let seen = provider.observe(&fixture.target, &repave, fixture.logs()).await.unwrap();
    assert!(matches!(seen, Observation::Done { .. }), "{seen:?}");
    let entry = &provider.world().ledger()[0];
    assert_eq!(entry.finished_at, Some(Timestamp(START_MS + 1_000)));
    assert_eq!(entry.outcome, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_moves_no_operation() {
    let fixture = Fixture::timed("");
    let repave = call(1, "repave", 1);
    fixture.act(&repave).await.unwrap();
    for jump_ms in [1_000_000_000, -3_000_000_000] {
        fixture.clock.jump(jump_ms);
        fixture.pass(100).await;
        let Observation::InProgress { poll_at } = fixture.observe(&repave).await.unwrap() else {
            panic!("after a jump of {jump_ms}")
        };
        let elapsed = u64::try_from(fixture.clock.monotonic().as_millis()).unwrap();
        assert_eq!(poll_at, fixture.clock.now().plus_ms(1_000 - elapsed));
    }
    // A new provider on the same world does not make time jump either.
    let world = fixture.provider.world().clone();
    let options = FakeOptions { world, ..FakeOptions::default() };
    let provider = FakeProvider::new(options, fixture.clock.clone());
    let seen = provider.observe(&fixture.target, &repave, fixture.logs()).await.unwrap();
    assert!(matches!(seen, Observation::InProgress { .. }), "{seen:?}");
    fixture.pass(800).await;
    let seen = provider.observe(&fixture.target, &repave, fixture.logs()).await.unwrap();
    assert!(matches!(seen, Observation::Done { .. }), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_does_one_thing_at_a_time() {
    let fixture = Fixture::timed("");
    fixture.act(&call(1, "repave", 1)).await.unwrap();
    let error = fixture.act(&call(1, "drain", 1)).await.unwrap_err();
    assert_eq!(class(&error), ErrorClass::Transient);
    assert!(error.message.starts_with("busy with "), "{error}");
    // The same operation again is the same operation.
    let Acted::Accepted { handle, .. } = fixture.act(&call(1, "repave", 1)).await.unwrap() else {
        panic!()
    };
    assert_eq!(handle, "fake-1");
    let seen = fixture.observe(&call(2, "drain", 1)).await.unwrap();
    assert!(
        matches!(&seen, Observation::NotDone { observed } if observed.contains("busy")),
        "{seen:?}"
    );
    fixture.pass(1_000).await;
    assert!(matches!(fixture.act(&call(1, "drain", 1)).await, Ok(Acted::Accepted { .. })));
    assert_eq!(violations(&fixture.provider.world().ledger()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn stop_ends_what_is_not_destructive() {
    let fixture = Fixture::timed("");
    let (join, wipe) = (call(1, "drain", 1), call(1, "wipe", 1));
    fixture.act(&join).await.unwrap();
    fixture.provider.stop(&fixture.target, &join).await.unwrap();
    fixture.provider.stop(&fixture.target, &join).await.unwrap();
    let seen = fixture.observe(&join).await.unwrap();
    assert!(matches!(seen, Observation::NotDone { .. }), "{seen:?}");
    assert_eq!(class(&fixture.act(&join).await.unwrap_err()), ErrorClass::Transient);
    fixture.act(&wipe).await.unwrap();
    fixture.provider.stop(&fixture.target, &wipe).await.unwrap();
    fixture.pass(1_000).await;
    assert!(matches!(fixture.observe(&wipe).await, Ok(Observation::Done { .. })));
    let outcomes: Vec<_> =
        fixture.provider.world().ledger().into_iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Stopped, Outcome::Done]);
    assert!(!fixture.machine().cordoned);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_reboots_does_not_answer() {
    let fixture = Fixture::timed("");
    let reachable = async || fixture.provider.probe(&fixture.target).await.unwrap().reachable;
    assert!(reachable().await);
    fixture.act(&call(1, "reboot", 1)).await.unwrap();
    assert!(!reachable().await);
    fixture.pass(800).await;
    assert!(reachable().await);
    fixture.carry_out(&call(1, "wipe", 1)).await;
    assert!(!reachable().await, "a wiped machine is powered off");
}
