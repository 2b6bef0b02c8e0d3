//! What to start, independent of the machine.

use clap::Args;

use crate::pb;
use crate::pb::RunType;

use super::super::flags::{OutputArgs, parse_pair};
use super::super::query::Selection;
use super::bulk::BulkFlags;

/// Options of every command that starts a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct StartFlags {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Return at once, with the run's id; with several all are started, so not with --max-parallel or --max-failures
    #[arg(short, long, conflicts_with_all = ["max_parallel", "max_failures"])]
    pub(crate) detach: bool,
    /// Parameter of the plan; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Run although the machine's effective state refuses it; needs --reason, and a confirmation; audited
    #[arg(long)]
    pub(crate) force: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Show what would be done, and what blocks it; start nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Only if the machine still has this etag; a dry run shows it
    #[arg(long, value_name = "ETAG", default_value = "")]
    pub(crate) if_etag: String,
    #[command(flatten)]
    pub(crate) bulk: BulkFlags,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which plan to start.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The default plan of a type.
    Default(RunType),
    /// A plan by its id.
    Plan(String),
}

/// The request that starts a run; of the plan with this digest, if it is not empty.
pub(crate) fn request(
    what: &What,
    machine: &str,
    flags: &StartFlags,
    request_id: String,
    plan_digest: &str,
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
        machine_etag: flags.if_etag.clone(),
        plan_digest: plan_digest.to_owned(),
        ..pb::StartRunRequest::default()
    }
}
