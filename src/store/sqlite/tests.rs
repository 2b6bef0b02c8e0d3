mod behind;
mod faults;
mod flips;
mod versions;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;

use super::*;
use crate::clock::Timestamp;
use crate::clock::simulated::SimulatedClock;
use crate::model::filter::Subject;
use crate::model::scope::Scope;
use crate::model::{Actor, Entry, EntryKind};
use crate::store::{Order, Position, Write, samples};

fn open(dir: &Path) -> Result<SqliteStore, OpenError> {
    let clock = SimulatedClock::new(Timestamp(0));
    SqliteStore::open(dir, SqliteOptions { clock: Some(Arc::new(clock)), ..Default::default() })
}

fn with_machine(number: u64) -> Batch {
    let entries = vec![Entry::new(EntryKind::MachineRegistered, Actor::operator("someone"))];
    Batch::of(Write::new(None, samples::machine(number), entries))
}

async fn register(store: &SqliteStore, number: u64) -> Result<Arc<Committed>, StoreError> {
    store.commit(with_machine(number)).await
}

/// A machine with an active run, of which one step has been done.
async fn populate(store: &SqliteStore) {
    let run = samples::run(1, &samples::machine(1).id);
    let mut owner = Machine { active_run: Some(run.id), ..samples::machine(1) };
    owner.labels.insert("rack".to_owned(), "r1".to_owned());
    let entries = vec![Entry::new(EntryKind::MachineRegistered, Actor::operator("someone"))];
    let owner = Write::new(None, owner, entries);
    let entries = vec![Entry::new(EntryKind::RunCreated, Actor::engine())];
    let writes = vec![owner, Write::new(None, run, entries)];
    let committed = store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
    let before = committed.run().unwrap().clone();
    let mut after = (*before).clone();
    after.state = crate::lifecycle::run::State::Running;
    after.current_step = Some(1);
    let entries = vec![Entry::new(EntryKind::StepSucceeded, Actor::engine()).step("set-netboot")];
    store.commit(Batch::of(Write::new(Some(before), after, entries))).await.unwrap();
}

async fn machine_ids(store: &SqliteStore) -> Vec<String> {
    let query = Query { limit: 10_000, ..Query::default() };
    store.machines(query).await.unwrap().items.iter().map(|one| one.id.to_string()).collect()
}

fn edit(dir: &Path, sql: &str) {
    let conn = Connection::open(dir.join(DATABASE_FILE)).unwrap();
    conn.execute_batch(sql).unwrap();
    // As an operator would who does it on purpose; rows without checksums get them when the store is opened.
    let version = conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    if version.unwrap() == schema::VERSION {
        seal::SEALS.iter().for_each(|seal| seal.fill(&conn).unwrap());
    }
}

#[tokio::test]
async fn a_new_directory_is_for_its_owner_only() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state/bmdemo");
    let store = open(&dir).unwrap();
    register(&store, 1).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    let expected =
        format!("data directory {} is in use by another live server", dir.path().display());
    assert_eq!(refused.to_string(), expected);
    drop(first);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    populate(&open(dir.path()).unwrap()).await;
    edit(dir.path(), "PRAGMA user_version = 99; DROP VIEW history;");
    let before = std::fs::read(dir.path().join(DATABASE_FILE)).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(
        matches!(refused, OpenError::TooNew { found: 99, known: schema::VERSION, .. }),
        "{refused}"
    );
    let newest = format!("schema version 99, newer than {}", schema::VERSION);
    assert!(refused.to_string().contains(&newest), "{refused}");
    assert_eq!(std::fs::read(dir.path().join(DATABASE_FILE)).unwrap(), before);
}

#[test]
fn another_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    edit(dir.path(), "CREATE TABLE precious (x); INSERT INTO precious VALUES (1);");
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::NotOurs { .. }), "{refused}");
}

#[tokio::test]
async fn damaged_files_are_reported_when_opened() {
    type Spoil = fn(&Path);
    let spoil: [(&str, Spoil); 6] = [
        ("missing", |path| std::fs::remove_file(path).unwrap()),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("not a database", |path| std::fs::write(path, "x".repeat(9999)).unwrap()),
        ("cut", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("cut by a byte", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("overwritten", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let from = bytes.len() - 6 * 4096;
            bytes[from..from + 4096].fill(0x5a);
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (how, spoil) in spoil {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        populate(&store).await;
        for number in 2..200 {
            register(&store, number).await.unwrap();
        }
        drop(store);
        spoil(&dir.path().join(DATABASE_FILE));
        let refused = open(dir.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Corrupt { .. }), "{how}: {refused:?}");
        assert!(refused.to_string().contains("restore it from a backup"), "{refused}");
    }
}

#[tokio::test]
async fn an_unreadable_record_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    populate(&open(dir.path()).unwrap()).await;
    edit(dir.path(), r#"UPDATE runs SET body = replace(body, '"st":"running"', '"st":"dancing"')"#);
    let store = open(dir.path()).unwrap();
    let read = store.run(samples::run_id(1)).await.unwrap_err();
    let StoreError::Corrupt { kind: "run", id, message } = read else { panic!("{read:?}") };
    assert_eq!(message, r#"unknown state of a run "dancing""#);
    assert_eq!(id, samples::run_id(1).to_string());
    // Lists leave it out, and report it.
    let page = store.runs(Query { limit: 9, ..Query::default() }).await.unwrap();
    assert!(page.items.is_empty(), "{page:?}");
    let [left_out] = page.unreadable.as_slice() else { panic!("{page:?}") };
    assert_eq!((left_out.kind, &left_out.id, &left_out.message), ("run", &id, &message));
    assert_eq!(left_out.machine_id.as_ref().map(MachineId::as_str), Some("machine-1"));
    let report = check(dir.path()).unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("dancing")), "{report:?}");
    assert_eq!(report.runs, 1);
}

#[tokio::test]
async fn the_check_finds_what_does_not_fit_together() {
    let check_after = async |sql: &str| {
        let dir = tempfile::tempdir().unwrap();
        populate(&open(dir.path()).unwrap()).await;
        edit(dir.path(), sql);
        check(dir.path()).unwrap().problems.join("\n")
    };
    assert_eq!(check_after("").await, "");
    let id = samples::run_id(1);
    for (sql, expected) in [
        ("DELETE FROM machines", format!("run {id}: active on machine-1, which does not exist")),
        (
            "UPDATE machines SET phase = 'READY'",
            "machine machine-1: its columns differ from its record".to_owned(),
        ),
        (
            "UPDATE runs SET active = 0",
            format!("machine machine-1: names run {id}, active is none"),
        ),
        (
            "DELETE FROM changes WHERE place = (SELECT max(place) FROM changes)",
            format!("run {id}: its history does not lead to it"),
        ),
        (
            "DELETE FROM machine_labels",
            "machine machine-1: its label rack is not in the index".to_owned(),
        ),
        ("DELETE FROM run_labels", format!("run {id}: its label rack is not in the index")),
        (
            "INSERT INTO run_labels VALUES ('rack', 'r2', 1)",
            "1 labels in the index belong to no run".to_owned(),
        ),
        (
            "INSERT INTO machine_labels VALUES ('rack', 'r2', 1)",
            "1 labels in the index belong to no machine".to_owned(),
        ),
        (
            "UPDATE machines SET sort_key = 'x'",
            "machine machine-1: its columns differ from its record".to_owned(),
        ),
        ("UPDATE meta SET revision = 1", "changes are newer than the store".to_owned()),
        ("DELETE FROM runs", "2 changes or log chunks belong to no run".to_owned()),
        ("UPDATE changes SET entries = 'x'", "entries of revision".to_owned()),
        ("DELETE FROM meta", "no rows".to_owned()),
    ] {
        let problems = check_after(sql).await;
        assert!(problems.contains(&expected), "{sql}: {problems}");
    }
}

#[tokio::test]
async fn a_backup_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    populate(&store).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join(DATABASE_FILE);
    store.backup(&copy).unwrap();
    register(&store, 2).await.unwrap();
    let refused = store.backup(&copy).unwrap_err();
    assert!(matches!(refused, OpenError::Io { action: "create", .. }), "{refused:?}");
    assert!(check(&copy).unwrap().is_ok());

    let restored = open(elsewhere.path()).unwrap();
    assert_eq!(machine_ids(&restored).await, ["machine-1"]);
    let run = samples::run_id(1);
    assert_eq!(restored.run(run).await.unwrap(), store.run(run).await.unwrap());
    assert_eq!(restored.revisions().await.unwrap().0, Revision(2));
    assert_eq!(register(&restored, 7).await.unwrap().revision, Revision(3));
}

/// While the writer is busy, new batches wait together and share one flush; refused ones take no part.
#[tokio::test]
async fn waiting_batches_share_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    register(&store, 0).await.unwrap();
    let before = store.stats();
    let (release, hold) = channel::<()>();
    let (begun, has_begun) = channel::<()>();
    store
        .send(Work::Call(Box::new(move |_| {
            begun.send(()).unwrap();
            hold.recv_timeout(Duration::from_secs(60)).unwrap();
        })))
        .unwrap();
    has_begun.recv_timeout(Duration::from_secs(60)).unwrap();
    let mut commits: Vec<_> = (0..64).map(|number| register_boxed(&store, number)).collect();
    for commit in &mut commits {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(commit.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(store.stats().queued, 64);
    release.send(()).unwrap();
    let mut revisions = Vec::new();
    for commit in commits {
        revisions.extend(commit.await.map(|committed| committed.revision.0));
    }
    assert!(revisions.iter().copied().eq(2..=64), "all but the machine that was there");
    let after = store.stats();
    assert_eq!(after.flushes - before.flushes, 1);
    assert_eq!((after.commits - before.commits, after.refused, after.queued), (63, 1, 0));
    assert_eq!(after.groups[5], 1, "one transaction of 32 to 63 batches");
}

fn register_boxed(store: &SqliteStore, number: u64) -> Fut<'_, Arc<Committed>> {
    store.commit(with_machine(number))
}

/// What an operator sees with the `sqlite3` tool.
#[tokio::test]
async fn the_file_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    populate(&store).await;
    let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let mut text = String::new();
    for view in ["machine_list", "run_list", "history"] {
        let mut query = conn.prepare(&format!("SELECT * FROM {view}")).unwrap();
        let names: Vec<String> = query.column_names().map(Into::into).collect();
        text += &format!("{view}\n");
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for (column, name) in names.iter().enumerate() {
                let value = match row.get_ref(column).unwrap() {
                    ValueRef::Null => "-".to_owned(),
                    ValueRef::Integer(number) => number.to_string(),
                    ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                    ValueRef::Real(_) | ValueRef::Blob(_) => panic!("{name} is for people"),
                };
                text += &format!("  {name}: {value}\n");
            }
            text += "  --\n";
        }
    }
    crate::assert_golden!("store_sqlite_views", text);
}

/// Lists are served by indexes: no sort, and no scan of a table if a filter pins a column.
#[test]
fn queries_use_indexes() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let (machines, runs) = (Subject::Machine, Subject::Run);
    let after = Position::Ordinal(5);
    let of =
        |text, subject| Query { filter: Filter::parse(text, subject).unwrap(), ..Query::default() };
    let by_id = |text, subject| Query { order: Order::Id, ..of(text, subject) };
    let (scope, after_run) = (Scope::parse("rack=r1").unwrap(), after.clone());
    let mut lists = vec![
        (
            Query { after: Some(after.clone()), ..of("phase = READY", machines) },
            machines,
            "machines_phase",
        ),
        (Query { descending: true, ..of("provider = x", machines) }, machines, "machines_provider"),
        (of("labels.rack = r1", machines), machines, "PRIMARY KEY (key=? AND value=?)"),
        (
            Query { after: Some(after.clone()), ..of("labels.rack = r1", machines) },
            machines,
            "PRIMARY KEY (key=? AND value=? AND machine>?)",
        ),
        (of("machine_id = x", machines), machines, "sqlite_autoindex_machines_1"),
        (by_id("", machines), machines, "machines_sort_key"),
        (
            Query {
                after: Some(Position::Id("m-1".to_owned())),
                descending: true,
                ..by_id("", machines)
            },
            machines,
            "machines_sort_key (sort_key<?)",
        ),
        (Query { active_only: true, after: Some(after), ..of("", runs) }, runs, "runs_active"),
        (of("machine_id = x", runs), runs, "runs_machine"),
        (of("labels.rack = r1", runs), runs, "PRIMARY KEY (key=? AND value=?)"),
        (
            Query { after: Some(after_run), filter: scope.filter().clone(), ..Query::default() },
            runs,
            "PRIMARY KEY (key=? AND value=? AND run>?)",
        ),
        (of("plan_id = x", runs), runs, "runs_plan"),
        (of("type = RMA", runs), runs, "runs_type"),
        (of("phase = RUNNING", runs), runs, "runs_phase"),
        (by_id("", runs), runs, "sqlite_autoindex_runs_1"),
    ];
    for (query, subject, index) in lists.drain(..) {
        let plan = list::explain(&conn, &query, subject).unwrap();
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
    }
    // Few rows are sorted.
    let plan = list::explain(&conn, &by_id("labels.rack = r1", machines), machines).unwrap();
    assert!(plan.contains("PRIMARY KEY (key=? AND value=?)"), "{plan}");
    for (sql, index) in [
        ("SELECT id FROM runs WHERE machine_id = 'x' AND active = 1", "runs_owner"),
        ("SELECT place FROM changes WHERE run IS NULL ORDER BY place LIMIT 9", "changes_run"),
        ("SELECT body FROM changes WHERE run = 1 AND place <= 9 ORDER BY place", "changes_run"),
        (
            "SELECT body FROM changes WHERE machine_id = 'x' AND run IS NULL AND place <= 9 ORDER BY place DESC",
            "changes_machine",
        ),
        (
            "SELECT ordinal FROM runs WHERE active = 0 ORDER BY ended_at, ordinal LIMIT 9",
            "runs_ended",
        ),
    ] {
        let mut query = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> =
            query.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let plan = plan.join("; ");
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}

/// Without this, the log of a server that is never idle would grow forever.
#[tokio::test]
async fn a_long_log_is_checkpointed_and_reset_during_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    populate(&store).await;
    let run = samples::run(1, &samples::machine(1).id).id;
    let text = "x".repeat(60 << 10);
    let log_bytes =
        || std::fs::metadata(dir.path().join(format!("{DATABASE_FILE}-wal"))).unwrap().len();
    let mut offset = 0;
    let mut written = 0;
    while store.stats().checkpoints < 3 {
        let chunk = LogChunk { text: text.clone(), ..samples::chunk(run, offset) };
        store.commit(Batch { logs: vec![chunk], ..Batch::default() }).await.unwrap();
        offset += 1;
        written += text.len() as u64;
        assert!(written < 1 << 30, "the log is {} bytes long and is not copied", log_bytes());
    }
    assert!(log_bytes() < written / 2, "{} of {written} bytes", log_bytes());
    let last = store.logs(run, offset - 1, 10).await.unwrap();
    assert_eq!(last.len(), 1);
    drop(store);
    assert!(check(dir.path()).unwrap().is_ok());
}
