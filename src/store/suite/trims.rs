//! Retention.

use super::*;
use crate::store::{PinnedPlan, Retention, Subject, TRIM_ROWS_MAX, Trimmed};

/// A policy that deletes nothing.
pub(super) const KEEP: Retention = Retention {
    ended_before: Timestamp(0),
    ended_runs_max: u64::MAX,
    machine_changes_max: u64::MAX,
    requests_before: Timestamp(0),
    audit_before: Timestamp(0),
    audit_max: u64::MAX,
};

/// An instant after every commit of a test.
const LATER: Timestamp = Timestamp(T0.0 + 1_000_000);

async fn trim_all(store: &dyn Store, retention: Retention) -> Trimmed {
    let mut sum = Trimmed::default();
    loop {
        let trimmed = store.trim(retention).await.unwrap();
        if trimmed == Trimmed::default() {
            return sum;
        }
        sum.runs += trimmed.runs;
        sum.changes += trimmed.changes;
        sum.requests += trimmed.requests;
    }
}

pub(super) async fn an_active_run_loses_nothing(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    let mut run = start(store, 1, &machine.id).await;
    let mut versions = vec![run.clone()];
    for mark in ["a", "b", "c"] {
        run = put_run(store, &run, &marked(&run, mark)).await;
        versions.push(run.clone());
    }
    let plan = PinnedPlan { digest: run.spec.plan_digest.clone(), text: "text".into() };
    let more = Batch {
        logs: vec![samples::chunk(run.id, 0)],
        request: Some(request("start", run.id)),
        plan: Some(plan),
        ..Batch::default()
    };
    store.commit(more).await.unwrap();
    let everything =
        Retention { ended_before: LATER, ended_runs_max: 0, requests_before: LATER, ..KEEP };
    let history = store.history(Subject::Run(run.id), None, 99).await.unwrap();
    trim_all(store, everything).await;
    assert_eq!(store.run(run.id).await.unwrap().as_ref(), Some(&run));
    for version in &versions {
        let found = store.run_at(run.id, version.revision).await.unwrap();
        assert_eq!(found.as_ref(), Some(version));
    }
    assert_eq!(store.history(Subject::Run(run.id), None, 99).await.unwrap(), history);
    assert_eq!(store.logs(run.id, 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.plan(&run.spec.plan_digest).await.unwrap().as_deref(), Some("text"));
    assert!(store.request("StartRun/machine-1", "start").await.unwrap().is_some());

    end(&fresh, &run, T0).await;
    trim_all(store, everything).await;
    assert_eq!(store.run(run.id).await.unwrap(), None);
    assert_eq!(store.run_at(run.id, Revision(u64::MAX)).await.unwrap(), None);
    assert_eq!(store.history(Subject::Run(run.id), None, 99).await.unwrap(), []);
    assert_eq!(store.history(Subject::Machine(machine.id.clone()), None, 99).await.unwrap(), []);
    assert_eq!(store.logs(run.id, 0, 9).await.unwrap(), []);
    assert_eq!(store.plan(&run.spec.plan_digest).await.unwrap(), None);
    assert_eq!(store.request("StartRun/machine-1", "start").await.unwrap(), None);
    assert!(store.machine(&machine.id).await.unwrap().is_some(), "machines are never forgotten");
}

/// `count` runs, one after the other on one machine, each ending a second after the one before.
async fn ended_runs(fresh: &Fresh, count: u64) -> Vec<Arc<Run>> {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    let mut runs = Vec::new();
    for number in 1..=count {
        let run = start(store, number, &machine.id).await;
        let run = put_run(store, &run, &marked(&run, "on its way")).await;
        runs.push(end(fresh, &run, T0.plus_ms(number * 1000)).await);
    }
    runs
}

async fn kept(store: &dyn Store) -> Vec<u64> {
    all_runs(store).await.iter().map(|run| run.ordinal).collect()
}

pub(super) async fn ended_runs_go_by_age(fresh: Fresh) {
    let store = &*fresh.store;
    ended_runs(&fresh, 10).await;
    let policy = Retention { ended_before: T0.plus_ms(4000), ..KEEP };
    let trimmed = trim_all(store, policy).await;
    assert_eq!(kept(store).await, [4, 5, 6, 7, 8, 9, 10], "what ended at the instant stays");
    // Of the machine: registered, ten starts, and three ends before the instant. Of the three runs three each. A
    // change earlier in the order of revisions but with a later time keeps later ones from being deleted.
    assert_eq!(trimmed.runs, 3);
    assert_eq!(trim_all(store, policy).await, Trimmed::default());
    assert_eq!(trim_all(store, KEEP).await, Trimmed::default());
}

pub(super) async fn ended_runs_go_by_number(fresh: Fresh) {
    let store = &*fresh.store;
    let runs = ended_runs(&fresh, 10).await;
    let active = start(store, 11, &runs[0].machine_id).await;
    let (newest, _) = store.revisions().await.unwrap();
    let trimmed = trim_all(store, Retention { ended_runs_max: 4, ..KEEP }).await;
    assert_eq!((trimmed.runs, trimmed.changes), (6, 18));
    assert_eq!(kept(store).await, [7, 8, 9, 10, 11], "active runs do not count");
    let (now, oldest) = store.revisions().await.unwrap();
    assert_eq!((now, oldest), (newest, runs[5].revision));
    trim_all(store, Retention { ended_runs_max: 0, ..KEEP }).await;
    assert_eq!(kept(store).await, [active.ordinal]);
}

fn labelled(machine: &Machine, number: u64) -> Machine {
    Machine { labels: [("n".to_owned(), number.to_string())].into(), ..machine.clone() }
}

/// The oldest changes of machines go, whatever their age; those of runs do not count, and every machine stays as it is.
pub(super) async fn changes_of_machines_go_by_number(fresh: Fresh) {
    let store = &*fresh.store;
    let many = TRIM_ROWS_MAX as u64 + 20;
    let mut machine = register(store, 1).await;
    let run = start(store, 1, &register(store, 2).await.id).await;
    for number in 0..many {
        machine = put_machine(store, Some(&machine), &labelled(&machine, number)).await;
    }
    let policy = Retention { machine_changes_max: 5, ..KEEP };
    let whole = store.changes(Revision(0), usize::MAX).await.unwrap();
    let of_machines = whole.iter().filter(|change| change.after::<Machine>().is_some()).count();
    let trimmed = trim_all(store, policy).await;
    assert_eq!((trimmed.runs, trimmed.changes), (0, of_machines as u64 - 5));
    assert_eq!(trim_all(store, policy).await, Trimmed::default());
    let (_, oldest) = store.revisions().await.unwrap();
    let read = store.changes(oldest, usize::MAX).await.unwrap();
    assert!(read.iter().eq(whole.iter().filter(|change| change.revision > oldest)));
    assert_eq!(read.len(), 5);
    assert_eq!(store.machine(&machine.id).await.unwrap().as_ref(), Some(&machine));
    assert_eq!(store.run(run.id).await.unwrap().as_ref(), Some(&run));
    // What is written after a round counts for the next one.
    put_machine(store, Some(&machine), &labelled(&machine, many)).await;
    assert_eq!(trim_all(store, policy).await.changes, 1);
    assert_eq!(trim_all(store, Retention { machine_changes_max: 0, ..KEEP }).await.changes, 5);
    assert!(store.machine(&machine.id).await.unwrap().is_some());
}

pub(super) async fn readers_behind_the_compaction_get_an_error(fresh: Fresh) {
    let store = &*fresh.store;
    ended_runs(&fresh, 6).await;
    let whole = store.changes(Revision(0), usize::MAX).await.unwrap();
    trim_all(store, Retention { ended_runs_max: 3, ..KEEP }).await;
    let (newest, oldest) = store.revisions().await.unwrap();
    assert!(oldest > Revision(0) && oldest < newest);
    for after in 0..=newest.0 {
        let after = Revision(after);
        match store.changes(after, usize::MAX).await {
            Err(StoreError::Compacted { oldest: told }) => {
                assert!(after < oldest && told == oldest);
            }
            Ok(read) => {
                assert!(after >= oldest);
                let later = whole.iter().filter(|change| change.revision > after);
                assert!(read.iter().eq(later), "all of it, after {after}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The data left after random trimming says the same as before.
pub(super) async fn what_is_kept_is_still_true(fresh: Fresh) {
    let store = &*fresh.store;
    let mut sampler = samples::Sampler::new(5);
    let ids: Vec<_> = (1..=3).map(|number| samples::machine(number).id).collect();
    for number in 1..=3 {
        register(store, number).await;
    }
    for number in 1..=20 {
        let machine = &ids[sampler.below(3)];
        if store.machine(machine).await.unwrap().unwrap().active_run.is_some() {
            continue;
        }
        let mut run = start(store, number, machine).await;
        for _ in 0..sampler.below(4) {
            run = put_run(store, &run, &sampler.change_run(&run)).await;
        }
        if number < 18 {
            // The wall clock goes back sometimes.
            end(&fresh, &run, T0.plus_ms(5000 + number * 1000 - (number % 3) * 2500)).await;
        }
    }
    let whole = store.changes(Revision(0), usize::MAX).await.unwrap();
    let history = history_of(store, &ids).await;
    for instant in [2, 5, 9, 30] {
        trim_all(store, Retention { ended_before: T0.plus_ms(instant * 1000), ..KEEP }).await;
        let (_, oldest) = store.revisions().await.unwrap();
        let read = store.changes(oldest, usize::MAX).await.unwrap();
        assert!(read.iter().eq(whole.iter().filter(|change| change.revision > oldest)));
        assert!(history_of(store, &ids).await.iter().all(|row| history.contains(row)));
        for change in &whole {
            if let Some(machine) = change.after::<Machine>() {
                let found = store.machine_at(&machine.id, change.revision).await.unwrap();
                assert!(found.is_none_or(|found| found == *machine));
            }
            if let Some(run) = change.after::<Run>() {
                let found = store.run_at(run.id, change.revision).await.unwrap();
                let is_kept = store.run(run.id).await.unwrap().is_some();
                assert_eq!(found, is_kept.then(|| run.clone()), "a kept run has all of it");
            }
        }
    }
    assert!(all_runs(store).await.iter().all(|run| run.state.is_active()));
}

async fn history_of(store: &dyn Store, ids: &[MachineId]) -> Vec<crate::model::HistoryRow> {
    let mut rows = Vec::new();
    for id in ids {
        rows.extend(store.history(Subject::Machine(id.clone()), None, 10_000).await.unwrap());
    }
    rows
}

pub(super) async fn request_ids_go_by_age_unless_their_run_is_active(fresh: Fresh) {
    let store = &*fresh.store;
    let machine = register(store, 1).await;
    let run = start(store, 1, &machine.id).await;
    for age in 0..10_u64 {
        let object = if age % 2 == 0 { run.id.to_string() } else { "machine-1".to_owned() };
        let at = T0.plus_ms(age);
        let used = RequestRecord { at, ..request(&age.to_string(), object) };
        store.commit(Batch { request: Some(used), ..Batch::default() }).await.unwrap();
    }
    let present = async || {
        let mut present = Vec::new();
        for age in 0..10 {
            let found = store.request("StartRun/machine-1", &age.to_string()).await.unwrap();
            present.extend(found.map(|_| age));
        }
        present
    };
    let policy = Retention { requests_before: T0.plus_ms(6), ..KEEP };
    assert_eq!(trim_all(store, policy).await.requests, 3);
    assert_eq!(present().await, [0, 2, 4, 6, 7, 8, 9]);
    end(&fresh, &run, T0).await;
    assert_eq!(trim_all(store, policy).await.requests, 3);
    assert_eq!(present().await, [6, 7, 8, 9]);
    // They outlive their run.
    trim_all(store, Retention { ended_runs_max: 0, ..KEEP }).await;
    assert_eq!(present().await, [6, 7, 8, 9]);
}

pub(super) async fn trimming_is_bounded_and_comes_to_an_end(fresh: Fresh) {
    let store = &*fresh.store;
    let number = TRIM_ROWS_MAX as u64 + 44;
    for number in 1..=number {
        let machine = samples::machine(number);
        let mut run = samples::run(number, &machine.id);
        run.state = State::Failed;
        run.finished_at = Some(T0);
        let used = request(&number.to_string(), run.id);
        let batch = Batch {
            request: Some(used),
            ..batch([machine_write(None, &machine), run_write(None, &run)])
        };
        store.commit(batch).await.unwrap();
    }
    let policy = Retention { ended_before: LATER, requests_before: LATER, ..KEEP };
    let bound = TRIM_ROWS_MAX as u64;
    let first = Trimmed { runs: bound, changes: 2 * bound, requests: bound, audit: 0 };
    assert_eq!(store.trim(policy).await.unwrap(), first);
    let rest = Trimmed { runs: 44, changes: 88, requests: 44, audit: 0 };
    assert_eq!(store.trim(policy).await.unwrap(), rest);
    assert_eq!(store.trim(policy).await.unwrap(), Trimmed::default());
    let (newest, oldest) = store.revisions().await.unwrap();
    assert_eq!(newest, oldest);
    assert_eq!(store.changes(newest, 9).await.unwrap(), []);
}
