//! Messages to a real receiver on this machine.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::credentials::Credentials;
use crate::ids::{Epoch, MachineId, OperationId, RunId};
use crate::lifecycle::step::ErrorClass;
use crate::model::{LogStream, MachineSpec};
use crate::outbound::{Networks, Origin, TcpDial, Trust, signature};
use crate::plan::{Capability, Value};
use crate::provider::{
    Acted, Call, ErrorCode, LogSink, Observation, Provider as _, ProviderError, ProviderErrorKind,
    Target, Verification,
};

struct Nowhere;

impl LogSink for Nowhere {
    fn line(&self, _stream: LogStream, _text: &str) {}
}

/// A request as it came: its head in lower case, and its body.
type Request = (String, String);

/// A receiver that gives the same answer to everyone; with an empty one it hangs up.
struct Receiver {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?from=bmdemo", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let request = loop {
                    let mut buffer = [0; 4096];
                    let count = stream.read(&mut buffer).await.unwrap();
                    bytes.extend_from_slice(&buffer[..count]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let head = head.to_lowercase();
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if length.is_none_or(|length| length.parse() == Ok(body.len())) {
                        break (head, body.to_owned());
                    }
                };
                seen.lock().unwrap().push(request);
                // The sender may not wait for it.
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        Self { url, requests, task }
    }

    fn last(&self) -> Request {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

fn answer(status: &str, headers: &str, body: &str) -> &'static str {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    text.leak()
}

fn driver(url: &str, secrets: &std::path::Path, observe: bool) -> Webhook {
    let (origin, path) = Origin::parse(url).unwrap();
    let settings = WebhookSettings {
        class: "rack".to_owned(),
        origin,
        path: path.to_owned(),
        secret: "hook".to_owned(),
        trust: Trust::System,
        timeout: Duration::from_secs(20),
        parallel_max: 4,
        observe,
        actions: BTreeSet::from(["order-disk".to_owned()]),
    };
    let networks = Networks::new("networks.webhook", vec!["127.0.0.0/8".parse().unwrap()]);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let credentials = Credentials::new(Some(secrets.to_owned()));
    Webhook::new(
        settings,
        WebhookPorts { dial: Arc::new(TcpDial::new(networks)), credentials, clock },
    )
}

fn secrets(secret: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_secret(dir.path(), secret);
    dir
}

fn write_secret(dir: &std::path::Path, secret: &str) {
    let path = dir.join("hook");
    std::fs::write(&path, secret).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn target() -> Target {
    Target { machine_id: MachineId::parse("m-1").unwrap(), spec: MachineSpec::default() }
}

fn call(epoch: u64) -> Call {
    Call {
        operation: OperationId::new(RunId::new(Timestamp(1), [1, 0]), "tell", 1),
        epoch: Epoch(epoch),
        action: "notify".to_owned(),
        capability: Capability::Notify,
        args: [("channel".to_owned(), Value::Str("rma".into()))].into(),
        inputs: std::collections::BTreeMap::new(),
        handle: None,
    }
}

async fn act(driver: &Webhook) -> Result<Acted, ProviderError> {
    driver.act(&target(), &call(1), Arc::new(Nowhere)).await
}

#[tokio::test]
async fn a_message_is_signed_and_carries_its_operation() {
    let receiver = Receiver::answering(answer(
        "200 OK",
        "",
        r#"{"evidence":"ticket 7","outputs":{"ticket":7}}"#,
    ))
    .await;
    let secrets = secrets("first");
    let driver = driver(&receiver.url, secrets.path(), false);
    let done = act(&driver).await.unwrap();
    let output = [("ticket".to_owned(), Value::Int(7))].into();
    assert_eq!(done, Acted::Done { evidence: "ticket 7".to_owned(), output });
    let (head, body) = receiver.last();
    assert!(head.starts_with("post /hook?from=bmdemo http/1.1"), "{head}");
    let header = |name: &str| {
        let line = head.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{name} in {head}")).split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(header("idempotency-key"), call(1).operation.as_str());
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("connection"), "close");
    let message: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&message["call"], &message["action"]), (&"act".into(), &"notify".into()));
    assert_eq!(message["args"]["channel"], "rma");
    // As a receiver checks it.
    let check = |secret: &str, head: &str, body: &str| {
        let line = head.lines().find(|line| line.starts_with("bmdemo-signature: t=")).unwrap();
        let seconds: u64 =
            line["bmdemo-signature: t=".len()..].split(',').next().unwrap().parse().unwrap();
        let header =
            signature::header(secret.as_bytes(), Timestamp(seconds * 1_000), body.as_bytes());
        line == format!("bmdemo-signature: {header}")
    };
    assert!(check("first", &head, &body) && !check("second", &head, &body));
    assert!(!head.contains("first") && !body.contains("first"));
    // A changed secret needs no restart.
    write_secret(secrets.path(), "second");
    act(&driver).await.unwrap();
    let (head, body) = receiver.last();
    assert!(check("second", &head, &body));
}

#[tokio::test]
async fn an_answer_says_what_was_done() {
    let secrets = secrets("s");
    let class = |error: &ProviderError| match error.kind {
        ProviderErrorKind::Class(class) => class,
        ProviderErrorKind::Fenced { .. } => panic!("{error:?}"),
    };
    let empty = Receiver::answering("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
    let done = act(&driver(&empty.url, secrets.path(), false)).await.unwrap();
    let evidence = "the receiver has answered 204".to_owned();
    assert_eq!(done, Acted::Done { evidence, output: crate::plan::Values::new() });

    let later = Receiver::answering(answer("202 Accepted", "", r#"{"handle":"job-7"}"#)).await;
    let accepted = act(&driver(&later.url, secrets.path(), true)).await.unwrap();
    assert!(matches!(accepted, Acted::Accepted { handle, .. } if handle == "job-7"));

    // Without a handle it is asked by the operation id, if it can be asked.
    let queued = Receiver::answering(answer("202 Accepted", "", "{}")).await;
    let accepted = act(&driver(&queued.url, secrets.path(), true)).await.unwrap();
    assert!(
        matches!(accepted, Acted::Accepted { handle, .. } if handle == call(1).operation.as_str())
    );
    let taken = act(&driver(&queued.url, secrets.path(), false)).await.unwrap();
    assert!(matches!(taken, Acted::Done { .. }));

    // It has seen a newer owner; one that is no newer fences no one.
    for (epoch, fenced) in [(7, true), (1, false)] {
        let body = format!(r#"{{"epoch":{epoch}}}"#);
        let newer = Receiver::answering(answer("409 Conflict", "", &body)).await;
        let hook = driver(&newer.url, secrets.path(), true);
        let failed = act(&hook).await.unwrap_err();
        let expected = ProviderErrorKind::Fenced { current: Epoch(7) };
        assert_eq!(failed.kind == expected, fenced, "{failed:?}");
        let looked = hook.observe(&target(), &call(1), Arc::new(Nowhere)).await.unwrap_err();
        assert_eq!(looked.kind == expected, fenced, "{looked:?}");
    }

    for (status, body, wanted, code) in [
        ("429 Slow Down", "{}", ErrorClass::Transient, ErrorCode::Busy),
        ("503 Later", "{}", ErrorClass::Transient, ErrorCode::Busy),
        ("400 Bad", r#"{"message":"no such channel"}"#, ErrorClass::Permanent, ErrorCode::Invalid),
        ("401 No", "{}", ErrorClass::NeedsHuman, ErrorCode::Unauthorized),
        ("500 Oops", "{}", ErrorClass::OutcomeUnknown, ErrorCode::Failed),
        ("200 OK", "{", ErrorClass::OutcomeUnknown, ErrorCode::Internal),
        ("307 There", "{}", ErrorClass::NeedsHuman, ErrorCode::Invalid),
    ] {
        let headers = if status.starts_with("307") {
            "location: http://192.0.2.1/\r\n"
        } else {
            "retry-after: 60\r\n"
        };
        let receiver = Receiver::answering(answer(status, headers, body)).await;
        let failed = act(&driver(&receiver.url, secrets.path(), false)).await.unwrap_err();
        assert_eq!((class(&failed), failed.code), (wanted, code), "{status}: {failed}");
        assert_eq!(
            failed.retry_at.is_some(),
            !status.starts_with("200") && !status.starts_with("307")
        );
        assert!(body.len() < 3 || failed.message.contains("no such channel"), "{failed}");
    }
    // It has the message and hangs up: no one knows.
    let silent = Receiver::answering("").await;
    let failed = act(&driver(&silent.url, secrets.path(), false)).await.unwrap_err();
    assert_eq!(class(&failed), ErrorClass::OutcomeUnknown, "{failed}");
}

#[tokio::test]
async fn nothing_is_sent_without_a_secret_to_a_foreign_network_or_under_an_old_epoch() {
    let receiver = Receiver::answering(answer("200 OK", "", "{}")).await;
    let secrets = secrets("s");
    let hook = driver(&receiver.url, secrets.path(), false);
    let (target, logs) = (target(), Arc::new(Nowhere));
    hook.fence(&target, Epoch(2), hook.capabilities(&target)).await.unwrap();
    let late = hook.act(&target, &call(1), logs.clone()).await.unwrap_err();
    assert_eq!(late.kind, ProviderErrorKind::Fenced { current: Epoch(2) });
    std::fs::remove_file(secrets.path().join("hook")).unwrap();
    let failed = hook.act(&target, &call(2), logs.clone()).await.unwrap_err();
    assert_eq!(failed.kind, ProviderErrorKind::Class(ErrorClass::Permanent));
    assert!(failed.message.contains("hook"), "{failed}");
    write_secret(secrets.path(), "s");
    let foreign = driver("http://192.0.2.1/hook", secrets.path(), false);
    let failed = act(&foreign).await.unwrap_err();
    assert!(failed.message.contains("networks.webhook"), "{failed}");
    assert!(receiver.requests.lock().unwrap().is_empty());
    assert!(!hook.performs(Capability::Custom, "levitate"));
    assert!(
        hook.performs(Capability::Custom, "order-disk")
            && hook.performs(Capability::Notify, "notify")
    );
}

#[tokio::test]
async fn a_receiver_that_looks_is_asked() {
    let secrets = secrets("s");
    let (target, logs) = (target(), Arc::new(Nowhere));
    for (body, holds) in [
        (r#"{"state":"done"}"#, Some(true)),
        (r#"{"state":"not-done","message":"no ticket"}"#, Some(false)),
        (r#"{"state":"in-progress"}"#, Some(false)),
        (r#"{"state":"unknowable"}"#, None),
        (r#"{"state":"dnoe"}"#, None),
    ] {
        let receiver = Receiver::answering(answer("200 OK", "", body)).await;
        let hook = driver(&receiver.url, secrets.path(), true);
        let seen = hook.observe(&target, &call(1), logs.clone()).await;
        assert_eq!(seen.is_err(), body.contains("dnoe"), "{seen:?}");
        let message: serde_json::Value = serde_json::from_str(&receiver.last().1).unwrap();
        assert_eq!(message["call"], "observe");
        let checked = hook.verify(&target, &call(1), logs.clone()).await.ok();
        let held = checked.map(|checked| matches!(checked, Verification::Holds { .. }));
        assert_eq!(held, holds, "{body}");
    }
    let blind = driver("http://127.0.0.1:9/", secrets.path(), false);
    let seen = blind.observe(&target, &call(1), logs.clone()).await.unwrap();
    assert!(matches!(seen, Observation::Unknowable { .. }));
    let checked = blind.verify(&target, &call(1), logs).await.unwrap();
    assert!(
        matches!(checked, Verification::Holds { evidence } if evidence.starts_with("not checked"))
    );
}
