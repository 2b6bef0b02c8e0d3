//! A server process for a single test.

use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use bmdemo::clock::{Clock as _, OsRandom, Random as _, SystemClock};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for anything: far above what a loaded machine needs, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The result of a future that must not hang.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::select! {
        value = future => value,
        () = SystemClock::new().sleep(PATIENCE) => panic!("{what}: nothing happened for {PATIENCE:?}"),
    }
}

/// A command line of the server, with its own environment.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmdemo-server"));
    command.args(args);
    piped(command)
}

fn piped(mut command: Command) -> Command {
    let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    streams.kill_on_drop(true);
    command
}

/// Runs the server until it ends by itself.
pub(crate) async fn run_to_end(args: &[&str]) -> Output {
    let output = command(args).output();
    within("the server ends", output).await.expect("the server binary runs")
}

/// A server process, killed when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: watch::Receiver<String>,
}

impl Server {
    /// Starts a server without storage on a free port, and waits until it is ready.
    pub(crate) async fn ephemeral(args: &[&str]) -> Self {
        let mut all = vec!["--ephemeral", "--port", "0", "--fake-timing", "zero"];
        all.extend(args);
        Self::start(&all).await
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self::ready(command(args)).await
    }

    /// The same, with at most this many open files.
    pub(crate) async fn with_open_files(most: usize, args: &[&str]) -> Self {
        let mut limited = Command::new("sh");
        let script = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
        limited.args(["-c", &script, env!("CARGO_BIN_EXE_bmdemo-server")]).args(args);
        Self::ready(piped(limited)).await
    }

    async fn ready(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the server binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let (sender, log) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                sender.send_modify(|log| {
                    log.push_str(&line);
                    log.push('\n');
                });
            }
        });
        let mut line = String::new();
        within("the server is ready", stdout.read_line(&mut line)).await.expect("stdout is text");
        let address = line
            .strip_prefix("listening on ")
            .and_then(|address| address.trim_end().parse().ok())
            .unwrap_or_else(|| panic!("unexpected line {line:?}; log:\n{}", *log.borrow()));
        Self { address, child, stdout, log }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("a URL");
        within("the server takes a connection", endpoint.connect())
            .await
            .expect("the server is there")
    }

    /// A connection without HTTP.
    pub(crate) async fn raw(&self) -> TcpStream {
        within("the server takes a connection", TcpStream::connect(self.address))
            .await
            .expect("the server is there")
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(sent.expect("kill runs").success(), "kill -s {name}");
    }

    /// Waits until the log contains a text, and returns the log.
    pub(crate) async fn logged(&self, text: &str) -> String {
        let mut log = self.log.clone();
        let found =
            within(text, log.wait_for(|log| log.contains(text))).await.map(|log| log.clone());
        found.unwrap_or_else(|_| {
            panic!("the server ended without {text:?}; log:\n{}", *self.log.borrow())
        })
    }

    /// Waits until the process ends; returns how, what it printed after the first line, and its log.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String, String) {
        let status = within("the server ends", self.child.wait()).await.expect("a status");
        let mut printed = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut self.stdout, &mut printed)
            .await
            .expect("text");
        // The sender is dropped when the end of stderr is read.
        within("the log ends", async { while self.log.changed().await.is_ok() {} }).await;
        let log = self.log.borrow().clone();
        (status, printed, log)
    }
}

/// Text of an output stream.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How often a test is repeated: the variable decides, else the default, or more with `BMDEMO_PROOF=full`.
pub(crate) fn repeats(variable: &str, short: usize, full: usize) -> usize {
    if let Ok(text) = std::env::var(variable) {
        return text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number"));
    }
    let is_full = std::env::var("BMDEMO_PROOF").is_ok_and(|proof| proof == "full");
    if is_full { full } else { short }
}

/// The seed of a randomized test: a new one for every manual run, or that of `BMDEMO_TEST_SEED=n`. `round`
/// distinguishes repetitions.
pub(crate) fn seed(round: u64) -> u64 {
    match std::env::var("BMDEMO_TEST_SEED") {
        Ok(text) => {
            let seed: u64 = text
                .parse()
                .unwrap_or_else(|_| panic!("BMDEMO_TEST_SEED={text:?} is not a number"));
            seed.wrapping_add(round)
        }
        Err(_) => OsRandom.next_u64() >> 16,
    }
}

/// Prints past the test harness, which captures the output of tests that pass.
pub(crate) fn announce(text: &str) {
    use std::io::Write as _;
    // Without a reader there is nothing to print for.
    let _ = writeln!(std::io::stderr(), "{text}");
}
