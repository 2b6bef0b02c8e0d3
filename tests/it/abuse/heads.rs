//! Requests that pages make browsers send, and others that are no calls.

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;

use super::wire::{REGISTER, Wire, registration, whole};
use crate::support::Server;

/// Method, where to, headers, and the status of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);

#[tokio::test]
async fn what_a_page_can_send_changes_nothing() {
    let server = Server::ephemeral(&[]).await;
    let mut wire = Wire::open(&server, 65_535).await;
    let authority = wire.authority.clone();
    let own = format!("http://{authority}");
    let cases: [Case<'_>; 13] = [
        ("POST", &own, &[("content-type", "text/plain")], 415),
        ("POST", &own, &[("content-type", "application/x-www-form-urlencoded")], 415),
        ("POST", &own, &[("content-type", "text/plain; application/json")], 415),
        ("POST", &own, &[("content-type", "multipart/form-data; boundary=x")], 415),
        ("POST", &own, &[], 415),
        ("GET", &own, &[("content-type", "application/grpc")], 405),
        ("GET", &own, &[], 405),
        ("POST", &own, &[("origin", "http://evil.example")], 403),
        ("POST", &own, &[("origin", "null"), ("content-type", "application/json")], 403),
        ("OPTIONS", &own, &[("origin", "http://evil.example")], 403),
        ("POST", &own, &[("origin", "null"), ("sec-fetch-mode", "no-cors")], 403),
        ("POST", &own, &[("sec-fetch-site", "cross-site")], 403),
        ("POST", "http://evil.example", &[("content-type", "application/grpc")], 421),
    ];
    for (method, to, headers, status) in cases {
        let uri = format!("{to}{REGISTER}");
        let mut head = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let response = wire.answer(head, &registration("machine-1")).await;
        assert_eq!(response.status(), status, "{method} {to} {headers:?}");
        let (body, _) = whole(response).await;
        assert!(body.ends_with(b"\n"), "a sentence says why");
    }
    let mut machines = MachineServiceClient::new(server.channel().await);
    let listed = machines.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
    assert!(listed.into_inner().machines.is_empty());

    // The same call as a client of gRPC sends it, and as a page of the server itself would.
    let head = wire.call(REGISTER).header("origin", own).header("sec-fetch-site", "same-origin");
    let (_, status) = whole(wire.answer(head, &registration("machine-1")).await).await;
    assert_eq!(status, "0");
}
