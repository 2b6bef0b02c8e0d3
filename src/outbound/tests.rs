//! Calls against peers that misbehave, in virtual time.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::dial::Fut;
use super::*;
use crate::clock::{Clock, Timestamp, TokioClock};

/// What the peer of one connection does with each request: the answer as it goes over the wire.
type Script = Vec<Step>;

#[derive(Clone)]
enum Step {
    /// Answers with these bytes.
    Say(String),
    /// Answers with these bytes and closes.
    SayAndClose(String),
    /// The head at once, then one byte of the body each second.
    Drip(String, String),
    /// Reads the request and closes.
    Drop,
    /// Never answers.
    Hang,
}

#[derive(Default)]
struct Peer {
    connections: Mutex<VecDeque<Script>>,
    /// The requests, each with the number of its connection.
    seen: Mutex<Vec<(usize, String)>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peer")
    }
}

#[derive(Debug, Clone, Default)]
struct Dialed(Arc<Peer>, Arc<Mutex<usize>>);

impl Dial for Dialed {
    fn dial<'a>(&'a self, to: &'a Origin) -> Fut<'a, Result<Box<dyn Stream>, CallError>> {
        Box::pin(async move {
            let script = self.0.connections.lock().unwrap().pop_front();
            let Some(script) = script else {
                return Err(CallError::new(CallErrorKind::Unreachable, format!("{to} is off")));
            };
            let number = {
                let mut count = self.1.lock().unwrap();
                *count += 1;
                *count
            };
            let (ours, theirs) = tokio::io::duplex(4 * 1024 * 1024);
            tokio::spawn(play(self.0.clone(), number, theirs, script));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

async fn play(peer: Arc<Peer>, number: usize, mut stream: DuplexStream, script: Script) {
    let clock = TokioClock::new(Timestamp(0));
    for step in script {
        let Some(request) = request(&mut stream).await else { return };
        peer.seen.lock().unwrap().push((number, request));
        match step {
            Step::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Step::SayAndClose(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                return;
            }
            Step::Drip(head, body) => {
                stream.write_all(head.as_bytes()).await.unwrap();
                for byte in body.as_bytes() {
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    clock.sleep(Duration::from_secs(1)).await;
                }
            }
            Step::Drop => return,
            Step::Hang => std::future::pending().await,
        }
    }
    // The connection is kept open.
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
}

/// Reads one request with its body; `None` if the client has left.
async fn request(stream: &mut DuplexStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
        if text.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(text).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).await.ok()?;
            return Some(head + &String::from_utf8(body).unwrap());
        }
    }
}

fn ok(body: &str) -> Step {
    Step::Say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn said(text: &str) -> Step {
    Step::Say(text.replace('\n', "\r\n"))
}

struct Setup {
    channel: Channel,
    peer: Arc<Peer>,
    clock: Arc<TokioClock>,
}

fn setup(scripts: impl IntoIterator<Item = Script>) -> Setup {
    let dialed = Dialed::default();
    dialed.0.connections.lock().unwrap().extend(scripts);
    let clock = Arc::new(TokioClock::new(Timestamp(1_700_000_000_000)));
    let peer = dialed.0.clone();
    let (origin, _) = Origin::parse("http://bmc.example").unwrap();
    let channel = Channel::new(origin, Trust::System, Arc::new(dialed), clock.clone());
    Setup { channel, peer, clock }
}

impl Setup {
    async fn get(&self, path: &str) -> Result<Answer, CallError> {
        self.channel.call(&Call::new(Method::GET, path, Limits::default())).await
    }

    async fn post(&self, path: &str) -> Result<Answer, CallError> {
        let call = Call::new(Method::POST, path, Limits::default());
        self.channel.call(&call.body("application/json", b"{}".to_vec())).await
    }

    /// Connection and first line of each request.
    fn lines(&self) -> Vec<(usize, String)> {
        let seen = self.peer.seen.lock().unwrap();
        seen.iter().map(|(at, text)| (*at, text.lines().next().unwrap().to_owned())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_and_given_up_when_it_is_idle() {
    let setup = setup([vec![ok("one"), ok("two")], vec![ok("three")]]);
    assert_eq!(setup.get("/a").await.unwrap().body, b"one");
    assert_eq!(setup.get("/b?c").await.unwrap().body, b"two");
    setup.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(setup.get("/d").await.unwrap().body, b"three");
    let lines = ["get /a http/1.1", "get /b?c http/1.1", "get /d http/1.1"].map(str::to_owned);
    let [a, b, d] = lines;
    assert_eq!(setup.lines(), [(1, a), (1, b), (2, d)]);
    let head = setup.peer.seen.lock().unwrap()[0].1.clone();
    assert!(head.contains("host: bmc.example\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
}

/// Only what changes nothing is sent a second time, when the other side has closed an idle connection.
#[tokio::test(start_paused = true)]
async fn nothing_that_may_have_had_an_effect_is_sent_twice() {
    let kept = setup([vec![ok("one"), Step::Drop], vec![ok("two")]]);
    kept.get("/a").await.unwrap();
    assert_eq!(kept.get("/b").await.unwrap().body, b"two");
    assert_eq!(kept.lines().len(), 3);

    let lost = setup([vec![ok("one"), Step::Drop], vec![ok("two")]]);
    lost.get("/a").await.unwrap();
    let error = lost.post("/reset").await.unwrap_err();
    assert_eq!((error.kind, error.may_be_sent), (CallErrorKind::Closed, true));
    assert_eq!(lost.lines().len(), 2);

    let fresh = setup([vec![Step::Drop], vec![ok("two")]]);
    let error = fresh.get("/a").await.unwrap_err();
    assert_eq!((error.kind, error.may_be_sent), (CallErrorKind::Closed, true));

    let off = setup([]);
    let error = off.post("/reset").await.unwrap_err();
    assert_eq!((error.kind, error.may_be_sent), (CallErrorKind::Unreachable, false));
}

#[tokio::test(start_paused = true)]
async fn every_wait_ends() {
    let began = |setup: &Setup| setup.clock.monotonic();
    let silent = setup([vec![Step::Hang]]);
    let start = began(&silent);
    let error = silent.post("/reset").await.unwrap_err();
    assert_eq!((error.kind, error.may_be_sent), (CallErrorKind::Timeout, true));
    assert_eq!(silent.clock.monotonic() - start, Duration::from_secs(30));
    assert_eq!(error.message, "http://bmc.example: no answer within 30000 ms");

    let head = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n".to_owned();
    let slow = setup([vec![Step::Drip(head, "x".repeat(500))], vec![ok("next")]]);
    let start = began(&slow);
    let error = slow.get("/a").await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Timeout);
    assert_eq!(slow.clock.monotonic() - start, Duration::from_secs(60));
    assert_eq!(error.message, "http://bmc.example: no whole answer within 60000 ms");
    // The half-read connection is not used again.
    assert_eq!(slow.get("/b").await.unwrap().body, b"next");
}

#[tokio::test(start_paused = true)]
async fn answers_are_bounded_and_read_strictly() {
    let huge = "x".repeat(1024 * 1024 + 1);
    let length = huge.len();
    let whole = setup([vec![Step::Say(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{huge}"
    ))]]);
    assert_eq!(whole.get("/a").await.unwrap_err().kind, CallErrorKind::TooLarge);
    let chunk = "10000\r\n".to_owned() + &"x".repeat(0x10000) + "\r\n";
    let endless =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned() + &chunk.repeat(40);
    let chunked = setup([vec![Step::Say(endless)]]);
    assert_eq!(chunked.get("/a").await.unwrap_err().kind, CallErrorKind::TooLarge);

    let zipped =
        setup([vec![said("HTTP/1.1 200 OK\ncontent-encoding: gzip\ncontent-length: 2\n\nab")]]);
    assert_eq!(zipped.get("/a").await.unwrap_err().kind, CallErrorKind::Malformed);
    let nonsense = setup([vec![said("SSH-2.0-OpenSSH_9.2\n\n")]]);
    assert_eq!(nonsense.get("/a").await.unwrap_err().kind, CallErrorKind::Malformed);
    let head = format!("HTTP/1.1 200 OK\na: {}\n\n", "x".repeat(80 * 1024));
    let long = setup([vec![said(&head)]]);
    assert!(long.get("/a").await.is_err());
    let half =
        setup([vec![Step::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".into())]]);
    let error = half.post("/a").await.unwrap_err();
    assert_eq!((error.kind, error.may_be_sent), (CallErrorKind::Closed, true));
    let closing = setup([
        vec![said("HTTP/1.1 503 Busy\nconnection: close\nretry-after: 7\ncontent-length: 0\n\n")],
        vec![ok("next")],
    ]);
    let busy = closing.post("/a").await.unwrap();
    let now = closing.clock.now();
    assert_eq!((busy.status.as_u16(), busy.retry_at(now)), (503, Some(now.plus_ms(7_000))));
    closing.get("/b").await.unwrap();
    assert_eq!(closing.lines()[1].0, 2);
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_within_the_origin_only() {
    let moved =
        |to: &str| said(&format!("HTTP/1.1 308 Moved\nlocation: {to}\ncontent-length: 0\n\n"));
    let slash = setup([vec![moved("/redfish/v1/"), ok("root")]]);
    assert_eq!(slash.get("/redfish/v1").await.unwrap().body, b"root");
    let same = setup([vec![moved("http://bmc.example:80/x"), ok("root")]]);
    assert_eq!(same.get("/a").await.unwrap().body, b"root");
    for to in [
        "http://169.254.169.254/latest",
        "//evil.example/x",
        "https://bmc.example/x",
        "http://bmc.example:81/x",
        "http://user@bmc.example/",
        "x",
        "",
    ] {
        let setup = setup([vec![moved(to)], vec![ok("stolen")]]);
        let error = setup.get("/a").await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Redirected, "{to}");
        assert_eq!(setup.lines().len(), 1, "{to}");
    }
    let post =
        setup([vec![said("HTTP/1.1 307 Moved\nlocation: /b\ncontent-length: 0\n\n"), ok("")]]);
    assert_eq!(post.post("/a").await.unwrap_err().kind, CallErrorKind::Redirected);
    assert_eq!(post.lines().len(), 1);
    let circle = setup([vec![moved("/a"), moved("/b"), moved("/a"), moved("/b"), moved("/a")]]);
    assert_eq!(circle.get("/a").await.unwrap_err().kind, CallErrorKind::Redirected);
}

/// Each name has an address at the first look and another one later.
#[derive(Debug)]
struct Rebinding(Mutex<Vec<Vec<&'static str>>>);

impl Resolve for Rebinding {
    fn resolve<'a>(&'a self, _: &'a str) -> Fut<'a, io::Result<Vec<IpAddr>>> {
        let found = self.0.lock().unwrap().remove(0);
        let found = found.iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(std::future::ready(Ok(found)))
    }
}

fn tcp(networks: &[&str], answers: Vec<Vec<&'static str>>) -> TcpDial {
    let list = networks.iter().map(|text| text.parse().unwrap()).collect();
    let networks = Networks::new("networks.bmc", list);
    TcpDial::resolving(networks, Arc::new(Rebinding(Mutex::new(answers))))
}

#[tokio::test]
async fn what_a_name_stands_for_is_checked_when_the_connection_is_made() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = |host: &str| Origin::parse(&format!("http://{host}:{port}")).unwrap().0;
    let denied = |answer: Result<Box<dyn Stream>, CallError>| answer.err().map(|error| error.kind);

    let dial = tcp(&["127.0.0.0/8"], vec![vec!["127.0.0.1"], vec!["10.9.9.9"]]);
    assert!(dial.dial(&to("bmc.example")).await.is_ok());
    // The same name leads elsewhere now.
    let answer = dial.dial(&to("bmc.example")).await;
    assert_eq!(denied(answer), Some(CallErrorKind::NotAllowed));
    // Of several addresses only those inside are tried.
    let dial = tcp(&["127.0.0.0/8"], vec![vec!["169.254.169.254", "127.0.0.1"]]);
    assert!(dial.dial(&to("bmc.example")).await.is_ok());

    let dial = tcp(&["0.0.0.0/0", "::/0"], vec![vec!["::ffff:127.0.0.1"]]);
    assert_eq!(denied(dial.dial(&to("bmc.example")).await), Some(CallErrorKind::NotAllowed));
    for host in ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "[64:ff9b::a9fe:a9fe]"]
    {
        let answer = dial.dial(&to(host)).await;
        assert_eq!(denied(answer), Some(CallErrorKind::NotAllowed), "{host}");
    }
    // Spellings that only the system's resolver takes for loopback: those that end in digits are no hosts at all.
    for host in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1."] {
        assert!(Origin::parse(&format!("http://{host}/")).is_err(), "{host}");
    }
    let list = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap()).into();
    let dial = TcpDial::new(Networks::new("networks.bmc", list));
    for host in ["0x7f000001", "localhost", "localhost."] {
        assert!(dial.dial(&to(host)).await.is_err(), "{host}");
    }
}

mod tls;
