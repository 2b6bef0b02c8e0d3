//! Runs over real gRPC: many at once on one connection, and through the end of the server.

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::plan_service_client::PlanServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::pb::server_service_client::ServerServiceClient;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{Server, within};

/// Registers `machine-1` to `machine-<count>` of the fake provider.
pub(crate) async fn register(channel: &Channel, count: usize) {
    let mut client = MachineServiceClient::new(channel.clone());
    for number in 1..=count {
        let machine = pb::Machine {
            machine_id: format!("machine-{number}"),
            spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
        client.register_machine(request).await.unwrap();
    }
}

/// What a server reports about itself.
pub(crate) async fn info(channel: &Channel) -> pb::ServerInfo {
    let request = pb::GetServerInfoRequest::default();
    let mut client = ServerServiceClient::new(channel.clone());
    client.get_server_info(request).await.unwrap().into_inner()
}

/// Starts a repave.
pub(crate) async fn repave(channel: &Channel, machine: usize) -> Result<pb::Run, tonic::Status> {
    let request = pb::StartRunRequest {
        request_id: format!("repave-{machine}"),
        machine_id: format!("machine-{machine}"),
        r#type: pb::RunType::Repave.into(),
        ..Default::default()
    };
    RunServiceClient::new(channel.clone()).start_run(request).await.map(tonic::Response::into_inner)
}

/// Follows a run until its watch ends, and returns its last state.
pub(crate) async fn watched(channel: Channel, run: &str) -> Result<pb::Run, tonic::Status> {
    let filter = format!("run_id = {run}");
    let request = pb::WatchRunsRequest { filter, ..Default::default() };
    let mut events = RunServiceClient::new(channel).watch_runs(request).await?.into_inner();
    let mut last = None;
    while let Some(event) = events.next().await {
        last = event?.snapshot.or(last);
    }
    Ok(last.unwrap())
}

#[tokio::test]
async fn hundreds_of_runs_are_started_and_watched_over_one_connection() {
    const RUNS: usize = 256;
    let server = Server::ephemeral(&[]).await;
    let channel = server.channel().await;
    register(&channel, RUNS).await;
    let mut watches = tokio::task::JoinSet::new();
    for machine in 1..=RUNS {
        let channel = channel.clone();
        watches.spawn(async move {
            let run = repave(&channel, machine).await.unwrap();
            watched(channel, &run.run_id).await.unwrap().phase()
        });
    }
    let phases = within("every run ends", watches.join_all()).await;
    assert_eq!(phases, [pb::RunPhase::Succeeded; RUNS]);
}

#[tokio::test]
async fn a_server_that_ends_lets_steps_finish_and_notifies_its_watchers() {
    let server = Server::start(&["--ephemeral", "--port", "0", "--slow"]).await;
    let channel = server.channel().await;
    register(&channel, 2).await;
    let run = repave(&channel, 1).await.unwrap();
    let watch = tokio::spawn(async move { watched(channel, &run.run_id).await });
    server.signal("TERM").await;
    server.logged("shutting down").await;
    let ended = within("the watcher is ended", watch).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    let (status, _, log) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn plans_read_again_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::ephemeral(&["--plans-dir", dir.path().to_str().unwrap()]).await;
    let channel = server.channel().await;
    let mut client = PlanServiceClient::new(channel.clone());
    assert_eq!(info(&channel).await.last_reload, None);
    let request = pb::GetPlanRequest { plan_id: "plan/own".to_owned() };
    let unknown = client.get_plan(request.clone()).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    std::fs::write(dir.path().join("own.toml"), crate::configuration::a_plan("plan/own")).unwrap();
    server.signal("HUP").await;
    server.logged("plans=6").await;
    assert_eq!(client.get_plan(request).await.unwrap().into_inner().plan_id, "plan/own");
    assert_eq!(info(&channel).await.last_reload.unwrap().error, "");

    std::fs::write(dir.path().join("own.toml"), "id = 7").unwrap();
    server.signal("HUP").await;
    server.logged("configuration, plans and certificates were not reloaded").await;
    let refused = info(&channel).await.last_reload.unwrap();
    assert!(refused.at.is_some() && refused.error.contains("own.toml"), "{refused:?}");
}
