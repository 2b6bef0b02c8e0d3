//! The client on a terminal of its own, as people use it, and on pipes, as scripts do.

use std::num::NonZeroU16;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use pty_process::Size;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::support::{text, within};

/// Rows of a terminal: enough that nothing scrolls away.
const ROWS: u16 = 400;

/// The client's environment: nothing of the machine that the tests run on.
fn environment(server: &str) -> [(&'static str, String); 5] {
    [
        ("BMDEMO_SERVER", server.to_owned()),
        ("BMDEMO_ACTOR", "ops".to_owned()),
        ("HOME", "/nonexistent".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TERM", "xterm-256color".to_owned()),
    ]
}

/// What a command printed, with everything that varies masked.
pub(crate) fn steady(printed: &str) -> String {
    let mut text = printed.to_owned();
    for (pattern, shown) in [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[run]"),
        // Cut off at the end of a row.
        (r"\b[0-9a-f]{8}-[0-9a-f-]*…", "[run]…"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "[time]"),
        (r"127\.0\.0\.1:\d+", "[server]"),
        (r"sha256:[0-9a-f]{64}", "[digest]"),
        (r#"(etag:? +|Etag: +)"\d+""#, "$1[etag]"),
        (r#""revision": "\d+""#, "\"revision\": [revision]"),
        // Short forms of ids, in columns and in commands.
        (r"\b[0-9a-f]{12}\b", "[short run]"),
        // The terminal's echo; a line that moves may have erased it.
        (r"\^C", ""),
        // Columns grow with the time, too.
        (r"\b\d+\.\ds {2,}", "[t]s  "),
        (r"(?m)^AT {2,12}([A-Z])", "AT $1"),
        (r"\b\d+\.\ds\b", "[t]s"),
        (r"\b\d+[smhd] ago +", "[ago] "),
        (r"\b\d+[smhd] ago\b", "[ago]"),
        // The time until an instant: it shrinks with the time that the test takes.
        (r"\(in (\d+[hms] ?)+\)", "(in [while])"),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, shown).into_owned();
    }
    text
}

/// A command on pipes, to its end: its stdout, its stderr, and how it ended.
pub(crate) async fn piped(server: &str, line: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
        .args(words(line))
        .env_clear()
        .envs(environment(server))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(line, output).await.unwrap();
    let mut shown = format!("$ bmdemo-cli {line}\n{}", text(&output.stdout));
    if !output.stderr.is_empty() {
        shown.push_str(&format!("--- stderr\n{}", text(&output.stderr)));
    }
    if !output.status.success() {
        shown.push_str(&format!("--- exit {}\n", output.status.code().unwrap()));
    }
    steady(&shown) + "\n"
}

/// Words of a command line; quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(place, part)| match place % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// A command on a terminal.
pub(crate) struct Terminal {
    line: String,
    pty: pty_process::Pty,
    child: Child,
    parser: vt100::Parser,
    /// Everything that came, escape sequences and all.
    pub(crate) raw: Vec<u8>,
}

impl Terminal {
    /// Starts a command on a terminal of this width. Variables override the usual ones.
    pub(crate) fn start(server: &str, columns: u16, env: &[(&str, &str)], line: &str) -> Self {
        Self::sized(server, (columns, ROWS), env, line)
    }

    /// Starts a command on a terminal of this size.
    pub(crate) fn sized(
        server: &str,
        (columns, rows): (u16, u16),
        env: &[(&str, &str)],
        line: &str,
    ) -> Self {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(Size::new(rows, columns)).unwrap();
        let mut command = pty_process::Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
            .args(words(line))
            .env_clear()
            .kill_on_drop(true);
        for (key, value) in environment(server) {
            command = command.env(key, value);
        }
        for (key, value) in env {
            command = command.env(key, value);
        }
        let child = command.spawn(pts).unwrap();
        let size = |count: u16| NonZeroU16::new(count).unwrap();
        let parser = vt100::Parser::new(size(rows), size(columns), 0);
        Self { line: line.to_owned(), pty, child, parser, raw: Vec::new() }
    }

    /// Reads a little; false at the end.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // The kernel answers with an error once the other side is closed.
        let count = within(&self.line, self.pty.read(&mut bytes)).await.unwrap_or(0);
        self.parser.process(&bytes[..count]);
        self.raw.extend(&bytes[..count]);
        count > 0
    }

    /// Waits until the screen shows a text.
    pub(crate) async fn until(&mut self, wanted: &str) {
        // A screen that is repainted never stops sending.
        within(wanted, async {
            while !self.parser.screen().contents().contains(wanted) {
                let goes_on = self.read().await;
                assert!(goes_on, "ended without {wanted:?}:\n{}", self.parser.screen().contents());
            }
        })
        .await;
    }

    /// Waits until this text has come, unprocessed.
    pub(crate) async fn until_raw(&mut self, wanted: &str) {
        within(wanted, async {
            while !String::from_utf8_lossy(&self.raw).contains(wanted) {
                assert!(self.read().await, "ended without {wanted:?}");
            }
        })
        .await;
    }

    /// What the screen shows now.
    pub(crate) fn shown(&self) -> String {
        self.parser.screen().contents()
    }

    /// Types.
    pub(crate) async fn press(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).await.unwrap();
    }

    /// Sends a signal to the client.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(sent.unwrap().success(), "kill -s {name}");
    }

    /// Types, and repeats every second, until the client ends; then as [`Terminal::ended`]. A signal that comes in
    /// the very moment in which a process starts to listen for it may be lost, and a user would press Ctrl-C again.
    pub(crate) async fn press_until_ended(&mut self, keys: &str) -> String {
        loop {
            // The client may have ended meanwhile.
            let _ = self.pty.write_all(keys.as_bytes()).await;
            tokio::select! {
                biased;
                () = async { while self.read().await {} } => break,
                () = SystemClock::new().sleep(Duration::from_secs(1)) => {}
            }
        }
        self.ended().await
    }

    /// Waits for the end and returns what the screen shows then, and how it ended.
    pub(crate) async fn ended(&mut self) -> String {
        while self.read().await {}
        let status = within(&self.line, self.child.wait()).await.unwrap();
        let screen = self.parser.screen().contents();
        let lines: Vec<&str> = screen.trim_end().lines().map(str::trim_end).collect();
        let mut shown = format!("$ bmdemo-cli {}\n{}\n", self.line, lines.join("\n"));
        if !status.success() {
            // A shell shows an end by a signal like this.
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
            shown.push_str(&format!("--- exit {code}\n"));
        }
        steady(&shown) + "\n"
    }
}

/// A command on a terminal of 120 columns, to its end.
pub(crate) async fn typed(server: &str, line: &str) -> String {
    Terminal::start(server, 120, &[], line).ended().await
}
