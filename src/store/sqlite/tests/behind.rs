//! Runs whose rows are behind their changes.

use super::*;
use crate::lifecycle::run::State;
use crate::store::sqlite::fold::BEHIND_MAX;

/// Changes an active run so that its indexed columns stay as they are.
async fn touch(store: &SqliteStore, before: Arc<Run>, attempt: u32) -> Arc<Run> {
    let mut after = (*before).clone();
    after.steps[1].attempt = attempt;
    after.current_step = Some(1);
    let entries = vec![Entry::new(EntryKind::StepRetrying, Actor::engine()).step("repave")];
    let committed = store.commit(Batch::of(Write::new(Some(before), after, entries))).await;
    committed.unwrap().run().unwrap().clone()
}

/// Revision of the row of the only run, and what the view says of the run.
fn row(dir: &Path) -> (u64, u64, String) {
    let conn = Connection::open(dir.join(DATABASE_FILE)).unwrap();
    let sql = "SELECT r.revision, l.revision, l.step FROM runs r JOIN run_list l ON l.id = r.id";
    let row = |row: &rusqlite::Row<'_>| {
        Ok((error::uint(row.get(0)?), error::uint(row.get(1)?), row.get(2)?))
    };
    conn.query_row(sql, [], row).unwrap()
}

#[tokio::test]
async fn a_run_is_read_as_it_is_however_far_its_row_is_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    populate(&store).await;
    let id = samples::run_id(1);
    let mut run = store.run(id).await.unwrap().unwrap();
    let written = run.revision.0;
    for attempt in 1..=BEHIND_MAX + 2 {
        let before = run.clone();
        run = touch(&store, run, attempt).await;
        let behind =
            if attempt <= BEHIND_MAX { written } else { written + 1 + u64::from(BEHIND_MAX) };
        assert_eq!(row(dir.path()), (behind, run.revision.0, "repave".to_owned()));
        assert_eq!(store.run(id).await.unwrap(), Some(run.clone()));
        assert_eq!(store.run_at(id, before.revision).await.unwrap(), Some(before));
        let query = Query { limit: 9, active_only: true, ..Query::default() };
        assert_eq!(store.runs(query).await.unwrap().items, std::slice::from_ref(&run));
    }
    // What the writer remembers of it is gone.
    drop(store);
    store = open(dir.path()).unwrap();
    assert_eq!(check(dir.path()).unwrap().problems, Vec::<String>::new());
    let behind = store.run_at(id, Revision(written)).await.unwrap().unwrap();
    let after = Run::clone(&behind);
    let refused = store.commit(Batch::of(Write::new(Some(behind), after, Vec::new()))).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    let subject = crate::store::Subject::Machine(samples::machine(1).id);
    let history =
        store.history(subject, Some((Revision(run.revision.0 - 1), 9)), 99).await.unwrap();
    assert_eq!(history.last().map(|row| row.revision), Some(run.revision));
    // The first commit that the writer does not remember the row for writes it, and so does each change of phase.
    run = touch(&store, run, 60).await;
    assert_eq!(row(dir.path()).0, run.revision.0);
    run = touch(&store, run, 70).await;
    let mut ended = (*run).clone();
    ended.state = State::Succeeded;
    let owner = store.machine(&samples::machine(1).id).await.unwrap().unwrap();
    let mut free = (*owner).clone();
    free.active_run = None;
    let writes =
        vec![Write::new(Some(owner), free, Vec::new()), Write::new(Some(run), ended, Vec::new())];
    let committed = store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
    assert_eq!(row(dir.path()).0, committed.revision.0);
    assert_eq!(store.run(id).await.unwrap().as_ref(), committed.run());
    assert_eq!(check(dir.path()).unwrap().problems, Vec::<String>::new());
    // Its labels go with it.
    let all = Retention {
        ended_before: Timestamp(u64::MAX >> 1),
        ended_runs_max: 0,
        machine_changes_max: u64::MAX,
        requests_before: Timestamp(0),
        audit_before: Timestamp(0),
        audit_max: 9,
    };
    assert_eq!(store.trim(all).await.unwrap().runs, 1);
    assert_eq!(check(dir.path()).unwrap().problems, Vec::<String>::new());
    let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let labels = conn.query_row("SELECT count(*) FROM run_labels", [], |row| row.get::<_, i64>(0));
    assert_eq!(labels.unwrap(), 0);
}

#[tokio::test]
async fn a_damaged_change_is_damage_of_the_run_and_a_damaged_row_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    populate(&store).await;
    let id = samples::run_id(1);
    let mut run = store.run(id).await.unwrap().unwrap();
    for attempt in 1..4 {
        run = touch(&store, run, attempt).await;
    }
    drop(store);
    let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    conn.execute_batch("UPDATE runs SET body = body || ' '").unwrap();
    assert_eq!(check(dir.path()).unwrap().problems.len(), 2, "the row, and the run");
    let repaired = repair(dir.path(), &[], Timestamp(9)).unwrap();
    assert_eq!((repaired.mended.len(), repaired.unreadable.len()), (1, 0), "{repaired:?}");
    assert_eq!(check(dir.path()).unwrap().problems, Vec::<String>::new());
    let store = open(dir.path()).unwrap();
    assert_eq!(store.run(id).await.unwrap(), Some(run));
    drop(store);
    let sql =
        "UPDATE changes SET body = body || ' ' WHERE place = (SELECT max(place) FROM changes)";
    conn.execute_batch(sql).unwrap();
    drop(conn);
    let store = open(dir.path()).unwrap();
    let refused = store.run(id).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { kind: "run", .. }), "{refused:?}");
    let page = store.runs(Query { limit: 9, ..Query::default() }).await.unwrap();
    assert_eq!((page.items.len(), page.unreadable.len()), (0, 1));
    drop(store);
    let repaired = repair(dir.path(), &[], Timestamp(9)).unwrap();
    assert_eq!((repaired.mended.len(), repaired.unreadable.len()), (0, 1), "{repaired:?}");
    let repaired = repair(dir.path(), &[Dropped::Run(id)], Timestamp(9)).unwrap();
    assert_eq!((repaired.dropped.len(), repaired.unreadable.len()), (1, 0), "{repaired:?}");
    assert_eq!(check(dir.path()).unwrap().problems, Vec::<String>::new());
}
