//! Notifications: real servers and receivers, both of which go away.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tonic::transport::Channel;

use crate::metrics::get;
use crate::receiver::{Message, Receiver, Reply, SECRET, answer, credentials, json};
use crate::runs::{info, register, repave, watched};
use crate::support::{Server, announce, within};
use crate::terminal::piped;

/// A folder with the configuration of a server that notifies one receiver.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new(url: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "[server]\nmetrics_listen = \"127.0.0.1:0\"\n[credentials]\ndir = {:?}\n[networks]\nwebhook = [\"127.0.0.0/8\"]\n\
             [[notify]]\nname = \"ops\"\nurl = {url:?}\nsecret = \"hook\"\n{more}\n",
            credentials(dir.path()),
        );
        std::fs::write(dir.path().join("bmdemo.toml"), config).unwrap();
        Self { dir }
    }

    async fn server(&self) -> Server {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let (config, data) = (at("bmdemo.toml"), at("data"));
        let args =
            ["--port", "0", "--fake-timing", "zero", "--config", &config, "--data-dir", &data];
        Server::start(&args).await
    }
}

/// Repaves a machine to its end.
async fn repaved(channel: &Channel, machine: usize) {
    let run = repave(channel, machine).await.unwrap();
    let run = watched(channel.clone(), &run.run_id).await.unwrap();
    assert_eq!(run.phase(), pb::RunPhase::Succeeded);
}

/// What the history says that happened to a machine and its runs, steps left out.
async fn history(channel: &Channel, machine: usize) -> Vec<(u64, String)> {
    let machine_id = format!("machine-{machine}");
    let request =
        pb::ListMachineHistoryRequest { machine_id, page_size: 1_000, ..Default::default() };
    let mut client = MachineServiceClient::new(channel.clone());
    let entries = client.list_machine_history(request).await.unwrap().into_inner().entries;
    let entries = entries.into_iter().filter(|entry| !entry.kind.starts_with("step."));
    entries.map(|entry| (entry.revision, entry.kind)).collect()
}

/// What the receiver got about a machine, in order; repetitions are left out, and must be the same event.
fn received(messages: &[Message], machine: usize) -> Vec<(u64, String)> {
    let mut seen: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    let mut order = Vec::new();
    for Message { head, body } in messages {
        assert!(head.contains("content-type: application/cloudevents+json"), "{head}");
        assert_eq!((&body["specversion"], &body["source"]), (&"1.0".into(), &"/bmdemo".into()));
        let id = body["id"].as_str().unwrap().to_owned();
        if let Some(before) = seen.insert(id, body.clone()) {
            assert_eq!(&before, body, "a repetition is the same event");
            continue;
        }
        let data = &body["data"];
        if data["machine_id"] == format!("machine-{machine}").as_str() {
            let kind = data["kind"].as_str().unwrap().to_owned();
            assert_eq!(body["type"], format!("bmdemo.{kind}"));
            order.push((data["revision"].as_u64().unwrap(), kind));
        }
    }
    order
}

fn is_received(messages: &[Message], kind: &str, machine: usize) -> bool {
    received(messages, machine).iter().any(|(_, received)| received == kind)
}

/// The receiver goes away, comes back without answering, and the server is killed twice meanwhile.
#[tokio::test]
async fn a_receiver_that_was_down_and_a_server_that_was_killed_lose_nothing() {
    let receiver = Receiver::new(|_, _| answer("204 Fine", "", "")).await;
    let (address, url) = (receiver.address, receiver.url());
    let site = Site::new(&url, "timeout = \"2s\"");
    let server = site.server().await;
    let channel = server.channel().await;
    register(&channel, 4).await;
    repaved(&channel, 1).await;
    receiver.until("the first run", |all| is_received(all, "run.succeeded", 1)).await;
    let mut all = receiver.messages();
    receiver.close().await;

    // It is down.
    repaved(&channel, 2).await;
    let doctor = piped(&server.address.to_string(), "doctor").await;
    assert!(doctor.contains("ops: "), "{doctor}");
    server.signal("KILL").await;
    server.ended().await;
    let server = site.server().await;
    let channel = server.channel().await;
    repaved(&channel, 3).await;
    // It has the event, and the server is killed before it answers.
    let silent = Receiver::at(address, |_, before| match before {
        0..3 => answer("200 Fine", "", "thanks"),
        _ => Reply::Silence,
    })
    .await;
    silent.until("an event without an answer", |all| all.len() > 3).await;
    server.signal("KILL").await;
    server.ended().await;
    all.extend(silent.messages());
    silent.close().await;

    let back = Receiver::at(address, |_, _| answer("204 Fine", "", "")).await;
    let server = site.server().await;
    let channel = server.channel().await;
    repaved(&channel, 4).await;
    back.until("the last run", |all| is_received(all, "run.succeeded", 4)).await;
    all.extend(back.messages());
    for machine in 1..=4 {
        assert_eq!(received(&all, machine), history(&channel, machine).await, "machine {machine}");
    }
    let revisions: Vec<u64> = {
        let mut seen = std::collections::BTreeSet::new();
        let first = all.iter().filter(|message| seen.insert(message.body["id"].to_string()));
        first.map(|message| message.body["data"]["revision"].as_u64().unwrap()).collect()
    };
    assert!(revisions.is_sorted(), "{revisions:?}");
    assert!(revisions.len() < all.len(), "what was not answered came again");
    let clock = SystemClock::new();
    within("nothing waits", async {
        while info(&channel).await.receivers[0].oldest_event_at.is_some() {
            clock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert!(status.success() && !log.contains(SECRET), "{log}");
}

/// Whatever a receiver answers: the server serves, and each event arrives in the end, once it is taken.
#[tokio::test]
async fn hostile_receivers_hurt_no_one() {
    let elsewhere = Receiver::new(|_, _| json("200 OK", "{}")).await;
    let away = format!("location: {}\r\n", elsewhere.url());
    let receiver = Receiver::new(move |_, before| match before {
        0 => answer("200 OK", "", &"x".repeat(8 << 20)),
        2 => answer("307 There", &away, ""),
        4 => answer("500 Oops", "", "no"),
        6 => Reply::HangUp,
        8 => Reply::Silence,
        10 => Reply::Answer(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        12 => Reply::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_vec()),
        // This event is wrong, says it: it is left out.
        14 => answer("422 No", "", ""),
        _ => answer("204 Fine", "", ""),
    })
    .await;
    let site = Site::new(&receiver.url(), "timeout = \"1s\"\nevents = [\"machine.*\"]");
    let server = site.server().await;
    let channel = server.channel().await;
    let log = server.logged("/metrics").await;
    let metrics = log.split("http://").nth(1).unwrap().split("/metrics").next().unwrap().to_owned();
    register(&channel, 9).await;
    for machine in 1..=3 {
        repaved(&channel, machine).await;
    }
    let all = receiver.until("every event", |all| all.len() >= 16).await;
    let ids: std::collections::BTreeSet<String> =
        all.iter().map(|message| message.body["id"].to_string()).collect();
    assert_eq!(ids.len(), 9);
    assert!(elsewhere.messages().is_empty(), "no one is notified by a redirect");
    let clock = SystemClock::new();
    within("the figures", async {
        loop {
            let (_, body) = get(&metrics, "/metrics").await;
            let has = |line: &str| body.lines().any(|found| found == line);
            if has("bmdemo_notify_delivered_total{receiver=\"ops\"} 8")
                && has("bmdemo_notify_refused_total{receiver=\"ops\"} 1")
                && has("bmdemo_notify_retries_total{receiver=\"ops\"} 7")
                && has("bmdemo_notify_gaps_total{receiver=\"ops\"} 0")
                && has("bmdemo_notify_lag_seconds{receiver=\"ops\"} 0")
                && has("bmdemo_notify_waiting_events{receiver=\"ops\"} 0")
            {
                return;
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// The receiver of the documentation: it takes what is signed, once, and nothing else.
#[tokio::test]
async fn the_receiver_of_the_documentation_checks_signatures() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/notifications/receiver.py");
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{SECRET}\n")).unwrap();
    let started = Command::new("python3")
        .args([script, "0"])
        .arg(secret.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut program) = started else {
        announce("SKIPPED the receiver in Python: there is no python3");
        return;
    };
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut line = async || within("a line", lines.next_line()).await.unwrap().unwrap();
    let port = line().await.strip_prefix("listening on ").unwrap().to_owned();

    let address = format!("127.0.0.1:{port}");
    for signature in ["", "bmdemo-signature: t=1,v1=00\r\n", "bmdemo-signature: nonsense\r\n"] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{signature}content-length: 2\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answered = String::new();
        within("an answer", stream.read_to_string(&mut answered)).await.unwrap();
        assert!(answered.starts_with("HTTP/1.1 401"), "{answered}");
    }
    let site = Site::new(&format!("http://{address}/"), "events = [\"machine.registered\"]");
    let server = site.server().await;
    register(&server.channel().await, 2).await;
    for machine in 1..=2 {
        let received = line().await;
        assert!(
            received.starts_with(&format!("bmdemo.machine.registered machines/machine-{machine} ")),
            "{received}"
        );
    }
}
