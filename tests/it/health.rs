//! grpc.health.v1 over the wire.

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Server, within};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn every_service_is_serving_and_an_unknown_one_is_not_found() {
    let server = Server::ephemeral(&[]).await;
    let mut client = HealthClient::new(server.channel().await);
    for service in [
        "",
        "liveness",
        "readiness",
        "baremetal.v1.MachineService",
        "baremetal.v1.PlanService",
        "baremetal.v1.RunService",
        "baremetal.v1.ServerService",
    ] {
        let status = client.check(of(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let refused = client.check(of("baremetal.v1.Nobody")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn watches_hear_of_the_end_and_unknown_services_stay_open_until_then() {
    let server = Server::ephemeral(&[]).await;
    let mut client = HealthClient::new(server.channel().await);
    let mut known = client.watch(of("baremetal.v1.RunService")).await.unwrap().into_inner();
    let mut unknown = client.watch(of("nobody")).await.unwrap().into_inner();
    assert_eq!(known.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);

    server.signal("TERM").await;
    let last = within("the watch hears of the end", known.message()).await;
    assert_eq!(last.unwrap().unwrap().status(), ServingStatus::NotServing);
    // Nothing more came for the unknown service except the end of the connection.
    let end = within("the watch ends", unknown.message()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    assert_eq!(server.ended().await.0.code(), Some(0));
}
