//! Pages and filters.

use super::*;
use crate::clock::SplitMix64;
use crate::lifecycle::machine::Phase;
use crate::model::RunType;
use crate::model::filter::{Filter, Subject};
use crate::store::{Order, Page, Position, SCAN_ROWS_MAX};

/// Reads all pages of a list.
async fn pages<T, F: Future<Output = Page<T>>>(
    query: &Query,
    read: impl Fn(Query) -> F,
) -> Vec<Arc<T>> {
    let mut items = Vec::new();
    let mut query = query.clone();
    loop {
        let page = read(query.clone()).await;
        assert!(page.items.len() <= query.limit);
        items.extend(page.items);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return items,
        }
    }
}

/// Machines in several phases and runs of several kinds, some active.
async fn populate(fresh: &Fresh) {
    let store = &*fresh.store;
    for number in 1..=20_u64 {
        let mut machine = samples::machine(number);
        machine.phase = Phase::ALL[usize::try_from(number % 3).unwrap()];
        machine.spec.provider = if number % 4 == 0 { "redfish" } else { "fake" }.to_owned();
        machine.labels.insert("rack".to_owned(), format!("r{}", number % 3));
        if number % 5 == 0 {
            machine.labels.insert("a \"b\".c".to_owned(), String::new());
        }
        let mut run = samples::run(number, &machine.id);
        let spec = Arc::make_mut(&mut run.spec);
        spec.run_type = RunType::ALL[usize::try_from(number % 2).unwrap()];
        spec.plan_id = format!("plan/{}", number % 5);
        let committed = store
            .commit(batch([machine_write(None, &machine), run_write(None, &run)]))
            .await
            .unwrap();
        if number % 3 != 0 {
            end(fresh, committed.run().unwrap(), T0).await;
            let again = samples::run(100 + number, &machine.id);
            let again = store
                .commit(batch([run_write(None, &again)]))
                .await
                .unwrap()
                .run()
                .unwrap()
                .clone();
            if number % 2 == 0 {
                put_run(store, &again, &marked(&again, "running")).await;
            }
        }
    }
}

pub(super) async fn pages_make_up_the_whole(fresh: Fresh) {
    let store = &*fresh.store;
    populate(&fresh).await;
    let (machines, runs) = (all_machines(store).await, all_runs(store).await);
    assert!(machines.is_sorted_by_key(|machine| machine.ordinal) && machines.len() == 20);
    assert!(runs.is_sorted_by_key(|run| run.ordinal) && runs.len() == 34);
    for limit in [1, 2, 5, 20, 34, 100] {
        for descending in [false, true] {
            let ordered = |mut items: Vec<u64>| {
                if descending {
                    items.reverse();
                }
                items
            };
            let query = Query { limit, descending, ..Query::default() };
            let paged = pages(&query, |query| async { store.machines(query).await.unwrap() }).await;
            let expected = ordered(machines.iter().map(|machine| machine.ordinal).collect());
            assert!(paged.iter().map(|machine| machine.ordinal).eq(expected));
            let paged = pages(&query, |query| async { store.runs(query).await.unwrap() }).await;
            let expected = ordered(runs.iter().map(|run| run.ordinal).collect());
            assert!(paged.iter().map(|run| run.ordinal).eq(expected));
            let query = Query { active_only: true, ..query };
            let paged = pages(&query, |query| async { store.runs(query).await.unwrap() }).await;
            let active = runs.iter().filter(|run| run.state.is_active());
            let expected = ordered(active.map(|run| run.ordinal).collect());
            assert!(paged.iter().map(|run| run.ordinal).eq(expected));
        }
    }
    let page = store.machines(Query { limit: 20, ..Query::default() }).await.unwrap();
    assert_eq!(page.next, None, "a page that ends with the list says so");
    assert_eq!(page.as_of, store.revisions().await.unwrap().0);
}

/// Objects that exist from the first page to the last are listed exactly once, whatever comes and goes in between.
pub(super) async fn pages_are_stable_under_inserts_and_deletions(fresh: Fresh) {
    let store = &*fresh.store;
    for seed in 0..8 {
        let mut random = SplitMix64::new(seed);
        let base = seed * 10_000;
        for number in 0..30 {
            register(store, base + number).await;
        }
        let first: Vec<_> = all_machines(store).await;
        let mut deleted = Vec::new();
        let mut seen = Vec::new();
        let descending = seed % 2 == 1;
        let mut query = Query { limit: 4, descending, ..Query::default() };
        let mut number = base + 100;
        loop {
            let page = store.machines(query.clone()).await.unwrap();
            seen.extend(page.items.iter().map(|machine| machine.ordinal));
            let Some(next) = page.next else { break };
            query.after = Some(next);
            register(store, number).await;
            number += 1;
            let victim = &first[usize::try_from(random.below(first.len() as u64)).unwrap()];
            if store.commit(batch([deletion(victim)])).await.is_ok() {
                deleted.push(victim.ordinal);
            }
        }
        let mut unique = seen.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), seen.len(), "nothing is listed twice");
        let kept = first.iter().map(|machine| machine.ordinal).filter(|one| !deleted.contains(one));
        for ordinal in kept {
            assert!(seen.contains(&ordinal), "{ordinal} was there all the time");
        }
        for machine in all_machines(store).await {
            store.commit(batch([deletion(&machine)])).await.unwrap();
        }
    }
}

pub(super) async fn filters_agree_with_a_scan(fresh: Fresh) {
    let store = &*fresh.store;
    populate(&fresh).await;
    let (machines, runs) = (all_machines(store).await, all_runs(store).await);
    let mut of_machines: Vec<String> = vec![
        String::new(),
        "machine_id=machine-7".into(),
        "machine_id=nobody".into(),
        "provider=redfish".into(),
        "provider=redfish AND phase=READY".into(),
        "effective_state=PROVISIONING".into(),
        "machine_id=machine-7 AND phase=READY".into(),
        "labels.rack=r1".into(),
        "labels.rack=r1 AND provider=redfish".into(),
        "labels.rack=r1 AND labels.rack=r2".into(),
        r#"labels."a \"b\".c"="" AND labels.rack=r0"#.into(),
        "labels.rack=none".into(),
    ];
    of_machines.extend(Phase::ALL.map(|phase| format!("phase={phase}")));
    for text in of_machines {
        let filter = Filter::parse(&text, Subject::Machine).unwrap();
        let expected: Vec<_> =
            machines.iter().filter(|machine| filter.matches_machine(machine)).cloned().collect();
        let count = store.count_machines(filter.clone()).await.unwrap();
        assert_eq!(count, expected.len() as u64, "{text}");
        for limit in [1, 3, 100] {
            let query = Query { filter: filter.clone(), limit, ..Query::default() };
            let found = pages(&query, |query| async { store.machines(query).await.unwrap() }).await;
            assert_eq!(found, expected, "{text} in pages of {limit}");
            let mut by_id = expected.clone();
            by_id.sort_by_key(|machine| machine.id.natural_key());
            let query = Query { order: Order::Id, ..query };
            let found = pages(&query, |query| async { store.machines(query).await.unwrap() }).await;
            assert_eq!(found, by_id, "{text} by id in pages of {limit}");
            by_id.reverse();
            let query = Query { descending: true, ..query };
            let found = pages(&query, |query| async { store.machines(query).await.unwrap() }).await;
            assert_eq!(found, by_id, "{text} by id, descending, in pages of {limit}");
        }
    }
    let mut of_runs: Vec<String> = vec![
        String::new(),
        "machine_id=machine-7".into(),
        "machine_id=nobody".into(),
        format!("run_id={}", samples::run_id(7)),
        "plan_id=plan/3".into(),
        "plan_id=plan/3 AND phase=SUCCEEDED".into(),
        "type=RMA AND phase=PENDING".into(),
        "machine_id=machine-7 AND phase=SUCCEEDED".into(),
    ];
    of_runs.extend(crate::lifecycle::run::Phase::ALL.map(|phase| format!("phase={phase}")));
    of_runs.extend(RunType::ALL.map(|kind| format!("type={}", kind.as_str())));
    for text in of_runs {
        let filter = Filter::parse(&text, Subject::Run).unwrap();
        let count = runs.iter().filter(|run| filter.matches_run(run)).count();
        assert_eq!(store.count_runs(filter.clone()).await.unwrap(), count as u64, "{text}");
        for (limit, active_only, descending) in
            [(1, false, false), (3, true, false), (100, false, true), (2, true, true)]
        {
            let matching = runs.iter().filter(|run| filter.matches_run(run));
            let mut expected: Vec<_> =
                matching.filter(|run| !active_only || run.state.is_active()).cloned().collect();
            if descending {
                expected.reverse();
            }
            let filter = filter.clone();
            let query = Query { filter, limit, active_only, descending, ..Query::default() };
            let found = pages(&query, |query| async { store.runs(query).await.unwrap() }).await;
            assert_eq!(found, expected, "{text}, {query:?}");
            expected.sort_by_key(|run| run.id);
            if descending {
                expected.reverse();
            }
            let query = Query { order: Order::Id, ..query };
            let found = pages(&query, |query| async { store.runs(query).await.unwrap() }).await;
            assert_eq!(found, expected, "{text}, {query:?}");
        }
    }
    assert_eq!(store.count_machines(Filter::default()).await.unwrap(), 20);
    assert_eq!(store.count_runs(Filter::default()).await.unwrap(), 34);
}

/// A filter that matches nothing and has no index returns after a bounded number of rows, and continues.
pub(super) async fn a_page_examines_a_bounded_number_of_rows(fresh: Fresh) {
    let store = &*fresh.store;
    let total = SCAN_ROWS_MAX + 500;
    for thousand in 0..total.div_ceil(1000) {
        let numbers = thousand * 1000..((thousand + 1) * 1000).min(total);
        let machines = numbers.map(|number| machine_write(None, &samples::machine(number as u64)));
        store.commit(batch(machines)).await.unwrap();
    }
    let filter = Filter::parse("serial=none", Subject::Machine).unwrap();
    let query = Query { filter, limit: 10, ..Query::default() };
    let page = store.machines(query.clone()).await.unwrap();
    assert_eq!(
        (page.items.len(), page.next.clone()),
        (0, Some(Position::Ordinal(SCAN_ROWS_MAX as u64)))
    );
    let page = store.machines(Query { after: page.next, ..query }).await.unwrap();
    assert_eq!((page.items.len(), page.next), (0, None));
}

/// Labels are added, changed and removed, and so are machines; the index of labels follows.
pub(super) async fn labels_are_found_as_they_are(fresh: Fresh) {
    let store = &*fresh.store;
    let with = async |text: &str| -> Vec<String> {
        let filter = Filter::parse(text, Subject::Machine).unwrap();
        let page = store.machines(Query { filter, limit: 100, ..Query::default() }).await.unwrap();
        page.items.iter().map(|machine| machine.id.to_string()).collect()
    };
    let mut machine = samples::machine(1);
    machine.labels.insert("rack".to_owned(), "r1".to_owned());
    let stored = put_machine(store, None, &machine).await;
    assert_eq!(with("labels.rack=r1").await, ["machine-1"]);
    let mut moved = (*stored).clone();
    moved.labels.insert("rack".to_owned(), "r2".to_owned());
    moved.labels.insert("gpu".to_owned(), "yes".to_owned());
    let stored = put_machine(store, Some(&stored), &moved).await;
    assert_eq!(with("labels.rack=r1").await, [""; 0]);
    assert_eq!(with("labels.rack=r2 AND labels.gpu=yes").await, ["machine-1"]);
    let mut bare = (*stored).clone();
    bare.labels.clear();
    let stored = put_machine(store, Some(&stored), &bare).await;
    assert_eq!(with("labels.rack=r2").await, [""; 0]);
    let mut back = (*stored).clone();
    back.labels.insert("rack".to_owned(), "r1".to_owned());
    let stored = put_machine(store, Some(&stored), &back).await;
    store.commit(batch([deletion(&stored)])).await.unwrap();
    assert_eq!(with("labels.rack=r1").await, [""; 0]);
    put_machine(store, None, &Machine { epoch: stored.epoch, ..machine }).await;
    assert_eq!(with("labels.rack=r1").await, ["machine-1"]);
}
