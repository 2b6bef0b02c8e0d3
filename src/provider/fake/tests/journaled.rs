//! The world on disk: restarts, power losses, damage, and many acts per flush.

use std::fs;
use std::path::Path;

use super::*;

fn fixture(dir: &Path, timing: Timing) -> Fixture {
    let world = World::open(dir).unwrap();
    Fixture::new(FakeOptions { timing, seed: 7, world, ..FakeOptions::default() })
}

fn journal(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(JOURNAL_FILE)).unwrap()
}

/// Twenty repave-joins, each operation in its own flush; returns the ledger.
async fn twenty_runs(dir: &Path) -> Vec<LedgerEntry> {
    let mut fixture = fixture(dir, Timing::Zero);
    for run in 0..20 {
        fixture.target = target(&format!("machine-{run}"));
        fixture.repave_join(run).await;
    }
    fixture.provider.world().ledger()
}

#[tokio::test]
async fn a_world_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before = twenty_runs(dir.path()).await;
    assert_eq!(before.len(), 100);
    assert_eq!(read_ledger(dir.path()).unwrap(), before);
    assert_eq!(read_ledger(&dir.path().join(JOURNAL_FILE)).unwrap(), before);
    let mut fixture = fixture(dir.path(), Timing::Zero);
    fixture.target = target("machine-3");
    assert_eq!(fixture.provider.world().ledger(), before);
    // An earlier operation is still known, and is not done again.
    let again = fixture.act(&call(3, "repave", 1)).await.unwrap();
    assert!(matches!(again, Acted::Done { .. }));
    assert_eq!(fixture.provider.world().ledger(), before);
    assert_eq!(violations(&before), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_operation_in_flight_ends_in_world_time_without_an_engine() {
    let dir = tempfile::tempdir().unwrap();
    let first = fixture(dir.path(), Timing::Default);
    let (repave, drain) = (call(1, "repave", 1), call(1, "drain", 1));
    first.act(&repave).await.unwrap();
    drop(first);
    let ledger = read_ledger(dir.path()).unwrap();
    assert_eq!(ledger[0].outcome, Outcome::Running { until: Timestamp(START_MS + 1_000) });
    // The next server starts when half of the time has passed.
    let second = fixture(dir.path(), Timing::Default);
    second.pass(500).await;
    assert!(matches!(second.observe(&repave).await, Ok(Observation::InProgress { .. })));
    second.pass(500).await;
    assert!(matches!(second.observe(&repave).await, Ok(Observation::Done { .. })));
    second.act(&drain).await.unwrap();
    second.provider.stop(&second.target, &drain).await.unwrap();
    drop(second);
    let outcomes: Vec<_> =
        read_ledger(dir.path()).unwrap().into_iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Done, Outcome::Stopped]);
}

#[tokio::test(start_paused = true)]
async fn world_time_never_goes_back_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = fixture(dir.path(), Timing::Zero);
    first.pass(50_000).await;
    first.act(&call(1, "reboot", 1)).await.unwrap();
    drop(first);
    // The wall clock has been set back to the start meanwhile.
    let second = fixture(dir.path(), Timing::Zero);
    second.act(&call(2, "reboot", 1)).await.unwrap();
    let ledger = second.provider.world().ledger();
    assert_eq!(ledger[1].started_at, Timestamp(START_MS + 50_000));
    assert_eq!(violations(&ledger), Vec::<String>::new());
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let all = twenty_runs(dir.path()).await;
    let whole = journal(dir.path());
    let last_batch = whole.iter().rposition(|byte| *byte == b'\n').unwrap();
    let last_line = whole[..last_batch].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for len in (last_line..whole.len()).step_by(23).chain([whole.len() - 1]) {
        let torn = tempfile::tempdir().unwrap();
        fs::write(torn.path().join(JOURNAL_FILE), &whole[..len]).unwrap();
        // Reading touches nothing, opening cuts.
        assert_eq!(read_ledger(torn.path()).unwrap(), all[..99]);
        assert_eq!(journal(torn.path()).len(), len);
        let fixture = fixture(torn.path(), Timing::Zero);
        assert_eq!(fixture.provider.world().ledger(), all[..99]);
        assert_eq!(journal(torn.path()).len(), last_line);
        fixture.act(&call(99, "reboot", 1)).await.unwrap();
        drop(fixture);
        assert_eq!(read_ledger(torn.path()).unwrap().len(), 100);
    }
    // Blocks of a tail that never reached the disk read as zeros, and what follows them may have reached it.
    let mut holed = whole.clone();
    holed[last_line - 30..last_line + 10].fill(0);
    fs::write(dir.path().join(JOURNAL_FILE), &holed).unwrap();
    assert_eq!(read_ledger(dir.path()).unwrap(), all[..99]);
}

#[tokio::test]
async fn damage_to_what_was_durable_is_an_error_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    twenty_runs(dir.path()).await;
    let whole = journal(dir.path());
    for (offset, line) in [(0, 1), (12, 1), (whole.len() / 2, 0), (whole.len() / 3, 0)] {
        let mut bad = whole.clone();
        bad[offset] ^= 1;
        fs::write(dir.path().join(JOURNAL_FILE), &bad).unwrap();
        let error = World::open(dir.path()).unwrap_err();
        let WorldError::Damaged { line: found, .. } = &error else { panic!("{error}") };
        assert!(line == 0 || *found == line, "{error}");
        assert!(matches!(read_ledger(dir.path()), Err(WorldError::Damaged { .. })));
        assert_eq!(journal(dir.path()), bad);
    }
    fs::write(dir.path().join(JOURNAL_FILE), "x".repeat(1_000)).unwrap();
    assert!(matches!(World::open(dir.path()), Err(WorldError::Damaged { line: 1, .. })));
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(World::open(dir.path()).unwrap());
    let mut newer = Vec::new();
    journal::encode(&state::Record::Header { format: 2 }, &mut newer);
    fs::write(dir.path().join(JOURNAL_FILE), &newer).unwrap();
    let error = World::open(dir.path()).unwrap_err();
    assert!(matches!(error, WorldError::Newer { found: 2, .. }), "{error}");
    assert_eq!(journal(dir.path()), newer);
}

#[tokio::test]
async fn many_acts_share_a_flush_and_a_lone_act_makes_one() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = fixture(dir.path(), Timing::Zero);
    let world = fixture.provider.world();
    for run in 0..10 {
        fixture.act(&call(run, "reboot", 1)).await.unwrap();
    }
    assert_eq!(world.flushes(), 10);
    world.lock().queue.held_up = true;
    let calls: Vec<_> = (0..1_000)
        .map(|number| (target(&format!("m-{number}")), call(number, "reboot", 1)))
        .collect();
    let mut acts: Vec<_> = calls
        .iter()
        .map(|(machine, call)| fixture.provider.act(machine, call, fixture.logs()))
        .collect();
    for act in &mut acts {
        assert!(is_pending(act), "answered before it was durable");
    }
    // The same operation again is no more durable than the first.
    let again = fixture.provider.act(&calls[0].0, &calls[0].1, fixture.logs());
    let mut acts: Vec<_> = acts.into_iter().chain([again]).collect();
    assert!(is_pending(&mut acts[1_000]));
    assert_eq!(read_ledger(dir.path()).unwrap().len(), 10);
    world.lock().queue.held_up = false;
    for act in acts {
        act.await.unwrap();
    }
    assert_eq!(world.flushes(), 11);
    // What was acknowledged is in the file.
    assert_eq!(read_ledger(dir.path()).unwrap().len(), 1_010);
}

#[tokio::test]
async fn a_growing_journal_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open_with(dir.path(), 10_000).unwrap();
    let script = Script::parse("step=wipe do=fail times=1").unwrap();
    let options = FakeOptions { timing: Timing::Zero, script, world, ..FakeOptions::default() };
    let fixture = Fixture::new(options);
    fixture.provider.fence(&fixture.target, Epoch(1), Capabilities::all()).await.unwrap();
    fixture.act(&call(999, "wipe", 1)).await.unwrap_err();
    let mut largest = 0;
    for run in 0..70 {
        fixture.repave_join(run).await;
        largest = largest.max(journal(dir.path()).len());
    }
    assert!((10_000..40_000).contains(&largest), "{largest}");
    let world = fixture.provider.world().clone();
    let (view, ledger) = (world.machine(&fixture.target.machine_id), world.ledger());
    drop((fixture, world));
    let kept = read_ledger(dir.path()).unwrap();
    assert!(kept.len() >= 4 && kept.len() < 100, "{}", kept.len());
    assert_eq!(kept[kept.len() - 4..], ledger[ledger.len() - 4..]);
    assert_eq!(ledger.len(), 16, "what is remembered is bounded");
    let script = Script::parse("step=wipe do=fail times=1").unwrap();
    let world = World::open(dir.path()).unwrap();
    let options = FakeOptions { timing: Timing::Zero, script, world, ..FakeOptions::default() };
    let next = Fixture::new(options);
    assert_eq!(next.provider.world().machine(&next.target.machine_id), view);
    assert!(next.act(&call(1_000, "wipe", 1)).await.is_ok(), "the rule was used up before");
    let late = Call { epoch: Epoch(0), ..call(1_000, "reboot", 1) };
    assert!(next.act(&late).await.is_err(), "the fence is kept");
}

#[tokio::test]
async fn the_secret_is_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = fixture(dir.path(), Timing::Zero);
    fixture.repave_join(1).await;
    let mint = call(1, "mint-join", 1);
    let secret = effect::secret(7, mint.operation.as_str());
    let acted = format!("{:?}", fixture.act(&mint).await);
    let file = String::from_utf8(journal(dir.path())).unwrap();
    for text in [&file, &acted, &fixture.lines.take().join("\n")] {
        assert!(!text.contains(&secret) && !text.contains(&secret[..16]));
    }
    // Another seed makes another secret: the cluster refuses it.
    drop(fixture);
    let world = World::open(dir.path()).unwrap();
    let options = FakeOptions { timing: Timing::Zero, seed: 8, world, ..FakeOptions::default() };
    let other = Fixture::new(options);
    let Ok(Acted::Done { output, .. }) = other.act(&mint).await else { panic!() };
    let mut join = call(1, "join", 2);
    join.inputs.insert("mint-join".to_owned(), output);
    let error = other.act(&join).await.unwrap_err();
    assert!(error.message.contains("refuses join material"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_acts_loses_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = fixture(dir.path(), Timing::Zero);
    let world = fixture.provider.world();
    let reboot = |run| call(run, "reboot", 1);
    fixture.act(&reboot(1)).await.unwrap();
    world.lock().queue.full = true;
    // Whether it took effect is unknown to the caller: it did, and was not written.
    let error = fixture.act(&reboot(2)).await.unwrap_err();
    assert_eq!(class(&error), ErrorClass::OutcomeUnknown);
    assert!(error.message.contains("free space"), "{error}");
    // After that nothing starts, and nothing that is not durable is reported.
    let error = fixture.act(&reboot(3)).await.unwrap_err();
    assert_eq!(class(&error), ErrorClass::Transient);
    assert!(fixture.observe(&reboot(2)).await.is_err());
    assert!(fixture.observe(&reboot(1)).await.is_ok());
    assert_eq!(read_ledger(dir.path()).unwrap().len(), 1);
    world.lock().queue.full = false;
    // The first call that comes triggers a retry; the waiting callers see it succeed.
    while fixture.observe(&reboot(2)).await.is_err() {
        tokio::task::yield_now().await;
    }
    fixture.act(&reboot(4)).await.unwrap();
    let ledger = world.ledger();
    drop(fixture);
    assert_eq!(ledger.len(), 3);
    assert_eq!(read_ledger(dir.path()).unwrap(), ledger);
}

#[tokio::test(start_paused = true)]
async fn whatever_happened_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let chaos = Chaos {
        fail_permille: 100,
        hang_permille: 100,
        lie_permille: 100,
        fail_after_permille: 100,
        unknowable_permille: 100,
        busy_permille: 0,
    };
    let script = "step=reboot do=slow:90ms; do=unreachable times=9; step=wipe do=fail-late p=0.5";
    let actions = ["set-netboot", "repave", "mint-join", "drain", "wipe", "notify", "reboot"];
    let mut random = crate::clock::SplitMix64::new(11);
    let mut before: Option<(Vec<LedgerEntry>, Vec<Option<MachineView>>)> = None;
    let clock = Arc::new(TokioClock::new(Timestamp(START_MS)));
    let machines: Vec<_> = (0..3).map(|number| target(&format!("machine-{number}"))).collect();
    for life in 0..12_u64 {
        let world = World::open(dir.path()).unwrap();
        let see = |world: &World| {
            let views = machines.iter().map(|machine| world.machine(&machine.machine_id));
            (world.ledger(), views.collect::<Vec<_>>())
        };
        let script = Script::parse(script).unwrap();
        let options = FakeOptions { timing: Timing::Scaled(0.1), seed: 5, script, chaos, world };
        let provider = FakeProvider::new(options, clock.clone());
        if let Some(before) = before.take() {
            assert_eq!(see(provider.world()), before, "life {life}");
        }
        for number in 0..20 {
            let machine = &machines[usize::try_from(random.below(3)).unwrap()];
            let action = actions[usize::try_from(random.below(7)).unwrap()];
            let mut call = call(life * 100 + number, action, 1);
            call.epoch = Epoch(life);
            let logs: Logs = Arc::new(Lines::default());
            let _ = provider.fence(machine, Epoch(life), Capabilities::all()).await;
            // Some are asked again, some left alone while they run, and some hang.
            let nap = std::time::Duration::from_millis(random.below(60));
            tokio::select! {
                biased;
                _ = provider.act(machine, &call, logs.clone()) => clock.sleep(nap).await,
                () = clock.sleep(nap) => {}
            }
            if random.chance(1, 3) {
                let _ = provider.observe(machine, &call, logs).await;
            }
            if random.chance(1, 5) {
                let _ = provider.stop(machine, &call).await;
            }
        }
        before = Some(see(provider.world()));
    }
    let ledger = read_ledger(dir.path()).unwrap();
    assert!(ledger.len() > 50, "{}", ledger.len());
    assert_eq!(violations(&ledger), Vec::<String>::new());
}

#[test]
fn a_world_keeps_its_key_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let first = World::open(dir.path()).unwrap().keyed(dir.path(), 7).unwrap();
    assert_eq!(first.key(), Some(7));
    drop(first);
    let again = World::open(dir.path()).unwrap().keyed(dir.path(), 8).unwrap();
    assert_eq!(
        again.key(),
        Some(7),
        "join material minted before the restart can be redeemed after it"
    );
    fs::write(dir.path().join(KEY_FILE), "not a key").unwrap();
    assert!(again.keyed(dir.path(), 9).is_err());
}
