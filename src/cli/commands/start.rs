//! `repave`, `rma`, `reboot`, `upgrade`, `net-reconfig` and `run start`

use clap::Args;

use crate::pb;
use crate::pb::RunType;

use super::super::Context;
use super::super::args::parse_pair;
use super::super::error::{About, Error, Exit};
use super::super::output::sanitized;
use super::watch;

/// Options of every command that starts a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct StartFlags {
    /// Print the run's id and return at once
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Parameter of the plan; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Run although the machine's effective state refuses it; audited
    #[arg(long)]
    pub(crate) force: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Start the plan on a machine and watch it until it ends. Ctrl-C stops watching; the run goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli repave machine-1\n  bmdemo-cli upgrade machine-1 --detach --reason \"CVE-2026-1\""
)]
pub(crate) struct VerbArgs {
    /// Machine
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: String,
    #[command(flatten)]
    pub(crate) flags: StartFlags,
}

/// Start any plan on a machine and watch it until it ends. Ctrl-C stops watching; the run goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli run start plan/repave-join machine-1\n  bmdemo-cli run start repave-join machine-1 --set image=debian-13"
)]
pub(crate) struct StartArgs {
    /// Plan, with or without plan/
    #[arg(value_name = "PLAN")]
    pub(crate) plan: String,
    /// Machine
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: String,
    #[command(flatten)]
    pub(crate) flags: StartFlags,
}

/// Which plan to start.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The default plan of a type.
    Default(RunType),
    /// A plan by its id.
    Plan(String),
}

pub(crate) async fn verb(ctx: &mut Context, kind: RunType, args: &VerbArgs) -> Result<Exit, Error> {
    one(ctx, &What::Default(kind), &args.machine, &args.flags).await
}

pub(crate) async fn start(ctx: &mut Context, args: &StartArgs) -> Result<Exit, Error> {
    one(ctx, &What::Plan(args.plan.clone()), &args.machine, &args.flags).await
}

/// The request that starts a run.
pub(crate) fn request(
    what: &What,
    machine: &str,
    flags: &StartFlags,
    request_id: String,
) -> pb::StartRunRequest {
    let (kind, plan_id) = match what {
        What::Default(kind) => (*kind, String::new()),
        What::Plan(plan) => (RunType::Unspecified, plan.clone()),
    };
    pb::StartRunRequest {
        request_id,
        machine_id: machine.to_owned(),
        r#type: kind.into(),
        plan_id,
        parameters: flags.set.iter().cloned().collect(),
        force: flags.force,
        reason: flags.reason.clone().unwrap_or_default(),
        ..pb::StartRunRequest::default()
    }
}

async fn one(
    ctx: &mut Context,
    what: &What,
    machine: &str,
    flags: &StartFlags,
) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let request = request(what, machine, flags, client.new_request_id());
    let about = match what {
        What::Plan(plan) => About::Plan(plan.clone()),
        What::Default(_) => About::Nothing,
    };
    let run = client.start_run(request).await.map_err(|error| named(error, machine, about))?;
    watch_or_detach(ctx, &run, flags.detach).await
}

/// A missing machine and a missing plan give the same code: what the server names decides.
fn named(error: Error, machine: &str, plan: About) -> Error {
    use tonic_types::StatusExt as _;
    let resource = error.status().and_then(|status| status.get_details_resource_info());
    let is_plan = resource
        .is_some_and(|resource| resource.resource_type.to_ascii_lowercase().contains("plan"));
    if is_plan && plan != About::Nothing {
        error.about(plan)
    } else {
        error.about(About::Machine(machine.to_owned()))
    }
}

/// Follows a run that was just accepted, or prints its id.
pub(crate) async fn watch_or_detach(
    ctx: &mut Context,
    run: &pb::Run,
    detach: bool,
) -> Result<Exit, Error> {
    if detach {
        writeln!(ctx.ui.out(), "{}", sanitized(&run.run_id))?;
        return Ok(Exit::Ok);
    }
    watch::follow(ctx, &run.run_id).await
}
