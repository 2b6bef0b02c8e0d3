//! Slots, outcomes, holds of many machines, the time of commits, and ownership.

use tokio::task::JoinSet;

use super::*;
use crate::ids::{BatchId, Epoch};
use crate::model::{Cursor, InstallStage, Lock, MachineFacts, Observed, Power};
use crate::store::{
    Availability, CursorMove, Lease, LockMove, Outcome, Owner, SHARDS, Shard, SlotKey, SlotMove,
};

fn take(run: &Run, keys: &[(&str, u64)]) -> SlotMove {
    let keys = keys.iter().map(|(key, max)| (SlotKey::new(key), *max)).collect();
    SlotMove::Take { run: run.id, keys }
}

fn moving(slots: impl IntoIterator<Item = SlotMove>) -> Batch {
    Batch { slots: slots.into_iter().collect(), ..Batch::default() }
}

/// The taken slots, as text.
async fn taken(store: &dyn Store) -> Vec<(String, u64)> {
    let slots = store.slots().await.unwrap();
    slots.into_iter().map(|(key, used)| (key.to_string(), used)).collect()
}

fn expected(slots: &[(&str, u64)]) -> Vec<(String, u64)> {
    slots.iter().map(|(key, used)| ((*key).to_owned(), *used)).collect()
}

/// Active runs, each on its own machine.
async fn active_runs(store: &dyn Store, count: u64) -> Vec<Arc<Run>> {
    let mut runs = Vec::new();
    for number in 1..=count {
        let machine = register(store, number).await;
        runs.push(start(store, number, &machine.id).await);
    }
    runs
}

pub(super) async fn slots_are_taken_and_given_back_by_commits(fresh: Fresh) {
    let mut fresh = fresh;
    let runs = active_runs(&*fresh.store, 4).await;
    let store = fresh.store.clone();
    let both = [("all", 3), ("rack/a", 2)];
    store.commit(moving([take(&runs[0], &both), take(&runs[1], &both)])).await.unwrap();
    assert_eq!(taken(&*store).await, expected(&[("all", 2), ("rack/a", 2)]));

    // A full rack does not delay another, and a refused batch leaves no trace.
    let third = batch([run_write(Some(&runs[2]), &marked(&runs[2], "started"))]);
    let refused = store.commit(Batch { slots: vec![take(&runs[2], &both)], ..third.clone() }).await;
    let Err(StoreError::NoSlot { key, max: 2 }) = refused else { panic!("{refused:?}") };
    assert_eq!(key.as_str(), "rack/a");
    assert_eq!(store.run(runs[2].id).await.unwrap().as_ref(), Some(&runs[2]));
    let elsewhere = take(&runs[2], &[("all", 3), ("rack/b", 2)]);
    store.commit(Batch { slots: vec![elsewhere], ..third }).await.unwrap();
    let refused = store.commit(moving([take(&runs[3], &[("all", 3)])])).await;
    assert_eq!(outcome(&refused), "no slot");
    // Taking again has no effect; slots that are released can be taken in the same batch.
    store.commit(moving([take(&runs[0], &both)])).await.unwrap();
    let give = SlotMove::Give { run: runs[0].id };
    store.commit(moving([give.clone(), take(&runs[3], &both)])).await.unwrap();
    store.commit(moving([give])).await.unwrap();
    let used = expected(&[("all", 3), ("rack/a", 2), ("rack/b", 1)]);
    assert_eq!(taken(&*store).await, used);

    drop(store);
    if let Some(reopen) = &fresh.reopen {
        fresh.store = reopen(fresh.store);
        assert_eq!(taken(&*fresh.store).await, used, "slots are as durable as runs");
    }
    // A run that ends releases its slots.
    end(&fresh, &runs[1], T0).await;
    let store = fresh.store.clone();
    assert_eq!(taken(&*store).await, expected(&[("all", 2), ("rack/a", 1), ("rack/b", 1)]));
    let late = store.commit(moving([take(&runs[1], &both)])).await;
    assert_eq!(outcome(&late), "conflict");
    let unknown = store.commit(moving([take(&samples::run(9, &runs[0].machine_id), &both)])).await;
    assert_eq!(outcome(&unknown), "conflict");
    // A limit that was lowered takes no slot from those that have one.
    let refused = store.commit(moving([take(&runs[0], &[("all", 1)])])).await;
    assert_eq!(outcome(&refused), "no slot");
    assert_eq!(taken(&*store).await, expected(&[("all", 2), ("rack/a", 1), ("rack/b", 1)]));
    drop(store);
    if let Some(reopen) = &fresh.reopen {
        fresh.store = reopen(fresh.store);
        let used = expected(&[("all", 2), ("rack/a", 1), ("rack/b", 1)]);
        assert_eq!(taken(&*fresh.store).await, used);
    }
}

pub(super) async fn slots_are_exact_under_racing_runs(fresh: Fresh) {
    let store = fresh.store;
    let runs = active_runs(&*store, 24).await;
    let mut racing = JoinSet::new();
    for (place, run) in runs.into_iter().enumerate() {
        let store = store.clone();
        racing.spawn(async move {
            let keys = [("all", 9), (if place % 2 == 0 { "rack/a" } else { "rack/b" }, 5)];
            outcome(&store.commit(moving([take(&run, &keys)])).await)
        });
    }
    let outcomes = racing.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "committed").count(), 9);
    let slots = store.slots().await.unwrap();
    assert_eq!(slots[&SlotKey::new("all")], 9);
    assert!(slots.values().all(|used| *used <= 9) && slots[&SlotKey::new("rack/a")] <= 5);
}

pub(super) async fn the_outcome_of_a_batch_can_be_asked_for(fresh: Fresh) {
    let store = &*fresh.store;
    let since = store.revisions().await.unwrap().0;
    let named = |id, machine| Batch {
        id: BatchId(id),
        ..batch([machine_write(None, &samples::machine(machine))])
    };
    let first = store.commit(named(1, 1)).await.unwrap();
    assert_eq!(outcome(&store.commit(named(2, 1)).await), "conflict");
    let third = store.commit(named(3, 3)).await.unwrap();
    let ask = |id| store.outcome(BatchId(id), since);
    assert_eq!(ask(1).await.unwrap(), Outcome::Committed(first.revision));
    assert_eq!(ask(2).await.unwrap(), Outcome::NotCommitted);
    assert_eq!(ask(3).await.unwrap(), Outcome::Committed(third.revision));
    assert_eq!(ask(4).await.unwrap(), Outcome::NotCommitted);
    // After a restart the last transaction's outcome is known, and nothing that may be older.
    let Some(reopen) = &fresh.reopen else { return };
    let store = reopen(fresh.store);
    let ask = |id, since| store.outcome(BatchId(id), since);
    assert_eq!(ask(3, first.revision).await.unwrap(), Outcome::Committed(third.revision));
    assert_eq!(ask(4, first.revision).await.unwrap(), Outcome::NotCommitted);
    assert_eq!(ask(2, since).await.unwrap(), Outcome::Forgotten);
}

pub(super) async fn many_machines_are_held_in_one_batch(fresh: Fresh) {
    let store = &*fresh.store;
    let mut writes = Vec::new();
    let mut holds = Vec::new();
    for number in 1..=40 {
        let machine = register(store, number).await;
        holds.push((machine.id.clone(), Epoch(0)));
        let claim = |machine: &mut Machine| machine.epoch = Epoch(1);
        writes.push(change_of(store, &machine.id, claim).await);
    }
    let claims = Batch { holds, ..batch(writes) };
    let mut late = claims.clone();
    late.holds[39].1 = Epoch(7);
    assert_eq!(outcome(&store.commit(late).await), "fenced", "the last one counts as the first");
    assert_eq!(store.commit(claims.clone()).await.unwrap().written::<Machine>().count(), 40);
    let again = store.commit(claims).await;
    assert!(matches!(again, Err(StoreError::Fenced { current: Epoch(1), .. })), "{again:?}");
}

pub(super) async fn the_time_of_commits_never_goes_back(fresh: Fresh) {
    let mut fresh = fresh;
    let mut last = Timestamp(0);
    for (number, ms) in (1..).zip([0, 5, 3, 3, 9, 1]) {
        fresh.clock.set(T0.plus_ms(ms));
        let change = machine_write(None, &samples::machine(number));
        let committed = fresh.store.commit(batch([change])).await.unwrap();
        assert_eq!(committed.at, T0.plus_ms(ms).max(last));
        assert!(committed.changes.iter().all(|change| change.at == committed.at));
        last = committed.at;
    }
    if let Some(reopen) = &fresh.reopen {
        fresh.store = reopen(fresh.store);
    }
    let change = machine_write(None, &samples::machine(99));
    assert_eq!(fresh.store.commit(batch([change])).await.unwrap().at, last);
}

pub(super) async fn a_store_of_one_server_is_its_own(fresh: Fresh) {
    let store = &*fresh.store;
    assert!(store.availability().borrow().takes_writes());
    assert_eq!(*store.availability().borrow(), Availability::Ok);
    let ownership = store.ownership();
    let machine = register(store, 1).await;
    assert_eq!(ownership.owner_of(&machine.id).await.unwrap(), Owner::Us);
    let leases: Vec<Lease> = ownership.claim(usize::MAX).await.unwrap();
    assert_eq!(leases.len(), usize::from(SHARDS));
    assert!(leases.iter().any(|lease| lease.shard == Shard::of(&machine.id)));
    assert_eq!(ownership.renew(&leases).await.unwrap(), leases);
    ownership.release(&leases).await.unwrap();
    assert_eq!(ownership.owner_of(&machine.id).await.unwrap(), Owner::Us);
}

pub(super) async fn facts_lie_beside_the_machine(fresh: Fresh) {
    let mut store = fresh.store;
    let machine = register(&*store, 1).await;
    let unknown = MachineId::parse("machine-99").unwrap();
    assert_eq!(store.observed(&machine.id).await.unwrap(), None);
    let seen = |firmware: &str, power| Observed {
        facts: MachineFacts {
            power,
            power_word: "PoweringOn".to_owned(),
            firmware: firmware.to_owned(),
            serial: "S 1".to_owned(),
            health: "OK".to_owned(),
            model: "Acme R1".to_owned(),
            mac_addresses: ["02:00:00:00:00:01", "02:00:00:00:00:02"].map(str::to_owned).to_vec(),
        },
        since: Timestamp(7),
    };
    let before = store.revisions().await.unwrap().0;
    for (firmware, power) in [("1.0", Power::On), ("1.1", Power::Off)] {
        let observed =
            [&machine.id, &unknown].map(|id| (id.clone(), seen(firmware, power))).to_vec();
        store.commit(Batch { observed, ..Batch::default() }).await.unwrap();
        assert_eq!(store.observed(&machine.id).await.unwrap(), Some(seen(firmware, power)));
    }
    assert_eq!(store.observed(&unknown).await.unwrap(), None);
    assert_eq!(store.machine(&machine.id).await.unwrap().as_ref(), Some(&machine));
    assert!(store.changes(before, 10).await.unwrap().is_empty(), "watches hear nothing of it");
    if let Some(reopen) = &fresh.reopen {
        store = reopen(store);
    }
    assert_eq!(store.observed(&machine.id).await.unwrap(), Some(seen("1.1", Power::Off)));
    // The next machine with the id is another one.
    store.commit(Batch::of(Write::deletion(machine.clone(), Vec::new()))).await.unwrap();
    assert_eq!(store.observed(&machine.id).await.unwrap(), None);
}

pub(super) async fn an_installation_lies_beside_the_machine(fresh: Fresh) {
    let mut store = fresh.store;
    let machine = register(&*store, 1).await;
    let unknown = MachineId::parse("machine-99").unwrap();
    assert_eq!(store.installation(&machine.id).await.unwrap(), None);
    let before = store.revisions().await.unwrap().0;
    let (first, mut second) = (samples::installation(), samples::installation());
    second.stage = InstallStage::Up;
    second.boot_id = "another".to_owned();
    for installation in [&first, &second] {
        let of = |id: &MachineId| (id.clone(), installation.clone());
        let installations = vec![of(&machine.id), of(&unknown)];
        store.commit(Batch { installations, ..Batch::default() }).await.unwrap();
        assert_eq!(store.installation(&machine.id).await.unwrap().as_ref(), Some(installation));
    }
    assert_eq!(store.installation(&unknown).await.unwrap(), None);
    assert_eq!(store.machine(&machine.id).await.unwrap().as_ref(), Some(&machine));
    assert!(store.changes(before, 10).await.unwrap().is_empty(), "watches hear nothing of it");
    if let Some(reopen) = &fresh.reopen {
        store = reopen(store);
    }
    assert_eq!(store.installation(&machine.id).await.unwrap(), Some(second));
    // The next machine with the id is another one.
    store.commit(Batch::of(Write::deletion(machine.clone(), Vec::new()))).await.unwrap();
    assert_eq!(store.installation(&machine.id).await.unwrap(), None);
}

pub(super) async fn a_cursor_moves_from_where_its_writer_saw_it(fresh: Fresh) {
    let mut store = fresh.store;
    let moves = |step| Batch { cursors: vec![step], ..Batch::default() };
    assert_eq!(store.cursor("ops").await.unwrap(), None);
    let before = store.revisions().await.unwrap().0;
    let first = samples::cursor_move(None, 7);
    store.commit(moves(first.clone())).await.unwrap();
    assert_eq!(store.cursor("ops").await.unwrap(), Some(first.after));
    assert_eq!(store.cursor("other").await.unwrap(), None);
    assert!(store.changes(before, 10).await.unwrap().is_empty(), "watches hear nothing of it");
    // Another server takes over: the former owner moves nothing any more, however late it is.
    let mut taken = first.after;
    taken.owner = taken.owner.next();
    let take = CursorMove { before: Some(first.after), after: taken, ..first.clone() };
    store.commit(moves(take)).await.unwrap();
    for late in [None, Some(first.after)] {
        let batch = Batch {
            writes: vec![machine_write(None, &samples::machine(1))],
            ..moves(samples::cursor_move(late, 9))
        };
        let refused = store.commit(batch).await;
        assert!(matches!(refused, Err(StoreError::Conflict { kind: "cursor", .. })), "{refused:?}");
    }
    assert!(
        store.machine(&samples::machine(1).id).await.unwrap().is_none(),
        "nothing of it is written"
    );
    let on = Cursor { next: Revision(9), done: 3, ..taken };
    let step = CursorMove { before: Some(taken), after: on, ..first };
    store.commit(moves(step)).await.unwrap();
    if let Some(reopen) = &fresh.reopen {
        store = reopen(store);
    }
    assert_eq!(store.cursor("ops").await.unwrap(), Some(on));
}

pub(super) async fn locks_are_kept_and_failures_counted(fresh: Fresh) {
    let Fresh { mut store, reopen, .. } = fresh;
    let moves = |steps| Batch { locks: steps, ..Batch::default() };
    assert_eq!(store.locks().await.unwrap(), Vec::new());
    let stop = samples::lock("stop-1");
    let committed = store.commit(moves(vec![LockMove::Put(stop.clone())])).await.unwrap();
    assert_eq!(committed.locks.as_slice(), std::slice::from_ref(&stop));
    // Two failures, a success, two failures: no three in a row.
    for failed in [true, true, false, true, true] {
        let committed = store.commit(moves(vec![samples::tally(failed, 3)])).await.unwrap();
        assert_eq!(committed.locks, []);
    }
    let paused = store.commit(moves(vec![samples::tally(true, 3)])).await.unwrap();
    assert_eq!(paused.locks.len(), 1);
    let lifted = Lock { lifted_at: Some(Timestamp(9)), ..Lock::clone(&stop) };
    store.commit(moves(vec![LockMove::Put(Arc::new(lifted.clone()))])).await.unwrap();
    if let Some(reopen) = &reopen {
        store = reopen(store);
    }
    let kept = store.locks().await.unwrap();
    assert_eq!(kept, [Lock::clone(&paused.locks[0]), lifted]);
    // The count starts over with a pause.
    let committed = store.commit(moves(vec![samples::tally(true, 3)])).await.unwrap();
    assert_eq!(committed.locks, []);
    store.commit(moves(vec![LockMove::Forget("stop-1".to_owned())])).await.unwrap();
    assert_eq!(store.locks().await.unwrap().len(), 1);
}
