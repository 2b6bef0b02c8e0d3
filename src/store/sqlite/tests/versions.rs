//! Files written by older versions.

use rusqlite::params;

use super::*;
use crate::store::sqlite::schema::{APPLICATION_ID, MIGRATIONS, VERSION};

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    populate(&store).await;
    let run = samples::run(1, &samples::machine(1).id).id;
    let asked = RequestRecord {
        scope: "default".to_owned(),
        request_id: "asked-1".to_owned(),
        body_digest: "digest".to_owned(),
        object_id: run.to_string(),
        at: Timestamp(0),
        revision: Revision(0),
    };
    let printed = Batch {
        logs: (0..3).map(|offset| samples::chunk(run, offset)).collect(),
        request: Some(asked.clone()),
        ..Batch::default()
    };
    store.commit(printed).await.unwrap();
    let used = store.request(&asked.scope, &asked.request_id).await.unwrap();
    let logs = store.logs(run, 0, 1_000).await.unwrap();
    assert_eq!(logs.len(), 3);
    drop(store);
    // Back to the first version, with its form of log chunks.
    edit(
        dir.path(),
        "CREATE TABLE old (run INTEGER NOT NULL, chunk INTEGER NOT NULL, at INTEGER NOT NULL, step TEXT NOT NULL,
            attempt INTEGER NOT NULL, stream TEXT NOT NULL, truncated INTEGER NOT NULL, text TEXT NOT NULL,
            PRIMARY KEY (run, chunk)) WITHOUT ROWID;
        INSERT INTO old SELECT run, chunk, at, step, attempt, stream, truncated, text FROM logs;
        DROP VIEW audit_list; DROP TABLE audit; DROP TABLE audit_anchor; DROP TABLE installations; DROP TABLE cursors;
        DROP TABLE brakes;
        DROP TABLE observed; DROP TABLE slots; ALTER TABLE meta DROP COLUMN outcomes; ALTER TABLE changes DROP COLUMN prior;
        ALTER TABLE meta DROP COLUMN epoch_floor;
        ALTER TABLE machines DROP COLUMN sum; ALTER TABLE runs DROP COLUMN sum; ALTER TABLE plans DROP COLUMN sum;
        ALTER TABLE changes DROP COLUMN sum; ALTER TABLE changes DROP COLUMN body_sum;
        ALTER TABLE changes DROP COLUMN prior_sum; ALTER TABLE meta DROP COLUMN sum;
        ALTER TABLE meta DROP COLUMN outcomes_sum;
        DROP TABLE logs; DROP TABLE gone; DROP TABLE machine_macs; ALTER TABLE old RENAME TO logs;
        CREATE TABLE old (scope TEXT NOT NULL, request_id TEXT NOT NULL, body_digest TEXT NOT NULL,
            object_id TEXT NOT NULL, at INTEGER NOT NULL, revision INTEGER NOT NULL,
            PRIMARY KEY (scope, request_id)) WITHOUT ROWID;
        INSERT INTO old SELECT scope, request_id, body_digest, object_id, at, revision FROM requests;
        DROP TABLE requests; ALTER TABLE old RENAME TO requests;
        CREATE INDEX requests_at ON requests (at);
        DROP TABLE machine_labels;
        DROP TABLE run_labels; UPDATE runs SET body = json_remove(body, '$.labels');
        UPDATE changes SET body = json_remove(body, '$.h.labels') WHERE run IS NOT NULL; DROP INDEX machines_sort_key; ALTER TABLE machines DROP COLUMN sort_key;
        PRAGMA user_version = 1;",
    );
    let store = open(dir.path()).unwrap();
    assert!(check(dir.path()).unwrap().is_ok());
    let filter = Filter::parse("labels.rack = r1", Subject::Machine).unwrap();
    let labelled = Query { filter, order: Order::Id, limit: 9, ..Query::default() };
    assert_eq!(store.machines(labelled).await.unwrap().items.len(), 1);
    assert_eq!(store.logs(run, 0, 1_000).await.unwrap(), logs);
    assert_eq!(store.logs(run, 1, 1).await.unwrap(), logs[1..2]);
    assert!(used.is_some());
    assert_eq!(store.request(&asked.scope, &asked.request_id).await.unwrap(), used);
    let again = Batch { request: Some(asked), ..Batch::default() };
    let refused = store.commit(again).await;
    assert!(matches!(refused, Err(StoreError::RequestUsed { .. })), "{refused:?}");
    let mut copy = samples::machine(77);
    copy.spec = samples::machine(1).spec;
    let copy = Batch { writes: vec![Write::new(None, copy, Vec::new())], ..Batch::default() };
    let refused = store.commit(copy).await;
    assert!(matches!(refused, Err(StoreError::MacTaken { .. })), "{refused:?}");
}

/// Every version since the first, including the released ones.
#[tokio::test]
async fn a_file_of_every_version_opens() {
    for (version, _) in (1..VERSION).zip(MIGRATIONS) {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        for migration in MIGRATIONS.iter().take(usize::try_from(version).unwrap()) {
            conn.execute_batch(migration.sql).unwrap();
            if let Some(fill) = migration.fill {
                fill(&conn).unwrap();
            }
        }
        conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        conn.pragma_update(None, "user_version", version).unwrap();
        let mut machine = samples::machine(1);
        machine.spec.mac_addresses.clear();
        let body = crate::store::codec::encode_machine(&machine);
        conn.execute(
            "INSERT INTO machines (ordinal, id, provider, phase, epoch, revision, created_at, updated_at, body)
            VALUES (1, ?1, ?2, ?3, ?4, 1, ?5, ?6, ?7)",
            params![
                machine.id.as_str(),
                machine.spec.provider,
                machine.phase.as_str(),
                error::int(machine.epoch.0),
                error::ms(machine.created_at),
                error::ms(machine.updated_at),
                body
            ],
        )
        .unwrap();
        if version >= 5 {
            let key = machine.id.natural_key();
            conn.execute("UPDATE machines SET sort_key = ?1", [key]).unwrap();
            for (key, value) in &machine.labels {
                let sql = "INSERT INTO machine_labels (key, value, machine) VALUES (?1, ?2, 1)";
                conn.execute(sql, [key, value]).unwrap();
            }
        }
        conn.execute("UPDATE meta SET revision = 1, machine_ordinal = 1", []).unwrap();
        // From version 9 on rows have checksums when they are written.
        if version >= 9 {
            let count = match version {
                16.. => seal::SEALS.len(),
                13.. => schema::SEALS_OF_9 + 2,
                12 => schema::SEALS_OF_9 + 1,
                _ => schema::SEALS_OF_9,
            };
            seal::SEALS[..count].iter().for_each(|seal| seal.fill(&conn).unwrap());
        }
        drop(conn);
        let before = check(dir.path()).unwrap();
        assert!(before.problems[0].contains("older than this version"), "{before:?}");
        let store = open(dir.path()).unwrap();
        let read = store.machine(&machine.id).await.unwrap().unwrap();
        assert_eq!((&read.id, &read.spec), (&machine.id, &machine.spec), "version {version}");
        drop(store);
        assert_eq!(check(dir.path()).unwrap().problems, Vec::<String>::new(), "version {version}");
    }
}
