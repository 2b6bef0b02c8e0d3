//! Full disks, and failing flushes.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run::State;

fn hook(fault: impl Fn() -> Option<Fault> + Send + Sync + 'static) -> SqliteOptions {
    SqliteOptions { fault: Some(Arc::new(fault)), ..SqliteOptions::default() }
}

#[tokio::test]
async fn a_full_store_refuses_writes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let pages_max = |pages| SqliteOptions { pages_max: Some(pages), ..SqliteOptions::default() };
    let store = SqliteStore::open(dir.path(), pages_max(60)).unwrap();
    let mut stored = 0;
    let error = loop {
        match register(&store, stored).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)) && stored > 10, "{error:?} after {stored}");
    assert!(matches!(register(&store, stored).await, Err(StoreError::Full(_))));
    assert_eq!(machine_ids(&store).await.len() as u64, stored, "reads go on");
    assert_eq!(store.revisions().await.unwrap().0, Revision(stored));
    // Space returns while the store is open.
    store
        .call(|writer| writer.conn.pragma_update(None, "max_page_count", 10_000).map_err(failed))
        .await
        .unwrap();
    assert_eq!(register(&store, stored).await.unwrap().revision, Revision(stored + 1));
    drop(store);
    assert!(check(dir.path()).unwrap().is_ok());
    assert_eq!(machine_ids(&open(dir.path()).unwrap()).await.len() as u64, stored + 1);
}

#[tokio::test]
async fn a_full_disk_at_commit_writes_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let is_full = full.clone();
    let options = hook(move || is_full.load(Relaxed).then_some(Fault::Full));
    let store = SqliteStore::open(dir.path(), options).unwrap();
    register(&store, 1).await.unwrap();
    full.store(true, Relaxed);
    for _ in 0..3 {
        assert!(matches!(register(&store, 2).await, Err(StoreError::Full(_))));
    }
    assert_eq!(machine_ids(&store).await, ["machine-1"]);
    let mut availability = store.availability();
    assert!(matches!(*availability.borrow(), Availability::Full { .. }));
    full.store(false, Relaxed);
    // The store itself detects it, and notifies all that wait.
    availability.wait_for(|state| state.takes_writes()).await.unwrap();
    assert_eq!(register(&store, 2).await.unwrap().revision, Revision(2));
}

/// Whether or not the write was in fact durable: it is not acknowledged, and nothing is written after it.
#[tokio::test]
async fn a_failed_flush_stops_all_writes_until_the_store_is_opened_again() {
    for (fault, kept) in [(Fault::SyncLost, false), (Fault::SyncKept, true)] {
        let dir = tempfile::tempdir().unwrap();
        let commits = AtomicBool::new(true);
        let options = hook(move || (!commits.swap(false, Relaxed)).then_some(fault));
        let store = SqliteStore::open(dir.path(), options).unwrap();
        let reported = Arc::new(Reported::default());
        store.listen(reported.clone());
        register(&store, 1).await.unwrap();
        let id = BatchId(7);
        let in_doubt = Batch { id, ..with_machine(2) };
        assert!(matches!(store.commit(in_doubt).await, Err(StoreError::Unknown(_))));
        assert!(store.is_broken());
        assert!(matches!(*store.availability().borrow(), Availability::Broken { .. }));
        let refused = store.outcome(id, Revision(1)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        store.until_broken().await;
        for number in 3..6 {
            let refused = register(&store, number).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
        assert!(store.machine(&samples::machine(1).id).await.unwrap().is_some(), "reads go on");
        assert_eq!(*reported.0.lock().unwrap(), [Revision(1)]);
        drop(store);
        let store = open(dir.path()).unwrap();
        assert_eq!(machine_ids(&store).await.len(), if kept { 2 } else { 1 });
        let outcome = store.outcome(id, Revision(1)).await.unwrap();
        let durable = Outcome::Committed(Revision(2));
        assert_eq!(outcome, if kept { durable } else { Outcome::NotCommitted });
        let next = register(&store, 9).await.unwrap();
        assert_eq!(next.revision, Revision(if kept { 3 } else { 2 }));
        assert!(check(dir.path()).unwrap().is_ok());
    }
}

#[derive(Default)]
struct Reported(Mutex<Vec<Revision>>);

impl Listener for Reported {
    fn committed(&self, committed: &Arc<Committed>) {
        self.0.lock().unwrap().push(committed.revision);
    }
}

/// The writer's cache of active runs equals what is stored, even after a rollback: the same write succeeds when it is
/// repeated.
#[tokio::test]
async fn a_write_that_found_no_room_is_taken_when_it_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let fault = is_full.clone();
    let options = hook(move || fault.swap(false, Relaxed).then_some(Fault::Full));
    let store = SqliteStore::open(dir.path(), options).unwrap();
    populate(&store).await;
    let (machine, run) = (samples::machine(1).id, samples::run_id(1));

    let before = store.run(run).await.unwrap().unwrap();
    let mut after = (*before).clone();
    after.state = State::Canceling;
    let owner = store.machine(&machine).await.unwrap().unwrap();
    let moved = Machine { phase: Phase::Maintenance, ..(*owner).clone() };
    let both = Batch {
        writes: vec![
            Write::new(Some(owner), moved, Vec::new()),
            Write::new(Some(before), after, Vec::new()),
        ],
        logs: vec![samples::chunk(run, 0)],
        ..Batch::default()
    };
    let printed = Batch { logs: vec![samples::chunk(run, 1)], ..Batch::default() };
    for batch in [both, printed] {
        is_full.store(true, Relaxed);
        assert!(matches!(store.commit(batch.clone()).await, Err(StoreError::Full(_))));
        store.commit(batch).await.unwrap();
    }

    let stored = store.run(run).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.revision), (State::Canceling, Revision(3)));
    let stored = store.machine(&machine).await.unwrap().unwrap();
    assert_eq!((stored.phase, stored.revision), (Phase::Maintenance, Revision(3)));
    let logs = store.logs(run, 0, 9).await.unwrap();
    assert_eq!(logs, [0, 1].map(|offset| Arc::new(samples::chunk(run, offset))));
    drop(store);
    let report = check(dir.path()).unwrap();
    assert!(report.is_ok(), "{report:?}");
}
