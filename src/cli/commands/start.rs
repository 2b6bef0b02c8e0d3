//! `repave`, `rma`, `reboot`, `upgrade`, `net-reconfig` and `run start`

use std::sync::Arc;

use clap::Args;
use tonic_types::StatusExt as _;

use crate::clock::Clock;
use crate::pb;
use crate::pb::RunType;

use super::super::client::Client;
use super::super::error::{About, Error, Exit};
use super::super::flags::by_key;
use super::super::output::{Verdict, hold, sanitized};
use super::super::session::Session;
use super::super::watch::{RunWatch, Seen};
use super::bulk::{self, News, Outcome, Work};
use super::confirm::{Question, is_answered};
use super::phase::check_forced;
use super::recipe::{StartFlags, What, request};
use super::{dry_run, show, targets, watch};

/// Start the plan on a machine and watch it until it ends. Ctrl-C stops watching; the run continues.
///
/// With several machines, by name or by -l and --filter, it asks once, keeps --max-parallel runs in progress, and
/// prints a line per machine and a summary; Ctrl-C starts no more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli repave machine-1
  bmdemo-cli upgrade machine-1 --detach --reason \"CVE-2026-1\"
  bmdemo-cli repave machine-1 -o json
  bmdemo-cli rma machine-1 --dry-run
  bmdemo-cli reboot -l rack=r1 --max-parallel 20 --max-failures 2 --yes")]
pub(crate) struct VerbArgs {
    /// Machines
    #[arg(value_name = "MACHINE")]
    pub(crate) machines: Vec<String>,
    #[command(flatten)]
    pub(crate) flags: StartFlags,
}

/// Start any plan on a machine and watch it until it ends. Ctrl-C stops watching; the run continues.
///
/// With several machines, by name or by -l and --filter, it asks once, keeps --max-parallel runs in progress, and
/// prints a line per machine and a summary; Ctrl-C starts no more.
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

/// A single machine named by its id is watched; everything else is a bulk command.
async fn any(
    session: &mut Session,
    what: &What,
    ids: &[String],
    flags: &StartFlags,
) -> Result<Exit, Error> {
    by_key("--set ", &flags.set)?;
    check_forced(flags.force, flags.reason.as_deref().unwrap_or_default())?;
    if flags.dry_run {
        show::check_columns::<Verdict>(&flags.output)?;
    } else {
        show::check_columns::<pb::Run>(&flags.output)?;
    }
    let client = session.client().await?;
    let machines = targets::machines(&client, ids, &flags.selection).await?;
    if machines.len() > 1 && !flags.if_etag.is_empty() {
        return Err(Error::usage(
            "--if-etag works with one machine only",
            "each machine has its own etag: remove --if-etag, or start the machines one by one",
        ));
    }
    if flags.dry_run {
        let plan = plan_of(&client, what).await?;
        return dry_run::show(session, what, &plan, &machines, flags).await;
    }
    let [machine] = machines.as_slice() else { return many(session, what, &machines, flags).await };
    if !flags.selection.is_empty() {
        return many(session, what, &machines, flags).await;
    }
    let mut plan_digest = String::new();
    if flags.force || machine.spec.as_ref().is_none_or(|spec| spec.provider != "fake") {
        let plan = plan_of(&client, what).await?;
        let overrides = dry_run::overrides(&client, what, &plan, &machines, flags).await?;
        let question = Question::of_plan(&plan, &machines).overriding(&overrides);
        question.settle(session, flags.bulk.yes)?;
        // What was shown is what is started, or nothing.
        plan_digest = plan.digest;
    }
    one(session, what, &machine.machine_id, flags, &plan_digest).await
}

/// Asks, then starts a run on each machine.
async fn many(
    session: &mut Session,
    what: &What,
    machines: &[pb::Machine],
    flags: &StartFlags,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let plan = plan_of(&client, what).await?;
    let overrides = dry_run::overrides(&client, what, &plan, machines, flags).await?;
    let mut question = Question::of_plan(&plan, machines).overriding(&overrides);
    if question.is_due() && !is_answered(session, flags.bulk.yes) {
        question.refused = dry_run::refused(&client, what, &plan, machines, flags).await?;
    }
    question.settle(session, flags.bulk.yes)?;
    let clock = session.ui.clock();
    let as_data = flags.output.output.is_data();
    let targets = machines.iter().map(|machine| machine.machine_id.clone()).collect();
    let work = Work { noun: "machines", targets, flags: &flags.bulk, quiet: as_data };
    let (exit, outcomes) =
        bulk::each(session, work, |client: Client, machine: String, news: News| {
            let request = request(what, &machine, flags, client.new_request_id(), &plan.digest);
            let (clock, detach) = (clock.clone(), flags.detach);
            async move {
                let run = client.start_run(request).await?;
                drive(&client, clock, run, detach, &news).await
            }
        })
        .await?;
    if as_data {
        let runs: Vec<pb::Run> = outcomes
            .into_iter()
            .filter_map(|outcome| match outcome {
                Outcome::Run(run) | Outcome::Started(run) => Some(*run),
                Outcome::Changed(_) | Outcome::Unchanged(_) | Outcome::Refused(..) => None,
            })
            .collect();
        show::runs(session, &runs, &flags.output)?;
    }
    Ok(exit)
}

/// Follows a run until it ends or is held by the engine, unless it is detached.
pub(super) async fn drive(
    client: &Client,
    clock: Arc<dyn Clock>,
    run: pb::Run,
    detach: bool,
    news: &News,
) -> Result<Outcome, Error> {
    news.started(&run);
    if detach {
        return Ok(Outcome::Started(Box::new(run)));
    }
    Ok(Outcome::Run(Box::new(ended(client, clock, &run.run_id).await?)))
}

/// The run once it has ended, or is held by the engine.
async fn ended(client: &Client, clock: Arc<dyn Clock>, run_id: &str) -> Result<pb::Run, Error> {
    let mut watch = RunWatch::new(client.clone(), clock, format!("run_id={run_id}"));
    loop {
        match watch.next().await? {
            Seen::Event(event) => {
                let ended = event.snapshot.filter(|run| {
                    let held =
                        hold(run).is_some_and(|waiting| waiting.reason() != pb::WaitReason::Paused);
                    run.finished_at.is_some() || held
                });
                if let Some(run) = ended {
                    return Ok(run);
                }
            }
            Seen::Lost | Seen::Reset => {}
            Seen::Ended => watch.lose(),
        }
    }
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
    plan_digest: &str,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request = request(what, machine, flags, client.new_request_id(), plan_digest);
    let about = match what {
        What::Plan(plan) => About::Plan(plan.clone()),
        What::Default(_) => About::Nothing,
    };
    let interrupted = session.ui.interrupted();
    let run = tokio::select! {
        run = client.start_run(request) => run.map_err(|error| named(error, machine, about))?,
        () = interrupted => {
            let look = format!("bmdemo-cli runs --machine {}", sanitized(machine));
            session.ui.note(&format!("Interrupted before the server answered. The run may have started; check with: {look}"));
            return Ok(Exit::Interrupted);
        }
    };
    if !flags.output.output.is_data() {
        return watch_or_detach(session, &run, flags.detach).await;
    }
    if flags.detach {
        return show::run(session, &run, &flags.output);
    }
    let (clock, interrupted) = (session.ui.clock(), session.ui.interrupted());
    let ended = tokio::select! {
        run = ended(&client, clock, &run.run_id) => run?,
        () = interrupted => {
            session.ui.note(&format!("Detached; the run continues. Watch it with: bmdemo-cli watch {}", run.run_id));
            return Ok(Exit::Interrupted);
        }
    };
    show::run(session, &ended, &flags.output)?;
    Ok(Exit::of_run(&ended))
}

/// A missing machine and a missing plan give the same code: the resource named by the server decides.
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
