//! How the server ends.

use std::io::Write as _;

use bmdemo::pb;
use bmdemo::pb::run_service_client::RunServiceClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::runs::{register, repave};
use crate::support::{Server, within};

#[tokio::test]
async fn both_signals_end_an_idle_server_with_zero() {
    for signal in ["TERM", "INT"] {
        let server = Server::ephemeral(&[]).await;
        let mut client = HealthClient::new(server.channel().await);
        client.check(HealthCheckRequest::default()).await.unwrap();
        server.signal(signal).await;
        let (status, printed, log) = server.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(printed, "", "stdout is for the one line");
        assert!(log.contains(&format!("SIG{signal}")) && log.contains("stopped"), "{log}");
    }
}

/// A server with a run whose call to the provider never returns.
async fn hanging(args: &[&str]) -> Server {
    let hang = ["--fake-script", "machine=* step=set-netboot do=hang"];
    let server = Server::ephemeral(&[&hang[..], args].concat()).await;
    let channel = server.channel().await;
    register(&channel, 1).await;
    let run = repave(&channel, 1).await.unwrap();
    let request =
        pb::WatchRunsRequest { filter: format!("run_id = {}", run.run_id), ..Default::default() };
    let mut events = RunServiceClient::new(channel).watch_runs(request).await.unwrap().into_inner();
    within("the step starts", async {
        while let Some(event) = events.message().await.unwrap() {
            if event.snapshot.is_some_and(|run| run.steps.iter().any(|step| step.attempt > 0)) {
                return;
            }
        }
        panic!("the watch ended");
    })
    .await;
    server
}

#[tokio::test]
async fn a_step_that_never_answers_delays_the_end_by_the_grace_and_no_more() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"[server]\nshutdown_grace = \"500ms\"\n").unwrap();
    let server = hanging(&["--config", config.path().to_str().unwrap()]).await;
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"[server]\nshutdown_grace = \"1d\"\n").unwrap();
    let server = hanging(&["--config", config.path().to_str().unwrap()]).await;
    server.signal("TERM").await;
    server.logged("shutting down").await;
    server.signal("INT").await;
    let (status, _, log) = server.ended().await;
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(log.contains("ending at once"), "{log}");
}
