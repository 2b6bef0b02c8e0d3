//! Preconditions, and guarantees of a commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::ids::{Epoch, RunId};
use crate::model::{Images, Record as _};

/// Commits all batches at once and returns the outcomes in the order of the batches.
async fn race(
    store: &Arc<dyn Store>,
    batches: Vec<Batch>,
) -> Vec<Result<Arc<Committed>, StoreError>> {
    let mut racing = JoinSet::new();
    for (place, batch) in batches.into_iter().enumerate() {
        let store = store.clone();
        racing.spawn(async move { (place, store.commit(batch).await) });
    }
    let mut outcomes = racing.join_all().await;
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

pub(super) async fn a_request_id_is_used_once(fresh: Fresh) {
    let store = fresh.store;
    let batches: Vec<_> = (1..=32)
        .map(|number| {
            let machine = samples::machine(number);
            let request = Some(request("same", &machine.id));
            Batch { request, ..batch([machine_write(None, &machine)]) }
        })
        .collect();
    let outcomes = race(&store, batches).await;
    let winners: Vec<_> = outcomes.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "one of the racing requests is carried out");
    let kept = store.request("StartRun/machine-1", "same").await.unwrap().unwrap();
    assert_eq!(kept.object_id, winners[0].machine().unwrap().id.to_string());
    assert_eq!(kept.revision, winners[0].revision);
    for outcome in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(matches!(outcome, StoreError::RequestUsed(used) if **used == kept), "{outcome:?}");
    }
    assert_eq!(all_machines(&*store).await.len(), 1);
    // The scope is a part of the key.
    let other = RequestRecord { scope: "CancelRun/x".to_owned(), ..request("same", "x") };
    let batch = Batch { request: Some(other), ..Batch::default() };
    assert_eq!(outcome(&store.commit(batch).await), "committed");
    assert_eq!(store.request("StartRun/machine-2", "same").await.unwrap(), None);
}

pub(super) async fn one_run_is_active_under_racing_starts(fresh: Fresh) {
    let store = fresh.store.clone();
    let machine = register(&*store, 1).await;
    let start = |number| batch([run_write(None, &samples::run(number, &machine.id))]);
    let outcomes = race(&store, (1..=100).map(start).collect()).await;
    let winners: Vec<_> =
        outcomes.iter().flatten().map(|done| done.run().unwrap().clone()).collect();
    assert_eq!(winners.len(), 1, "one of the racing runs is accepted");
    for outcome in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        let StoreError::ActiveRun { machine_id, run_id } = outcome else { panic!("{outcome:?}") };
        assert_eq!((machine_id, *run_id), (&machine.id, winners[0].id));
    }
    let running = put_run(&*store, &winners[0], &marked(&winners[0], "goes on")).await;
    assert_eq!(outcome(&store.commit(start(101)).await), "active run");
    end(&fresh, &running, T0).await;
    assert_eq!(outcome(&store.commit(start(102)).await), "committed");
    let query = Query { active_only: true, limit: 9, ..Query::default() };
    let active: Vec<RunId> =
        store.runs(query).await.unwrap().items.iter().map(|run| run.id).collect();
    assert_eq!(active, [samples::run_id(102)]);
}

pub(super) async fn no_update_is_lost_under_contention(fresh: Fresh) {
    const WRITERS: u64 = 16;
    const UPDATES: u64 = 12;
    let store = fresh.store;
    let id = register(&*store, 1).await.id.clone();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, id) = (store.clone(), id.clone());
        writers.spawn(async move {
            let mut refused = 0;
            for _ in 0..UPDATES {
                loop {
                    let before = store.machine(&id).await.unwrap().unwrap();
                    let seen = before.revision;
                    // Between reading and writing, the others read as well.
                    tokio::task::yield_now().await;
                    let after = Machine { epoch: before.epoch.next(), ..(*before).clone() };
                    match store.commit(batch([machine_write(Some(&before), &after)])).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { kind: "machine", expected, stored, .. }) => {
                            assert!(expected == seen && stored > seen);
                            refused += 1;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            refused
        });
    }
    let refused: u64 = writers.join_all().await.into_iter().sum();
    assert!(refused > 0, "the writers have met");
    let machine = store.machine(&id).await.unwrap().unwrap();
    assert_eq!(machine.epoch, Epoch(WRITERS * UPDATES));
    assert_eq!(store.revisions().await.unwrap().0, Revision(1 + WRITERS * UPDATES));
    assert_eq!(machine.revision, Revision(1 + WRITERS * UPDATES));
}

/// Not supported by any store: runs are deleted by trimming.
fn run_deletion(run: &Run) -> Write {
    let images = Images { before: Some(Arc::new(run.clone())), after: None };
    Write { object: Run::object(images), entries: Vec::new() }
}

pub(super) async fn a_refused_batch_leaves_no_trace(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    let run = start(store, 1, &machine.id).await;
    let machine = store.machine(&machine.id).await.unwrap().unwrap();
    let used = Batch { request: Some(request("used", "x")), ..Batch::default() };
    store.commit(used).await.unwrap();
    let before =
        (all_machines(store).await, all_runs(store).await, store.revisions().await.unwrap());

    // Everything that a batch can write, all of it valid.
    let fine = || {
        let (other, changed) = (samples::machine(2), marked(&run, "changed"));
        let mut fine = batch([machine_write(None, &other), run_write(Some(&run), &changed)]);
        fine.plan = Some(super::super::PinnedPlan { digest: "new".into(), text: "text".into() });
        fine.request = Some(request("new", "x"));
        fine.logs = vec![samples::chunk(run.id, 0)];
        fine
    };
    let stale_machine = Machine { revision: Revision(1), ..(*machine).clone() };
    let stale_run = Run { revision: Revision(1), ..(*run).clone() };
    let unknown = Machine { revision: Revision(3), ..samples::machine(9) };
    let second = samples::run(2, &machine.id);
    type Spoil<'a> = Box<dyn Fn(&mut Batch) + Send + 'a>;
    let spoil: Vec<(&str, Spoil<'_>)> = vec![
        ("request used", Box::new(|b| b.request = Some(request("used", "y")))),
        ("fenced", Box::new(|b| b.holds.push((machine.id.clone(), Epoch(7))))),
        ("fenced", Box::new(|b| b.holds.push((unknown.id.clone(), Epoch(0))))),
        (
            "conflict",
            Box::new(|b| b.writes.push(machine_write(Some(&stale_machine), &stale_machine))),
        ),
        ("conflict", Box::new(|b| b.writes.push(machine_write(None, &samples::machine(1))))),
        ("conflict", Box::new(|b| b.writes.push(machine_write(Some(&unknown), &unknown)))),
        ("conflict", Box::new(|b| b.writes.push(deletion(&stale_machine)))),
        ("conflict", Box::new(|b| b.writes.push(deletion(&samples::machine(9))))),
        ("conflict", Box::new(|b| b.writes[1] = run_write(Some(&stale_run), &stale_run))),
        ("conflict", Box::new(|b| b.writes[1] = run_write(None, &samples::run(1, &machine.id)))),
        ("active run", Box::new(|b| b.writes.push(run_write(None, &second)))),
        ("conflict", Box::new(|b| b.writes[1] = run_deletion(&run))),
        ("conflict", Box::new(|b| b.logs.push(samples::chunk(run.id, 2)))),
        ("conflict", Box::new(|b| b.logs.push(samples::chunk(second.id, 0)))),
    ];
    for (expected, spoil) in spoil {
        let mut batch = fine();
        spoil(&mut batch);
        assert_eq!(outcome(&store.commit(batch.clone()).await), expected, "{batch:#?}");
        let after =
            (all_machines(store).await, all_runs(store).await, store.revisions().await.unwrap());
        assert_eq!(after, before);
        assert_eq!(store.plan("new").await.unwrap(), None);
        assert_eq!(store.request("StartRun/machine-1", "new").await.unwrap(), None);
        assert_eq!(store.logs(run.id, 0, 9).await.unwrap(), []);
        assert_eq!(store.changes(before.2.0, 9).await.unwrap(), []);
    }
    assert_eq!(outcome(&store.commit(fine()).await), "committed");
}

pub(super) async fn preconditions_are_checked_in_order(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    start(store, 1, &machine.id).await;
    store.commit(Batch { request: Some(request("used", "x")), ..Batch::default() }).await.unwrap();
    let mut bad = batch([
        machine_write(None, &samples::machine(1)),
        run_write(None, &samples::run(2, &machine.id)),
    ]);
    bad.request = Some(request("used", "y"));
    bad.holds = vec![(machine.id.clone(), Epoch(7))];
    assert_eq!(outcome(&store.commit(bad.clone()).await), "request used");
    bad.request = None;
    assert_eq!(outcome(&store.commit(bad.clone()).await), "fenced");
    bad.holds.clear();
    let refused = store.commit(bad.clone()).await;
    assert!(matches!(refused, Err(StoreError::Conflict { kind: "machine", .. })), "{refused:?}");
    bad.writes.remove(0);
    assert_eq!(outcome(&store.commit(bad).await), "active run");
}

pub(super) async fn a_batch_that_names_an_object_twice_is_refused(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    let run = samples::run(1, &machine.id);
    let change = || machine_write(Some(&machine), &machine);
    let twice = batch([change(), change()]);
    assert_eq!(outcome(&store.commit(twice).await), "conflict");
    let new_twice = batch([
        machine_write(None, &samples::machine(2)),
        machine_write(None, &samples::machine(2)),
    ]);
    assert_eq!(outcome(&store.commit(new_twice).await), "conflict");
    let written_and_deleted = batch([change(), deletion(&machine)]);
    assert_eq!(outcome(&store.commit(written_and_deleted).await), "conflict");
    let run_twice = batch([run_write(None, &run), run_write(None, &run)]);
    assert_eq!(outcome(&store.commit(run_twice).await), "conflict");
    assert_eq!(store.revisions().await.unwrap().0, Revision(1));
}

pub(super) async fn a_run_may_follow_another_in_one_batch(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    let first = start(store, 1, &machine.id).await;
    let ended = Run { state: State::Failed, finished_at: Some(T0), ..(*first).clone() };
    let (second, third) = (samples::run(2, &machine.id), samples::run(3, &machine.id));
    let both =
        batch([run_write(Some(&first), &ended), run_write(None, &second), run_write(None, &third)]);
    let refused = store.commit(both).await;
    assert!(
        matches!(refused, Err(StoreError::ActiveRun { run_id, .. }) if run_id == second.id),
        "{refused:?}"
    );
    let following = batch([run_write(Some(&first), &ended), run_write(None, &second)]);
    assert_eq!(outcome(&store.commit(following).await), "committed");
    let refused = store.commit(batch([run_write(None, &third)])).await;
    assert!(
        matches!(refused, Err(StoreError::ActiveRun { run_id, .. }) if run_id == second.id),
        "{refused:?}"
    );
}

/// A writer that holds an old epoch fails, alone and among concurrent writers.
pub(super) async fn a_fenced_writer_cannot_write(fresh: Fresh) {
    let store = fresh.store;
    let machine = register(&*store, 1).await;
    let run = start(&*store, 1, &machine.id).await;
    let held = |epoch, batch| Batch { holds: vec![(machine.id.clone(), Epoch(epoch))], ..batch };
    let changed = put_run(&*store, &run, &marked(&run, "old owner")).await;

    let claim = change_of(&*store, &machine.id, |machine| machine.epoch = Epoch(1)).await;
    let takeover = held(0, batch([claim]));
    assert_eq!(outcome(&store.commit(takeover).await), "committed");

    let late = batch([run_write(Some(&changed), &marked(&changed, "late"))]);
    let mut batches = Vec::new();
    for number in 2..30 {
        batches.push(batch([machine_write(None, &samples::machine(number))]));
        batches.push(held(0, late.clone()));
        batches.push(held(0, Batch::default()));
        // An epoch that was never granted is as wrong as an old one.
        batches.push(held(2, late.clone()));
    }
    for (place, outcome) in race(&store, batches).await.into_iter().enumerate() {
        match outcome {
            Ok(_) => assert_eq!(place % 4, 0),
            Err(StoreError::Fenced { machine_id, held, current }) => {
                assert_eq!((machine_id, current), (machine.id.clone(), Epoch(1)));
                assert_eq!(held, Epoch(if place % 4 == 3 { 2 } else { 0 }));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(outcome(&store.commit(held(1, late)).await), "committed");
}

pub(super) async fn a_conflict_fails_its_writer_only(fresh: Fresh) {
    let store = fresh.store;
    let mut batches = Vec::new();
    for number in 1..=60 {
        let machine = samples::machine(number);
        let stale = Machine { revision: Revision(1_000_000), ..machine.clone() };
        let before = (number % 3 == 0).then_some(&stale);
        batches.push(batch([machine_write(before, &machine)]));
    }
    let outcomes = race(&store, batches).await;
    let mut revisions = BTreeSet::new();
    for (number, outcome) in (1..).zip(&outcomes) {
        match outcome {
            Ok(committed) => {
                assert_ne!(number % 3, 0);
                assert!(revisions.insert(committed.revision.0), "revisions are unique");
            }
            Err(error) => {
                assert_eq!(number % 3, 0, "{error}");
                assert!(matches!(error, StoreError::Conflict { stored: Revision(0), .. }));
            }
        }
    }
    assert!(revisions.iter().copied().eq(1..=40), "a refused batch takes no revision");
    let listed = all_machines(&*store).await;
    assert!(listed.iter().map(|machine| machine.ordinal).eq(1..=40));
    assert!(listed.iter().all(|machine| machine.revision.0 == machine.ordinal), "in queue order");
}

pub(super) async fn an_empty_batch_gets_a_revision(fresh: Fresh) {
    let store = &*fresh.store;
    for revision in 1..4 {
        let committed = store.commit(Batch::default()).await.unwrap();
        assert_eq!(committed.revision, Revision(revision));
    }
    assert_eq!(store.revisions().await.unwrap(), (Revision(3), Revision(0)));
    assert_eq!(store.changes(Revision(0), 9).await.unwrap(), []);
}

pub(super) async fn a_polled_commit_continues_when_its_writer_leaves(fresh: Fresh) {
    let store = &*fresh.store;
    {
        let machine = samples::machine(1);
        let mut commit = store.commit(batch([machine_write(None, &machine)]));
        let waker = std::task::Waker::noop();
        let _ = commit.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
    // The next commit comes after it.
    let machine = register(store, 2).await;
    assert_eq!((machine.ordinal, machine.revision), (2, Revision(2)));
    assert_eq!(all_machines(store).await.len(), 2);
}

pub(super) async fn a_mac_address_belongs_to_one_machine(fresh: Fresh) {
    let mut store = fresh.store;
    let with = |machine: &Machine, macs: &[&str]| {
        let mut machine = machine.clone();
        machine.spec.mac_addresses = macs.iter().map(|mac| (*mac).to_owned()).collect();
        machine
    };
    let taken = |refused: Result<_, StoreError>| match refused {
        Err(StoreError::MacTaken { mac, machine_id }) => format!("{mac} of {machine_id}"),
        other => panic!("{:?}", other.map(|_: Arc<Committed>| ())),
    };
    let [one, two] = [1, 2].map(samples::machine);
    let both = batch([
        machine_write(None, &with(&one, &["a", "b"])),
        machine_write(None, &with(&two, &["c", "b"])),
    ]);
    assert_eq!(taken(store.commit(both).await), "b of machine-1");
    let one = put_machine(&*store, None, &with(&one, &["a", "b"])).await;
    let two = put_machine(&*store, None, &with(&two, &["c"])).await;
    if let Some(reopen) = &fresh.reopen {
        store = reopen(store);
    }
    assert_eq!(store.mac_owner("a").await.unwrap(), Some(one.id.clone()));
    assert_eq!(store.mac_owner("z").await.unwrap(), None);
    let grown = batch([machine_write(Some(&two), &with(&two, &["c", "a"]))]);
    assert_eq!(taken(store.commit(grown).await), "a of machine-1");
    // Addresses that a machine gives up, or leaves when it is deleted, are free.
    let one = put_machine(&*store, Some(&one), &with(&one, &["b"])).await;
    let two = put_machine(&*store, Some(&two), &with(&two, &["a", "c"])).await;
    let third = with(&samples::machine(3), &["b"]);
    let refused = store.commit(batch([machine_write(None, &third)])).await;
    assert_eq!(taken(refused), "b of machine-1");
    store.commit(batch([deletion(&one)])).await.unwrap();
    put_machine(&*store, None, &third).await;
    // Other changes of a machine keep its addresses.
    put_machine(&*store, Some(&two), &Machine { epoch: two.epoch.next(), ..(*two).clone() }).await;
}
