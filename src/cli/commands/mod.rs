//! One file a command: its arguments (whose doc comments are the help) and the function that carries it out.

pub(crate) mod author;
pub(crate) mod bulk;
pub(crate) mod complete;
pub(crate) mod confirm;
pub(crate) mod context;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod dry_run;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod issues;
pub(crate) mod live;
pub(crate) mod logs;
pub(crate) mod machine;
pub(crate) mod plan;
pub(crate) mod register;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod simulate;
pub(crate) mod start;
pub(crate) mod steer;
pub(crate) mod wait;
pub(crate) mod watch;

use crate::pb::RunType;

use super::Context;
use super::args::Command;
use super::error::{Error, Exit};

/// Carries out one command.
pub(crate) async fn dispatch(ctx: &mut Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Machine(command) => machine::machine(ctx, command).await,
        Command::Run(command) => run::run(ctx, command).await,
        Command::Plan(command) => plan::plan(ctx, command).await,
        Command::Import(args) => import::import(ctx, &args).await,
        Command::List(args) => machine::list(ctx, &args).await,
        Command::Repave(args) => start::verb(ctx, RunType::Repave, &args).await,
        Command::Rma(args) => start::verb(ctx, RunType::Rma, &args).await,
        Command::Reboot(args) => start::verb(ctx, RunType::Reboot, &args).await,
        Command::Upgrade(args) => start::verb(ctx, RunType::Upgrade, &args).await,
        Command::NetReconfig(args) => start::verb(ctx, RunType::NetReconfig, &args).await,
        Command::Runs(args) => run::list(ctx, &args).await,
        Command::Plans(args) => plan::list(ctx, &args).await,
        Command::Watch(args) => watch::watch(ctx, &args).await,
        Command::Logs(args) => logs::logs(ctx, &args).await,
        Command::Cancel(args) => steer::cancel(ctx, &args).await,
        Command::Abort(args) => steer::abort(ctx, &args).await,
        Command::Pause(args) => steer::pause(ctx, &args).await,
        Command::Resume(args) => steer::resume(ctx, &args).await,
        Command::Retry(args) => steer::retry(ctx, &args).await,
        Command::Skip(args) => steer::skip(ctx, &args).await,
        Command::Resolve(args) => steer::resolve(ctx, &args).await,
        Command::Wait(args) => wait::machines(ctx, &args).await,
        Command::History(args) => history::fleet(ctx, &args).await,
        Command::Issues(args) => issues::issues(ctx, &args).await,
        Command::Demo(args) => demo::demo(ctx, &args).await,
        Command::Doctor(args) => doctor::doctor(ctx, &args).await,
        Command::Version(args) => doctor::version(ctx, &args).await,
        Command::Context(command) => context::context(ctx, command),
        Command::Completions(args) => complete::completions(ctx, &args),
        Command::Man(args) => doctor::man(ctx, &args),
        Command::Complete { words } => complete::complete(ctx, &words).await,
        Command::Serve { args: _ } => Err(Error::usage(
            "serve must be the first word of the command line",
            "run the server with: bmdemo-server",
        )),
    }
}
