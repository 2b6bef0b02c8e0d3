//! Every kind of client that is refused: its reason is in the log of the server, and the client learns nothing of it.

use std::collections::BTreeSet;

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use rcgen::{DnType, ExtendedKeyUsagePurpose, SerialNumber};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::lab::{Authority, DAY, Lab, Pair, channel, secured, uri, valid};
use crate::abuse::wire::{REGISTER, Wire, registration, whole};
use crate::support::{text, within};

/// Certificates that are refused, with what the log says.
fn wrong(lab: &Lab) -> Vec<(&'static str, Pair, &'static str)> {
    let authority = &lab.authority;
    vec![
        (
            "stranger",
            Authority::new("stranger").client(|_| ()),
            "no authority in tls.client_ca_file",
        ),
        ("expired", authority.client(|params| valid(params, -2 * DAY, -DAY)), "it has expired"),
        ("early", authority.client(|params| valid(params, DAY, 2 * DAY)), "it is not valid yet"),
        (
            "of-server",
            authority.client(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "it is not made for clients",
        ),
        (
            "revoked",
            authority.client(|params| params.serial_number = Some(SerialNumber::from(666_u64))),
            "its authority has revoked it",
        ),
        (
            "nameless",
            authority.client(|params| params.subject_alt_names.clear()),
            "it has neither a URI nor a common name",
        ),
        (
            "double",
            authority.client(|params| params.subject_alt_names.push(uri("bmdemo://bob"))),
            "it has more than one identity",
        ),
        (
            "unknown",
            authority.client(|params| params.subject_alt_names = vec![uri("bmdemo://carl")]),
            "its identity \"bmdemo://carl\" is not one of a principal",
        ),
        ("authority", authority.own(), "it is the certificate of an authority"),
    ]
}

#[tokio::test]
async fn wrong_certificates_are_told_apart_in_the_log_alone() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let mut answers = BTreeSet::new();
    for (name, pair, reason) in wrong(&lab) {
        lab.pair(name, &pair);
        let output = lab.cli(&server, name, &["list"]).await;
        assert_eq!(output.status.code(), Some(80), "{name}: {}", text(&output.stderr));
        answers.insert(text(&output.stderr));
        let refused = format!("the certificate of the client is refused: {reason}");
        server.logged(&refused).await;
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let answer = answers.pop_first().unwrap();
    assert!(answer.contains("refused the certificate of this client"), "{answer}");

    let without = lab.cli(&server, "", &["list"]).await;
    assert_eq!(without.status.code(), Some(80), "{}", text(&without.stderr));
    assert!(text(&without.stderr).contains("wants a certificate of the client"));
    server.logged("the client has no certificate").await;

    let good = lab.cli(&server, "ann", &["list"]).await;
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
}

#[tokio::test]
async fn clients_without_tls_1_3_are_refused() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let ann = lab.authority.client(|_| ());
    let old = secured(&server, lab.config(Some(&ann), &[&TLS12])).await.unwrap_err();
    assert!(old.to_string().contains("ProtocolVersion"), "{old}");
    server.logged("the client does not speak TLS 1.3").await;

    let plain = format!("http://{}", server.address);
    let plain = lab.run(&["list", "--server", &plain], &[]).await;
    let error = text(&plain.stderr);
    assert_eq!(plain.status.code(), Some(78), "{error}");
    assert!(error.contains("speaks TLS only, and the address says http"), "{error}");
    assert!(error.contains(&format!("give https://{}", server.address)), "{error}");
    server.logged("the client does not speak TLS; with bmdemo-cli").await;

    let mut foreign = lab.config(Some(&ann), &[&TLS13]);
    foreign.alpn_protocols = vec![b"imap".to_vec()];
    secured(&server, foreign).await.unwrap_err();
    server.logged("the client does not say that it speaks HTTP/2 or HTTP/1.1").await;
    let mut silent = lab.config(Some(&ann), &[&TLS13]);
    silent.alpn_protocols.clear();
    let mut silent = secured(&server, silent).await.unwrap();
    let mut rest = Vec::new();
    let _ = within("the server hangs up", silent.read_to_end(&mut rest)).await;

    // A half handshake ends in time; until then others are served.
    let mut half = server.raw().await;
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    let good = lab.cli(&server, "ann", &["list"]).await;
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let mut rest = Vec::new();
    within("the server hangs up", half.read_to_end(&mut rest)).await.unwrap();
    server.logged("did not complete the handshake in time").await;
}

#[tokio::test]
async fn the_identity_of_a_certificate_is_in_the_history() {
    let lab = Lab::new(
        "[principals.carl]\nrole = \"admin\"\ncertificates = [\"spiffe://lab/carl\", \"CN=Carl C\"]",
    );
    let server = lab.server(&[]).await;
    let by_uri = lab.authority.client(|params| {
        params.subject_alt_names = vec![uri("spiffe://lab/carl")];
        params.distinguished_name.push(DnType::CommonName, "somebody else");
    });
    let by_name = lab.authority.client(|params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, "Carl C");
    });
    for (place, pair) in [by_uri, by_name].iter().enumerate() {
        lab.pair("carl", pair);
        let name = format!("machine-{place}");
        let args = ["machine", "register", &name, "--provider", "fake", "--as", "engine-room"];
        let output = lab.cli(&server, "carl", &args).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let history = lab.cli(&server, "ann", &["machine", "history", &name]).await;
        let history = text(&history.stdout);
        assert!(history.contains("[by carl]") && !history.contains("unverified"), "{history}");
    }
    let output = lab.cli(&server, "ann", &["machine", "history", "machine-0", "-o", "json"]).await;
    let history = text(&output.stdout);
    assert!(history.contains("\"verified\": true") || history.contains("\"verified\":true"));
}

/// Method, where to, headers, and the status of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);

/// A browser with the certificate of an operator can send such calls over TLS.
#[tokio::test]
async fn what_a_page_can_send_changes_nothing_over_tls_either() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let config = || lab.config(Some(&lab.authority.client(|_| ())), &[&TLS13]);
    let stream = secured(&server, config()).await.unwrap();
    let authority = format!("localhost:{}", server.address.port());
    let mut wire = Wire::over(stream, 65_535, &authority).await;
    let own = format!("https://{authority}");
    let cases: [Case<'_>; 7] = [
        ("POST", &own, &[("content-type", "text/plain"), ("origin", "https://evil.example")], 403),
        ("POST", &own, &[("content-type", "text/plain")], 415),
        ("POST", &own, &[("content-type", "application/x-www-form-urlencoded")], 415),
        ("POST", &own, &[], 415),
        ("GET", &own, &[("content-type", "application/grpc")], 405),
        ("POST", &own, &[("sec-fetch-site", "cross-site")], 403),
        ("POST", "https://evil.example", &[("content-type", "application/grpc")], 421),
    ];
    for (method, to, headers, status) in cases {
        let mut head = http::Request::builder().method(method).uri(format!("{to}{REGISTER}"));
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let response = wire.answer(head, &registration("machine-1")).await;
        assert_eq!(response.status(), status, "{method} {to} {headers:?}");
    }
    let mut machines = MachineServiceClient::new(channel(&server, config()).await);
    let listed = machines.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
    assert!(listed.into_inner().machines.is_empty());
    let head = wire.call(REGISTER).header("sec-fetch-site", "none");
    let (_, status) = whole(wire.answer(head, &registration("machine-1")).await).await;
    assert_eq!(status, "0");
}
