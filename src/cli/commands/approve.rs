//! `approve`: the answer to a step that asks.

use clap::{ArgGroup, Args};

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::flags::OutputArgs;
use super::super::session::Session;
use super::show;

/// Answer a step that asks for approval.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("answer").args(["yes", "no"]).required(true)),
    after_help = "Examples:
  bmdemo-cli approve machine-1 --yes --reason \"change window CHG-1042 is open\"
  bmdemo-cli approve 0190f5fe ask-reboot --no --reason \"the customer still works\""
)]
pub(crate) struct ApproveArgs {
    /// Run: any part of its id, or its machine
    #[arg(value_name = "RUN")]
    run: String,
    /// Step that asks [default: the one that is waiting]
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// Yes: the run continues
    #[arg(long)]
    yes: bool,
    /// No: the step fails, and the run with it
    #[arg(long)]
    no: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn approve(session: &mut Session, args: &ApproveArgs) -> Result<Exit, Error> {
    show::check_columns::<pb::Run>(&args.output)?;
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let answer = if args.yes { pb::StepResolution::Approve } else { pb::StepResolution::Reject };
    let request = pb::ResolveStepRequest {
        run_id,
        step: args.step.clone().unwrap_or_default(),
        resolution: answer.into(),
        reason: args.reason.clone(),
        request_id,
        ..pb::ResolveStepRequest::default()
    };
    let run = client.resolve_step(request).await?;
    show::run(session, &run, &args.output)
}
