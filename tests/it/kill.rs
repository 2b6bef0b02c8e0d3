//! A server that is killed repeatedly under load, with an outside record of what it acknowledged, and the fake
//! provider's own ledger of what really happened.
//!
//! 20 kills; 200 with `BMDEMO_PROOF=full`; `BMDEMO_KILLS=n` for another number.

use std::time::Duration;

use bmdemo::clock::{Clock as _, SplitMix64, SystemClock};

use crate::load::Load;
use crate::support::{Server, repeats, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
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

    let mut server = Server::start(&args).await;
    let load = Load::start(&server, &mut random).await;
    let kills = repeats("BMDEMO_KILLS", 20, 200);
    let clock = SystemClock::new();
    for _ in 0..kills {
        clock.sleep(Duration::from_millis(30 + random.below(400))).await;
        server.signal("KILL").await;
        server.ended().await;
        server = Server::start(&args).await;
        load.continue_with_recovered(&server, &mut random).await;
    }
    let acknowledged = load.judge(server, &data).await;
    assert!(acknowledged > kills, "only {acknowledged} runs were acknowledged: no load");
}
