//! Classes of machines: what a machine can do is what its class names drivers for.

use std::io::Write as _;

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::runs::{info, watched};
use crate::support::Server;

const CLASSES: &str = "\
[machine_classes.rack-server]
power = \"fake\"
probe = \"fake\"
drain = \"fake\"
";

async fn register(channel: &Channel, provider: &str) -> Result<pb::Machine, tonic::Status> {
    let machine = pb::Machine {
        machine_id: "node-1".to_owned(),
        spec: Some(pb::MachineSpec { provider: provider.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
    let mut client = MachineServiceClient::new(channel.clone());
    client.register_machine(request).await.map(tonic::Response::into_inner)
}

async fn start(channel: &Channel, plan: &str) -> Result<pb::Run, tonic::Status> {
    let request = pb::StartRunRequest {
        machine_id: "node-1".to_owned(),
        plan_id: plan.to_owned(),
        ..Default::default()
    };
    RunServiceClient::new(channel.clone()).start_run(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_machine_can_do_what_its_class_names_drivers_for() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(CLASSES.as_bytes()).unwrap();
    let server = Server::ephemeral(&["--config", config.path().to_str().unwrap()]).await;
    let channel = server.channel().await;
    assert_eq!(info(&channel).await.providers, ["fake", "rack-server"]);

    let refused = register(&channel, "rack-sevrer").await.unwrap_err();
    assert!(refused.message().contains("did you mean rack-server?"), "{refused}");
    register(&channel, "rack-server").await.unwrap();

    let request = pb::GetMachineRequest { machine_id: "node-1".to_owned(), ..Default::default() };
    let mut machines = MachineServiceClient::new(channel.clone());
    let machine = machines.get_machine(request).await.unwrap().into_inner();
    let able: Vec<_> = machine
        .status
        .unwrap()
        .capabilities
        .into_iter()
        .map(|able| (able.capability, able.driver))
        .collect();
    let by_fake = |capability: &str| (capability.to_owned(), "fake".to_owned());
    assert_eq!(able, [by_fake("power"), by_fake("probe"), by_fake("drain")]);

    let refused = start(&channel, "plan/repave-join").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "step set-netboot of plan/repave-join needs the capability netboot, which provider \"rack-server\" of machine \
         node-1 lacks"
    );
    let run = start(&channel, "plan/reboot").await.unwrap();
    let ended = watched(channel, &run.run_id).await.unwrap();
    assert_eq!(ended.phase(), pb::RunPhase::Succeeded);
}

/// An image that is not configured is refused before anything is done, not at the step that would write it.
#[tokio::test]
async fn a_run_with_an_unknown_image_does_not_start() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    let sum = "00".repeat(32);
    write!(
        config,
        "[networks]\nbmc = [\"127.0.0.0/8\"]\n[boot]\nlisten = \"127.0.0.1:0\"\n\
         [images.debian]\nurl = \"http://127.0.0.1:1/debian\"\nsha256 = \"{sum}\"\n\
         [machine_classes.rack-server]\npower = \"redfish\"\nnetboot = \"redfish\"\nimaging = \"redfish\"\n\
         cluster-join = \"fake\"\nprobe = \"fake\"\n[machine_classes.rack-server.redfish]\n"
    )
    .unwrap();
    let server = Server::ephemeral(&["--config", config.path().to_str().unwrap()]).await;
    let channel = server.channel().await;
    register(&channel, "rack-server").await.unwrap();
    let refused = start(&channel, "plan/repave-join").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "step repave of plan/repave-join: node-1 has no MAC address, by which it would get its settings: register one"
    );
    let mac = pb::MachineSpec {
        mac_addresses: vec!["52:54:00:d0:00:01".to_owned()],
        ..Default::default()
    };
    let machine =
        pb::Machine { machine_id: "node-1".to_owned(), spec: Some(mac), ..Default::default() };
    let update = pb::UpdateMachineRequest { machine: Some(machine), ..Default::default() };
    MachineServiceClient::new(channel.clone()).update_machine(update).await.unwrap();
    let refused = start(&channel, "plan/repave-join").await.unwrap_err();
    assert_eq!(
        refused.message(),
        "step repave of plan/repave-join: there is no image \"ubuntu-24.04\" in the configuration; there is debian"
    );
}
