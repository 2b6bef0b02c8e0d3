//! Peers of HTTP/1.1 that are slow, silent, or many.

use std::sync::Arc;
use std::time::Duration;

use bmdemo::clock::{Clock, SeededRandom, Timestamp, TokioClock};
use bmdemo::executor::{Engine, EngineConfig, Limits};
use bmdemo::plan::Registry;
use bmdemo::provider::fake::{FakeOptions, FakeProvider};
use bmdemo::server::serve_stream;
use bmdemo::store::memory::MemoryStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::client::{Http1, JSON};
use crate::abuse::wire::{LIST, REGISTER};
use crate::metrics::{get, measured_with};
use crate::support::{Server, within};

/// A server in virtual time.
struct Virtual {
    engine: Engine,
    clock: Arc<dyn Clock>,
}

impl Virtual {
    async fn new() -> Self {
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
        Self { engine, clock }
    }

    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        tokio::spawn(serve_stream(theirs, self.engine.clone(), CancellationToken::new()));
        ours
    }
}

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// What comes until the server closes the connection, and when that is.
async fn until_closed(stream: &mut DuplexStream, clock: &dyn Clock) -> (String, Duration) {
    let begun = clock.monotonic();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.ok();
    (String::from_utf8_lossy(&read).into_owned(), clock.monotonic().saturating_sub(begun))
}

#[tokio::test(start_paused = true)]
async fn a_body_and_a_head_have_to_come_in_time() {
    let server = Virtual::new().await;
    let clock = &*server.clock;
    // Half a body.
    let mut stream = server.connect();
    stream.write_all(format!("{}{{\"filter\":", head(LIST, 100)).as_bytes()).await.unwrap();
    let (answer, took) = until_closed(&mut stream, clock).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("not complete within 10 s"), "{answer}");
    assert_eq!(took, Duration::from_secs(10));
    // Half a head.
    let mut stream = server.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: local").await.unwrap();
    let (answer, took) = until_closed(&mut stream, clock).await;
    let in_time = |took| took >= Duration::from_secs(10) && took < Duration::from_secs(11);
    assert!(in_time(took), "{took:?} {answer}");
    // Nothing after an answer.
    let mut stream = server.connect();
    stream.write_all(format!("{}{{}}", head(LIST, 2)).as_bytes()).await.unwrap();
    let (answer, took) = until_closed(&mut stream, clock).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && in_time(took), "{took:?} {answer}");
    // A head that is too long.
    let long = format!("POST {LIST} HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n", "y".repeat(70_000));
    let (mut read, mut write) = tokio::io::split(server.connect());
    let mut answer = Vec::new();
    // The server may stop reading.
    let (_, ended) = tokio::join!(write.write_all(long.as_bytes()), read.read_to_end(&mut answer));
    ended.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_which_nothing_is_taken_ends_its_connection() {
    let server = Virtual::new().await;
    let mut filling = Http1::over(server.connect(), "localhost").await;
    for n in 0..20 {
        let labels: Vec<String> = (0..60)
            .map(|label| format!(r#""label-{label:02}-{}":"{}""#, "x".repeat(50), "v".repeat(256)))
            .collect();
        let machine = format!(
            r#"{{"machine":{{"machineId":"fat-{n}","spec":{{"provider":"fake"}},"labels":{{{}}}}}}}"#,
            labels.join(",")
        );
        assert_eq!(filling.call(REGISTER, machine).await.status, 200);
    }
    let mut stream = server.connect();
    stream.write_all(format!("{}{{}}", head(LIST, 2)).as_bytes()).await.unwrap();
    server.clock.sleep(Duration::from_secs(31)).await;
    let (answer, took) = until_closed(&mut stream, &*server.clock).await;
    assert_eq!(took, Duration::ZERO);
    assert!(answer.len() <= 16 * 1024, "the rest was not kept: {}", answer.len());
    // A slow peer gets all of it.
    let mut stream = server.connect();
    let request = format!("{}{{}}", head(LIST, 2));
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut bytes, mut piece) = (0, vec![0; 8 * 1024]);
    loop {
        server.clock.sleep(Duration::from_secs(5)).await;
        match stream.read(&mut piece).await.unwrap() {
            0 => break,
            count => bytes += count,
        }
    }
    assert!(bytes > 300_000, "{bytes}");
}

#[tokio::test]
async fn connections_that_are_kept_alive_make_room() {
    let (server, metrics) = measured_with("connections_max = 3\n").await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut connection = Http1::open(&server).await;
        assert_eq!(connection.call(LIST, "{}").await.status, 200);
        held.push(connection);
    }
    let (_, body) = get(&metrics, "/metrics").await;
    assert!(body.contains("bmdemo_refusals_total{cause=\"idle_made_room\"} 5"), "{body}");
    within("the first was closed", async {
        while held[0].requests.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(held[7].call(LIST, "{}").await.status, 200);
}

#[tokio::test]
async fn a_server_that_ends_closes_idle_connections() {
    let server = Server::ephemeral(&[]).await;
    let mut idle = Http1::open(&server).await;
    assert_eq!(idle.call(LIST, "{}").await.status, 200);
    let silent = server.raw().await;
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert!(status.success(), "{log}");
    assert!(!log.contains("closing connections that are still in use"), "{log}");
    drop((idle, silent));
}
