//! `run …` and `runs`

use clap::{Args, Subcommand};

use crate::pb;

use super::super::Context;
use super::super::args::{Format, OutputArgs};
use super::super::client::PAGE_SIZE;
use super::super::error::{Error, Exit};
use super::super::output::{write_history, write_run, write_runs};
use super::{logs, start, steer, watch};

/// Commands on runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Start a plan on a machine and watch it
    Start(start::StartArgs),
    /// List runs
    List(ListArgs),
    /// Print one run
    Get(GetArgs),
    /// Say where a run is, why it waits or failed, and what to do next
    Describe(IdArgs),
    /// Watch a run until it ends
    Watch(watch::WatchArgs),
    /// Print what the steps of a run printed
    Logs(logs::LogsArgs),
    /// End a run at its next safe point
    Cancel(steer::ReasonArgs),
    /// End a run at once; its machine is blocked until cleared
    Abort(steer::RequiredReasonArgs),
    /// Hold a run at its next safe point
    Pause(steer::ReasonArgs),
    /// Let a held run go on
    Resume(steer::ReasonArgs),
    /// Repeat a failed or canceled run from the step that did not succeed; watch
    Retry(steer::RetryArgs),
    /// Skip a step that has not settled
    Skip(steer::SkipArgs),
    /// Say what became of a step whose outcome is unknown
    Resolve(steer::ResolveArgs),
    /// Print what happened in a run
    History(IdArgs),
}

/// List runs in the order of their creation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli runs\n  bmdemo-cli run list -o wide")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// One run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli run get 0190f5fe -o wide")]
pub(crate) struct GetArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// One run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli run describe 0190f5fe\n  bmdemo-cli run history 0190f5fe"
)]
pub(crate) struct IdArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
}

pub(crate) async fn run(ctx: &mut Context, command: RunCommand) -> Result<Exit, Error> {
    match command {
        RunCommand::Start(args) => start::start(ctx, &args).await,
        RunCommand::List(args) => list(ctx, &args).await,
        RunCommand::Get(args) => get(ctx, &args).await,
        RunCommand::Describe(args) => describe(ctx, &args).await,
        RunCommand::Watch(args) => watch::watch(ctx, &args).await,
        RunCommand::Logs(args) => logs::logs(ctx, &args).await,
        RunCommand::Cancel(args) => steer::cancel(ctx, &args).await,
        RunCommand::Abort(args) => steer::abort(ctx, &args).await,
        RunCommand::Pause(args) => steer::pause(ctx, &args).await,
        RunCommand::Resume(args) => steer::resume(ctx, &args).await,
        RunCommand::Retry(args) => steer::retry(ctx, &args).await,
        RunCommand::Skip(args) => steer::skip(ctx, &args).await,
        RunCommand::Resolve(args) => steer::resolve(ctx, &args).await,
        RunCommand::History(args) => history(ctx, &args).await,
    }
}

pub(crate) async fn list(ctx: &mut Context, args: &ListArgs) -> Result<Exit, Error> {
    let runs = ctx.client().await?.all_runs("", usize::MAX).await?;
    print(ctx, &runs, args.output.output)
}

async fn get(ctx: &mut Context, args: &GetArgs) -> Result<Exit, Error> {
    let run = ctx.client().await?.find_run(&args.run).await?;
    print(ctx, &[run], args.output.output)
}

async fn describe(ctx: &mut Context, args: &IdArgs) -> Result<Exit, Error> {
    let run = ctx.client().await?.find_run(&args.run).await?;
    let (look, now_ms) = (ctx.ui.look, ctx.ui.now_ms());
    write_run(ctx.ui.out(), look, &run, now_ms)?;
    Ok(Exit::Ok)
}

async fn history(ctx: &mut Context, args: &IdArgs) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let mut entries = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            pb::ListRunHistoryRequest { run_id: run_id.clone(), page_size: PAGE_SIZE, page_token };
        let page = client.list_run_history(request).await?;
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let look = ctx.ui.look;
    write_history(ctx.ui.out(), look, &entries)?;
    Ok(Exit::Ok)
}

fn print(ctx: &mut Context, runs: &[pb::Run], format: Format) -> Result<Exit, Error> {
    let (look, now_ms) = (ctx.ui.look, ctx.ui.now_ms());
    write_runs(ctx.ui.out(), look, runs, now_ms, format == Format::Wide)?;
    Ok(Exit::Ok)
}
