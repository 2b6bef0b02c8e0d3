//! Steering a run: `cancel`, `abort`, `pause`, `resume`, `retry`, `skip`, `resolve`

use clap::{Args, ValueEnum};

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::flags::OutputArgs;
use super::super::session::Session;
use super::show;
use super::start::watch_or_detach;

/// A run, and why.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli cancel 0190f5fe --reason \"wrong machine\"\n  bmdemo-cli pause 0190f5fe"
)]
pub(crate) struct ReasonArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// A run, and why it must be.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli abort 0190f5fe --reason \"smoke from the rack\"")]
pub(crate) struct RequiredReasonArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// A run to repeat.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli retry 0190f5fe\n  bmdemo-cli retry 0190f5fe --detach --reason \"disk replaced\""
)]
pub(crate) struct RetryArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    /// Print the new run's id and return at once
    #[arg(short, long)]
    detach: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// A step to skip.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli skip 0190f5fe notify --reason \"told them by phone\""
)]
pub(crate) struct SkipArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    /// Step
    #[arg(value_name = "STEP")]
    step: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What became of a step.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli resolve 0190f5fe wipe done --reason \"saw the empty disk on the console\""
)]
pub(crate) struct ResolveArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    /// Step whose outcome is unknown
    #[arg(value_name = "STEP")]
    step: String,
    /// What to do
    #[arg(value_name = "WHAT")]
    what: Resolution,
    /// How you know; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What to do about a step whose outcome is unknown.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Resolution {
    /// It was done: the step succeeds
    Done,
    /// It was not done: the step makes a new attempt
    Retry,
    /// It does not matter: the step is skipped
    Skip,
    /// Give up: the run is aborted
    Abort,
}

pub(crate) async fn cancel(session: &mut Session, args: &ReasonArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let run = client
        .cancel_run(pb::CancelRunRequest {
            run_id,
            reason: args.reason.clone(),
            request_id,
            ..pb::CancelRunRequest::default()
        })
        .await?;
    show::run(session, &run, args.output.output)?;
    if run.finished_at.is_none() {
        let id = &run.run_id;
        session
            .ui
            .note(&format!("It ends at its next safe point. Watch it with: bmdemo-cli watch {id}"));
    }
    Ok(Exit::Ok)
}

pub(crate) async fn abort(session: &mut Session, args: &RequiredReasonArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let run = client
        .abort_run(pb::AbortRunRequest {
            run_id,
            reason: args.reason.clone(),
            request_id,
            ..pb::AbortRunRequest::default()
        })
        .await?;
    show::run(session, &run, args.output.output)?;
    let id = &run.machine_id;
    session.ui.note(&format!(
        "{id} is blocked until you have looked: bmdemo-cli machine clear-intervention {id} --reason \"what you found\""
    ));
    Ok(Exit::Ok)
}

pub(crate) async fn pause(session: &mut Session, args: &ReasonArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let run = client
        .pause_run(pb::PauseRunRequest {
            run_id,
            reason: args.reason.clone(),
            request_id,
            ..pb::PauseRunRequest::default()
        })
        .await?;
    show::run(session, &run, args.output.output)?;
    session.ui.note(&format!("Let it go on with: bmdemo-cli resume {}", run.run_id));
    Ok(Exit::Ok)
}

pub(crate) async fn resume(session: &mut Session, args: &ReasonArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let run = client
        .resume_run(pb::ResumeRunRequest {
            run_id,
            reason: args.reason.clone(),
            request_id,
            ..pb::ResumeRunRequest::default()
        })
        .await?;
    show::run(session, &run, args.output.output)?;
    Ok(Exit::Ok)
}

pub(crate) async fn retry(session: &mut Session, args: &RetryArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let run = client
        .retry_run(pb::RetryRunRequest { run_id, reason: args.reason.clone(), request_id })
        .await?;
    watch_or_detach(session, &run, args.detach).await
}

pub(crate) async fn skip(session: &mut Session, args: &SkipArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let (step, reason) = (args.step.clone(), args.reason.clone());
    let run = client
        .skip_step(pb::SkipStepRequest {
            run_id,
            step,
            reason,
            request_id,
            ..pb::SkipStepRequest::default()
        })
        .await?;
    show::run(session, &run, args.output.output)?;
    Ok(Exit::Ok)
}

pub(crate) async fn resolve(session: &mut Session, args: &ResolveArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let resolution = match args.what {
        Resolution::Done => pb::StepResolution::Done,
        Resolution::Retry => pb::StepResolution::Retry,
        Resolution::Skip => pb::StepResolution::Skip,
        Resolution::Abort => pb::StepResolution::Abort,
    };
    let request = pb::ResolveStepRequest {
        run_id,
        step: args.step.clone(),
        resolution: resolution.into(),
        reason: args.reason.clone(),
        request_id,
        ..pb::ResolveStepRequest::default()
    };
    let run = client.resolve_step(request).await?;
    show::run(session, &run, args.output.output)?;
    Ok(Exit::Ok)
}
