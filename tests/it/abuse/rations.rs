//! Peers that change much, or watch much.

use std::time::Duration;

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::wire::{fat, registration};
use crate::metrics::{get, measured_with};
use crate::support::within;

#[tokio::test]
async fn who_writes_more_than_the_server_takes_is_refused_for_a_while_and_may_read() {
    let (server, metrics) = measured_with("written_bytes_per_peer_per_s = 2048\n").await;
    let mut machines = MachineServiceClient::new(server.channel().await);
    let mut refused = None;
    // 20 KB each, of 20 KB that may be written at once.
    for n in 0..3 {
        match machines.register_machine(fat(&format!("fat-{n}"))).await {
            Ok(_) => {}
            Err(status) => refused = refused.or(Some((n, status))),
        }
    }
    let (n, status) = refused.expect("one is refused");
    assert_eq!((n > 0, status.code()), (true, Code::ResourceExhausted));
    assert!(status.message().contains("written_bytes_per_peer_per_s"), "{}", status.message());
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "LIMIT_REACHED");
    assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    machines.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
    let (_, body) = get(&metrics, "/metrics").await;
    assert!(body.contains("cause=\"written_bytes_per_peer_per_s\""), "{body}");
}

#[tokio::test]
async fn mutations_of_one_address_are_limited_by_their_number() {
    let (server, _) = measured_with("mutations_per_peer_per_s = 1\n").await;
    let mut machines = MachineServiceClient::new(server.channel().await);
    let mut refused = 0;
    for n in 0..40 {
        if let Err(status) = machines.register_machine(registration(&format!("m-{n}"))).await {
            assert_eq!(status.code(), Code::ResourceExhausted);
            refused += 1;
        }
    }
    assert!((1..=30).contains(&refused), "{refused} of 40 are refused");
}

#[tokio::test]
async fn a_client_that_watches_all_it_can_does_not_blind_the_others() {
    let (server, metrics) = measured_with("watches_max = 20\n").await;
    let mut greedy = RunServiceClient::new(server.channel().await);
    let request = pb::WatchRunsRequest::default();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(greedy.watch_runs(request.clone()).await.unwrap().into_inner());
    }
    let refused = greedy.watch_runs(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("watches_max"), "{}", refused.message());
    let mut other = RunServiceClient::new(server.channel().await);
    let mut watch = other.watch_runs(request).await.unwrap().into_inner();
    let synced = within("it is served", watch.message()).await.unwrap().unwrap();
    assert_eq!(synced.r#type(), pb::RunEventType::Synced);
    let oldest = &mut held[0];
    let ended = within("the oldest of the greedy one ends", async {
        loop {
            match oldest.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status.code()),
            }
        }
    });
    assert_eq!(ended.await, Some(Code::Cancelled));
    let (_, body) = get(&metrics, "/metrics").await;
    assert!(body.contains("bmdemo_refusals_total{cause=\"watch_gave_way\"} 1"), "{body}");
}
