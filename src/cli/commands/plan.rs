//! `plan …` and `plans`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::pb;
use crate::plan::{SourceFile, compile, render};

use super::super::Context;
use super::super::args::OutputArgs;
use super::super::error::{About, Error, Exit};
use super::super::output::write_plan;
use super::show;

/// Commands on plans.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// List plans
    List(ListArgs),
    /// Say what a plan does, step by step
    Describe(DescribeArgs),
    /// Check plan files; prints every error of every file
    Check(CheckArgs),
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

/// Check plan files with the rules of the build, without a server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli plan check plans/*.toml")]
pub(crate) struct CheckArgs {
    /// TOML files, checked together: ids and defaults must be unique among them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

pub(crate) async fn plan(ctx: &mut Context, command: PlanCommand) -> Result<Exit, Error> {
    match command {
        PlanCommand::List(args) => list(ctx, &args).await,
        PlanCommand::Describe(args) => describe(ctx, &args).await,
        PlanCommand::Check(args) => check(ctx, &args),
    }
}

pub(crate) async fn list(ctx: &mut Context, args: &ListArgs) -> Result<Exit, Error> {
    let plans = ctx.client().await?.all_plans().await?;
    show::plans(ctx, &plans, args.output.output)
}

async fn describe(ctx: &mut Context, args: &DescribeArgs) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let found = client.get_plan(pb::GetPlanRequest { plan_id: args.plan.clone() }).await;
    let plan = found.map_err(|error| error.about(About::Plan(args.plan.clone())))?;
    if args.output.output.data().is_some() {
        return show::plans(ctx, &[plan], args.output.output);
    }
    let look = ctx.ui.look;
    write_plan(ctx.ui.out(), look, &plan)?;
    Ok(Exit::Ok)
}

fn check(ctx: &mut Context, args: &CheckArgs) -> Result<Exit, Error> {
    let mut files = Vec::new();
    for path in &args.files {
        let bytes = std::fs::read(path).map_err(|error| Error::Local {
            message: format!("cannot read {}", path.display()),
            hint: None,
            source: Some(error.into()),
        })?;
        files.push((path.display().to_string(), bytes));
    }
    match check_files(&files, ctx.ui.note_look.color) {
        Ok(ids) => {
            for id in ids {
                writeln!(ctx.ui.out(), "{id}: ok")?;
            }
            Ok(Exit::Ok)
        }
        Err(diagnostics) => {
            ctx.ui.err().write_all(diagnostics.as_bytes())?;
            Ok(Exit::Refused)
        }
    }
}

/// The ids of the plans in the files, or every diagnostic, rendered.
fn check_files(files: &[(String, Vec<u8>)], color: bool) -> Result<Vec<String>, String> {
    let sources: Vec<SourceFile<'_>> =
        files.iter().map(|(name, bytes)| SourceFile { name, bytes }).collect();
    match compile(&sources) {
        Ok(plans) => Ok(plans.into_iter().map(|plan| plan.id.into_owned()).collect()),
        Err(diagnostics) => Err(render(&sources, &diagnostics, color)),
    }
}
