//! `context …`: named servers

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::super::config::{Config, Entry};
use super::super::error::{Error, Exit};
use super::super::output::sanitized;
use super::super::server_address::ServerAddress;
use super::super::session::Session;

/// Commands on contexts. A flag wins over the environment, the environment over the context.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  bmdemo-cli context set lab 10.0.0.7:50051 --as-name ops
  bmdemo-cli context set prod https://bmdemo.example.com:50051 --ca-file ca.pem
  bmdemo-cli context use lab
  bmdemo-cli context use -

The file is bmdemo/config.toml in $XDG_CONFIG_HOME or ~/.config, or $BMDEMO_CONFIG:
  current = \"lab\"
  [contexts.lab]
  server = \"10.0.0.7:50051\"
  as = \"ops\"
  [contexts.prod]
  server = \"https://bmdemo.example.com:50051\"
  ca_file = \"/etc/bmdemo/ca.pem\"
  cert_file = \"/etc/bmdemo/ops.pem\"
  key_file = \"/etc/bmdemo/ops-key.pem\"
or, instead of a certificate, one of
  token_file = \"/etc/bmdemo/ops.token\"
  token_command = \"pass show bmdemo\"")]
pub(crate) enum ContextCommand {
    /// List contexts; the one in use is marked
    List(NoArgs),
    /// Print the server that commands talk to, and why that one
    Show(NoArgs),
    /// Use a context from now on; - is the previous one
    Use(UseArgs),
    /// Make or change a context
    #[command(visible_aliases = ["add", "create"])]
    Set(SetArgs),
    /// Delete a context
    Delete(DeleteArgs),
}

/// No arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli context list\n  bmdemo-cli context show")]
pub(crate) struct NoArgs {}

/// Use a context from now on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli context use lab\n  bmdemo-cli context use -")]
pub(crate) struct UseArgs {
    /// Context, or - for the previous one
    #[arg(value_name = "CONTEXT", allow_hyphen_values = true)]
    name: String,
}

/// Make or change a context. The files of --ca-file, --cert-file, --key-file and --token-file belong to it, by their full paths.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli context set lab 10.0.0.7:50051 --as-name ops")]
pub(crate) struct SetArgs {
    /// Context
    #[arg(value_name = "CONTEXT")]
    name: String,
    /// Address of its server
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// Name in the audit trail
    #[arg(long, value_name = "NAME")]
    as_name: Option<String>,
    /// Command that prints a token, run by sh when commands connect and when a token is no longer accepted
    #[arg(long, value_name = "COMMAND", conflicts_with = "token_file")]
    token_command: Option<String>,
}

/// Delete a context.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli context delete lab")]
pub(crate) struct DeleteArgs {
    /// Context
    #[arg(value_name = "CONTEXT")]
    name: String,
}

/// Refuses names that could not be typed, or read in a list.
fn check_name(name: &str) -> Result<(), Error> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(letter) {
        return Err(Error::usage(
            format!("{name:?} cannot be the name of a context"),
            "names have letters, digits, -, _ and ., and do not begin with -",
        ));
    }
    Ok(())
}

pub(crate) fn context(session: &mut Session, command: ContextCommand) -> Result<Exit, Error> {
    let mut config = Config::load(session.ui.io())?;
    match command {
        ContextCommand::List(_) => {
            for (name, entry) in &config.contexts {
                let mark = if config.current.as_deref() == Some(name) { "*" } else { " " };
                writeln!(
                    session.ui.out(),
                    "{mark} {} {}",
                    sanitized(name),
                    sanitized(&entry.server)
                )?;
            }
            if let Some(gone) = config.current.as_ref()
                && !config.contexts.contains_key(gone)
            {
                session.ui.note(&format!(
                    "The file says that {} is in use, which is no context: commands are refused until you use one: bmdemo-cli context use NAME",
                    sanitized(gone)
                ));
            }
            if config.contexts.is_empty() {
                session.ui.note(
                    "There are no contexts. Make one with: bmdemo-cli context set NAME HOST:PORT",
                );
            }
            return Ok(Exit::Ok);
        }
        ContextCommand::Show(_) => {
            let (server, why) = (session.target.server.clone(), session.server_from);
            writeln!(session.ui.out(), "{} ({why})", sanitized(&server))?;
            return Ok(Exit::Ok);
        }
        ContextCommand::Use(args) => {
            let name = if args.name == "-" {
                let before = config.previous.clone();
                before
                    .ok_or_else(|| Error::usage("there is no previous context", "name a context"))?
            } else {
                args.name
            };
            if !config.contexts.contains_key(&name) {
                return Err(config.unknown(&name));
            }
            session.ui.note(&format!(
                "Commands now talk to {}",
                sanitized(&config.contexts[&name].server)
            ));
            if let Some(other) = session.ui.io().var("BMDEMO_SERVER") {
                session.ui.note(&format!(
                    "But BMDEMO_SERVER is set and takes precedence: {}. Unset it to use the context.",
                    sanitized(other)
                ));
            }
            let before = config.current.replace(name);
            config.previous = before.or(config.previous);
        }
        ContextCommand::Set(args) => {
            // Better to report a mistake here than in every later command.
            check_name(&args.name)?;
            ServerAddress::parse(&args.address)?;
            let absolute = |file: Option<&PathBuf>| file.map(std::path::absolute).transpose();
            // The files of this command line are those of the context.
            let given = &session.given;
            let entry = Entry {
                server: args.address,
                actor: args.as_name,
                ca_file: absolute(given.ca_file.as_ref())?,
                cert_file: absolute(given.cert_file.as_ref())?,
                key_file: absolute(given.key_file.as_ref())?,
                token_file: absolute(given.token_file.as_ref())?,
                token_command: args.token_command,
            };
            let name = sanitized(&args.name).to_string();
            let is_used = config.current.as_deref() == Some(&args.name);
            config.contexts.insert(args.name, entry);
            if !is_used {
                session.ui.note(&format!("Use it with: bmdemo-cli context use {name}"));
            }
        }
        ContextCommand::Delete(args) => {
            if config.contexts.remove(&args.name).is_none() {
                return Err(config.unknown(&args.name));
            }
            if config.current.as_ref() == Some(&args.name) {
                session.ui.note("No context is in use now: commands talk to localhost:50051, or name one with: bmdemo-cli context use NAME");
            }
            config.current = config.current.filter(|name| *name != args.name);
            config.previous = config.previous.filter(|name| *name != args.name);
        }
    }
    config.save(session.ui.io())?;
    Ok(Exit::Ok)
}
