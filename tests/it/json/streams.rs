//! Streams of answers.

use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::run_service_client::RunServiceClient;
use h2::RecvStream;
use serde_json::Value;
use tonic::Code;

use super::client::{Envelopes, Http1, STREAM, enveloped, opened, reason};
use crate::abuse::wire::{LIST, REGISTER, Wire};
use crate::metrics::{get, measured_with};
use crate::support::{Server, within};

const WATCH: &str = "/baremetal.v1.RunService/WatchRuns";
const START: &str = "/baremetal.v1.RunService/StartRun";
const LOGS: &str = "/baremetal.v1.RunService/StreamRunLogs";

async fn watched(connection: &mut Http1, path: &str, json: &str) -> Envelopes {
    let headers = [("content-type", STREAM)];
    Envelopes::of(connection.begin("POST", path, &headers, enveloped(json)).await)
}

/// Registers a machine and starts a run on it.
async fn run(connection: &mut Http1, machine: &str) -> String {
    let registered =
        format!(r#"{{"machine":{{"machineId":"{machine}","spec":{{"provider":"fake"}}}}}}"#);
    assert_eq!(connection.call(REGISTER, registered).await.status, 200);
    let start = format!(r#"{{"machineId":"{machine}","planId":"plan/repave-join"}}"#);
    let started = connection.call(START, start).await;
    assert_eq!(started.status, 200, "{}", started.json());
    started.json()["runId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_watch_says_what_happens_and_logs_end() {
    let server = Server::ephemeral(&[]).await;
    let mut watching = Http1::open(&server).await;
    let mut events = watched(&mut watching, WATCH, "{}").await;
    let (flags, first) = events.next().await.unwrap().unwrap();
    assert_eq!((flags, &first["type"]), (0, &Value::from("RUN_EVENT_TYPE_SYNCED")), "{first}");
    let mut calling = Http1::open(&server).await;
    let run_id = run(&mut calling, "machine-1").await;
    loop {
        let (flags, event) = events.next().await.unwrap().unwrap();
        assert_eq!(flags, 0, "{event}");
        assert_eq!(event["snapshot"]["runId"], run_id.as_str(), "{event}");
        if event["snapshot"]["phase"] == "RUN_PHASE_SUCCEEDED" {
            break;
        }
    }
    let mut logs = watched(&mut calling, LOGS, &format!(r#"{{"runId":"{run_id}"}}"#)).await;
    let mut chunks = 0;
    let end = loop {
        match logs.next().await.unwrap().unwrap() {
            (0, chunk) => {
                assert_eq!(chunk["runId"], run_id.as_str());
                chunks += 1;
            }
            end => break end,
        }
    };
    assert_eq!((end.0, end.1.to_string().as_str(), chunks > 0), (2, "{}", true));
    assert_eq!(logs.next().await.unwrap(), None);
    // The connection is good for more.
    assert_eq!(calling.call(LIST, "{}").await.status, 200);
    let mut none =
        watched(&mut calling, LOGS, r#"{"runId":"00000000-0000-7000-8000-000000000000"}"#).await;
    let (flags, end) = none.next().await.unwrap().unwrap();
    assert_eq!((flags, reason(&end["error"]).as_str()), (2, "NOT_FOUND"), "{end}");
}

#[tokio::test]
async fn a_watch_over_http_2_is_the_same() {
    let server = Server::ephemeral(&[]).await;
    let mut wire = Wire::open(&server, 1 << 20).await;
    let uri = format!("http://{}{WATCH}", wire.authority);
    let head = http::Request::builder().method("POST").uri(uri).header("content-type", STREAM);
    let (response, mut stream) = wire.begin(head).await;
    stream.send_data(enveloped("{}"), true).unwrap();
    let response = within("an answer", response).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &STREAM.parse().unwrap())
    );
    let mut body: RecvStream = response.into_body();
    let mut read = Vec::new();
    let (flags, first) = loop {
        if let Some(found) = opened(&mut read) {
            break found;
        }
        read.extend_from_slice(&within("a message", body.data()).await.unwrap().unwrap());
    };
    assert_eq!((flags, &first["type"]), (0, &Value::from("RUN_EVENT_TYPE_SYNCED")), "{first}");
}

#[tokio::test]
async fn watches_over_http_1_count_and_end_with_their_connection() {
    let (server, metrics) = measured_with("watches_max = 2\n").await;
    let mut held = Http1::open(&server).await;
    let mut watch = watched(&mut held, WATCH, "{}").await;
    watch.next().await.unwrap().unwrap();
    let mut greedy = RunServiceClient::new(server.channel().await);
    let request = pb::WatchRunsRequest::default();
    let one = greedy.watch_runs(request.clone()).await.unwrap();
    let refused = greedy.watch_runs(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let mut also = Http1::open(&server).await;
    let mut second = watched(&mut also, WATCH, "{}").await;
    let (flags, end) = second.next().await.unwrap().unwrap();
    assert_eq!((flags, reason(&end["error"]).as_str()), (2, "LIMIT_REACHED"), "{end}");
    // Who leaves gives its place back.
    drop((watch, held));
    within("a place is free", async {
        loop {
            if greedy.watch_runs(request.clone()).await.is_ok() {
                return;
            }
            SystemClock::new().sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(one);
    let (_, body) = get(&metrics, "/metrics").await;
    assert!(body.contains("cause=\"watches_max\""), "{body}");
}
