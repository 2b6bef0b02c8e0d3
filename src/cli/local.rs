//! Our own servers, in a process or in virtual time: the only part of the client that may start one.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::clock::Clock;
use crate::server::simulate::SimulateError;

use super::error::Error;
use super::ui::within;

pub(crate) use crate::server::simulate::{MACHINES_MAX, Simulated, Simulation};
pub(crate) use crate::server::stage::{Pace, Stage, StageError, perform};

/// What the server prints before its address once it listens.
const LISTENING: &str = "listening on ";
/// Longest wait for a server to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Runs the server in this process; `args` are those of the process, `serve` the second.
pub(crate) async fn serve(mut args: Vec<OsString>) -> u8 {
    args.remove(1);
    Box::pin(crate::server::cli_main(args)).await
}

/// Plays a simulation to its end, on a thread of its own.
pub(crate) async fn simulate(simulation: Simulation) -> Result<Simulated, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Local {
        message: "cannot simulate".to_owned(),
        hint: None,
        source: Some(source),
    };
    let played =
        tokio::task::spawn_blocking(move || crate::server::simulate::simulate(&simulation));
    played.await.map_err(|error| failed(error.into()))?.map_err(|error| match error {
        SimulateError::Refused(status) => Error::rpc(*status),
        SimulateError::Script(_) => Error::usage(
            error.to_string(),
            "rules are those of --fake-script; see: bmdemo-cli plan simulate --help",
        ),
        SimulateError::Timing(_) => {
            Error::usage(error.to_string(), "remove --timing to use the plan's own durations")
        }
        SimulateError::Plans(_) => {
            Error::usage(error.to_string(), "for a plan in a file give its path, with .toml")
        }
        SimulateError::Endless => Error::usage(
            error.to_string(),
            "give the steps shorter timeouts or fewer attempts, or let fewer of them fail",
        ),
        SimulateError::Engine(_) | SimulateError::Runtime(_) => failed(error.into()),
    })
}

/// A server process, killed when dropped.
#[derive(Debug)]
pub(crate) struct LocalServer {
    child: Child,
    /// Kept open: a server that prints into a closed pipe would fail.
    _stdout: BufReader<ChildStdout>,
    /// host:port at which it listens.
    pub(crate) address: String,
}

impl LocalServer {
    /// Starts this executable as a server and waits until it listens. Shows its log only if `verbose`.
    pub(crate) async fn start(
        args: &[String],
        verbose: bool,
        clock: &dyn Clock,
    ) -> Result<Self, Error> {
        let failed = |message: &str, source: Option<std::io::Error>| Error::Local {
            message: message.to_owned(),
            hint: Some("see why with --verbose".to_owned()),
            source: source.map(Into::into),
        };
        let program = std::env::current_exe()
            .map_err(|error| failed("cannot find the path of this program", Some(error)))?;
        let mut child = Command::new(program)
            .arg("serve")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if verbose { Stdio::inherit() } else { Stdio::null() })
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("cannot start a server", Some(error)))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| failed("cannot read what the server prints", None))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = within(clock, START_LIMIT, stdout.read_line(&mut line)).await;
        match read {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                return Err(failed("cannot read what the server prints", Some(error)));
            }
            None => return Err(failed("the server did not listen within 30 s", None)),
        }
        match line.trim().strip_prefix(LISTENING) {
            Some(address) => Ok(Self { child, _stdout: stdout, address: address.to_owned() }),
            None if line.is_empty() => Err(failed("the server ended before it listened", None)),
            None => Err(failed("the server did not say where it listens", None)),
        }
    }

    /// Kills the process, as `kill -9` does, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(|error| Error::Local {
            message: "cannot kill the server".to_owned(),
            hint: None,
            source: Some(error.into()),
        })
    }
}
