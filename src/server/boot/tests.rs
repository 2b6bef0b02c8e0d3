//! What the boot listener answers.

use std::collections::BTreeMap;

use super::*;
use crate::clock::{Timestamp, TokioClock};
use crate::credentials::Secret;
use crate::ids::{OperationId, RunId};
use crate::model::{Machine, MachineSpec};
use crate::provider::boot::{Image, Settings, Task};
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Write};

const NOW: Timestamp = Timestamp(1_000_000);
const MAC: &str = "52:54:00:d0:00:01";

fn operation() -> OperationId {
    OperationId::new(RunId::new(Timestamp(1), [1, 2]), "repave", 1)
}

/// A listener with an offer for node-1.
async fn boot() -> Boot {
    boot_with(Files::default()).await
}

async fn boot_with(files: Files) -> Boot {
    let clock = Arc::new(TokioClock::new(NOW));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
    let id = MachineId::parse("node-1").unwrap();
    let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
    let machine = Machine::registered(id.clone(), BTreeMap::new(), spec, NOW);
    store.commit(Batch::of(Write::new(None, machine, Vec::new()))).await.unwrap();
    let url = "http://boot.example:8069".to_owned();
    let key = TokenKey::new(&[7; 32]);
    let desk =
        Arc::new(Desk::new(Arc::new(Stored(store)), clock.clone(), key, BTreeMap::new(), url));
    let image = Image {
        url: "http://10.0.0.1/disk".to_owned(),
        sha256: "00".repeat(32),
        architecture: "x86_64".to_owned(),
        kernel_arguments: String::new(),
    };
    let (hostname, disk) = ("node-1".to_owned(), "smallest".to_owned());
    let settings = Settings {
        machine_id: id,
        task: Task::Install(image),
        hostname,
        disk,
        ssh_keys: Vec::new(),
        user_data: String::new(),
    };
    desk.offer(operation(), &[MAC.to_owned()], settings, NOW.plus_ms(60_000));
    let names = HostNames::new(&["boot.example".to_owned()]);
    Boot::new(desk, names, Refusals::default(), files, clock)
}

fn peer() -> SocketAddr {
    "10.0.0.11:40000".parse().unwrap()
}

async fn ask(boot: &Boot, request: http::request::Builder, body: &str) -> (StatusCode, String) {
    let request = request.body(Body::new(body.to_owned())).unwrap();
    let response = boot.answer(request, peer()).await;
    let status = response.status();
    let bytes = read(response.into_body(), 64 * 1024).await.unwrap();
    (status, String::from_utf8(bytes).unwrap())
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "boot.example:8069")
}

fn post(path: &str, token: &str) -> http::request::Builder {
    let request = Request::post(path).header("host", "boot.example:8069");
    request.header("authorization", format!("Bearer {token}"))
}

fn token(settings: &str) -> String {
    settings.lines().find_map(|line| line.strip_prefix("token=")).unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_installed() {
    let boot = boot().await;
    let path = "/boot/v1/settings?mac=52%3A54%3A00%3Ad0%3a00%3A01";
    let (status, settings) = ask(&boot, get(path), "").await;
    assert_eq!(status, StatusCode::OK, "{settings}");
    assert!(settings.contains("report_url=http://boot.example:8069/boot/v1/report/node-1\n"));
    let token = token(&settings);
    for (stage, message) in [("installing", "begins"), ("written", "in 9 s\\u001b[2J")] {
        let body = format!(
            r#"{{"stage":"{stage}","image_sha256":"00ff","boot_id":"one","message":"{message}","more":1}}"#
        );
        let (status, text) = ask(&boot, post("/boot/v1/report/node-1", &token), &body).await;
        assert_eq!((status, text.as_str()), (StatusCode::NO_CONTENT, ""));
    }
    let node = MachineId::parse("node-1").unwrap();
    let kept = boot.desk.installation(&node, &operation()).await.unwrap().unwrap();
    assert_eq!((kept.stage, kept.image_sha256.as_str()), (InstallStage::Written, "00ff"));
    assert_eq!(kept.message, "in 9 s[2J", "control characters are left out");
    let (status, text) = ask(&boot, get(path), "").await;
    assert_eq!(status, StatusCode::GONE, "{text}");
    assert_eq!(boot.refusals.of("boot_taken"), 1);
}

/// The secret of a step is the answer to a report: once, to the caller that has the token, and while the step runs.
#[tokio::test(start_paused = true)]
async fn a_system_that_is_up_gets_the_material_once() {
    let boot = boot().await;
    let (_, settings) = ask(&boot, get(&format!("/boot/v1/settings?mac={MAC}")), "").await;
    let (token, node) = (token(&settings), MachineId::parse("node-1").unwrap());
    let offer = |secret: &str| {
        let until = boot.clock.monotonic() + Duration::from_secs(60);
        boot.desk.hand_over(&node, Secret::new(secret.to_owned()), until)
    };
    let report = async |token: &str, body: &str| {
        ask(&boot, post("/boot/v1/report/node-1", token), body).await
    };
    let none = (StatusCode::NO_CONTENT, String::new());
    let wants = r#"{"stage":"up","boot_id":"two","wants_material":true}"#;
    let first = offer("canary-1");
    let installer = r#"{"stage":"written","image_sha256":"00ff","wants_material":true}"#;
    assert_eq!(report(&token, installer).await, none, "it is no installed system yet");
    assert_eq!(report(&token, r#"{"stage":"up"}"#).await, none, "it did not ask");
    assert_eq!(report("bmi_00", wants).await.0, StatusCode::FORBIDDEN);
    assert!(!first.is_fetched());
    assert_eq!(report(&token, wants).await, (StatusCode::OK, "canary-1".to_owned()));
    assert!(first.is_fetched());
    assert_eq!(report(&token, wants).await, none, "once");
    drop(offer("canary-2"));
    assert_eq!(report(&token, wants).await, none, "the step has ended");
    let late = offer("canary-3");
    boot.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(report(&token, wants).await, none, "its time is over");
    assert!(!late.is_fetched());
    let kept = boot.desk.latest(&node).await.unwrap().unwrap();
    assert_eq!((kept.stage, &*kept.boot_id), (InstallStage::Up, "two"));
}

#[tokio::test(start_paused = true)]
async fn everyone_else_gets_nothing() {
    let boot = boot().await;
    let other = "/boot/v1/settings?mac=52:54:00:d0:00:02";
    assert_eq!(ask(&boot, get(other), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&boot, get("/boot/v1/settings"), "").await.0, StatusCode::BAD_REQUEST);
    let site = get(&format!("/boot/v1/settings?mac={MAC}")).header("sec-fetch-site", "cross-site");
    assert_eq!(ask(&boot, site, "").await.0, StatusCode::FORBIDDEN);
    let rebound =
        Request::get(format!("/boot/v1/settings?mac={MAC}")).header("host", "evil.example");
    assert_eq!(ask(&boot, rebound, "").await.0, StatusCode::MISDIRECTED_REQUEST);
    let (_, settings) = ask(&boot, get(&format!("/boot/v1/settings?mac={MAC}")), "").await;
    let token = token(&settings);
    let report = "/boot/v1/report/node-1";
    let up = r#"{"stage":"up"}"#;
    for (path, with, body, status) in [
        (report, "bmi_00", up, StatusCode::FORBIDDEN),
        ("/boot/v1/report/node-2", &*token, up, StatusCode::FORBIDDEN),
        ("/boot/v1/report/-", &*token, up, StatusCode::FORBIDDEN),
        (report, &*token, r#"{"stage":"settings-taken"}"#, StatusCode::BAD_REQUEST),
        (report, &*token, r#"{"stage":"done"}"#, StatusCode::BAD_REQUEST),
        (report, &*token, "stage=up", StatusCode::BAD_REQUEST),
        ("/boot/v1/other", &*token, up, StatusCode::NOT_FOUND),
        ("/metrics", &*token, up, StatusCode::NOT_FOUND),
    ] {
        let (found, text) = ask(&boot, post(path, with), body).await;
        assert_eq!(found, status, "{path} {body}: {text}");
        assert!(!text.contains(&token), "{text}");
    }
    let large = format!(r#"{{"stage":"up","message":"{}"}}"#, "a".repeat(REPORT_BYTES_MAX));
    assert_eq!(ask(&boot, post(report, &token), &large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let bare = Request::post(report).header("host", "boot.example");
    assert_eq!(ask(&boot, bare, up).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&boot, get(report), "").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(start_paused = true)]
async fn one_address_cannot_ask_without_end() {
    let boot = boot().await;
    let mut refused = None;
    for _ in 0..2_000 {
        let (status, text) = ask(&boot, get("/boot/v1/settings?mac=52:54:00:d0:00:02"), "").await;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            refused = Some(text);
            break;
        }
    }
    assert_eq!(refused.as_deref(), Some("too many requests from this address\n"));
    boot.clock.sleep(Duration::from_secs(10)).await;
    let (status, _) = ask(&boot, get("/boot/v1/settings?mac=52:54:00:d0:00:02"), "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

/// Over a real connection: GRUB 2.06 compares the names of heads letter by letter, and waits for good without a length.
#[tokio::test]
async fn a_boot_loader_finds_the_length_of_a_file() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("vmlinuz"), "kernel").unwrap();
    let boot = Arc::new(boot_with(Files::open(Some(dir.path())).unwrap()).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, boot, stop.clone()));
    let ask = async |method: &str, path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} /boot/v1/files/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let got = ask("GET", "vmlinuz").await;
    assert!(got.contains("\r\nContent-Length: 6\r\n") && got.ends_with("\r\n\r\nkernel"), "{got}");
    let head = ask("HEAD", "vmlinuz").await;
    assert!(head.contains("\r\nContent-Length: 6\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask("GET", "initrd").await.starts_with("HTTP/1.1 404"));
    assert!(ask("POST", "vmlinuz").await.starts_with("HTTP/1.1 404"));
    stop.cancel();
    served.await.unwrap();
}
