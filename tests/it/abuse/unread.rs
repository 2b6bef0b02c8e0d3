//! Peers that ask for much and read nothing, and others that hold connections.

use std::sync::Arc;
use std::time::Duration;

use bmdemo::clock::{Clock, SeededRandom, SystemClock, Timestamp, TokioClock};
use bmdemo::executor::{Engine, EngineConfig, Limits};
use bmdemo::pb;
use bmdemo::pb::lock_service_client::LockServiceClient;
use bmdemo::plan::Registry;
use bmdemo::provider::fake::{FakeOptions, FakeProvider};
use bmdemo::server::serve_stream;
use bmdemo::store::memory::MemoryStore;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::wire::{LIST, REGISTER, Wire, fat, registration, whole};
use crate::metrics::{get, measured_with};
use crate::support::{repeats, within};

/// Registers machines of 20 KB each.
async fn register_fat(wire: &mut Wire, count: usize) {
    for n in 0..count {
        let head = wire.call(REGISTER);
        let (_, status) = whole(wire.answer(head, &fat(&format!("fat-{n}"))).await).await;
        assert_eq!(status, "0");
    }
}

fn page() -> pb::ListMachinesRequest {
    pb::ListMachinesRequest { page_size: 1000, ..Default::default() }
}

/// The figure of a metric without labels.
fn figure(body: &str, name: &str) -> u64 {
    let line = body.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}:\n{body}")).parse().unwrap()
}

#[tokio::test]
async fn answers_that_are_not_read_are_bounded_and_others_are_served() {
    let (server, metrics) = measured_with("").await;
    let mut honest = Wire::open(&server, 1 << 24).await;
    register_fat(&mut honest, 60).await;
    let mut greedy = Wire::open(&server, 0).await;
    let mut unread = Vec::new();
    for _ in 0..200 {
        let head = greedy.call(LIST);
        unread.push(greedy.send(head, &page()).await);
    }
    // Its first answers have a head; their bytes stay with the server.
    let first = within("an answer begins", unread.remove(0)).await.unwrap();
    for _ in 0..5 {
        let head = honest.call(LIST);
        let (bytes, status) = whole(honest.answer(head, &page()).await).await;
        assert_eq!((status.as_str(), bytes.len() > 900 * 1024), ("0", true));
        let (_, body) = get(&metrics, "/metrics").await;
        let unsent = figure(&body, "bmdemo_unsent_bytes");
        assert!(unsent <= 24 * 1024 * 1024, "{unsent} bytes are held");
    }
    drop((first, unread, greedy));
    within("all room is given back", async {
        loop {
            let (_, body) = get(&metrics, "/metrics").await;
            if figure(&body, "bmdemo_unsent_bytes") == 0 {
                return;
            }
        }
    })
    .await;
}

/// 16 connections ask for everything and read nothing: 200 calls of each page, 1,000 with `BMDEMO_PROOF=full`, or
/// `BMDEMO_UNREAD=n`.
#[tokio::test]
async fn everything_can_be_stopped_while_answers_are_not_read() {
    let (server, _metrics) = measured_with("").await;
    let mut honest = Wire::open(&server, 1 << 24).await;
    register_fat(&mut honest, 60).await;
    let calls = repeats("BMDEMO_UNREAD", 200, 1_000);
    let mut greedy = Vec::new();
    let mut unread = Vec::new();
    for _ in 0..16 {
        let mut wire = Wire::open(&server, 0).await;
        for _ in 0..calls / 16 {
            let head = wire.call(LIST);
            unread.push(wire.send(head, &page()).await);
        }
        greedy.push(wire);
    }
    within("an answer begins", unread.remove(0)).await.unwrap();
    let clock = SystemClock::new();
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let begun = clock.monotonic();
        // Each time over a connection of its own, as the command line does.
        let mut locks = LockServiceClient::new(server.channel().await);
        let request = pb::StopAllRequest { reason: "an attack".to_owned(), ..Default::default() };
        within("everything is stopped", locks.stop_all(request)).await.unwrap();
        let took = clock.monotonic() - begun;
        slowest = slowest.max(took);
        // Of a program that is not optimized, on a machine that does more than this.
        assert!(took < Duration::from_secs(5), "round {round}: {took:?}");
        let request = pb::ResumeAllRequest { reason: "again".to_owned(), ..Default::default() };
        within("it is lifted", locks.resume_all(request)).await.unwrap();
    }
    eprintln!("under {calls} unread answers the slowest of 10 stops took {slowest:?}");
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_do_not() {
    let settings = "connections_max = 3\n";
    let (server, metrics) = measured_with(settings).await;
    let mut idle = HealthClient::new(server.channel().await);
    idle.check(HealthCheckRequest::default()).await.unwrap();
    let mut busy = Vec::new();
    for _ in 0..3 {
        // The third takes the place of the idle one.
        let mut client = HealthClient::new(server.channel().await);
        busy.push(client.watch(HealthCheckRequest::default()).await.unwrap().into_inner());
    }
    let mut refused = server.raw().await;
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut refused, &mut rest);
    within("a connection too many is closed", read).await.ok();
    for watch in &mut busy {
        within("a busy one is served", watch.message()).await.unwrap().unwrap();
    }
    let (_, body) = get(&metrics, "/metrics").await;
    for line in [
        "bmdemo_refusals_total{cause=\"idle_made_room\"} 1",
        "bmdemo_refusals_total{cause=\"connections_max\"} 1",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in:\n{body}");
    }
}

/// A client of a server in virtual time, and the clock.
async fn in_virtual_time(window: u32) -> (Wire, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp(1_700_000_000_000)));
    let fake = FakeProvider::new(FakeOptions::default(), clock.clone());
    let engine = Engine::start(EngineConfig {
        store: Arc::new(MemoryStore::new(clock.clone())),
        providers: vec![Arc::new(fake)],
        plans: Registry::built_in(),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(1)),
        limits: Limits::default(),
        planted: None,
    })
    .await
    .unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(serve_stream(theirs, engine, CancellationToken::new()));
    (Wire::over(ours, window, "simulated").await, clock)
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_which_nothing_is_taken_is_reset() {
    // No window at all, and one that holds the beginning of an answer.
    for window in [0, 20_000] {
        let (mut wire, clock) = in_virtual_time(window).await;
        let head = wire.call(REGISTER);
        let registered = wire.send(head, &fat("fat-1")).await;
        let head = wire.call(REGISTER);
        let also = wire.send(head, &registration("machine-2")).await;
        registered.await.unwrap();
        also.await.unwrap();
        let begun = clock.monotonic();
        let head = wire.call(LIST);
        let answer = wire.send(head, &page()).await.await.unwrap();
        let mut body = answer.into_body();
        let reset = loop {
            match body.data().await {
                // Looked at, and not taken.
                Some(Ok(_)) => {}
                Some(Err(reset)) => break reset,
                None => panic!("the whole answer came"),
            }
        };
        assert_eq!(reset.reason(), Some(h2::Reason::CANCEL), "window {window}");
        let waited = clock.monotonic().saturating_sub(begun);
        assert!(
            waited >= Duration::from_secs(30) && waited < Duration::from_secs(61),
            "{waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_whole_answer_and_a_quiet_watch_lasts() {
    let (mut wire, clock) = in_virtual_time(16_384).await;
    for n in 0..10 {
        let head = wire.call(REGISTER);
        let (_, status) = whole(wire.answer(head, &fat(&format!("fat-{n}"))).await).await;
        assert_eq!(status, "0");
    }
    let watch = wire.call("/baremetal.v1.RunService/WatchRuns");
    let watch = wire.send(watch, &pb::WatchRunsRequest::default()).await.await.unwrap();
    let head = wire.call(LIST);
    let mut body = wire.send(head, &page()).await.await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        bytes += piece.len();
        clock.sleep(Duration::from_secs(20)).await;
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    assert!(bytes > 200_000, "{bytes}");
    assert!(clock.monotonic() > Duration::from_secs(200));
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    // SYNCED, and then nothing, for as long as nothing happens.
    let mut watch = watch.into_body();
    let synced = watch.data().await.unwrap().unwrap();
    watch.flow_control().release_capacity(synced.len()).unwrap();
    tokio::select! {
        more = watch.data() => panic!("{more:?}"),
        () = clock.sleep(Duration::from_secs(600)) => {}
    }
}

#[tokio::test]
async fn the_client_says_that_its_connection_was_closed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let Ok((connection, _)) = listener.accept().await else { return };
            drop(connection);
        }
    });
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"));
    command.args(["--server", &address, "list"]).env_clear();
    let output = within("the client ends", command.output()).await.unwrap();
    let said = crate::support::text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("closed the connection"), "{said}");
    assert!(said.contains("connections_max"), "{said}");
}
