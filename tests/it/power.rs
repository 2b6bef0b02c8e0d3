//! Power cuts under load, which a killed process does not simulate: what it wrote without a flush stays in the cache
//! of the kernel. As root, on the test's own ext4, which is shut down without a flush of its journal.
//!
//! 3 cuts; 100 with `BMDEMO_PROOF=full`; `BMDEMO_POWER_CUTS=n` for another number.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SplitMix64, SystemClock};
use bmdemo::ids::Revision;
use bmdemo::store::sqlite::{SqliteOptions, SqliteStore};
use bmdemo::store::{Batch, RequestRecord, Store as _};

use crate::load::Load;
use crate::mounts::{Mount, or_skip};
use crate::support::{Server, announce, repeats, seed, within};

/// The server, or the writers, are stopped for this long before the cut: a flush that is in flight while the
/// filesystem shuts down may be reported as done though it was not, by a kernel that no power cut would leave
/// running.
const STILL: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_the_power() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = or_skip("power loss", Mount::ext4(dir.path(), 256)) else { return };
    let data = disk.path().join("data");
    let args = [
        "--port",
        "0",
        "--fake-timing",
        "0.04",
        "--log-level",
        "warn",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let seed = seed(0);
    eprintln!("seed {seed}");
    let mut random = SplitMix64::new(seed);
    let clock = SystemClock::new();

    let mut server = Server::start(&args).await;
    let load = Load::start(&server, &mut random).await;
    let cuts = repeats("BMDEMO_POWER_CUTS", 3, 100);
    for _ in 0..cuts {
        let before = load.acknowledged();
        clock.sleep(Duration::from_millis(100 + random.below(400))).await;
        // A server that has not acknowledged anything has nothing to lose.
        let working = async {
            while load.acknowledged() == before {
                clock.sleep(Duration::from_millis(10)).await;
            }
        };
        within("the server works", working).await;
        server.signal("STOP").await;
        clock.sleep(STILL).await;
        disk.cut_power();
        server.signal("KILL").await;
        server.ended().await;
        disk.remount();
        server = Server::start(&args).await;
        load.continue_with_recovered(&server, &mut random).await;
    }
    let acknowledged = load.judge(server, &data).await;
    announce(&format!("power loss: {cuts} cuts, {acknowledged} acknowledged, 0 lost"));
}

/// The test can fail: the same disk loses acknowledged commits of a store that does not flush them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_flush_loses_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let what = "power loss of a store that does not flush";
    let Some(disk) = or_skip(what, Mount::ext4(dir.path(), 64)) else { return };
    for (name, unsafe_no_flush_for_tests) in [("flushes", false), ("does-not-flush", true)] {
        let data = disk.path().join(name);
        let options = SqliteOptions { unsafe_no_flush_for_tests, ..SqliteOptions::default() };
        // What is written before counts as durable in both.
        drop(SqliteStore::open(&data, SqliteOptions::default()).unwrap());
        let store = Arc::new(SqliteStore::open(&data, options).unwrap());
        let acknowledged = written(&store).await;
        SystemClock::new().sleep(STILL).await;
        disk.cut_power();
        // Closing it earlier would flush.
        drop(store);
        disk.remount();
        let lost = lost(&data, &acknowledged).await;
        let count = acknowledged.len();
        announce(&format!("power loss, a store that {name}: {lost} of {count} lost"));
        assert_eq!(lost > 0, unsafe_no_flush_for_tests, "{lost} of {count} commits are lost");
    }
}

const SCOPE: &str = "power";

/// Writers, and the commits of each.
const WRITERS: usize = 8;
const COMMITS: usize = 60;

/// Commits from several writers at a time; returns what was acknowledged.
async fn written(store: &Arc<SqliteStore>) -> Vec<String> {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..COMMITS {
                let request_id = format!("{writer}-{number}");
                let request = RequestRecord {
                    scope: SCOPE.to_owned(),
                    request_id: request_id.clone(),
                    body_digest: String::new(),
                    object_id: request_id.clone(),
                    at: SystemClock::new().now(),
                    revision: Revision(0),
                };
                store.commit(Batch { request: Some(request), ..Batch::default() }).await.unwrap();
                acknowledged.push(request_id);
            }
            acknowledged
        });
    }
    writers.join_all().await.concat()
}

async fn lost(data: &Path, acknowledged: &[String]) -> usize {
    let store = SqliteStore::open(data, SqliteOptions::default()).unwrap();
    let mut lost = 0;
    for request_id in acknowledged {
        lost += usize::from(store.request(SCOPE, request_id).await.unwrap().is_none());
    }
    lost
}
