//! Connections that misbehave, and calls that no service handles.

use std::io::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Server, within};

/// Whether the server has closed the connection, however it did so.
async fn is_closed(stream: &mut tokio::net::TcpStream) -> bool {
    let mut rest = Vec::new();
    within("the server closes the connection", stream.read_to_end(&mut rest)).await.ok();
    true
}

#[tokio::test]
async fn silent_and_babbling_peers_are_cut_off_while_others_are_served() {
    let server = Server::ephemeral(&[]).await;
    let mut silent = server.raw().await;
    let mut stuck = server.raw().await;
    stuck.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut babbling = server.raw().await;
    babbling.write_all(b"EHLO here\r\n\r\n").await.unwrap();
    let mut patient = HealthClient::new(server.channel().await);
    assert!(is_closed(&mut babbling).await);
    assert!(is_closed(&mut silent).await);
    assert!(is_closed(&mut stuck).await);
    // One that has sent its preface may be silent for as long.
    patient.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn connections_above_the_cap_are_refused_until_others_leave() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"[server]\nconnections_max = 2\n").unwrap();
    let server = Server::ephemeral(&["--config", config.path().to_str().unwrap()]).await;
    let (first, second) = (server.channel().await, server.channel().await);
    let mut watches = Vec::new();
    for channel in [&first, &second] {
        // Idle ones would make room.
        let mut client = HealthClient::new(channel.clone());
        watches.push(client.watch(HealthCheckRequest::default()).await.unwrap());
    }
    let mut third = server.raw().await;
    assert!(is_closed(&mut third).await);
    server.logged("connections_max").await;
    drop((first, second, watches));
    // The places are free once the server has noticed that the others left.
    within("a place is free", async {
        loop {
            let endpoint =
                tonic::transport::Endpoint::from_shared(format!("http://{}", server.address));
            let Ok(channel) = endpoint.unwrap().connect().await else { continue };
            if HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_method_is_named() {
    let server = Server::ephemeral(&[]).await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    for path in ["/baremetal.v1.RunService/Nothing", "/nobody.Knows/This"] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let refused = grpc.unary(tonic::Request::new(()), path.clone(), codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().ends_with(path.as_str()), "{}", refused.message());
    }
}

#[tokio::test]
async fn long_header_lists_are_taken() {
    let server = Server::ephemeral(&[]).await;
    let mut client = HealthClient::new(server.channel().await);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("x-long", "y".repeat(20_000).parse().unwrap());
    client.check(request).await.unwrap();
}

#[tokio::test]
async fn a_server_without_file_descriptors_waits_and_continues() {
    let server = Server::with_open_files(40, &["--ephemeral", "--port", "0"]).await;
    let mut flood = Vec::new();
    for _ in 0..60 {
        flood.push(server.raw().await);
    }
    server.logged("cannot accept connections").await;
    // Silent peers are disconnected one after the other, and this one gets its place.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address));
    let mut client = HealthClient::new(endpoint.unwrap().connect_lazy());
    within("a call is answered", client.check(HealthCheckRequest::default())).await.unwrap();
}
