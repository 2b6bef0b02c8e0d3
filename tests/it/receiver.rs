//! A receiver of webhooks on this machine, which answers as its test says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ring::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::within;

/// What messages are signed with.
pub(crate) const SECRET: &str = "canary-of-a-key-of-a-webhook";

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Its head, in lower case.
    pub(crate) head: String,
    pub(crate) body: serde_json::Value,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> &str {
        let named = |line: &&str| line.split_once(": ").is_some_and(|(of, _)| of == name);
        let line = self.head.lines().find(named);
        line.unwrap_or_else(|| panic!("{name} in {}", self.head)).split_once(": ").unwrap().1
    }
}

/// What it does with a message.
pub(crate) enum Reply {
    /// Answers with these bytes.
    Answer(Vec<u8>),
    /// Keeps the connection open, and says nothing.
    Silence,
    /// Hangs up.
    HangUp,
}

/// An answer with a JSON body.
pub(crate) fn json(status: &str, body: &str) -> Reply {
    answer(status, "content-type: application/json\r\n", body)
}

/// An answer; each header ends with its line end.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Answer(
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
            .into_bytes(),
    )
}

type Judge = Box<dyn Fn(&Message, usize) -> Reply + Send + Sync>;

/// A receiver; it stops when this is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    messages: Arc<Mutex<Vec<Message>>>,
    came: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Answers each message as `judge` says, which also gets the number of messages before it.
    pub(crate) async fn new(
        judge: impl Fn(&Message, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), judge).await
    }

    /// At an address, which one before it may have had.
    pub(crate) async fn at(
        address: SocketAddr,
        judge: impl Fn(&Message, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (messages, came) = (Arc::<Mutex<Vec<Message>>>::default(), Arc::<Notify>::default());
        let judge: Arc<Judge> = Arc::new(Box::new(judge));
        let task = {
            let (messages, came) = (messages.clone(), came.clone());
            tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (messages, came, judge) = (messages.clone(), came.clone(), judge.clone());
                    connections.spawn(serve(stream, messages, came, judge));
                }
            })
        };
        Self { address, messages, came, task }
    }

    /// Closes it: from then on its address is free.
    pub(crate) async fn close(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// Waits until messages are enough.
    pub(crate) async fn until(
        &self,
        what: &str,
        enough: impl Fn(&[Message]) -> bool,
    ) -> Vec<Message> {
        within(what, async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                let messages = self.messages();
                if enough(&messages) {
                    return messages;
                }
                came.await;
            }
        })
        .await
    }
}

async fn serve(
    mut stream: TcpStream,
    messages: Arc<Mutex<Vec<Message>>>,
    came: Arc<Notify>,
    judge: Arc<Judge>,
) {
    let mut bytes = Vec::new();
    loop {
        let (head, body) = loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.unwrap_or("0").parse().unwrap();
                if body.len() >= length {
                    bytes.drain(..head.len() + 4 + length);
                    break (head, body[..length].to_owned());
                }
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let message = Message { body: serde_json::from_str(&body).unwrap(), head };
        assert_genuine(message.header("bmdemo-signature"), &body);
        let before = {
            let mut messages = messages.lock().unwrap();
            messages.push(message.clone());
            messages.len() - 1
        };
        came.notify_waiters();
        match judge(&message, before) {
            Reply::Answer(answer) => {
                // The sender may not wait for it.
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            Reply::Silence => std::future::pending().await,
            Reply::HangUp => return,
        }
    }
}

/// As docs/providers.md says that a receiver checks it.
fn assert_genuine(header: &str, body: &str) {
    let (time, mac) = header.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let mac: Vec<u8> = (0..mac.len() / 2)
        .map(|at| u8::from_str_radix(&mac[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, format!("{time}.{body}").as_bytes(), &mac).unwrap();
    let now = bmdemo::clock::Clock::now(&bmdemo::clock::SystemClock::new());
    assert!((now.0 / 1_000).abs_diff(time.parse().unwrap()) < 300);
}

/// A directory of credentials below a folder, with the secret `hook`.
pub(crate) fn credentials(below: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = below.join("credentials");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("hook"), SECRET).unwrap();
    std::fs::set_permissions(dir.join("hook"), std::fs::Permissions::from_mode(0o600)).unwrap();
    dir.display().to_string()
}
