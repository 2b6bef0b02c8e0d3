//! Flipped bits, and rows that were edited on purpose.

use std::path::PathBuf;

use super::*;
use crate::ids::Epoch;
use crate::store::{LockMove, PinnedPlan, SlotKey, SlotMove, Subject as Whose};

/// Tables whose rows are flipped.
const TABLES: [&str; 16] = [
    "machines",
    "runs",
    "changes",
    "logs",
    "requests",
    "plans",
    "slots",
    "gone",
    "meta",
    "machine_labels",
    "run_labels",
    "machine_macs",
    "installations",
    "cursors",
    "brakes",
    "audit",
];

/// A store with rows in every table, closed.
async fn filled(dir: &Path) -> PathBuf {
    let store = open(dir).unwrap();
    populate(&store).await;
    let run = samples::run_id(1);
    let key = SlotKey::new("provider/fake");
    let take = SlotMove::Take { run, keys: vec![(key, 9)] };
    let request = RequestRecord {
        scope: "StartRun/machine-1".to_owned(),
        request_id: "a request".to_owned(),
        body_digest: "00ff".to_owned(),
        object_id: run.to_string(),
        at: Timestamp(7),
        revision: Revision(0),
    };
    let plan = PinnedPlan { digest: "digest".to_owned(), text: "text".into() };
    let batch = Batch {
        id: BatchId(77),
        logs: vec![samples::chunk(run, 0), samples::chunk(run, 1)],
        slots: vec![take],
        request: Some(request),
        plan: Some(plan),
        installations: vec![(samples::machine(1).id, samples::installation())],
        cursors: vec![samples::cursor_move(None, 7)],
        locks: vec![LockMove::Put(samples::lock("stop-1")), samples::tally(true, 3)],
        audit: vec![samples::audit_entry(1), samples::audit_entry(2)],
        ..Batch::default()
    };
    store.commit(batch).await.unwrap();
    let committed = register(&store, 2).await.unwrap();
    let gone = committed.machine().unwrap().clone();
    store.commit(Batch::of(Write::deletion(gone, Vec::new()))).await.unwrap();
    drop(store);
    assert_eq!(check(dir).unwrap().problems, Vec::<String>::new());
    dir.join(DATABASE_FILE)
}

/// Every value of every row.
fn content(path: &Path) -> Vec<rusqlite::types::Value> {
    let conn = Connection::open(path).unwrap();
    let mut values = Vec::new();
    for table in TABLES {
        let mut query = conn.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = query.column_count();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            values.extend((0..columns).map(|column| row.get_unwrap(column)));
        }
    }
    values
}

fn big(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

/// A number of SQLite's variable length, and where it ends.
fn varint(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let mut number = 0;
    loop {
        number = (number << 7) | usize::from(bytes[at] & 0x7f);
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            return (number, at);
        }
    }
}

/// The positions of a b-tree's rows in the file, without overflow pages.
fn rows(bytes: &[u8], root: usize, found: &mut Vec<std::ops::Range<usize>>) {
    const PAGE: usize = 4096;
    let page = (root - 1) * PAGE;
    let (kind, cells) = (bytes[page], big(bytes, page + 3, 2));
    let is_interior = matches!(kind, 2 | 5);
    let pointers = page + if is_interior { 12 } else { 8 };
    for cell in 0..cells {
        let start = page + big(bytes, pointers + 2 * cell, 2);
        if is_interior {
            rows(bytes, big(bytes, start, 4), found);
        }
        if kind != 5 {
            let (len, at) = varint(bytes, if is_interior { start + 4 } else { start });
            let payload = if kind == 13 { varint(bytes, at).1 } else { at };
            found.push(start..(payload + len).min(page + PAGE));
        }
    }
    if is_interior {
        rows(bytes, big(bytes, page + 8, 4), found);
    }
}

/// In every table every row, some of its bits: equally many for each table.
#[tokio::test]
async fn a_flipped_bit_is_noticed() {
    let flips_of_each = if std::env::var_os("BMDEMO_PROOF").is_some() { 20_000 } else { 60 };
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    let bytes = std::fs::read(&path).unwrap();
    let before = content(&path);
    let mut flipped = 0;
    for table in TABLES {
        let conn = Connection::open(&path).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        let root: u32 = conn.query_row(sql, [table], |row| row.get(0)).unwrap();
        drop(conn);
        let mut cells = Vec::new();
        rows(&bytes, usize::try_from(root).unwrap(), &mut cells);
        assert!(!cells.is_empty(), "{table} has no rows");
        let bits: Vec<usize> =
            cells.into_iter().flat_map(|cell| cell.start * 8..cell.end * 8).collect();
        // A stride that visits every bit of a byte in turn.
        let stride = (bits.len() / flips_of_each).max(1) | 1;
        for bit in bits.into_iter().step_by(stride) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            // SQLite itself ignores a few bits, such as those of a key that it keeps elsewhere.
            let noticed = check(dir.path()).map_or(true, |report| !report.is_ok())
                || content(&path) == before;
            assert!(noticed, "{table}: bit {} of byte {}", bit % 8, bit / 8);
            flipped += 1;
        }
    }
    std::fs::write(&path, &bytes).unwrap();
    assert!(check(dir.path()).unwrap().is_ok());
    assert!(flipped >= 600, "{flipped}");
}

/// A record that is read alone is verified alone: an altered one is not shown.
#[tokio::test]
async fn what_was_not_written_so_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    conn.execute_batch(
        "UPDATE machines SET body = replace(body, '\"machine-1\"', '\"machine-9\"');
        UPDATE runs SET body = replace(body, '\"created\":', '\"created\":1');
        UPDATE changes SET entries = entries || ' ';
        UPDATE logs SET text = text || '.';
        UPDATE requests SET object_id = replace(object_id, '0', '1');
        UPDATE plans SET text = 'other';
        UPDATE gone SET epoch = 5;",
    )
    .unwrap();
    drop(conn);
    let store = open(dir.path()).unwrap();
    fn refused<T: std::fmt::Debug>(read: Result<T, StoreError>) {
        let StoreError::Corrupt { message, .. } = read.unwrap_err() else { panic!("not corrupt") };
        assert!(message.contains("checksum does not match"), "{message}");
    }
    let (machine, run) = (samples::machine(1).id, samples::run_id(1));
    refused(store.machine(&machine).await);
    refused(store.run(run).await);
    refused(store.history(Whose::Run(run), None, 9).await);
    refused(store.changes(Revision(0), 9).await);
    refused(store.logs(run, 0, 9).await);
    refused(store.request("StartRun/machine-1", "a request").await);
    refused(store.plan("digest").await);
    refused(register(&store, 2).await);
}

/// A value of another type is damage of its record only: it is not taken for an unavailable store, and can be
/// dropped.
#[tokio::test]
async fn a_revision_that_is_no_number_keeps_nothing_else_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let sql = "UPDATE machines SET revision = 'x'; UPDATE runs SET revision = 'x';";
    conn.execute_batch(sql).unwrap();
    drop(conn);
    let store = open(dir.path()).unwrap();
    register(&store, 3).await.unwrap();
    let all = Query { limit: 9, active_only: true, ..Query::default() };
    let machines = store.machines(all.clone()).await.unwrap();
    assert_eq!((machines.items.len(), machines.unreadable.len()), (1, 1));
    let runs = store.runs(all).await.unwrap();
    assert_eq!((runs.items.len(), runs.unreadable.len()), (0, 1));
    drop(store);
    let (machine, run) = (samples::machine(1).id, samples::run_id(1));
    let dropped = [Dropped::Run(run), Dropped::Machine(machine)];
    let repaired = repair(dir.path(), &dropped, Timestamp(9)).unwrap();
    assert_eq!((repaired.dropped.len(), repaired.unreadable), (2, Vec::new()));
    assert_eq!(check(dir.path()).unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn an_edit_on_purpose_is_accepted_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    conn.execute_batch("UPDATE gone SET epoch = 40; UPDATE plans SET text = 'other';").unwrap();
    drop(conn);
    let problems = check(dir.path()).unwrap().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().any(|problem| problem.starts_with("gone/machine-2: ")), "{problems:?}");
    let names = ["gone/machine-2".to_owned(), "machines/machine-1".to_owned()];
    assert_eq!(accept(dir.path(), &names).unwrap(), ["gone/machine-2"]);
    let problems = check(dir.path()).unwrap().problems;
    assert_eq!(problems.len(), 1, "only what was named: {problems:?}");
    let store = open(dir.path()).unwrap();
    let refused = accept(dir.path(), &names).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    let refused = register(&store, 2).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { current: Epoch(40), .. }), "{refused:?}");
}
