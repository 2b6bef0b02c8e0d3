//! The store in PostgreSQL, beyond the contract of every store: connections that are lost, servers that compete, a
//! database that fails or comes back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::connection::{Conn, Purpose, Snapshot};
use super::testing::{Cluster, database, shared};
use super::{Host, OpenError, PostgresOptions, PostgresStore};
use crate::clock::{Clock, Sleep, SystemClock, Timestamp};
use crate::ids::{BatchId, Revision};
use crate::store::{
    Availability, Batch, Committed, Listener, Outcome, Query, Store, StoreError, Write, samples,
};

fn options(cluster: &Cluster) -> PostgresOptions {
    database(cluster, Arc::new(SystemClock::new()))
}

fn register(number: u64) -> Batch {
    let write = Write::new(None, samples::machine(number), Vec::new());
    Batch { id: BatchId(number), ..Batch::of(write) }
}

async fn machines(store: &PostgresStore) -> Vec<String> {
    let query = Query { limit: 10_000, ..Query::default() };
    let page = store.machines(query).await.unwrap();
    page.items.iter().map(|machine| machine.id.to_string()).collect()
}

/// Ends the session that writes.
fn end_writer(cluster: &Cluster, database: &str) {
    cluster.sql(
        "postgres",
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = '{database}' AND application_name = 'bmdemo-server: writer'"
        ),
    );
}

async fn until(store: &PostgresStore, wanted: impl Fn(Availability) -> bool) {
    let mut availability = store.availability();
    availability.wait_for(|state| wanted(*state)).await.unwrap();
}

/// What happens to a connection at the next COMMIT.
const NOTHING: u8 = 0;
/// It is cut before COMMIT is passed on.
const BEFORE: u8 = 1;
/// It is cut after PostgreSQL has answered it, before the answer is passed on.
const AFTER: u8 = 2;

/// Passes bytes between the store and PostgreSQL.
struct Proxy {
    dir: tempfile::TempDir,
    cut: Arc<AtomicU8>,
}

impl Proxy {
    fn start(to: &Host) -> Self {
        let Host::Unix(real, port) = to else { panic!("a socket") };
        let real = real.join(format!(".s.PGSQL.{port}"));
        let dir = tempfile::tempdir().unwrap();
        let cut = Arc::new(AtomicU8::new(NOTHING));
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let cutting = cut.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(pass(client, real.clone(), cutting.clone()));
            }
        });
        Self { dir, cut }
    }

    fn host(&self) -> Host {
        Host::Unix(self.dir.path().to_owned(), 5432)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

async fn pass(mut client: UnixStream, real: PathBuf, cut: Arc<AtomicU8>) {
    let mut server = UnixStream::connect(&real).await.unwrap();
    let (mut up, mut down) = (vec![0; 1 << 20], vec![0; 1 << 16]);
    let mut sent = Vec::new();
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Some(count) = read.ok().filter(|count| *count > 0) else { return };
                let piece = &up[..count];
                if cut.load(SeqCst) == BEFORE && let Some(place) = find(piece, b"COMMIT\0") {
                    cut.store(NOTHING, SeqCst);
                    // The message begins five bytes before its text.
                    drop(server.write_all(&piece[..place - 5]).await);
                    return;
                }
                server.write_all(piece).await.unwrap();
            }
            read = server.read(&mut down) => {
                let Some(count) = read.ok().filter(|count| *count > 0) else { return };
                if cut.load(SeqCst) == AFTER {
                    sent.extend_from_slice(&down[..count]);
                    if find(&sent, b"COMMIT\0").is_some() {
                        cut.store(NOTHING, SeqCst);
                        return;
                    }
                }
                if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Revision>>);

impl Listener for Heard {
    fn committed(&self, committed: &Arc<Committed>) {
        self.0.lock().unwrap().push(committed.revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_connection_is_lost_has_a_known_outcome() {
    let Some(cluster) = shared() else { return };
    let direct = options(cluster);
    let proxy = Proxy::start(&direct.host);
    let store =
        PostgresStore::open(PostgresOptions { host: proxy.host(), ..direct }).await.unwrap();
    let heard = Arc::new(Heard::default());
    store.listen(heard.clone());
    for round in 0..3 {
        let first = 3 * round + 1;
        let before = store.commit(register(first)).await.unwrap().revision;
        proxy.cut.store(BEFORE, SeqCst);
        let lost = store.commit(register(first + 1)).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
        let outcome = store.outcome(BatchId(first + 1), before).await;
        assert_eq!(outcome.unwrap(), Outcome::NotCommitted);
        proxy.cut.store(AFTER, SeqCst);
        let kept = store.commit(register(first + 2)).await.unwrap();
        assert_eq!(kept.revision.0, before.0 + 1, "what was lost has no revision");
        let outcome = store.outcome(BatchId(first + 2), before).await;
        assert_eq!(outcome.unwrap(), Outcome::Committed(kept.revision));
    }
    let stored = machines(&store).await;
    assert_eq!(
        stored,
        ["machine-1", "machine-3", "machine-4", "machine-6", "machine-7", "machine-9"]
    );
    assert_eq!(*heard.0.lock().unwrap(), (1..=6).map(Revision).collect::<Vec<_>>());
    until(&store, Availability::takes_writes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_end_lose_nothing_that_was_acknowledged() {
    let Some(cluster) = shared() else { return };
    let options = options(cluster);
    let name = options.database.clone();
    let store = Arc::new(PostgresStore::open(options).await.unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..40 {
                let number = writer * 1000 + number;
                loop {
                    match store.commit(register(number)).await {
                        Ok(_) => break acknowledged.push(format!("machine-{number}")),
                        Err(StoreError::Unavailable(_)) => {
                            until(&store, Availability::takes_writes).await;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
            acknowledged
        });
    }
    for _ in 0..5 {
        tokio::task::block_in_place(|| end_writer(cluster, &name));
        let before = store.stats().commits;
        until(&store, Availability::takes_writes).await;
        while store.stats().commits < before + 20 && !writers.is_empty() {
            tokio::task::yield_now().await;
            if store.stats().commits >= 320 {
                break;
            }
        }
    }
    let mut acknowledged: Vec<String> = writers.join_all().await.into_iter().flatten().collect();
    let mut stored = machines(&store).await;
    acknowledged.sort();
    stored.sort();
    assert_eq!(stored, acknowledged);
    // A commit that was refused was not written: else its repetition would have been a conflict.
    assert_eq!(store.revisions().await.unwrap().0, Revision(320));
    assert_eq!(store.changes(Revision(0), 1000).await.unwrap().len(), 320);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_fails_leaves_nothing_behind() {
    let Some(cluster) = shared() else { return };
    let options = options(cluster);
    let name = options.database.clone();
    let store = PostgresStore::open(options).await.unwrap();
    store.commit(register(1)).await.unwrap();
    cluster
        .sql(&name, "ALTER TABLE bmdemo.changes ADD CONSTRAINT broken CHECK (place < 0) NOT VALID");
    let failed = store.commit(register(2)).await;
    let Err(StoreError::Unavailable(why)) = &failed else { panic!("{failed:?}") };
    assert!(why.to_string().contains("broken"), "{why}");
    assert_eq!(machines(&store).await, ["machine-1"]);
    cluster.sql(&name, "ALTER TABLE bmdemo.changes DROP CONSTRAINT broken");
    let committed = store.commit(register(2)).await.unwrap();
    assert_eq!((committed.revision, committed.machine().unwrap().ordinal), (Revision(2), 2));
    assert_eq!(*store.availability().borrow(), Availability::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_at_a_time_has_the_database() {
    let Some(cluster) = shared() else { return };
    let options = options(cluster);
    let first = PostgresStore::open(options.clone()).await.unwrap();
    first.commit(register(1)).await.unwrap();
    let refused = PostgresStore::open(options.clone()).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("another server uses this database"), "{refused}");
    // The refused one has changed nothing, and the place is free when the first one leaves.
    first.commit(register(2)).await.unwrap();
    tokio::task::block_in_place(|| drop(first));
    let second = PostgresStore::open(options).await.unwrap();
    assert_eq!(second.commit(register(3)).await.unwrap().revision, Revision(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_lost_its_place_writes_nothing_more() {
    let Some(cluster) = shared() else { return };
    for is_connected in [true, false] {
        let options = options(cluster);
        let name = options.database.clone();
        let store = PostgresStore::open(options).await.unwrap();
        store.commit(register(1)).await.unwrap();
        // What another server does when it takes the place.
        cluster.sql(&name, "UPDATE bmdemo.meta SET holder = 7");
        if is_connected {
            let refused = store.commit(register(2)).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        } else {
            end_writer(cluster, &name);
        }
        assert!(store.until_lost().await.contains("another server"));
        until(&store, |state| matches!(state, Availability::Broken { .. })).await;
        let refused = store.commit(register(3)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(machines(&store).await, ["machine-1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_lost_commits_is_not_written_to() {
    let Some(cluster) = shared() else { return };
    let options = options(cluster);
    let name = options.database.clone();
    let store = PostgresStore::open(options).await.unwrap();
    store.commit(register(1)).await.unwrap();
    store.commit(register(2)).await.unwrap();
    // As after a failover to a standby that lagged behind.
    cluster.sql(&name, "UPDATE bmdemo.meta SET revision = 1");
    end_writer(cluster, &name);
    assert!(store.until_lost().await.contains("has lost commits"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stops_and_starts_is_used_again() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let options = options(&cluster);
    let store = PostgresStore::open(options).await.unwrap();
    store.commit(register(1)).await.unwrap();
    for (number, mode) in [(2, "fast"), (3, "immediate")] {
        assert_eq!(machines(&store).await.len(), 1);
        tokio::task::block_in_place(|| cluster.stop(mode));
        until(&store, |state| matches!(state, Availability::Away { .. })).await;
        let refused = store.commit(register(number)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        let unread = store.machines(Query::default()).await;
        assert!(matches!(unread, Err(StoreError::Unavailable(_))), "{unread:?}");
        tokio::task::block_in_place(|| cluster.go());
        until(&store, Availability::takes_writes).await;
    }
    assert_eq!(store.commit(register(4)).await.unwrap().revision, Revision(2));
    assert_eq!(machines(&store).await, ["machine-1", "machine-4"]);
}

/// The clock of the system, with less patience.
#[derive(Debug)]
struct Impatient(SystemClock);

impl Clock for Impatient {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep(duration.min(Duration::from_millis(500)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_answer_is_away() {
    let Some(cluster) = shared() else { return };
    let options = database(cluster, Arc::new(Impatient(SystemClock::new())));
    let name = options.database.clone();
    let store = PostgresStore::open(options.clone()).await.unwrap();
    store.commit(register(1)).await.unwrap();
    let writer = cluster.sql(
        &name,
        "SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database
         WHERE locktype = 'advisory' AND datname = current_database()",
    );
    // Another session holds the row that every transaction locks first.
    let other = Conn::open(&options, Purpose::Write).await.unwrap();
    other.batch("BEGIN; SELECT 1 FROM meta FOR UPDATE").await.unwrap();
    let store = Arc::new(store);
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit(register(2)).await }
    });
    until(&store, |state| matches!(state, Availability::Away { .. })).await;
    // The store ends the session that does not answer: with the row free before, it could still have written.
    let session = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {writer}");
    while cluster.sql(&name, &session) != "0" {
        tokio::task::yield_now().await;
    }
    other.batch("ROLLBACK").await.unwrap();
    let refused = committing.await.unwrap();
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    until(&store, Availability::takes_writes).await;
    assert_eq!(store.commit(register(3)).await.unwrap().revision, Revision(2));
    assert_eq!(cluster.sql(&name, "SELECT count(*) FROM bmdemo.machines"), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_held_open_stops_no_commit() {
    let Some(cluster) = shared() else { return };
    let options = options(cluster);
    let store = PostgresStore::open(options.clone()).await.unwrap();
    store.commit(register(1)).await.unwrap();
    let conn = Conn::open(&options, Purpose::Read).await.unwrap();
    let snapshot = Snapshot::begin(&conn).await.unwrap();
    let seen = async || super::read::revisions(&conn).await.unwrap().0;
    assert_eq!(seen().await, Revision(1));
    for number in 2..=50 {
        store.commit(register(number)).await.unwrap();
    }
    assert_eq!(seen().await, Revision(1));
    snapshot.end().await.unwrap();
    assert_eq!(seen().await, Revision(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_database_and_a_foreign_one_are_refused() {
    let Some(cluster) = shared() else { return };
    let options = options(cluster);
    let name = options.database.clone();
    let open = async || PostgresStore::open(options.clone()).await;
    let store = open().await.unwrap();
    tokio::task::block_in_place(|| drop(store));
    cluster.sql(&name, "UPDATE bmdemo.meta SET format = 2, min_writer = 1");
    let store = open().await.expect("a newer format that older programs may write");
    tokio::task::block_in_place(|| drop(store));
    cluster.sql(&name, "UPDATE bmdemo.meta SET min_writer = 2");
    let refused = open().await.unwrap_err();
    assert!(matches!(refused, OpenError::TooNew { format: 2, newest: 1 }), "{refused}");
    cluster.sql(&name, "DELETE FROM bmdemo.meta");
    let refused = open().await.unwrap_err();
    assert!(matches!(refused, OpenError::NotOurs), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_flush_is_refused() {
    let Some(cluster) = Cluster::start(&["synchronous_commit = off"]) else { return };
    let options = options(&cluster);
    let refused = PostgresStore::open(options.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("synchronous_commit is off"), "{refused}");
    let accepted = PostgresOptions { unsafe_no_flush_for_tests: true, ..options };
    PostgresStore::open(accepted).await.expect("a test may ask for it");
    assert!(Path::new(cluster.dir()).exists());
}
