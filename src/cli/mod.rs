//! The command-line client: commands build values and call the server, `output` prints them.
//!
//! Data goes to standard output, everything else to standard error. Only `local` starts a server process.

mod args;
mod client;
mod commands;
mod config;
mod error;
mod local;
mod output;
mod query;
mod resolve;
mod ui;
mod watch;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use clap::Parser as _;
use tonic::Code;

use args::{Cli, ColorChoice, Global};
use client::{Client, Target};
use error::{About, Error};
use output::Look;
use ui::Ui;

pub use ui::Io;

/// Runs one command line and returns the exit code of the process: 0 ok, 1 internal, 2 usage, 3 run failed or held,
/// 4 run canceled, 5 wait timed out, 64 + gRPC code for an error of the server, 130 interrupted.
pub async fn run(args: impl Iterator<Item = OsString>, mut io: Io) -> u8 {
    let args: Vec<OsString> = args.collect();
    if args.get(1).is_some_and(|verb| verb == "serve") {
        return local::serve(args).await;
    }
    let command_line = shell_words(&args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&mut io, &error),
    };
    let mut ctx = match Context::new(io, &cli.global, command_line) {
        Ok(ctx) => ctx,
        Err(failed) => {
            let (mut ui, error) = *failed;
            let look = ui.note_look;
            // There is nowhere to report that standard error is closed.
            let _ = output::write_error(ui.err(), look, &error, &[]);
            return error.code();
        }
    };
    let result = Box::pin(commands::dispatch(&mut ctx, cli.command)).await;
    let result = result.and_then(|exit| {
        ctx.ui.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit.code(),
        Err(error) => ctx.report(&error).await,
    }
}

/// Prints what clap has to say: help and version are data, the rest is an error.
fn report_usage(io: &mut Io, error: &clap::Error) -> u8 {
    let is_data = !error.use_stderr();
    let terminal = if is_data { io.stdout_is_terminal } else { io.stderr_is_terminal };
    let color = wants_color(io, ColorChoice::Auto, terminal);
    let text = error.render();
    let text = if color { text.ansi().to_string() } else { text.to_string() };
    let out = if is_data { &mut io.stdout } else { &mut io.stderr };
    // A reader that has gone away misses nothing.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// The arguments as they could be typed into a shell, behind the name of the program.
fn shell_words(args: &[OsString]) -> String {
    let quoted = |arg: &OsString| {
        let text = arg.to_string_lossy();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
        if !text.is_empty() && text.chars().all(is_plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
    };
    std::iter::once("bmdemo-cli".to_owned())
        .chain(args.iter().skip(1).map(quoted))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether to colour: flag, then NO_COLOR, then CLICOLOR_FORCE, then whether a capable terminal is there.
fn wants_color(io: &Io, choice: ColorChoice, terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if io.var("NO_COLOR").is_some() => false,
        ColorChoice::Auto if io.var("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColorChoice::Auto => {
            terminal && io.var("TERM") != Some("dumb") && io.var("CLICOLOR") != Some("0")
        }
    }
}

/// Whether to keep to ASCII: asked for, or a terminal whose locale is not UTF-8. A pipe always gets UTF-8.
fn wants_ascii(io: &Io, asked: bool, terminal: bool) -> bool {
    let locale = io
        .var("LC_ALL")
        .or_else(|| io.var("LC_CTYPE"))
        .or_else(|| io.var("LANG"))
        .unwrap_or("C.UTF-8");
    let lower = locale.to_ascii_lowercase();
    asked || (terminal && !lower.contains("utf-8") && !lower.contains("utf8"))
}

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// Streams.
    pub(crate) ui: Ui,
    /// Where the server is.
    pub(crate) target: Target,
    /// Whether the address came from the command line, and not from the environment or the default.
    pub(crate) server_given: bool,
    /// What decided on the address.
    pub(crate) server_from: &'static str,
    client: Option<Client>,
    command_line: String,
}

impl Context {
    fn new(io: Io, global: &Global, command_line: String) -> Result<Self, Box<(Ui, Error)>> {
        let look = |terminal: bool| Look {
            color: wants_color(&io, global.color, terminal),
            ascii: wants_ascii(&io, global.ascii, terminal),
            columns: if terminal { io.columns } else { None },
            relative: terminal,
        };
        let (out_look, err_look) = (look(io.stdout_is_terminal), look(io.stderr_is_terminal));
        let var = |name: &str| io.var(name).map(str::to_owned);
        let named = global.context.clone().or_else(|| var("BMDEMO_CONTEXT"));
        let config = match config::Config::load(&io) {
            Ok(config) => config,
            Err(error) => return Err(Box::new((Ui::new(io, out_look, err_look), error))),
        };
        let context = match config.context(named.as_deref()) {
            Ok(context) => context,
            Err(error) => return Err(Box::new((Ui::new(io, out_look, err_look), error))),
        };
        let (server, server_from) = if let Some(server) = &global.server {
            (server.clone(), "--server")
        } else if let Some(server) = var("BMDEMO_SERVER") {
            (server, "BMDEMO_SERVER")
        } else if let Some(context) = context {
            (context.server.clone(), "context")
        } else {
            ("localhost:50051".to_owned(), "default")
        };
        let in_context = || context.and_then(|context| context.actor.clone());
        let actor = global
            .actor
            .clone()
            .or_else(|| var("BMDEMO_ACTOR"))
            .or_else(in_context)
            .or_else(|| var("USER"));
        let target = Target {
            server,
            actor,
            wait: global.wait_for_server,
            timeout: Duration::from_millis(global.request_timeout),
        };
        let server_given = global.server.is_some();
        let ui = Ui::new(io, out_look, err_look);
        Ok(Self { ui, target, server_given, server_from, client: None, command_line })
    }

    /// The connection, made at the first use.
    pub(crate) async fn client(&mut self) -> Result<Client, Error> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let clock = self.ui.clock();
        let random = self.ui.io().random.clone();
        let client = Client::connect(&self.target, clock, random).await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// The command line, to be typed again.
    pub(crate) fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Talks to another server from now on.
    pub(crate) fn use_server(&mut self, address: String) {
        self.target.server = address;
        self.client = None;
    }

    /// Prints an error and returns its exit code.
    pub(crate) async fn report(&mut self, error: &Error) -> u8 {
        if error.is_broken_pipe() {
            return 0;
        }
        let suggestions = self.suggestions(error).await;
        let look = self.ui.note_look;
        // There is nowhere to report that standard error is closed.
        let _ = output::write_error(self.ui.err(), look, error, &suggestions);
        let _ = self.ui.flush();
        error.code()
    }

    /// Ids like the one that was not found.
    async fn suggestions(&self, error: &Error) -> Vec<String> {
        let (Error::Rpc { about, .. }, Some(Code::NotFound), Some(client)) =
            (error, error.grpc_code(), &self.client)
        else {
            return Vec::new();
        };
        // Suggestions are a courtesy: where they cannot be had, the error stands alone.
        let (wanted, ids): (&str, Vec<String>) = match about {
            About::Nothing => return Vec::new(),
            About::Machine(id) => {
                let machines = client.all_machines("", 10_000).await.unwrap_or_default();
                (id, machines.into_iter().map(|machine| machine.machine_id).collect())
            }
            About::Run(id) => {
                let runs = client.all_runs("", 10_000).await.unwrap_or_default();
                (id, runs.into_iter().map(|run| run.run_id).collect())
            }
            About::Plan(id) => {
                let plans = client.all_plans().await.unwrap_or_default();
                (id, plans.into_iter().map(|plan| plan.plan_id).collect())
            }
        };
        // Plans may be named without their prefix.
        let bare = matches!(about, About::Plan(id) if !id.starts_with("plan/"));
        let named = |id: &'_ String| {
            if bare { id.trim_start_matches("plan/").to_owned() } else { id.clone() }
        };
        let ids: Vec<String> = ids.iter().map(named).collect();
        resolve::nearest(wanted, ids.iter().map(String::as_str))
            .into_iter()
            .map(str::to_owned)
            .collect()
    }
}
