//! Scrapes of a real server.

use std::io::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::runs::{register, repave, watched};
use crate::support::{Server, within};
use crate::terminal::piped;

/// Head and body of an answer to `GET path`.
pub(crate) async fn get(address: &str, path: &str) -> (String, String) {
    get_from(address, address, path).await
}

/// The same, calling the server by a name.
async fn get_from(address: &str, host: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the scrape is answered", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// A server that serves metrics, and where.
async fn measured() -> (Server, String) {
    measured_with("").await
}

/// The same with settings of its connections.
pub(crate) async fn measured_with(settings: &str) -> (Server, String) {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    write!(config, "[server]\n{settings}").unwrap();
    let config = config.path().to_str().unwrap();
    let server = Server::ephemeral(&["--metrics-listen", "127.0.0.1:0", "--config", config]).await;
    let log = server.logged("/metrics").await;
    let url = log.split("http://").nth(1).unwrap().split("/metrics").next().unwrap().to_owned();
    (server, url)
}

#[tokio::test]
async fn a_scrape_says_what_was_called_and_what_is_so() {
    let (server, address) = measured().await;
    let mut client = HealthClient::new(server.channel().await);
    client.check(HealthCheckRequest::default()).await.unwrap();
    let unknown = HealthCheckRequest { service: "nobody".to_owned() };
    client.check(unknown).await.unwrap_err();
    let (head, body) = get(&address, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("openmetrics-text"), "{head}");
    for line in [
        "bmdemo_rpcs_total{method=\"grpc.health.v1.Health/Check\",code=\"OK\"} 1",
        "bmdemo_rpcs_total{method=\"grpc.health.v1.Health/Check\",code=\"NOT_FOUND\"} 1",
        "bmdemo_connections 1",
        "bmdemo_machines{phase=\"READY\"} 0",
        "bmdemo_runs_with_slot 0",
        "# EOF",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in:\n{body}");
    }
    let channel = server.channel().await;
    register(&channel, 1).await;
    let run = repave(&channel, 1).await.unwrap();
    watched(channel, &run.run_id).await.unwrap();
    let (_, body) = get(&address, "/metrics").await;
    for start in [
        "bmdemo_runs_ended_total{plan=\"plan/repave-join\",type=\"REPAVE\",outcome=\"succeeded\"} 1",
        "bmdemo_run_duration_seconds_count{plan=\"plan/repave-join\",type=\"REPAVE\",outcome=\"succeeded\"} 1",
        "bmdemo_step_attempts_total{plan=\"plan/repave-join\",step=\"repave\"} 1",
        "bmdemo_steps_ended_total{plan=\"plan/repave-join\",step=\"join\",outcome=\"succeeded\"} 1",
        "bmdemo_provider_calls_total{provider=\"fake\",call=\"act\",outcome=\"ok\"} 5",
    ] {
        assert!(body.lines().any(|found| found == start), "{start} is not in:\n{body}");
    }
    let documented = include_str!("../../docs/metrics.md");
    for family in body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
    }
    assert!(get(&address, "/").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn metrics_are_not_for_pages_of_other_sites() {
    let (_server, address) = measured().await;
    for (host, status) in [("localhost:9464", "200"), ("evil.example", "421")] {
        let (head, _) = get_from(&address, host, "/metrics").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {head}");
    }
    let (_, body) = get(&address, "/metrics").await;
    assert!(body.contains("bmdemo_refusals_total{cause=\"host\"} 1"), "{body}");
}

#[tokio::test]
async fn calls_are_counted_by_driver_and_action() {
    let classes = "[machine_classes.rack]\npower = \"fake\"\nprobe = \"fake\"\ndrain = \"fake\"\ncluster-join = \"fake\"\n\
                   netboot = \"fake\"\nimaging = \"fake\"\nwipe = \"fake\"\nnetwork = \"fake\"\nnotify = \"fake\"\n";
    let (server, address) = measured_with(classes).await;
    let of_server = server.address.to_string();
    piped(&of_server, "machine register node-1 --provider rack").await;
    piped(&of_server, "repave node-1 --yes").await;
    let (_, body) = get(&address, "/metrics").await;
    for line in [
        "bmdemo_driver_calls_total{driver=\"fake\",call=\"act\",action=\"repave\",code=\"ok\"} 1",
        "bmdemo_driver_calls_total{driver=\"fake\",call=\"fence\",action=\"\",code=\"ok\"} 1",
        "bmdemo_driver_call_seconds_count{driver=\"fake\",call=\"act\"} 5",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in:\n{body}");
    }
    let documented = include_str!("../../docs/metrics.md");
    for family in body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
    }
}
