//! SIGHUP reads certificates again: without a lost call, and never something worse than before.

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use rcgen::SerialNumber;
use rustls::version::TLS13;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::lab::{Authority, DAY, Lab, channel, valid};
use crate::metrics::get;
use crate::support::{Server, text, within};

/// A server that serves metrics too, and where.
async fn measured(lab: &Lab) -> (Server, String) {
    let server = lab.server(&["--metrics-listen", "127.0.0.1:0"]).await;
    let log = server.logged("/metrics").await;
    let url = log.split("http://").nth(1).unwrap().split("/metrics").next().unwrap().to_owned();
    (server, url)
}

/// The value of a metric.
async fn metric(address: &str, name: &str) -> i64 {
    let (_, body) = get(address, "/metrics").await;
    let line = body.lines().find_map(|line| {
        let value = line.strip_prefix(name)?;
        value.strip_prefix("{}").unwrap_or(value).strip_prefix(' ')
    });
    line.unwrap_or_else(|| panic!("{name} is not in:\n{body}")).parse().unwrap()
}

#[tokio::test]
async fn a_bad_reload_keeps_what_was() {
    let lab = Lab::new("");
    let (server, metrics) = measured(&lab).await;
    let left = metric(&metrics, "bmdemo_tls_expires_seconds").await;
    assert!((DAY - 300..=DAY).contains(&left), "{left}");
    assert_eq!(metric(&metrics, "bmdemo_reload_failed").await, 0);

    let good = lab.authority.server(|_| ());
    let other = lab.authority.server(|_| ());
    let expired = lab.authority.server(|params| valid(params, -2 * DAY, -DAY));
    let half = &good.cert[..good.cert.len() / 2];
    for (cert, key, reason) in [
        (good.cert.as_str(), other.key.as_str(), "is not the key of"),
        (half, &good.key, "server.pem"),
        (&expired.cert, &expired.key, "has expired"),
        (&good.cert, "", "has no private key"),
        ("", &good.key, "has no certificate"),
    ] {
        lab.put("server.pem", cert);
        lab.put("server-key.pem", key);
        server.signal("HUP").await;
        let log = server.logged(reason).await;
        assert!(log.contains("were not reloaded"), "{log}");
        // The gauge is set before the line is logged.
        assert_eq!(metric(&metrics, "bmdemo_reload_failed").await, 1);
        let output = lab.cli(&server, "ann", &["doctor"]).await;
        let shown = text(&output.stdout);
        assert!(shown.contains("reload refused") && shown.contains(reason), "{shown}");
    }
    let other = Authority::new("other");
    lab.pair("server", &other.server(|params| valid(params, -60, 10 * DAY)));
    server.signal("HUP").await;
    server.logged("reloaded configuration, plans and certificates").await;
    assert_eq!(metric(&metrics, "bmdemo_reload_failed").await, 0);
    assert!(metric(&metrics, "bmdemo_tls_expires_seconds").await > 9 * DAY);
    let untrusted = lab.cli(&server, "ann", &["list"]).await;
    assert_eq!(untrusted.status.code(), Some(78));
    assert!(text(&untrusted.stderr).contains("is not trusted"), "{}", text(&untrusted.stderr));
    lab.put("ca.pem", &other.pem);
    let good = lab.cli(&server, "ann", &["list"]).await;
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
}

#[tokio::test]
async fn reloads_lose_no_call_and_no_watch() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let config = || lab.config(Some(&lab.authority.client(|_| ())), &[&TLS13]);
    let mut watches = Vec::new();
    for _ in 0..4 {
        let mut runs = RunServiceClient::new(channel(&server, config()).await);
        for _ in 0..10 {
            let request = pb::WatchRunsRequest::default();
            watches.push(runs.watch_runs(request).await.unwrap().into_inner());
        }
    }
    for watch in &mut watches {
        let first = within("a watch begins", watch.message()).await.unwrap().unwrap();
        assert_eq!(first.r#type(), pb::RunEventType::Synced);
    }
    let mut machines = MachineServiceClient::new(channel(&server, config()).await);
    for round in 0..5 {
        lab.pair("server", &lab.authority.server(|_| ()));
        server.signal("HUP").await;
        for _ in 0..40 {
            machines.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
        }
        let mut fresh = MachineServiceClient::new(channel(&server, config()).await);
        fresh.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
        let reloaded = "reloaded configuration, plans and certificates";
        let mut log = String::new();
        while log.matches(reloaded).count() <= round {
            machines.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
            log = server.logged("serving").await;
        }
    }
    let machine = pb::Machine {
        machine_id: "machine-1".to_owned(),
        spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
    machines.register_machine(request).await.unwrap();
    let request = pb::StartRunRequest {
        machine_id: "machine-1".to_owned(),
        plan_id: "plan/repave-join".to_owned(),
        ..Default::default()
    };
    let channel = channel(&server, config()).await;
    let run = RunServiceClient::new(channel).start_run(request).await.unwrap().into_inner();
    for watch in &mut watches {
        let event = within("a watch continues", watch.message()).await.unwrap().unwrap();
        assert_eq!(event.snapshot.unwrap().run_id, run.run_id);
    }
}

/// Streams of a revoked certificate end, with where to resume; so does what begins after that.
#[tokio::test]
async fn a_revoked_certificate_ends_its_streams() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let ann = lab.authority.client(|params| params.serial_number = Some(SerialNumber::from(7_u64)));
    let bob = lab.authority.client(|params| {
        params.subject_alt_names = vec![super::lab::uri("bmdemo://bob")];
    });
    let of_ann = channel(&server, lab.config(Some(&ann), &[&TLS13])).await;
    let of_bob = channel(&server, lab.config(Some(&bob), &[&TLS13])).await;
    let mut watches = Vec::new();
    for channel in [&of_ann, &of_bob] {
        let mut machines = MachineServiceClient::new(channel.clone());
        let request = pb::WatchMachinesRequest::default();
        let mut watch = machines.watch_machines(request).await.unwrap().into_inner();
        let synced = within("a watch begins", watch.message()).await.unwrap().unwrap();
        watches.push((watch, synced.revision));
    }
    lab.put("crl.pem", &lab.authority.revoked(&[7]));
    server.signal("HUP").await;
    let (watch, revision) = &mut watches[0];
    let ended = within("the watch ends", watch.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    let info = ended.get_error_details().error_info().cloned().unwrap();
    assert_eq!(info.reason, "CREDENTIALS_ENDED");
    assert_eq!(info.metadata["resume_from"], revision.to_string());

    // Bob, who was removed from nowhere, continues, until he is removed.
    let mut machines = MachineServiceClient::new(of_bob);
    machines.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
    lab.configure("[principals.ann]\nrole = \"admin\"");
    server.signal("HUP").await;
    let (watch, _) = &mut watches[1];
    let ended = within("the watch ends", watch.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
}

#[tokio::test]
async fn a_certificate_that_expires_ends_its_streams() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let brief = lab.authority.client(|params| valid(params, -60, 4));
    let channel = channel(&server, lab.config(Some(&brief), &[&TLS13])).await;
    let mut machines = MachineServiceClient::new(channel);
    let request = pb::WatchMachinesRequest::default();
    let mut watch = machines.watch_machines(request).await.unwrap().into_inner();
    within("a watch begins", watch.message()).await.unwrap().unwrap();
    let ended = within("the watch ends", watch.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
}
