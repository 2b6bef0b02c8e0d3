//! Single records, their history, logs and plans.

use std::collections::BTreeMap;

use super::*;
use crate::ids::Epoch;
use crate::model::Images;
use crate::store::samples::Sampler;
use crate::store::{LogHead, PinnedPlan, Subject};

pub(super) async fn records_are_read_as_they_were_written(fresh: Fresh) {
    let store = &*fresh.store;
    for seed in 0..40 {
        let mut sampler = Sampler::new(seed);
        let machine = Machine { revision: Revision(0), ..sampler.machine() };
        // Each on its own machine: two active runs on one are refused.
        let machine_id = samples::machine(1_000 + seed).id;
        let run = Run { revision: Revision(0), machine_id, ..sampler.run() };
        let committed = store
            .commit(batch([machine_write(None, &machine), run_write(None, &run)]))
            .await
            .unwrap();
        let machine = Machine { ordinal: seed + 1, revision: committed.revision, ..machine };
        let run = Run { ordinal: seed + 1, revision: committed.revision, ..run };
        let written = (committed.machine().unwrap(), committed.run().unwrap());
        assert_eq!((&**written.0, &**written.1), (&machine, &run));
        assert_eq!(store.machine(&machine.id).await.unwrap().as_deref(), Some(&machine));
        assert_eq!(store.run(run.id).await.unwrap().as_deref(), Some(&run));
    }
    let (nobody, nothing) = (samples::machine(1).id, samples::run_id(1));
    assert_eq!(store.machine(&nobody).await.unwrap(), None);
    assert_eq!(store.run(nothing).await.unwrap(), None);
    assert_eq!(store.run_at(nothing, Revision(9)).await.unwrap(), None);
    assert_eq!(store.history(Subject::Run(nothing), None, 9).await.unwrap(), []);
    assert_eq!(store.logs(nothing, 0, 9).await.unwrap(), []);
}

pub(super) async fn history_is_ordered_and_pages(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    register(store, 2).await;
    let mut run = start(store, 1, &machine.id).await;
    for step in 0..5 {
        run = put_run(store, &run, &marked(&run, &format!("step {step}"))).await;
        register(store, 10 + step).await;
    }
    end(&fresh, &run, T0).await;
    start(store, 2, &machine.id).await;

    let of_machine = Subject::Machine(machine.id.clone());
    let whole = store.history(of_machine.clone(), None, 1000).await.unwrap();
    // Registered; two entries at each start and end; one a step.
    assert_eq!(whole.len(), 1 + 2 + 5 + 2 + 2);
    assert!(whole.is_sorted_by_key(|row| (row.revision, row.index)));
    let mut places: Vec<_> = whole.iter().map(|row| (row.revision, row.index)).collect();
    places.dedup();
    assert_eq!(places.len(), whole.len(), "every entry has a place of its own");
    assert!(whole.iter().all(|row| row.machine_id == machine.id && row.at == T0));

    for limit in [1, 2, 3, 7] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store.history(of_machine.clone(), after, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some((last.revision, last.index));
            paged.extend(page);
        }
        assert_eq!(paged, whole, "in pages of {limit}");
    }
    let of_run = store.history(Subject::Run(run.id), None, 1000).await.unwrap();
    let own: Vec<_> = whole.iter().filter(|row| row.run_id == Some(run.id)).cloned().collect();
    assert_eq!(of_run, own);
    let after = Some((own[3].revision, own[3].index));
    let rest = store.history(Subject::Run(run.id), after, 2).await.unwrap();
    assert_eq!(rest, own[4..6]);
    assert_eq!(store.history(of_machine, None, 0).await.unwrap(), []);
}

pub(super) async fn a_machine_is_known_as_of_every_revision(fresh: Fresh) {
    let store = &*fresh.store;
    let mut versions = vec![None];
    let id = samples::machine(1).id;
    let mut ordinals = Vec::new();
    for round in 0..3_u64 {
        let mut last: Option<Arc<Machine>> = None;
        for version in 0..4 {
            let mut next = last.as_deref().cloned().unwrap_or_else(|| samples::machine(1));
            next.spec.serial = format!("{round}.{version}");
            let stored = put_machine(store, last.as_deref(), &next).await;
            versions.push(Some(stored.clone()));
            // A commit that is unrelated.
            register(store, 100 + round * 10 + version).await;
            versions.push(Some(stored.clone()));
            last = Some(stored);
        }
        let last = last.unwrap();
        ordinals.push(last.ordinal);
        if round < 2 {
            store.commit(batch([deletion(&last)])).await.unwrap();
            versions.push(None);
            assert_eq!(store.machine(&id).await.unwrap(), None);
        }
    }
    for (revision, version) in (0..).zip(&versions) {
        let found = store.machine_at(&id, Revision(revision)).await.unwrap();
        assert_eq!(found, *version, "at {revision}");
    }
    let found = store.machine_at(&id, Revision(u64::MAX)).await.unwrap();
    assert_eq!(found, *versions.last().unwrap());
    assert!(ordinals.is_sorted() && ordinals[0] < ordinals[1], "registered again, listed last");
}

pub(super) async fn a_run_is_known_as_of_every_revision(fresh: Fresh) {
    let store = &*fresh.store;
    for seed in 0..12 {
        let mut sampler = Sampler::new(seed);
        let mut run = Run { revision: Revision(0), ..sampler.run() };
        run.state = State::Running;
        let before = store.revisions().await.unwrap().0;
        let mut last =
            store.commit(batch([run_write(None, &run)])).await.unwrap().run().unwrap().clone();
        let mut versions = vec![last.clone()];
        for _ in 0..sampler.below(12) {
            last = put_run(store, &last, &sampler.change_run(&last)).await;
            versions.push(last.clone());
        }
        assert_eq!(store.run_at(run.id, before).await.unwrap(), None);
        for version in &versions {
            let found = store.run_at(run.id, version.revision).await.unwrap();
            assert_eq!(found.as_ref(), Some(version), "seed {seed}");
        }
        let found = store.run_at(run.id, Revision(u64::MAX)).await.unwrap();
        assert_eq!(found.as_ref(), versions.last());
    }
}

pub(super) async fn logs_are_dense(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    let run = start(store, 1, &machine.id).await;
    let chunks: Vec<_> = (0..25).map(|offset| samples::chunk(run.id, offset)).collect();
    for part in chunks.chunks(7) {
        store.commit(Batch { logs: part.to_vec(), ..Batch::default() }).await.unwrap();
        let again = Batch { logs: vec![part[0].clone()], ..Batch::default() };
        let refused = store.commit(again).await;
        assert!(matches!(refused, Err(StoreError::Conflict { kind: "log of run", .. })));
    }
    for (from, limit) in [(0, 100), (0, 3), (10, 10), (24, 5), (25, 5), (0, 0), (u64::MAX, 1)] {
        let read = store.logs(run.id, from, limit).await.unwrap();
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let expected: Vec<_> = chunks.iter().skip(skip).take(limit).collect();
        assert_eq!(read.iter().map(|chunk| &**chunk).collect::<Vec<_>>(), expected);
    }
    let head = store.log_head(run.id).await.unwrap();
    let mut step_bytes = BTreeMap::<String, u64>::new();
    for chunk in &chunks {
        *step_bytes.entry(chunk.step.clone()).or_default() += chunk.text.len() as u64;
    }
    assert_eq!((head.chunks, head.step_bytes), (25, step_bytes));
    assert_eq!(store.log_head(samples::run_id(9)).await.unwrap(), LogHead::default());
    // Neither output nor its counting changes the record.
    assert_eq!(store.run(run.id).await.unwrap(), Some(run.clone()));
    // The first chunks may come with the run itself.
    end(&fresh, &run, T0).await;
    let second = samples::run(2, &machine.id);
    let mut with_run = batch([run_write(None, &second)]);
    with_run.logs = vec![samples::chunk(second.id, 0), samples::chunk(second.id, 1)];
    store.commit(with_run).await.unwrap();
    assert_eq!(store.logs(second.id, 0, 9).await.unwrap().len(), 2);
}

pub(super) async fn plans_are_kept_once(fresh: Fresh) {
    let store = &*fresh.store;
    let pin = |text: &str| {
        let plan = PinnedPlan { digest: "digest".to_owned(), text: text.into() };
        Batch { plan: Some(plan), ..Batch::default() }
    };
    assert_eq!(store.plan("digest").await.unwrap(), None);
    store.commit(pin("first")).await.unwrap();
    store.commit(pin("second")).await.unwrap();
    assert_eq!(store.plan("digest").await.unwrap().as_deref(), Some("first"));
}

pub(super) async fn a_reused_id_continues_from_its_epoch(fresh: Fresh) {
    let mut store = fresh.store;
    let first = register(&*store, 1).await;
    let seventh = Machine { epoch: Epoch(7), ..(*first).clone() };
    let first = put_machine(&*store, Some(&first), &seventh).await;
    let entry = Entry::new(EntryKind::MachineDeleted, Actor::operator("olga"));
    let deletion = Write::deletion(first.clone(), vec![entry.clone()]);
    store.commit(batch([deletion])).await.unwrap();
    let history = store.history(Subject::Machine(first.id.clone()), None, 100).await.unwrap();
    assert_eq!(history.last().unwrap().entry, entry);
    let changes = store.changes(first.revision, 100).await.unwrap();
    let [change] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(change.entries[..], [entry]);
    let images = Images { before: Some(first.clone()), after: None };
    assert_eq!(change.images(), Some(&images));
    if let Some(reopen) = &fresh.reopen {
        store = reopen(store);
    }
    let anew = |epoch| Machine { epoch: Epoch(epoch), revision: Revision(0), ..(*first).clone() };
    let refused = store.commit(batch([machine_write(None, &anew(6))])).await;
    assert!(
        matches!(refused, Err(StoreError::Fenced { held: Epoch(6), current: Epoch(7), .. })),
        "{refused:?}"
    );
    assert_eq!(store.machine(&first.id).await.unwrap(), None);
    let second = put_machine(&*store, None, &anew(7)).await;
    assert_eq!((second.epoch, second.ordinal), (Epoch(7), first.ordinal + 1));
    // Other ids start where they like.
    put_machine(&*store, None, &samples::machine(2)).await;
}

pub(super) async fn everything_survives_reopening(fresh: Fresh) {
    let Some(reopen) = fresh.reopen else { return };
    let store = fresh.store;
    let machine = register(&*store, 1).await;
    let deleted = register(&*store, 2).await;
    let mut run = start(&*store, 1, &machine.id).await;
    for mark in ["a", "b", "c"] {
        run = put_run(&*store, &run, &marked(&run, mark)).await;
    }
    let last = Batch {
        writes: vec![deletion(&deleted)],
        request: Some(request("used", run.id)),
        plan: Some(PinnedPlan { digest: "digest".to_owned(), text: "text".into() }),
        logs: vec![samples::chunk(run.id, 0)],
        ..Batch::default()
    };
    store.commit(last).await.unwrap();
    let before = everything(&*store, &run).await;
    let store = reopen(store);
    assert_eq!(everything(&*store, &run).await, before);
    let again = Batch { request: Some(request("used", "y")), ..Batch::default() };
    assert_eq!(outcome(&store.commit(again).await), "request used");
    let next = register(&*store, 3).await;
    assert_eq!(next.ordinal, 3, "the ordinal of a deleted machine is not given again");
    assert_eq!(next.revision, Revision(8), "revisions go on");
}

async fn everything(store: &dyn Store, run: &Run) -> String {
    format!(
        "{:#?}",
        (
            all_machines(store).await,
            all_runs(store).await,
            store.changes(Revision(0), 1000).await.unwrap(),
            store.history(Subject::Machine(run.machine_id.clone()), None, 1000).await.unwrap(),
            store.logs(run.id, 0, 1000).await.unwrap(),
            store.request("StartRun/machine-1", "used").await.unwrap(),
            store.plan("digest").await.unwrap(),
            store.revisions().await.unwrap(),
        )
    )
}
