//! Records that cannot be read: they block their machine and nothing else, and can be repaired or dropped.

use std::path::{Path, PathBuf};

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tempfile::TempDir;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::runs::{register, repave, watched};
use crate::support::{Server, run_to_end, text, within};

const MACHINES: usize = 5;

struct Data(TempDir);

impl Data {
    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn flag(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    async fn serve(&self, timing: &str) -> Server {
        Server::start(&["--port", "0", "--data-dir", &self.flag(), "--fake-timing", timing]).await
    }

    async fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = run_to_end(&[args, &["--data-dir", &self.flag()]].concat()).await;
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }

    /// Changes the database as damage might.
    fn edit(&self, sql: &str) {
        edit(&self.path(), sql);
    }

    /// Active runs on every machine, and a server that was killed meanwhile; the ids of the runs.
    async fn active() -> (Self, Vec<String>) {
        let data = Self(tempfile::tempdir().unwrap());
        let server = data.serve("slow").await;
        let channel = server.channel().await;
        register(&channel, MACHINES + 1).await;
        let mut runs = Vec::new();
        for machine in 1..=MACHINES {
            runs.push(repave(&channel, machine).await.unwrap().run_id);
        }
        server.signal("KILL").await;
        server.ended().await;
        (data, runs)
    }
}

fn edit(dir: &Path, sql: &str) {
    let conn = rusqlite::Connection::open(dir.join("bmdemo.db")).unwrap();
    conn.execute_batch(sql).unwrap();
}

async fn machine(channel: &Channel, number: usize) -> Result<pb::Machine, tonic::Status> {
    let request =
        pb::GetMachineRequest { machine_id: format!("machine-{number}"), ..Default::default() };
    let answer = MachineServiceClient::new(channel.clone()).get_machine(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn run(channel: &Channel, id: &str) -> Result<pb::Run, tonic::Status> {
    let request = pb::GetRunRequest { run_id: id.to_owned(), ..Default::default() };
    let answer = RunServiceClient::new(channel.clone()).get_run(request).await;
    answer.map(tonic::Response::into_inner)
}

fn intervention(machine: &pb::Machine) -> Option<pb::Condition> {
    let conditions = &machine.status.as_ref().unwrap().conditions;
    conditions.iter().find(|c| c.r#type() == pb::ConditionType::NeedsIntervention).cloned()
}

/// Waits until a machine reports that it needs an operator.
async fn blocked(channel: &Channel, number: usize) -> pb::Condition {
    let filter = format!("machine_id = machine-{number}");
    let request = pb::WatchMachinesRequest { filter, ..Default::default() };
    let mut client = MachineServiceClient::new(channel.clone());
    let mut events = client.watch_machines(request).await.unwrap().into_inner();
    let found = async {
        loop {
            let event = events.next().await.expect("the watch continues").unwrap();
            let needed = event.snapshot.as_ref().and_then(intervention);
            if let Some(needed) = needed.filter(|needed| needed.status) {
                return needed;
            }
        }
    };
    within("the machine is blocked", found).await
}

#[tokio::test]
async fn one_run_that_cannot_be_read_blocks_its_machine_alone_and_is_mended() {
    let (data, runs) = Data::active().await;
    let broken = &runs[2];
    data.edit(&format!(
        "UPDATE runs SET body = replace(body, '\"st\":', '\"sd\":') WHERE id = '{broken}'"
    ));
    let server = data.serve("zero").await;
    let channel = server.channel().await;
    for (number, id) in runs.iter().enumerate().filter(|(number, _)| *number != 2) {
        let ended = within("a run ends", watched(channel.clone(), id)).await.unwrap();
        assert_eq!(ended.phase(), pb::RunPhase::Succeeded, "machine-{}", number + 1);
    }
    let needed = blocked(&channel, 3).await;
    assert_eq!(needed.reason, "RECORD_UNREADABLE");
    assert!(needed.message.contains(broken), "{needed:?}");
    let refused = run(&channel, broken).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss);
    assert!(refused.message().contains(broken), "{refused}");
    let list = pb::ListRunsRequest { page_size: 1000, ..Default::default() };
    let mut client = RunServiceClient::new(channel.clone());
    let listed = client.list_runs(list).await.unwrap().into_inner();
    assert_eq!((listed.runs.len(), listed.unreadable_count), (MACHINES - 1, 1));
    let watch = pb::WatchRunsRequest::default();
    let mut events = client.watch_runs(watch).await.unwrap().into_inner();
    let synced = loop {
        let event = within("an event", events.next()).await.unwrap().unwrap();
        if event.r#type() == pb::RunEventType::Synced {
            break event;
        }
    };
    assert_eq!(synced.unreadable_count, 1);

    let (code, said) = data.command(&["repair"]).await;
    assert_eq!(code, Some(75), "a server is using it: {said}");
    let (code, said) = data.command(&["check"]).await;
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains(broken) && said.contains("(of machine machine-3)"), "{said}");
    server.signal("TERM").await;
    server.ended().await;
    let (code, said) = data.command(&["repair", "--drop-run", &runs[0]]).await;
    assert_eq!(code, Some(64), "what can be read is not dropped: {said}");
    let (code, said) = data.command(&["repair"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("repaired: run {broken} of machine machine-3")), "{said}");
    assert_eq!(data.command(&["check"]).await.0, Some(0));
    let server = data.serve("zero").await;
    let channel = server.channel().await;
    let ended = within("the run ends", watched(channel.clone(), broken)).await.unwrap();
    assert_eq!(ended.phase(), pb::RunPhase::Succeeded);
}

#[tokio::test]
async fn what_cannot_be_mended_is_dropped_if_it_is_named() {
    let (data, runs) = Data::active().await;
    let broken = &runs[2];
    data.edit(&format!(
        "UPDATE changes SET body = '{{' WHERE run = (SELECT ordinal FROM runs WHERE id = '{broken}');
        UPDATE runs SET body = '{{' WHERE id = '{broken}';
        UPDATE changes SET body = '{{' WHERE machine_id = 'machine-6' AND run IS NULL;
        UPDATE machines SET body = '{{' WHERE id = 'machine-6';"
    ));
    let server = data.serve("zero").await;
    let channel = server.channel().await;
    assert_eq!(blocked(&channel, 3).await.reason, "RECORD_UNREADABLE");
    let refused = machine(&channel, 6).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss);
    assert!(refused.message().contains("machine-6"), "{refused}");
    let list = pb::ListMachinesRequest { page_size: 1000, ..Default::default() };
    let mut client = MachineServiceClient::new(channel.clone());
    let listed = client.list_machines(list).await.unwrap().into_inner();
    assert_eq!((listed.machines.len(), listed.unreadable_count), (MACHINES, 1));
    for id in runs.iter().filter(|id| *id != broken) {
        let ended = within("a run ends", watched(channel.clone(), id)).await.unwrap();
        assert_eq!(ended.phase(), pb::RunPhase::Succeeded);
    }
    server.signal("TERM").await;
    server.ended().await;

    let (code, said) = data.command(&["repair"]).await;
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains(broken) && said.contains("machine-6"), "{said}");
    let drop = ["repair", "--drop-run", broken, "--drop-machine", "machine-6"];
    let (code, said) = data.command(&drop).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("dropped: run {broken} of machine machine-3")), "{said}");
    let (code, said) = data.command(&["check"]).await;
    assert_eq!(code, Some(0), "{said}");
    let server = data.serve("zero").await;
    let channel = server.channel().await;
    assert_eq!(run(&channel, broken).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(machine(&channel, 6).await.unwrap_err().code(), Code::NotFound);
    let idle = machine(&channel, 3).await.unwrap();
    assert_eq!(idle.status.as_ref().unwrap().active_run_id, "");
    assert_eq!(intervention(&idle).unwrap().reason, "RECORD_UNREADABLE");
    register(&channel, MACHINES + 1).await;
    let request = pb::ClearInterventionRequest {
        machine_id: "machine-3".to_owned(),
        reason: "looked at".to_owned(),
        ..Default::default()
    };
    MachineServiceClient::new(channel.clone()).clear_intervention(request).await.unwrap();
    let request = pb::StartRunRequest {
        machine_id: "machine-3".to_owned(),
        r#type: pb::RunType::Repave.into(),
        ..Default::default()
    };
    let mut client = RunServiceClient::new(channel.clone());
    let started = client.start_run(request).await.unwrap().into_inner();
    let ended = within("the run ends", watched(channel, &started.run_id)).await.unwrap();
    assert_eq!(ended.phase(), pb::RunPhase::Succeeded);
}
