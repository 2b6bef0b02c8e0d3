//! The client against a small server in the same process, over real gRPC.

mod around;
mod bulk;
mod matching;
mod server;
mod session;
mod simulate;
mod watching;
mod week;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, OsRandom, Sleep, SystemClock, Timestamp};

use super::Io;

/// What an action puts at risk.
fn risk_of(step: &str) -> crate::pb::Risk {
    match step {
        "repave" | "wipe" => crate::pb::Risk::DataDestroying,
        "reboot" | "drain" => crate::pb::Risk::Disruptive,
        _ => crate::pb::Risk::None,
    }
}

/// Bytes written by the client.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits in real time, but always says the same date.
#[derive(Debug)]
struct StoppedClock(SystemClock);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(server::EPOCH_MS + 60_000)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep(duration)
    }
}

/// A client to be run once, with its environment cleared.
struct Run {
    args: Vec<String>,
    env: BTreeMap<String, String>,
    terminal: bool,
    stdin: String,
    interrupt: CancellationToken,
    stdout: Sink,
    stderr: Sink,
}

/// What a client printed, and its exit code.
#[derive(Debug)]
struct Output {
    stdout: String,
    stderr: String,
    code: u8,
}

impl std::fmt::Display for Output {
    /// Standard output, then standard error, then the exit code, each only if there is something to show.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.stdout)?;
        if !self.stderr.is_empty() {
            write!(f, "--- stderr\n{}", self.stderr)?;
        }
        if self.code == 0 { Ok(()) } else { write!(f, "--- exit {}", self.code) }
    }
}

fn client(line: &str) -> Run {
    Run {
        args: line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        env: BTreeMap::new(),
        terminal: false,
        stdin: String::new(),
        interrupt: CancellationToken::new(),
        stdout: Sink::default(),
        stderr: Sink::default(),
    }
}

impl Run {
    fn env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    fn on(self, server: &server::Server) -> Self {
        self.env("BMDEMO_SERVER", &server.address)
    }

    fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    fn answer(mut self, text: &str) -> Self {
        self.stdin = text.to_owned();
        self
    }

    fn io(&self) -> Io {
        Io {
            stdout: Box::new(self.stdout.clone()),
            stderr: Box::new(self.stderr.clone()),
            stdin: Box::new(io::Cursor::new(self.stdin.clone().into_bytes())),
            stdout_is_terminal: self.terminal,
            stderr_is_terminal: self.terminal,
            stdin_is_terminal: self.terminal,
            columns: None,
            env: self.env.clone(),
            clock: Arc::new(StoppedClock(SystemClock::new())),
            random: Arc::new(OsRandom),
            interrupt: Some(self.interrupt.clone()),
        }
    }

    async fn run(self) -> Output {
        let args =
            std::iter::once("bmdemo-cli".to_owned()).chain(self.args.clone()).map(OsString::from);
        let code = super::run(args, self.io()).await;
        Output { stdout: self.stdout.text(), stderr: self.stderr.text(), code }
    }
}
