//! The change feed, and listeners.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::task::JoinSet;

use super::*;
use crate::clock::SplitMix64;
use crate::ids::RunId;
use crate::model::{Change, Images, LogChunk, Record};
use crate::store::Listener;

/// Random commits, with a random number of changes each, some of them deletions, some refused.
async fn commit_at_random(store: Arc<dyn Store>, writer: u64, commits: u64) {
    let mut random = SplitMix64::new(writer);
    for count in 0..commits {
        let number = writer * 1000 + random.below(4);
        let machine = samples::machine(number);
        let stored = store.machine(&machine.id).await.unwrap();
        let mut writes = vec![match &stored {
            None => machine_write(None, &machine),
            Some(stored) if random.chance(1, 6) => deletion(stored),
            Some(stored) => {
                let mut next = (**stored).clone();
                next.spec.serial = count.to_string();
                machine_write(Some(stored), &next)
            }
        }];
        let run = samples::run(number, &machine.id);
        match store.run(run.id).await.unwrap() {
            None => writes.push(run_write(None, &run)),
            Some(before) if random.chance(1, 2) => {
                writes.push(run_write(Some(&before), &marked(&before, &count.to_string())));
            }
            Some(_) => {}
        }
        if random.chance(1, 5) {
            writes.push(machine_write(None, &samples::machine(random.below(3))));
        }
        // Writers share the machines 0 to 2: some conflicts are expected.
        let _ = store.commit(batch(writes)).await;
    }
}

pub(super) async fn changes_come_as_whole_commits(fresh: Fresh) {
    let store = &*fresh.store;
    let sizes = [3, 1, 5, 0, 2];
    let mut number = 0;
    for size in sizes {
        let machines = (number..number + size).map(samples::machine);
        number += size;
        store.commit(batch(machines.map(|machine| machine_write(None, &machine)))).await.unwrap();
    }
    let revisions = |changes: Vec<Change>| -> Vec<u64> {
        changes.iter().map(|change| change.revision.0).collect()
    };
    for (after, limit, expected) in [
        (0, 0, vec![1, 1, 1]),
        (0, 1, vec![1, 1, 1]),
        (0, 3, vec![1, 1, 1]),
        (0, 4, vec![1, 1, 1, 2]),
        (0, 5, vec![1, 1, 1, 2, 3, 3, 3, 3, 3]),
        (2, 1, vec![3, 3, 3, 3, 3]),
        (3, 1, vec![5, 5]),
        (5, 9, vec![]),
        (99, 9, vec![]),
    ] {
        let read = revisions(store.changes(Revision(after), limit).await.unwrap());
        assert_eq!(read, expected, "{limit} after {after}");
    }
}

/// Reads the feed to the end, sometimes losing its position and continuing from what it has.
async fn follow(store: Arc<dyn Store>, seed: u64, until: Arc<tokio::sync::Notify>) -> Vec<Change> {
    let mut random = SplitMix64::new(seed);
    let (mut seen, mut ended) = (Vec::<Change>::new(), false);
    let stop = until.notified();
    tokio::pin!(stop);
    loop {
        let after = seen.last().map_or(Revision(0), |change| change.revision);
        let limit = usize::try_from(random.below(9)).unwrap();
        let page = store.changes(after, limit).await.unwrap();
        if page.is_empty() {
            if ended {
                return seen;
            }
            tokio::select! {
                () = &mut stop => ended = true,
                () = tokio::task::yield_now() => {}
            }
        }
        seen.extend(page);
    }
}

pub(super) async fn readers_see_every_change_once_in_order(fresh: Fresh) {
    let store = fresh.store;
    let heard = Arc::new(Heard::default());
    store.listen(heard.clone());
    let stop = Arc::new(tokio::sync::Notify::new());
    let mut readers = JoinSet::new();
    for seed in 0..4 {
        readers.spawn(follow(store.clone(), seed, stop.clone()));
    }
    let mut writers = JoinSet::new();
    for writer in 1..=6 {
        writers.spawn(commit_at_random(store.clone(), writer, 40));
    }
    writers.join_all().await;
    // A reader may not be waiting yet: notify them until all have ended.
    let mut seen = Vec::new();
    while !readers.is_empty() {
        stop.notify_waiters();
        if let Some(reader) = readers.try_join_next() {
            seen.push(reader.unwrap());
        }
        tokio::task::yield_now().await;
    }
    let reported = heard.changes.lock().unwrap().clone();
    assert!(reported.is_sorted_by_key(|change| change.revision) && reported.len() > 200);
    for seen in seen {
        assert_eq!(seen, reported, "readers and listeners see the same");
    }
}

type Fold = (BTreeMap<MachineId, Arc<Machine>>, BTreeMap<RunId, Arc<Run>>);

fn fold_one<T: Record>(state: &mut BTreeMap<T::Id, Arc<T>>, images: &Images<T>) {
    let id = images.last().unwrap().id();
    let before = match &images.after {
        Some(after) => state.insert(id.clone(), after.clone()),
        None => state.remove(id),
    };
    assert_eq!(before, images.before, "a change shows the record before it");
}

pub(super) async fn a_list_and_the_changes_after_it_make_the_final_state(fresh: Fresh) {
    let store = fresh.store;
    let mut writers = JoinSet::new();
    for writer in 1..=4 {
        writers.spawn(commit_at_random(store.clone(), writer, 40));
    }
    let mut lists = Vec::new();
    while !writers.is_empty() {
        // Each list in one page, so that it has one revision.
        let query = Query { limit: 10_000, ..Query::default() };
        let machines = store.machines(query.clone()).await.unwrap();
        lists.push((machines, store.runs(query).await.unwrap()));
        while writers.try_join_next().is_some() {}
        // A store that answers at once would never let the writers run on this thread.
        tokio::task::yield_now().await;
    }
    let machines: Vec<_> = all_machines(&*store).await;
    let runs: Vec<_> = all_runs(&*store).await;
    for (listed_machines, listed_runs) in lists {
        let mut state = Fold::default();
        let listed = listed_machines.items.into_iter();
        state.0 = listed.map(|machine| (machine.id.clone(), machine)).collect();
        for change in store.changes(listed_machines.as_of, usize::MAX).await.unwrap() {
            if let Some(images) = change.images::<Machine>() {
                fold_one(&mut state.0, images);
            }
        }
        assert!(state.0.len() == machines.len());
        assert!(machines.iter().all(|machine| state.0.get(&machine.id) == Some(machine)));

        let mut state = Fold::default();
        state.1 = listed_runs.items.into_iter().map(|run| (run.id, run)).collect();
        for change in store.changes(listed_runs.as_of, usize::MAX).await.unwrap() {
            if let Some(images) = change.images::<Run>() {
                fold_one(&mut state.1, images);
            }
        }
        assert!(state.1.len() == runs.len());
        assert!(runs.iter().all(|run| state.1.get(&run.id) == Some(run)));
    }
}

/// What a listener received.
#[derive(Default)]
struct Heard {
    revisions: Mutex<Vec<Revision>>,
    changes: Mutex<Vec<Change>>,
    logs: Mutex<Vec<Arc<LogChunk>>>,
}

impl Listener for Heard {
    fn committed(&self, committed: &Arc<Committed>) {
        self.revisions.lock().unwrap().push(committed.revision);
        self.changes.lock().unwrap().extend_from_slice(&committed.changes);
        self.logs.lock().unwrap().extend_from_slice(&committed.logs);
    }
}

pub(super) async fn listeners_hear_in_order_before_the_writer(fresh: Fresh) {
    let store = fresh.store;
    let heard = Arc::new(Heard::default());
    let machine = register(&*store, 0).await;
    let run = start(&*store, 1, &machine.id).await;
    store.listen(heard.clone());
    let mut writers = JoinSet::new();
    for writer in 1..=8_u64 {
        let (store, heard) = (store.clone(), heard.clone());
        writers.spawn(async move {
            for count in 0..20 {
                let machine = samples::machine(writer * 100 + count);
                let committed = store.commit(batch([machine_write(None, &machine)])).await.unwrap();
                let reported = heard.revisions.lock().unwrap().contains(&committed.revision);
                assert!(reported, "listeners are notified before the writer");
                let refused = store.commit(batch([machine_write(None, &machine)])).await;
                assert_eq!(outcome(&refused), "conflict");
            }
        });
    }
    writers.join_all().await;
    let chunk = samples::chunk(run.id, 0);
    store.commit(Batch { logs: vec![chunk.clone()], ..Batch::default() }).await.unwrap();
    let reported: Vec<u64> = heard.revisions.lock().unwrap().iter().map(|one| one.0).collect();
    assert!(reported.iter().copied().eq(3..=3 + 8 * 20), "every commit, in order: {reported:?}");
    let read = store.changes(Revision(2), 9999).await.unwrap();
    assert_eq!(*heard.changes.lock().unwrap(), read);
    assert_eq!(*heard.logs.lock().unwrap(), [Arc::new(chunk)]);
}
