//! `repave`, `rma`, `reboot`, `upgrade`, `net-reconfig` and `run start`

use clap::Args;
use tonic_types::StatusExt as _;

use crate::pb;
use crate::pb::RunType;

use super::super::client::Client;
use super::super::error::{About, Error, Exit};
use super::super::output::sanitized;
use super::super::query::Selection;
use super::super::session::Session;
use super::confirm::Question;
use super::recipe::{StartFlags, What, request};
use super::{bulk, dry_run, watch};

/// Start the plan on a machine and watch it until it ends. Ctrl-C stops watching; the run goes on.
///
/// With several machines, by name or by -l and --filter, it asks once, keeps --max-parallel runs going, prints a line a
/// machine and a summary; Ctrl-C starts no more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli repave machine-1
  bmdemo-cli upgrade machine-1 --detach --reason \"CVE-2026-1\"
  bmdemo-cli rma machine-1 --dry-run
  bmdemo-cli reboot -l rack=r1 --max-parallel 20 --max-failures 2 --yes")]
pub(crate) struct VerbArgs {
    /// Machines
    #[arg(value_name = "MACHINE")]
    pub(crate) machines: Vec<String>,
    #[command(flatten)]
    pub(crate) flags: StartFlags,
}

/// Start any plan on a machine and watch it until it ends. Ctrl-C stops watching; the run goes on.
///
/// With several machines, by name or by -l and --filter, it asks once, keeps --max-parallel runs going, prints a line a
/// machine and a summary; Ctrl-C starts no more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli run start plan/repave-join machine-1
  bmdemo-cli run start repave-join machine-1 --set image=debian-13
  bmdemo-cli run start repave-join -l rack=r1 --dry-run")]
pub(crate) struct StartArgs {
    /// Plan, with or without plan/
    #[arg(value_name = "PLAN")]
    pub(crate) plan: String,
    /// Machines
    #[arg(value_name = "MACHINE")]
    pub(crate) machines: Vec<String>,
    #[command(flatten)]
    pub(crate) flags: StartFlags,
}

pub(crate) async fn verb(
    session: &mut Session,
    kind: RunType,
    args: &VerbArgs,
) -> Result<Exit, Error> {
    any(session, &What::Default(kind), &args.machines, &args.flags).await
}

pub(crate) async fn start(session: &mut Session, args: &StartArgs) -> Result<Exit, Error> {
    any(session, &What::Plan(args.plan.clone()), &args.machines, &args.flags).await
}

/// One machine by its id is watched; everything else is a bulk command.
async fn any(
    session: &mut Session,
    what: &What,
    ids: &[String],
    flags: &StartFlags,
) -> Result<Exit, Error> {
    if ids.is_empty() && flags.selection.is_empty() {
        return Err(Error::usage(
            "no machine was named",
            "name one, or select some with -l or --filter",
        ));
    }
    let client = session.client().await?;
    let machines = targets(&client, ids, &flags.selection).await?;
    if machines.len() > 1 && !flags.if_etag.is_empty() {
        return Err(Error::usage(
            "--if-etag goes with one machine",
            "an etag is a machine's own: leave it out, or start the machines one by one",
        ));
    }
    if flags.dry_run {
        let plan = plan_of(&client, what).await?;
        return dry_run::show(session, what, &plan, &machines, flags).await;
    }
    match machines.as_slice() {
        [machine] if flags.selection.is_empty() => {
            if machine.spec.as_ref().is_none_or(|spec| spec.provider != "fake") {
                let plan = plan_of(&client, what).await?;
                Question { plan: &plan, machines: &machines }.settle(session, flags.yes)?;
            }
            one(session, what, &machine.machine_id, flags).await
        }
        [] => Err(Error::usage("no machine matches", "see what there is with: bmdemo-cli list")),
        _ => {
            let plan = plan_of(&client, what).await?;
            Question { plan: &plan, machines: &machines }.settle(session, flags.yes)?;
            bulk::start(session, what, &machines, flags).await
        }
    }
}

/// The machines named, then those selected, each once.
async fn targets(
    client: &Client,
    ids: &[String],
    selection: &Selection,
) -> Result<Vec<pb::Machine>, Error> {
    let mut machines: Vec<pb::Machine> = Vec::new();
    for id in ids {
        // Never by a prefix: where machine-1 is missing, machine-10 must not be destroyed in its place.
        let machine = client
            .get_machine(pb::GetMachineRequest { machine_id: id.clone(), ..Default::default() })
            .await;
        machines.push(machine.map_err(|error| error.about(About::Machine(id.clone())))?);
    }
    if !selection.is_empty() {
        machines.extend(client.all_machines(&selection.to_filter()?, usize::MAX).await?);
    }
    let mut seen = std::collections::HashSet::new();
    machines.retain(|machine| seen.insert(machine.machine_id.clone()));
    Ok(machines)
}

/// The plan that a request would run.
async fn plan_of(client: &Client, what: &What) -> Result<pb::Plan, Error> {
    match what {
        What::Plan(id) => {
            let plan = client.get_plan(pb::GetPlanRequest { plan_id: id.clone() }).await;
            plan.map_err(|error| error.about(About::Plan(id.clone())))
        }
        What::Default(kind) => {
            let plans = client.all_plans().await?;
            let default =
                plans.into_iter().find(|plan| plan.run_type() == *kind && plan.is_default);
            default.ok_or_else(|| {
                let kind = kind.as_str_name().trim_start_matches("RUN_TYPE_");
                Error::usage(
                    format!("the server has no default plan of type {kind}"),
                    "see: bmdemo-cli plans",
                )
            })
        }
    }
}

async fn one(
    session: &mut Session,
    what: &What,
    machine: &str,
    flags: &StartFlags,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request = request(what, machine, flags, client.new_request_id());
    let about = match what {
        What::Plan(plan) => About::Plan(plan.clone()),
        What::Default(_) => About::Nothing,
    };
    let interrupted = session.ui.interrupted();
    let run = tokio::select! {
        run = client.start_run(request) => run.map_err(|error| named(error, machine, about))?,
        () = interrupted => {
            let look = format!("bmdemo-cli runs --machine {}", sanitized(machine));
            session.ui.note(&format!("Interrupted before the server answered. The run may have been started; look with: {look}"));
            return Ok(Exit::Interrupted);
        }
    };
    watch_or_detach(session, &run, flags.detach).await
}

/// A missing machine and a missing plan give the same code: what the server names decides.
fn named(error: Error, machine: &str, plan: About) -> Error {
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
    session: &mut Session,
    run: &pb::Run,
    detach: bool,
) -> Result<Exit, Error> {
    if detach {
        writeln!(session.ui.out(), "{}", sanitized(&run.run_id))?;
        return Ok(Exit::Ok);
    }
    watch::follow(session, &run.run_id).await
}
