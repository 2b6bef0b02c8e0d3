//! The tree of commands. Each command's arguments are defined beside its code.

use clap::builder::styling::{AnsiColor, Styles};
use clap::{CommandFactory as _, Parser, Subcommand};

use super::commands::{
    api, approve, audit, auth, complete, context, control, demo, doctor, history, import, issues,
    locks, logs, machine, plan, run, start, top, wait, watch,
};
use super::flags::Global;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Examples:
  bmdemo-cli demo                   See it all in one command; needs no server
  bmdemo-cli import 3               Register three fake machines
  bmdemo-cli repave machine-1       Run plan/repave-join and watch it
  bmdemo-cli machine describe machine-1
  bmdemo-cli doctor --wait-for-server && bmdemo-cli import 3     In a script that has just started a server

Exit codes:
  0    done
  1    internal error; mistakes in files of plans, actions or contexts; --exit-code: something needs a look
  2    wrong usage, or a confirmation is needed; nothing was done
  3    the watched run failed, or is held until an operator acts
  4    the watched run was canceled
  5    the awaited state did not come in time
  64+n the server answered with gRPC code n: 69 not found, 73 failed precondition, 78 unavailable
  130  interrupted; runs continue

Environment:
  BMDEMO_SERVER  address of the server, as --server
  BMDEMO_ACTOR   your name in the audit trail, as --as; else USER
  BMDEMO_CA_FILE, BMDEMO_CERT_FILE, BMDEMO_KEY_FILE, BMDEMO_TOKEN_FILE  as --ca-file and so on
  BMDEMO_CONTEXT, BMDEMO_CONFIG  context to use, and the file of contexts
  BMDEMO_YES=1   do not ask, as --yes
  NO_COLOR, CLICOLOR_FORCE, TERM=dumb  as usual";

/// Drives the lifecycle of bare-metal machines: register them, run plans on them, watch
#[derive(Debug, Parser)]
#[command(
    name = "bmdemo-cli",
    version,
    styles = STYLES,
    after_help = AFTER_HELP,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every command: nouns first, then the short verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at machines and change them
    #[command(subcommand)]
    Machine(machine::MachineCommand),
    /// Look at runs and control them
    #[command(subcommand)]
    Run(run::RunCommand),
    /// Look at plans and check new ones
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Register N fake machines: machine-1 to machine-N
    Import(import::ImportArgs),
    /// List machines; short for: machine list
    List(machine::ListArgs),
    /// Image a machine and join it to its cluster, watch; short for: run start plan/repave-join
    Repave(start::VerbArgs),
    /// Drain and wipe a machine for its return, watch; short for: run start plan/rma
    Rma(start::VerbArgs),
    /// Restart a machine, watch; short for: run start plan/reboot
    Reboot(start::VerbArgs),
    /// Drain a machine, image it, join it, watch; short for: run start plan/upgrade
    Upgrade(start::VerbArgs),
    /// Change a machine's network configuration, watch; short for: run start plan/net-reconfig
    NetReconfig(start::VerbArgs),
    /// List runs; short for: run list
    Runs(run::ListArgs),
    /// List plans; short for: plan list
    Plans(plan::ListArgs),
    /// Watch a run until it ends; short for: run watch
    Watch(watch::WatchArgs),
    /// Print the output of the steps of a run; short for: run logs
    Logs(logs::LogsArgs),
    /// End a run at its next safe point; short for: run cancel
    #[command(after_help = control::CANCEL_EXAMPLES)]
    Cancel(control::ReasonArgs),
    /// End a run at once and block its machine; short for: run abort
    Abort(control::RequiredReasonArgs),
    /// Hold a run at its next safe point; short for: run pause
    #[command(after_help = control::PAUSE_EXAMPLES)]
    Pause(control::ReasonArgs),
    /// Resume a held run; short for: run resume
    #[command(after_help = control::RESUME_EXAMPLES)]
    Resume(control::ReasonArgs),
    /// Repeat a failed or canceled run from where it failed, watch; short for: run retry
    Retry(control::RetryArgs),
    /// Skip a step that has not ended; short for: run skip
    Skip(control::SkipArgs),
    /// Record what happened to a step whose outcome is unknown; short for: run resolve
    Resolve(control::ResolveArgs),
    /// Approve or reject a step that asks for approval; short for: run approve
    Approve(approve::ApproveArgs),
    /// Stop everything: nothing begins on any machine until resume-all
    StopAll(locks::StopArgs),
    /// Lift a stop
    ResumeAll(locks::ResumeArgs),
    /// Lock a caller out, or machines
    #[command(subcommand)]
    Lock(locks::LockCommand),
    /// Lift a lock, or the pause of a plan
    Unlock(locks::UnlockArgs),
    /// List what is stopped, locked and paused
    Locks(locks::LocksArgs),
    /// Wait until machines are in a state
    Wait(wait::WaitArgs),
    /// Show the fleet live: counts, rates, runs in progress, what needs a person
    Top(top::TopArgs),
    /// List what needs a look, why, and what to do next
    Issues(issues::IssuesArgs),
    /// Print what happened to all machines and runs: the audit trail
    History(history::FleetArgs),
    /// Play a session against its own fresh server and print the transcript
    Demo(demo::DemoArgs),
    /// Check the connection, the server, versions, and what is stuck
    Doctor(doctor::DoctorArgs),
    /// Print versions
    Version(doctor::VersionArgs),
    /// Who you are to the server
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    /// Who asked for what, in a chain of hashes
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Call any method of the API with JSON
    Api(api::ApiArgs),
    /// Name servers and choose one
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Print a completion script for bash, zsh or fish
    #[command(alias = "completion")]
    Completions(complete::CompletionsArgs),
    /// Print the manual page
    Man(doctor::ManArgs),
    /// Print the candidates for the last word
    #[command(name = "__complete", hide = true)]
    Complete {
        /// Words after the program's name, the last one as far as typed
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Run the server in this process
    #[command(hide = true)]
    Serve {
        /// Arguments of bmdemo-server
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// The tree of commands: global options are explained once, at the root.
pub(crate) fn command() -> clap::Command {
    fn hide(command: &mut clap::Command) {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let after = format!(
            "{after}\n\nOptions of every command, such as --server and --color: bmdemo-cli --help"
        );
        let hidden = |arg: clap::Arg| if arg.is_global_set() { arg.hide(true) } else { arg };
        *command =
            std::mem::take(command).mut_args(hidden).after_help(after.trim_start().to_owned());
        command.get_subcommands_mut().for_each(hide);
    }
    let mut root = Cli::command();
    root.build();
    root.get_subcommands_mut().filter(|sub| !sub.is_hide_set()).for_each(hide);
    root
}

/// Words that people try, and the commands for them.
const OTHER_WORDS: [(&str, &str); 13] = [
    (
        "explain",
        "for actions of plans: bmdemo-cli plan explain; for a machine: bmdemo-cli machine describe",
    ),
    (
        "drain",
        "to drain and install: bmdemo-cli upgrade MACHINE; to drain only, start the server with --plans-dir examples/plans --actions-dir examples/actions, then: bmdemo-cli run start drain-and-return MACHINE",
    ),
    ("status", "bmdemo-cli top, bmdemo-cli issues or bmdemo-cli doctor"),
    ("ps", "bmdemo-cli runs"),
    ("get", "bmdemo-cli machine get, bmdemo-cli run get or bmdemo-cli list"),
    (
        "describe",
        "bmdemo-cli machine describe, bmdemo-cli run describe or bmdemo-cli plan describe",
    ),
    ("label", "bmdemo-cli machine label"),
    ("unlabel", "bmdemo-cli machine unlabel"),
    ("set-phase", "bmdemo-cli machine set-phase"),
    ("clear-intervention", "bmdemo-cli machine clear-intervention"),
    ("register", "bmdemo-cli machine register"),
    ("apply", "bmdemo-cli machine apply"),
    ("start", "bmdemo-cli run start"),
];

/// The command for a word that is not one of ours. It replaces clap's suggestion, which goes by spelling.
pub(crate) fn other_words(error: &mut clap::Error) -> Option<&'static str> {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let found = OTHER_WORDS.iter().find(|(other, _)| other == word).map(|(_, here)| *here)?;
    error.remove(ContextKind::SuggestedSubcommand);
    error.remove(ContextKind::Suggested);
    Some(found)
}

/// Removes the advice to write `--` before what looks like an option: where names are expected it makes a name of it.
pub(crate) fn no_dashes(error: &mut clap::Error) {
    use clap::error::{ContextKind, ErrorKind};
    if error.kind() == ErrorKind::UnknownArgument && error.get(ContextKind::SuggestedArg).is_none()
    {
        error.remove(ContextKind::Suggested);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
        // Global options are hidden in the help of a command, and accepted all the same.
        let parsed = command().try_get_matches_from(["bmdemo-cli", "list", "--server", "h:1"]);
        assert!(parsed.is_ok());
    }

    /// An argument of a command that has the id of a global option would set that option too.
    #[test]
    fn no_argument_of_a_command_has_the_id_of_a_global_option() {
        fn check(command: &clap::Command, global: &[String]) {
            for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
                let id = argument.get_id().to_string();
                assert!(!global.contains(&id), "{} {id}", command.get_name());
            }
            command.get_subcommands().for_each(|command| check(command, global));
        }
        let root = Cli::command();
        let global: Vec<String> = root
            .get_arguments()
            .filter(|argument| argument.is_global_set())
            .map(|argument| argument.get_id().to_string())
            .collect();
        assert!(global.len() > 5);
        check(&root, &global);
    }
}
