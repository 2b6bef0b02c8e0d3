//! `plan …` and `plans`

use clap::{Args, Subcommand};

use crate::pb;

use super::super::error::{About, Error, Exit};
use super::super::flags::OutputArgs;
use super::super::output::write_plan;
use super::super::session::Session;
use super::{author, locks, show, simulate};

/// Commands on plans.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  bmdemo-cli plan list
  bmdemo-cli plan new burn-in > burn-in.toml
  bmdemo-cli plan check burn-in.toml
  bmdemo-cli plan simulate burn-in.toml --fail reboot,times=1

docs/plans.md is the guide for authors.")]
pub(crate) enum PlanCommand {
    /// List plans
    List(ListArgs),
    /// Explain what a plan does, step by step
    Describe(DescribeArgs),
    /// Check plan files; prints every error of every file
    Check(author::CheckArgs),
    /// Draw a plan as Mermaid or DOT
    Graph(author::GraphArgs),
    /// Run a plan on simulated machines in virtual time, with failures, and print the timeline
    Simulate(Box<simulate::SimulateArgs>),
    /// Print a commented starter plan
    New(author::NewArgs),
    /// Explain the actions that plans can use
    Explain(author::ExplainArgs),
    /// Print the JSON schema of plan files
    Schema(author::SchemaArgs),
    /// Let a plan be used again that was paused because its runs failed
    Resume(locks::PlanResumeArgs),
}

/// List the plans that the server can run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli plans")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// One plan.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli plan describe repave-join")]
pub(crate) struct DescribeArgs {
    /// Plan, with or without plan/
    #[arg(value_name = "PLAN")]
    plan: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn plan(session: &mut Session, command: PlanCommand) -> Result<Exit, Error> {
    match command {
        PlanCommand::List(args) => list(session, &args).await,
        PlanCommand::Describe(args) => describe(session, &args).await,
        PlanCommand::Check(args) => author::check(session, &args),
        PlanCommand::Graph(args) => author::graph(session, &args).await,
        PlanCommand::Simulate(args) => simulate::simulate(session, &args).await,
        PlanCommand::New(args) => author::new(session, &args),
        PlanCommand::Explain(args) => author::explain(session, &args),
        PlanCommand::Schema(args) => author::schema(session, &args),
        PlanCommand::Resume(args) => locks::resume_plan(session, &args).await,
    }
}

pub(crate) async fn list(session: &mut Session, args: &ListArgs) -> Result<Exit, Error> {
    let plans = session.client().await?.all_plans().await?;
    show::plans(session, &plans, &args.output)
}

async fn describe(session: &mut Session, args: &DescribeArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let found = client.get_plan(pb::GetPlanRequest { plan_id: args.plan.clone() }).await;
    let plan = found.map_err(|error| error.about(About::Plan(args.plan.clone())))?;
    if show::one(session, &plan, &args.output)? {
        return Ok(Exit::Ok);
    }
    let look = session.ui.look;
    write_plan(session.ui.out(), look, &plan)?;
    Ok(Exit::Ok)
}
