//! `run …` and `runs`

use clap::{Args, Subcommand};
use tonic::Code;

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::flags::OutputArgs;
use super::super::order::Paging;
use super::super::output::write_run;
use super::super::query::{RunSelection, Span, joined, quoted};
use super::super::session::Session;
use super::{approve, control, history, live, logs, show, start, targets, wait, watch};

/// Commands on runs.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  bmdemo-cli run start repave-join machine-1
  bmdemo-cli run list --filter 'phase = FAILED'
  bmdemo-cli run describe f1034752")]
pub(crate) enum RunCommand {
    /// Start a plan on a machine and watch it
    Start(start::StartArgs),
    /// List runs
    List(ListArgs),
    /// Print one run
    Get(GetArgs),
    /// Explain where a run is, why it waits or failed, and what to do next
    Describe(DescribeArgs),
    /// Watch a run until it ends
    Watch(watch::WatchArgs),
    /// Print the output of the steps of a run
    Logs(logs::LogsArgs),
    /// End a run at its next safe point
    #[command(after_help = control::CANCEL_EXAMPLES)]
    Cancel(control::ReasonArgs),
    /// End a run at once; its machine is blocked until cleared
    Abort(control::RequiredReasonArgs),
    /// Hold a run at its next safe point
    #[command(after_help = control::PAUSE_EXAMPLES)]
    Pause(control::ReasonArgs),
    /// Resume a held run
    #[command(after_help = control::RESUME_EXAMPLES)]
    Resume(control::ReasonArgs),
    /// Repeat a failed or canceled run from the step that did not succeed; watch
    Retry(control::RetryArgs),
    /// Skip a step that has not ended
    Skip(control::SkipArgs),
    /// Record what happened to a step whose outcome is unknown
    Resolve(control::ResolveArgs),
    /// Approve or reject a step that asks for approval
    Approve(approve::ApproveArgs),
    /// Print what happened in a run
    History(history::RunArgs),
    /// Wait until runs have ended
    Wait(wait::RunWaitArgs),
}

/// List runs, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli runs --limit 10
  bmdemo-cli runs -l rack=r1 --since 2h
  bmdemo-cli run list --filter 'phase = FAILED AND finished_at > -1d' -o wide
  bmdemo-cli runs --machine machine-1 --columns run_id,phase,error
  bmdemo-cli runs --watch -o jsonl")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    selection: RunSelection,
    /// Only runs on this machine: its id, or the beginning of it
    #[arg(short, long, value_name = "MACHINE")]
    machine: Option<String>,
    #[command(flatten)]
    span: Span,
    #[command(flatten)]
    paging: Paging,
    /// Show changes as they happen, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// One run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli run get f1034752 -o wide")]
pub(crate) struct GetArgs {
    /// Run: any part of its id, or its machine
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Explain where a run is, why it waits or failed, and what to do next.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli run describe f1034752
  bmdemo-cli run describe f1034752 -o yaml")]
pub(crate) struct DescribeArgs {
    /// Run: any part of its id, or its machine
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(session: &mut Session, command: RunCommand) -> Result<Exit, Error> {
    match command {
        RunCommand::Start(args) => start::start(session, &args).await,
        RunCommand::List(args) => list(session, &args).await,
        RunCommand::Get(args) => get(session, &args).await,
        RunCommand::Describe(args) => describe(session, &args).await,
        RunCommand::Watch(args) => watch::watch(session, &args).await,
        RunCommand::Logs(args) => logs::logs(session, &args).await,
        RunCommand::Cancel(args) => control::cancel(session, &args).await,
        RunCommand::Abort(args) => control::abort(session, &args).await,
        RunCommand::Pause(args) => control::pause(session, &args).await,
        RunCommand::Resume(args) => control::resume(session, &args).await,
        RunCommand::Retry(args) => control::retry(session, &args).await,
        RunCommand::Skip(args) => control::skip(session, &args).await,
        RunCommand::Resolve(args) => control::resolve(session, &args).await,
        RunCommand::Approve(args) => approve::approve(session, &args).await,
        RunCommand::History(args) => history::run(session, &args).await,
        RunCommand::Wait(args) => wait::runs(session, &args).await,
    }
}

pub(crate) async fn list(session: &mut Session, args: &ListArgs) -> Result<Exit, Error> {
    show::check_columns::<pb::Run>(&args.output)?;
    let client = session.client().await?;
    let mut terms: Vec<String> = Vec::new();
    let given = args.selection.to_filter(None);
    if !given.is_empty() {
        terms.push(given);
    }
    terms.extend(args.span.terms("created_at"));
    if let Some(machine) = &args.machine {
        let machine = known(&client, machine).await?;
        terms.push(format!("machine_id = {}", quoted(&machine)));
    }
    let filter = joined(terms.iter().map(String::as_str));
    let machines = targets::labelled(&client, &args.selection).await?;
    if args.watch {
        args.paging.check_unwatched()?;
        return live::runs(session, filter, machines, &args.output).await;
    }
    let order_by = args.paging.run_order();
    let max = args.paging.fetch_max(order_by);
    let mut runs = client.runs_on(machines.as_ref(), &filter, order_by, max).await?;
    args.paging.apply(&mut runs, session.ui.now_ms())?;
    show::runs(session, &runs, &args.output)
}

/// The id of a machine, or of one that was deleted and has had runs. A name that is none would have an empty list.
async fn known(client: &Client, machine: &str) -> Result<String, Error> {
    match client.find_machine(machine).await {
        Ok(found) => Ok(found.machine_id),
        Err(error) if error.grpc_code() == Some(Code::NotFound) => {
            let had = client.last_run(machine).await?;
            had.map(|run| run.machine_id).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

async fn get(session: &mut Session, args: &GetArgs) -> Result<Exit, Error> {
    let run = session.client().await?.find_run(&args.run).await?;
    show::run(session, &run, &args.output)
}

async fn describe(session: &mut Session, args: &DescribeArgs) -> Result<Exit, Error> {
    let run = session.client().await?.find_run(&args.run).await?;
    if args.output.output.is_data() {
        return show::run(session, &run, &args.output);
    }
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    write_run(session.ui.out(), look, &run, now_ms)?;
    Ok(Exit::Ok)
}
