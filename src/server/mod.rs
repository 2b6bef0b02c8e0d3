//! The server process: configuration, wiring, connections, health, logs, shutdown.

mod accept;
mod access;
mod activity;
mod admission;
mod audit;
mod audit_command;
mod body;
mod boot;
mod checks;
mod config;
mod connect;
mod connection;
mod denials;
mod durable;
mod edge;
mod error;
mod gate;
mod greeting;
mod health;
mod host;
mod http1;
mod identities;
mod jwt;
mod limits;
mod maintenance;
mod metrics;
mod notices;
mod notifications;
mod peers;
mod plans;
mod programs;
mod progress;
mod providers;
mod reflection;
mod refusals;
mod restore;
mod room;
mod sending;
mod shutdown;
pub mod simulate;
mod simulator;
mod small;
pub mod stage;
mod storage;
mod telemetry;
mod tls;
mod token_command;
mod tokens;
mod watches;
mod wiring;

use std::ffi::OsString;
use std::io::Write as _;

use clap::Parser as _;
use tokio::task::JoinHandle;

pub use self::wiring::serve_stream;

use self::config::{Args, Command, Config, ConfigError, TokenCommand};
use self::error::StartError;
use self::shutdown::Signals;
use self::telemetry::Telemetry;
use self::wiring::{Server, Settings};
use crate::clock::SystemClock;

/// Runs the server with these arguments, and returns the exit code. `args` begin with the name of the program.
///
/// Prints `listening on ADDR:PORT` on stdout when it serves, and nothing else; logs go to stderr. Ends on SIGTERM or
/// SIGINT; a second one ends the process at once.
pub async fn cli_main(args: Vec<OsString>) -> u8 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return report_usage(&error),
    };
    let mut stdout = std::io::stdout();
    let result = match &args.command {
        None => Box::pin(run(&args)).await,
        // Needs no configuration.
        Some(Command::DevCerts { dir, name, client }) => {
            tls::dev::write(dir, name, client, &SystemClock::new(), &mut stdout)
        }
        Some(Command::Openapi) => {
            let printed = stdout.write_all(&connect::document()).and_then(|()| stdout.flush());
            printed.map_err(|source| StartError::Internal {
                what: "the description of the API cannot be printed",
                source: source.into(),
            })
        }
        Some(command) => match Config::load(&args) {
            Err(error) => Err(error.into()),
            Ok(config) => match command {
                Command::Token(TokenCommand::New { name, expires_in }) => {
                    let expires_in = expires_in.map(|span| span.0);
                    token_command::new(&config, name, expires_in, &SystemClock::new(), &mut stdout)
                }
                // Handled above.
                Command::DevCerts { .. } | Command::Openapi => Ok(()),
                Command::Backup { file } => storage::back_up(&config, file, &mut stdout),
                Command::Restore { backup } => {
                    Box::pin(restore::restore(&config, backup, &mut stdout)).await
                }
                Command::Audit(command) => audit_command::run(&config, command, &mut stdout),
                Command::Check { accept } => storage::check(&config, accept, &mut stdout),
                Command::Repair { drop_run, drop_machine } => {
                    storage::repair(&config, drop_run, drop_machine, &mut stdout)
                }
            },
        },
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            drop(error.report(&mut std::io::stderr().lock()));
            error.exit_code()
        }
    }
}

/// What is said to a server that runs as root.
const ROOT: &str = "running as root: an attacker who finds a way into this process has the machine. Give it a user of its own, in its unit: \
    User=bmdemo StateDirectory=bmdemo NoNewPrivileges=yes ProtectSystem=strict ProtectHome=yes PrivateTmp=yes (only programs of \
    [machine_classes.NAME.exec] that run as another user need root)";

/// Prints what clap has to say: help and version are data, with code 0, the rest is an error.
fn report_usage(error: &clap::Error) -> u8 {
    // A closed output changes nothing.
    if error.use_stderr() {
        // As every other error of ours begins.
        let text = error.render().to_string().replacen("error:", "Error:", 1);
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    } else {
        drop(error.print());
    }
    u8::try_from(error.exit_code()).unwrap_or(2)
}

async fn run(args: &Args) -> Result<(), StartError> {
    let config = Config::load(args)?;
    let telemetry = Telemetry::start(&config)?;
    let signals_failed = |error: std::io::Error| StartError::Internal {
        what: "cannot handle signals",
        source: error.into(),
    };
    let mut signals = Signals::install().map_err(signals_failed)?;
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        (signal, _) = signals.end() => {
            tracing::info!(signal, "ended by a signal before the server was ready");
            return Ok(());
        }
    };
    announce(&server);
    if rustix::process::geteuid().is_root() {
        tracing::warn!("{ROOT}");
    }
    let mut loading = Loading::default();
    loop {
        tokio::select! {
            error = server.broken() => return Err(error),
            loaded = loading.done() => server.reload(loaded),
            signal = signals.next() => match signal {
                Some(signal) => {
                    tracing::info!(signal, "shutting down; a second signal ends at once");
                    break;
                }
                None => loading.begin(args),
            },
        }
    }
    tokio::select! {
        () = async { server.shut_down().await; telemetry.stop().await; } => Ok(()),
        (signal, code) = signals.end() => {
            tracing::warn!(signal, "ending at once; runs are recovered at the next start");
            std::process::exit(code);
        }
    }
}

/// Reloads configuration and plans, beside the loop that handles signals: a file system may be slow, or unavailable.
#[derive(Default)]
struct Loading {
    running: Option<JoinHandle<Result<Settings, ConfigError>>>,
    /// Arguments of another reload, requested while one is in progress.
    again: Option<Args>,
}

impl Loading {
    fn begin(&mut self, args: &Args) {
        if self.running.is_some() {
            self.again = Some(args.clone());
            return;
        }
        let args = args.clone();
        self.running = Some(tokio::task::spawn_blocking(move || Settings::load(&args)));
    }

    /// Resolves when a reload is done; never, if there is none.
    async fn done(&mut self) -> Result<Settings, ConfigError> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let loaded = running.await;
        self.running = None;
        if let Some(args) = self.again.take() {
            self.begin(&args);
        }
        loaded.unwrap_or_else(|error| {
            Err(ConfigError::Setting(format!("reading the configuration failed: {error}")))
        })
    }
}

/// Prints the address for the process that started us. A closed pipe is no reason to stop.
fn announce(server: &Server) {
    let mut stdout = std::io::stdout().lock();
    let told = writeln!(stdout, "listening on {}", server.address()).and_then(|()| stdout.flush());
    if let Err(error) = told {
        tracing::warn!(%error, "cannot print where the server listens");
    }
}
