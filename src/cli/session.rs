//! What every command uses: the streams, and the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::clock::{Clock, Random, SeededRandom};

use super::client::{Client, Target};
use super::credentials::Credentials;
use super::error::{About, Error};
use super::flags::{ColorChoice, Global, parse_actor};
use super::output::Look;
use super::ui::{Io, Ui};
use super::{config, output, resolve};

/// What every command uses.
#[derive(Debug)]
pub(crate) struct Session {
    /// Streams.
    pub(crate) ui: Ui,
    /// Where the server is.
    pub(crate) target: Target,
    /// Whether the address came from the command line, as opposed to the environment or the default.
    pub(crate) server_given: bool,
    /// What the address was taken from.
    pub(crate) server_from: &'static str,
    /// The files of credentials on the command line.
    pub(crate) given: Credentials,
    client: Option<Client>,
    command_line: String,
}

impl Session {
    pub(super) fn new(
        io: Io,
        global: &Global,
        command_line: String,
    ) -> Result<Self, Box<(Ui, Error)>> {
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
        } else if let Some(context) = context.filter(|_| global.context.is_some()) {
            // What is on this command line takes precedence over what was set before.
            (context.server.clone(), "--context")
        } else if let Some(server) = var("BMDEMO_SERVER") {
            (server, "BMDEMO_SERVER")
        } else if let Some(context) = context {
            (context.server.clone(), "context")
        } else {
            ("localhost:50051".to_owned(), "default")
        };
        // Those of a context are for its server alone.
        let of_context = context.filter(|_| ["--context", "context"].contains(&server_from));
        let credentials = credentials(global, &var, of_context);
        let chosen = var("BMDEMO_ACTOR")
            .map(|name| (name, "BMDEMO_ACTOR"))
            .or_else(|| Some((context.and_then(|context| context.actor.clone())?, "the context")));
        let actor = match (&global.actor, chosen) {
            (Some(name), _) => Some(name.clone()),
            (None, Some((name, place))) => match parse_actor(&name) {
                Ok(name) => Some(name),
                Err(why) => {
                    let what = format!("{place} has a name {name:?} that cannot be used: {why}");
                    let error = Error::usage(what, "give another one with --as NAME");
                    return Err(Box::new((Ui::new(io, out_look, err_look), error)));
                }
            },
            // It was not chosen for this, so an unusable one stops no command.
            (None, None) => var("USER").and_then(|name| parse_actor(&name).ok()),
        };
        let target = Target {
            server,
            actor,
            wait: global.wait_for_server,
            timeout: Duration::from_millis(global.request_timeout),
            credentials,
        };
        let server_given = global.server.is_some();
        let ui = Ui::new(io, out_look, err_look);
        let given = Credentials {
            ca_file: global.ca_file.clone(),
            cert_file: global.cert_file.clone(),
            key_file: global.key_file.clone(),
            token_file: global.token_file.clone(),
            token_command: None,
        };
        Ok(Self { ui, target, server_given, server_from, given, client: None, command_line })
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

    /// A session with these streams, for another thread; until [`Session::take_back`] this one has none.
    pub(super) fn leave(&mut self) -> Self {
        let nowhere = self.ui.nowhere();
        Self {
            ui: std::mem::replace(&mut self.ui, nowhere),
            target: self.target.clone(),
            server_given: self.server_given,
            server_from: self.server_from,
            given: self.given.clone(),
            client: None,
            command_line: self.command_line.clone(),
        }
    }

    /// Uses the time of a server in this process, and talks to it.
    pub(super) fn enter(
        &mut self,
        clock: Arc<dyn Clock>,
        seed: u64,
        connect: impl FnOnce(&Target, Arc<dyn Clock>, Arc<dyn Random>) -> Client,
    ) {
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(seed));
        self.client = Some(connect(&self.target, clock.clone(), random.clone()));
        self.ui.live_in(clock, random);
        // Ctrl-C is noticed outside, where real time passes.
        self.ui.interrupted_by(Some(CancellationToken::new()));
    }

    /// Takes back its streams and its own time.
    pub(super) fn take_back(&mut self, other: Self) {
        let own = std::mem::replace(&mut self.ui, other.ui);
        let io = own.io();
        self.ui.live_in(io.clock.clone(), io.random.clone());
        self.ui.interrupted_by(io.interrupt.clone());
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

    /// Ids similar to the one that was not found.
    async fn suggestions(&self, error: &Error) -> Vec<String> {
        let (Error::Rpc { about, .. }, Some(Code::NotFound), Some(client)) =
            (error, error.grpc_code(), &self.client)
        else {
            return Vec::new();
        };
        // Suggestions are optional: if they cannot be fetched, only the error is printed.
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

/// Where the credentials are: from the flags, then the environment, then the context; a context that is named by a flag
/// goes before the environment, as its server does.
fn credentials(
    global: &Global,
    var: &dyn Fn(&str) -> Option<String>,
    context: Option<&config::Entry>,
) -> Credentials {
    let chosen = |flag: &Option<PathBuf>, name: &str, entry: Option<&PathBuf>| {
        let of_environment = var(name).map(PathBuf::from);
        flag.clone().or_else(|| match global.context.is_some() {
            true => entry.cloned().or(of_environment),
            false => of_environment.or(entry.cloned()),
        })
    };
    let entry = |file: fn(&config::Entry) -> &Option<PathBuf>| {
        context.and_then(|context| file(context).as_ref())
    };
    Credentials {
        ca_file: chosen(&global.ca_file, "BMDEMO_CA_FILE", entry(|entry| &entry.ca_file)),
        cert_file: chosen(&global.cert_file, "BMDEMO_CERT_FILE", entry(|entry| &entry.cert_file)),
        key_file: chosen(&global.key_file, "BMDEMO_KEY_FILE", entry(|entry| &entry.key_file)),
        token_file: chosen(
            &global.token_file,
            "BMDEMO_TOKEN_FILE",
            entry(|entry| &entry.token_file),
        ),
        token_command: context.and_then(|context| context.token_command.clone()),
    }
}

/// Whether to use colour: the flag, then NO_COLOR, then CLICOLOR_FORCE, then whether there is a capable terminal.
pub(super) fn wants_color(io: &Io, choice: ColorChoice, terminal: bool) -> bool {
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

/// Whether to use ASCII only: if requested, or on a terminal whose locale is not UTF-8. A pipe always gets UTF-8.
fn wants_ascii(io: &Io, asked: bool, terminal: bool) -> bool {
    let locale = io
        .var("LC_ALL")
        .or_else(|| io.var("LC_CTYPE"))
        .or_else(|| io.var("LANG"))
        .unwrap_or("C.UTF-8");
    let lower = locale.to_ascii_lowercase();
    asked || (terminal && !lower.contains("utf-8") && !lower.contains("utf8"))
}
