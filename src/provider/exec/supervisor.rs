//! The life of one program: started, read, limited in time, and ended with its children.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::group::Group;
use super::judge::Account;
use super::leftover::{Handed, Slot};
use super::lines::{Kept, Output};
use crate::clock::Clock;
use crate::model::LogStream;
use crate::plan::duration;
use crate::provider::Logs;

/// Time between two looks whether a group has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Time for what was ended by force, and for output that someone outside the group holds open.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The programs of a server, over all classes.
#[derive(Debug, Clone, Default)]
pub struct Supervisors {
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that did not come from here.
    Signaled(i32),
    /// It took longer than this.
    TimedOut(Duration),
    /// Its call was dropped, stopped or fenced, or the server ended.
    Asked,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Signaled(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut(limit) => {
                let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                write!(f, "was ended: it took longer than {}", duration::format(ms))
            }
            Self::Asked => f.write_str("was ended before it was done"),
        }
    }
}

/// A program that has ended, with all its children.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    /// Its answer, without the mark.
    pub(super) answer: Option<Zeroizing<String>>,
    /// The last line on standard error.
    pub(super) last_error: String,
}

/// What is to be run.
pub(super) struct Launch {
    pub(super) argv: Vec<String>,
    pub(super) variables: Vec<(&'static str, OsString)>,
    pub(super) dir: PathBuf,
    pub(super) account: Option<Account>,
    pub(super) input: File,
    /// Where the input comes from, and what it is; without it, it is in the file.
    pub(super) source: Option<(pipe::Sender, Zeroizing<String>)>,
    /// Files to note the group in, and to remove at the end.
    pub(super) slot: Option<Slot>,
    /// Its secrets, removed at the end.
    pub(super) handed: Option<Handed>,
    pub(super) limit: Duration,
    pub(super) grace: Duration,
    pub(super) logs: Option<Logs>,
    pub(super) stop: CancellationToken,
}

impl Supervisors {
    /// Runs in a task of its own, which ends by itself even if no one waits for it any more.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Cancelled when the server ends.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Ends every program, and resolves when none is left.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Runs a program to its end.
///
/// # Errors
/// If it could not be started: then nothing has happened.
pub(super) async fn run(launch: Launch, clock: Arc<dyn Clock>) -> io::Result<Ended> {
    let Launch {
        argv,
        variables,
        dir,
        account,
        input,
        source,
        slot,
        handed,
        limit,
        grace,
        logs,
        stop,
    } = launch;
    let (program, arguments) =
        argv.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(variables)
        .current_dir(dir)
        .process_group(0)
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    let started = command.spawn();
    // It holds the input, and with it the lock, which from now on belongs to the program alone.
    drop(command);
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            if let Some(slot) = &slot {
                slot.clear();
            }
            return Err(error);
        }
    };
    let group = child.id().and_then(Group::of);
    if let (Some(slot), Some(group)) = (&slot, group) {
        slot.note(group);
    }
    let output = Output::new(logs);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut reading = pin!(async {
        let out = async {
            if let Some(pipe) = stdout {
                output.read(LogStream::Stdout, pipe).await;
            }
        };
        let errors = async {
            if let Some(pipe) = stderr {
                output.read(LogStream::Stderr, pipe).await;
            }
        };
        // Only now, after the group was noted: a program that the next server cannot find has had no input.
        let input = async {
            if let Some((mut pipe, text)) = source {
                // It may end without reading it all.
                drop(pipe.write_all(text.as_bytes()).await);
            }
        };
        tokio::join!(out, errors, input);
    });
    let mut is_read = false;
    let mut status: Option<ExitStatus> = None;
    let mut limited = clock.sleep(limit);
    let cause = loop {
        tokio::select! {
            biased;
            () = &mut reading, if !is_read => is_read = true,
            ended = child.wait() => {
                status = ended.ok();
                break None;
            }
            () = stop.cancelled() => break Some(End::Asked),
            () = &mut limited => break Some(End::TimedOut(limit)),
        }
    };
    if let Some(cause) = cause {
        output.note(&format!("[{program} {cause}]"));
    }
    // Whatever it has left behind ends with it.
    let exists = || group.is_some_and(Group::exists);
    let is_over = |status: &Option<ExitStatus>, is_read| status.is_some() && is_read && !exists();
    if exists() {
        group.inspect(|group| group.ask());
    }
    let mut over = clock.sleep(grace);
    while !is_over(&status, is_read) {
        tokio::select! {
            biased;
            () = &mut reading, if !is_read => is_read = true,
            ended = child.wait(), if status.is_none() => status = ended.ok(),
            () = &mut over => break,
            () = clock.sleep(LOOK_AGAIN) => {}
        }
    }
    if !is_over(&status, is_read) {
        group.inspect(|group| group.kill());
        let mut over = clock.sleep(LAST_WAIT);
        while !is_over(&status, is_read) {
            tokio::select! {
                biased;
                () = &mut reading, if !is_read => is_read = true,
                ended = child.wait(), if status.is_none() => status = ended.ok(),
                () = &mut over => break,
                () = clock.sleep(LOOK_AGAIN) => {}
            }
        }
    }
    // What does not end in spite of that the next server still has to find.
    if let Some(slot) = slot.as_ref().filter(|_| !exists()) {
        slot.clear();
    }
    drop(handed);
    let end = cause.unwrap_or_else(|| match status {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signaled(signal.unwrap_or_default()),
        },
        None => End::Asked,
    });
    let Kept { answer, last_error } = output.kept();
    Ok(Ended { end, answer, last_error })
}
