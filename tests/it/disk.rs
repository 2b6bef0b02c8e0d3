//! A disk that fills up while the server works, as root on a small filesystem in memory.
//!
//! A failing flush cannot be produced by a filesystem at will: `src/store/sqlite/tests/faults.rs` injects it.

use std::io::Write as _;
use std::path::Path;

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::mounts::{Mount, or_skip};
use crate::runs::{register, repave, watched};
use crate::support::{Server, run_to_end, text, within};

const RUNNING: usize = 6;
const MACHINES: usize = 10;

/// Uses up all the space that is left.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let mut piece = vec![7; 64 * 1024];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}

fn assert_full(refused: &Status) {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "STORE_FULL", "{refused:?}");
}

async fn register_as(channel: &Channel, id: &str) -> Result<(), Status> {
    let machine = pb::Machine {
        machine_id: id.to_owned(),
        spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let request = pb::RegisterMachineRequest {
        machine: Some(machine),
        request_id: format!("register-{id}"),
        ..Default::default()
    };
    MachineServiceClient::new(channel.clone()).register_machine(request).await.map(drop)
}

async fn relabel(channel: &Channel, id: &str, value: &str) -> Result<(), Status> {
    let labels = [("note".to_owned(), value.to_owned())].into();
    let machine = pb::Machine { machine_id: id.to_owned(), labels, ..Default::default() };
    let request = pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
        ..Default::default()
    };
    MachineServiceClient::new(channel.clone()).update_machine(request).await.map(drop)
}

async fn get(channel: &Channel, id: &str) -> Result<pb::Machine, Status> {
    let request = pb::GetMachineRequest { machine_id: id.to_owned(), ..Default::default() };
    let machine = MachineServiceClient::new(channel.clone()).get_machine(request).await;
    machine.map(tonic::Response::into_inner)
}

/// Registers machines until the disk is full; returns how many fit.
async fn register_until_full(channel: &Channel) -> usize {
    for count in 0..10_000 {
        if let Err(refused) = register_as(channel, &format!("late-{count}")).await {
            assert_full(&refused);
            return count;
        }
    }
    panic!("the disk is full, and 10,000 machines were registered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = or_skip("full disk", Mount::tmpfs(dir.path(), 16)) else { return };
    let data = disk.path().join("data");
    let args = ["--port", "0", "--fake-timing", "0.3", "--data-dir", data.to_str().unwrap()];
    let server = Server::start(&args).await;
    let channel = server.channel().await;
    register(&channel, MACHINES).await;
    let mut runs = Vec::new();
    for machine in 1..=RUNNING {
        runs.push(repave(&channel, machine).await.unwrap().run_id);
    }

    let ballast = disk.path().join("ballast");
    fill(&ballast);
    let room = register_until_full(&channel).await;
    // The log says so once, however many runs in flight have found the disk full too and wait for space.
    server.logged("the store is full: nothing is written until there is space").await;

    // Refused requests leave no trace, and everything acknowledged can be read.
    assert_full(&register_as(&channel, "refused").await.unwrap_err());
    assert_full(&repave(&channel, MACHINES).await.unwrap_err());
    assert_full(&relabel(&channel, "machine-9", "refused").await.unwrap_err());
    assert_eq!(get(&channel, "refused").await.unwrap_err().code(), Code::NotFound);
    let idle = get(&channel, &format!("machine-{MACHINES}")).await.unwrap();
    assert_eq!(idle.status.unwrap().active_run_id, "");
    assert!(get(&channel, "machine-9").await.unwrap().labels.is_empty());
    for number in 0..room {
        get(&channel, &format!("late-{number}")).await.unwrap();
    }
    let list = pb::ListRunsRequest { page_size: 1000, ..Default::default() };
    let listed = RunServiceClient::new(channel.clone()).list_runs(list.clone()).await.unwrap();
    assert_eq!(listed.into_inner().runs.len(), RUNNING);

    let log = server.logged("the store is full").await;
    let lines = log.lines().filter(|line| line.contains("the store ")).count();
    assert_eq!(lines, 1, "{log}");

    // With space again it continues by itself, and so does every run.
    std::fs::remove_file(&ballast).unwrap();
    register_as(&channel, "refused").await.unwrap();
    relabel(&channel, "machine-9", "taken").await.unwrap();
    runs.push(repave(&channel, MACHINES).await.unwrap().run_id);
    for run in &runs {
        let ended = within("a run ends", watched(channel.clone(), run)).await.unwrap();
        assert_eq!(ended.phase(), pb::RunPhase::Succeeded, "{ended:#?}");
    }

    // None of this depends on what the server has in memory.
    server.signal("KILL").await;
    server.ended().await;
    let server = Server::start(&args).await;
    let channel = server.channel().await;
    for number in 0..room {
        get(&channel, &format!("late-{number}")).await.unwrap();
    }
    get(&channel, "refused").await.unwrap();
    assert_eq!(get(&channel, "machine-9").await.unwrap().labels["note"], "taken");
    let listed = RunServiceClient::new(channel).list_runs(list).await.unwrap().into_inner().runs;
    assert_eq!(listed.len(), runs.len());
    assert!(listed.iter().all(|run| run.phase() == pb::RunPhase::Succeeded), "{listed:#?}");
    let checked = run_to_end(&["check", "--data-dir", data.to_str().unwrap()]).await;
    assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
}
