//! From a command line to the function that runs it.

use clap::{CommandFactory as _, Parser as _};

use crate::pb::RunType;

use super::commands::demo::{Carry, Typed};
use super::commands::{
    api, approve, audit, auth, complete, context, control, demo, doctor, history, import, issues,
    locks, logs, machine, plan, run, start, top, wait, watch,
};
use super::error::{Error, Exit};
use super::session::Session;
use super::tree::{Cli, Command};

/// Runs one command.
pub(crate) async fn dispatch(session: &mut Session, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Machine(command) => machine::machine(session, command).await,
        Command::Run(command) => run::run(session, command).await,
        Command::Plan(command) => plan::plan(session, command).await,
        Command::Import(args) => import::import(session, &args).await,
        Command::List(args) => machine::list(session, &args).await,
        Command::Repave(args) => start::verb(session, RunType::Repave, &args).await,
        Command::Rma(args) => start::verb(session, RunType::Rma, &args).await,
        Command::Reboot(args) => start::verb(session, RunType::Reboot, &args).await,
        Command::Upgrade(args) => start::verb(session, RunType::Upgrade, &args).await,
        Command::NetReconfig(args) => start::verb(session, RunType::NetReconfig, &args).await,
        Command::Runs(args) => run::list(session, &args).await,
        Command::Plans(args) => plan::list(session, &args).await,
        Command::Watch(args) => watch::watch(session, &args).await,
        Command::Logs(args) => logs::logs(session, &args).await,
        Command::Cancel(args) => control::cancel(session, &args).await,
        Command::Abort(args) => control::abort(session, &args).await,
        Command::Pause(args) => control::pause(session, &args).await,
        Command::Resume(args) => control::resume(session, &args).await,
        Command::Retry(args) => control::retry(session, &args).await,
        Command::Skip(args) => control::skip(session, &args).await,
        Command::Resolve(args) => control::resolve(session, &args).await,
        Command::Approve(args) => approve::approve(session, &args).await,
        Command::StopAll(args) => locks::stop_all(session, &args).await,
        Command::ResumeAll(args) => locks::resume_all(session, &args).await,
        Command::Lock(command) => locks::lock(session, command).await,
        Command::Unlock(args) => locks::unlock(session, &args).await,
        Command::Locks(args) => locks::locks(session, &args).await,
        Command::Wait(args) => wait::machines(session, &args).await,
        Command::History(args) => history::fleet(session, &args).await,
        Command::Top(args) => top::top(session, &args).await,
        Command::Issues(args) => issues::issues(session, &args).await,
        Command::Demo(args) => demo::demo(session, &args, Carry(typed)).await,
        Command::Doctor(args) => doctor::doctor(session, &args).await,
        Command::Version(args) => doctor::version(session, &args).await,
        Command::Auth(command) => auth::auth(session, command).await,
        Command::Audit(command) => audit::audit(session, command).await,
        Command::Api(args) => api::api(session, &args).await,
        Command::Context(command) => context::context(session, command),
        Command::Completions(args) => complete::completions(session, &args),
        Command::Man(args) => doctor::man(session, &args, Cli::command()),
        Command::Complete { words } => complete::complete(session, &words, Cli::command()).await,
        Command::Serve { args: _ } => Err(Error::usage(
            "serve must be the first word of the command line",
            "run the server with: bmdemo-server",
        )),
    }
}

/// Runs a command line as if it had been typed in this session.
fn typed<'a>(session: &'a mut Session, words: &'a [&'a str]) -> Typed<'a> {
    Box::pin(async move {
        let cli = Cli::try_parse_from(std::iter::once(&"bmdemo-cli").chain(words))
            .map_err(|error| Error::Answer(error.to_string()))?;
        // One of its arms is large.
        Box::pin(dispatch(session, cli.command)).await
    })
}
