//! A command's access to the outside world: streams, environment, time, and the user's interrupt.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, OsRandom, Random, SystemClock};

use super::output::{Look, shortened, wrapped};

/// The process as the client sees it; tests pass their own.
pub struct Io {
    /// Data.
    pub stdout: Box<dyn Write + Send>,
    /// Everything that is not data: errors, hints, notes, spinners.
    pub stderr: Box<dyn Write + Send>,
    /// Input for confirmations.
    pub stdin: Box<dyn BufRead + Send>,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Whether standard input is a terminal.
    pub stdin_is_terminal: bool,
    /// Columns of the terminal, if there is one.
    pub columns: Option<usize>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for request ids and jitter.
    pub random: Arc<dyn Random>,
    /// Stands for Ctrl-C in tests; the signal of the operating system if absent.
    pub interrupt: Option<CancellationToken>,
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io")
            .field("stdout_is_terminal", &self.stdout_is_terminal)
            .finish_non_exhaustive()
    }
}

impl Io {
    /// The streams, environment and clock of this process.
    #[must_use]
    pub fn process() -> Self {
        Self {
            stdout: Box::new(io::BufWriter::new(io::stdout())),
            stderr: Box::new(io::stderr()),
            stdin: Box::new(io::BufReader::new(io::stdin())),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            stdin_is_terminal: io::stdin().is_terminal(),
            columns: terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)),
            env: std::env::vars_os()
                .filter_map(|(key, value)| {
                    Some((key.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(OsRandom),
            interrupt: None,
        }
    }

    /// A non-empty environment variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The streams and their appearance, as commands use them.
#[derive(Debug)]
pub(crate) struct Ui {
    io: Io,
    /// How standard output looks.
    pub(crate) look: Look,
    /// How standard error looks.
    pub(crate) note_look: Look,
    /// Whether a status line is on the terminal.
    has_status: bool,
}

/// Time between two updates of the status line.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Back to the first column, and erase the line.
const ERASE_LINE: &str = "\r\u{1b}[2K";

impl Ui {
    pub(crate) fn new(io: Io, look: Look, note_look: Look) -> Self {
        Self { io, look, note_look, has_status: false }
    }

    /// Whether progress can be shown in place: everything goes to one terminal that supports escape sequences.
    pub(crate) fn is_live(&self) -> bool {
        self.io.stdout_is_terminal
            && self.io.stderr_is_terminal
            && self.io.var("TERM") != Some("dumb")
    }

    /// Whether a question can be asked and answered.
    pub(crate) fn can_ask(&self) -> bool {
        self.io.stdin_is_terminal && self.io.stderr_is_terminal
    }

    /// Shows a line that the next output replaces; nothing where [`Ui::is_live`] is false.
    pub(crate) fn status(&mut self, line: &str) {
        if !self.is_live() || (line.is_empty() && !self.has_status) {
            return;
        }
        self.has_status = !line.is_empty();
        let _ = self.io.stdout.flush();
        // Failing to draw a status is not worth an error.
        let _ = write!(self.io.stderr, "{ERASE_LINE}{line}").and_then(|()| self.io.stderr.flush());
    }

    /// Standard output.
    pub(crate) fn out(&mut self) -> &mut dyn Write {
        self.status("");
        &mut *self.io.stdout
    }

    /// Standard error, after everything written to standard output so far.
    pub(crate) fn err(&mut self) -> &mut dyn Write {
        self.status("");
        // A failing flush shows up at the next write of data, where it is handled.
        let _ = self.io.stdout.flush();
        &mut *self.io.stderr
    }

    /// Flushes everything written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.io.stdout.flush()?;
        self.io.stderr.flush()
    }

    /// Writes one line to standard error; a closed standard error is ignored.
    ///
    /// On a terminal it is wrapped between words.
    pub(crate) fn note(&mut self, text: &str) {
        for line in shortened(text).split('\n') {
            let indent = line.len() - line.trim_start_matches(' ').len() + 2;
            let line = wrapped(self.note_look, line, indent);
            let _ = writeln!(self.err(), "{line}");
        }
    }

    /// Streams that lead nowhere.
    pub(crate) fn nowhere(&self) -> Self {
        let io = Io {
            stdout: Box::new(io::sink()),
            stderr: Box::new(io::sink()),
            stdin: Box::new(io::empty()),
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            stdin_is_terminal: false,
            columns: None,
            env: BTreeMap::new(),
            clock: self.io.clock.clone(),
            random: self.io.random.clone(),
            interrupt: self.io.interrupt.clone(),
        };
        Self::new(io, Look::default(), Look::default())
    }

    /// Uses another clock and source of randomness.
    pub(crate) fn live_in(&mut self, clock: Arc<dyn Clock>, random: Arc<dyn Random>) {
        self.io.clock = clock;
        self.io.random = random;
    }

    /// Replaces Ctrl-C from now on; the signal of the operating system if absent.
    pub(crate) fn interrupted_by(&mut self, token: Option<CancellationToken>) {
        self.io.interrupt = token;
    }

    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.io.clock.clone()
    }

    /// Seconds since the Unix epoch, for relative times.
    pub(crate) fn now_ms(&self) -> u64 {
        self.io.clock.now().0
    }

    /// Standard input, for keys; nothing else can be read from then on.
    pub(crate) fn take_input(&mut self) -> Box<dyn BufRead + Send> {
        std::mem::replace(&mut self.io.stdin, Box::new(io::empty()))
    }

    /// Reads one line of an answer; `None` at the end of the input.
    pub(crate) fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let count = self.io.stdin.read_line(&mut line)?;
        Ok((count > 0).then(|| line.trim().to_owned()))
    }

    /// Resolves when a command that repaints the screen must leave it: at Ctrl-C, or when the process is asked to
    /// end.
    pub(crate) fn left(&self) -> impl Future<Output = ()> + Send + 'static {
        let interrupted = self.interrupted();
        // Where something replaces Ctrl-C it replaces the other signals too, and there may be no runtime to listen
        // with.
        let listens = self.io.interrupt.is_none();
        async move {
            tokio::select! {
                () = interrupted => {}
                () = ended_by_signal(), if listens => {}
            }
        }
    }

    /// Resolves when the user presses Ctrl-C. Until this is first awaited, Ctrl-C ends the process.
    pub(crate) fn interrupted(&self) -> impl Future<Output = ()> + Send + 'static {
        let token = self.io.interrupt.clone();
        async move {
            match token {
                Some(token) => token.cancelled().await,
                None => {
                    if tokio::signal::ctrl_c().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}

/// Resolves when the process is asked to end by a signal other than Ctrl-C, which would leave the screen as it is.
async fn ended_by_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
        if let (Ok(mut terminate), Ok(mut hangup)) = signals {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = hangup.recv() => return,
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Waits for `future` at most `limit`; `None` if it took longer.
pub(crate) async fn within<F: Future>(
    clock: &dyn Clock,
    limit: Duration,
    future: F,
) -> Option<F::Output> {
    tokio::select! {
        output = future => Some(output),
        () = clock.sleep(limit) => None,
    }
}
