//! `machine …` and `list`

use clap::{Args, Subcommand};

use crate::pb;

use super::super::client::Client;
use super::super::error::{About, Error, Exit};
use super::super::flags::OutputArgs;
use super::super::order::Paging;
use super::super::output::{sanitized, write_machine};
use super::super::query::Selection;
use super::super::resolve::check_name;
use super::super::session::Session;
use super::bulk::{self, BulkFlags, News, Outcome, Work};
use super::confirm::{Question, described};
use super::phase::{ids_where, trusts_disks};
use super::{apply, history, label, live, phase, refusals, register, show, targets};

/// Commands on machines.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  bmdemo-cli machine list -l rack=r1
  bmdemo-cli machine describe machine-1
  bmdemo-cli machine set-phase machine-1 MAINTENANCE --reason \"fan is loud\"")]
pub(crate) enum MachineCommand {
    /// List machines with phase, effective state and conditions
    List(ListArgs),
    /// Print one machine
    Get(GetArgs),
    /// Explain a machine: its state, why, and what to do next
    Describe(DescribeArgs),
    /// Ask the hardware now how it is, store what it says, and explain the machine
    Inspect(InspectArgs),
    /// Register one machine
    Register(register::RegisterArgs),
    /// Change fields of a machine
    Update(register::UpdateArgs),
    /// Register and change machines from a file
    Apply(apply::ApplyArgs),
    /// Set and remove labels
    Label(label::LabelArgs),
    /// Remove labels
    Unlabel(label::UnlabelArgs),
    /// Set the phase of a machine
    SetPhase(phase::SetPhaseArgs),
    /// Clear NeedsIntervention after an inspection, and trust the disks again
    ClearIntervention(ClearArgs),
    /// Print what happened to a machine
    History(history::MachineArgs),
    /// Delete a machine in phase RETIRED
    Delete(DeleteArgs),
}

/// List machines in the order of their registration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli list
  bmdemo-cli machine list -o wide
  bmdemo-cli list -l rack=r1 --filter 'effective_state = IN_SERVICE' -o name
  bmdemo-cli list --sort-by changed:desc --limit 10
  bmdemo-cli list --columns machine_id,phase,labels.rack -o csv
  bmdemo-cli list --watch")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    paging: Paging,
    /// Keep showing changes as they happen, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Print one machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine get machine-1 -o wide
  bmdemo-cli machine get machine-1 -o json")]
pub(crate) struct GetArgs {
    /// Machine, or the beginning of its id
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Explain a machine: its effective state and the rule behind it, its conditions, and what to do next.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli machine describe machine-1")]
pub(crate) struct DescribeArgs {
    /// Machine, or the beginning of its id
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Ask a machine's provider now how the hardware is: power, health, serial number, MAC addresses. What it says is stored and
/// compared with what is registered.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli machine inspect machine-1")]
pub(crate) struct InspectArgs {
    /// Machine, or the beginning of its id
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Clear NeedsIntervention after inspecting the machines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine clear-intervention machine-2 --reason \"disk replaced\"
  bmdemo-cli machine clear-intervention -l rack=r1 --filter 'conditions.NeedsIntervention = true' --reason \"power is back\" --yes")]
pub(crate) struct ClearArgs {
    /// Machines
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// What you found; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    bulk: BulkFlags,
    #[command(flatten)]
    output: OutputArgs,
}

/// Delete a machine in phase RETIRED, after a confirmation. Its id can be registered again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli machine delete machine-9 --reason \"sold\" --yes")]
pub(crate) struct DeleteArgs {
    /// Machine
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only if the machine still has this etag
    #[arg(long, value_name = "ETAG", default_value = "")]
    if_etag: String,
    /// Do not ask for confirmation [env: BMDEMO_YES=1]
    #[arg(short, long)]
    yes: bool,
}

pub(crate) async fn machine(session: &mut Session, command: MachineCommand) -> Result<Exit, Error> {
    match command {
        MachineCommand::List(args) => list(session, &args).await,
        MachineCommand::Get(args) => get(session, &args).await,
        MachineCommand::Describe(args) => describe(session, &args).await,
        MachineCommand::Inspect(args) => inspect(session, &args).await,
        MachineCommand::Register(args) => register::register(session, &args).await,
        MachineCommand::Update(args) => register::update(session, &args).await,
        MachineCommand::Apply(args) => apply::apply(session, &args).await,
        MachineCommand::Label(args) => label::label(session, &args).await,
        MachineCommand::Unlabel(args) => label::unlabel(session, &args).await,
        MachineCommand::SetPhase(args) => phase::set_phase(session, &args).await,
        MachineCommand::ClearIntervention(args) => clear_intervention(session, &args).await,
        MachineCommand::History(args) => history::machine(session, &args).await,
        MachineCommand::Delete(args) => delete(session, &args).await,
    }
}

pub(crate) async fn list(session: &mut Session, args: &ListArgs) -> Result<Exit, Error> {
    let filter = args.selection.to_filter()?;
    if args.watch {
        args.paging.check_unwatched()?;
        return live::machines(session, filter, &args.output).await;
    }
    let order_by = args.paging.machine_order();
    let max = args.paging.fetch_max(order_by);
    let client = session.client().await?;
    let mut machines = client.ordered_machines(&filter, order_by, max).await?;
    args.paging.apply(&mut machines, session.ui.now_ms())?;
    show::machines(session, &machines, &args.output)
}

async fn get(session: &mut Session, args: &GetArgs) -> Result<Exit, Error> {
    let machine = session.client().await?.find_machine(&args.machine).await?;
    show::machine(session, &machine, &args.output)
}

async fn describe(session: &mut Session, args: &DescribeArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let machine = client.find_machine(&args.machine).await?;
    explain(session, &client, &machine, &args.output).await
}

async fn inspect(session: &mut Session, args: &InspectArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let machine = client.find_machine(&args.machine).await?;
    let request = pb::InspectMachineRequest {
        machine_id: machine.machine_id,
        request_id: client.new_request_id(),
    };
    let inspected = client.inspect_machine(request).await?;
    explain(session, &client, &inspected, &args.output).await
}

async fn explain(
    session: &mut Session,
    client: &Client,
    machine: &pb::Machine,
    output: &OutputArgs,
) -> Result<Exit, Error> {
    if output.output.is_data() {
        return show::machine(session, machine, output);
    }
    let active =
        machine.status.as_ref().map(|status| status.active_run_id.clone()).unwrap_or_default();
    let run = if active.is_empty() {
        // The last run explains the conditions; a machine without runs is no error.
        client.last_run(&machine.machine_id).await?
    } else {
        Some(
            client
                .get_run(pb::GetRunRequest { run_id: active, ..pb::GetRunRequest::default() })
                .await?,
        )
    };
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    write_machine(session.ui.out(), look, machine, run.as_ref(), now_ms)?;
    Ok(Exit::Ok)
}

async fn clear_intervention(session: &mut Session, args: &ClearArgs) -> Result<Exit, Error> {
    show::check_columns::<pb::Machine>(&args.output)?;
    let client = session.client().await?;
    let machines = targets::machines(&client, &args.machines, &args.selection).await?;
    let request = |client: &Client, machine_id: String| pb::ClearInterventionRequest {
        machine_id,
        reason: args.reason.clone(),
        request_id: client.new_request_id(),
        ..pb::ClearInterventionRequest::default()
    };
    if let ([machine], true) = (machines.as_slice(), args.selection.is_empty()) {
        let cleared =
            client.clear_intervention(request(&client, machine.machine_id.clone())).await?;
        if trusts_disks(machine) {
            session.ui.note("Its disks are trusted again.");
        }
        return show::machine(session, &cleared, &args.output);
    }
    let question = Question {
        what: "Clear NeedsIntervention of".to_owned(),
        noun: "machine",
        targets: machines.iter().map(described).collect(),
        refused: refusals::count(machines.iter().map(refusals::of_clearing)),
        loss: None,
        always: false,
    };
    question.settle(session, args.bulk.yes)?;
    let same = ids_where(&machines, |machine| !refusals::is_to_clear(machine));
    let trusted = ids_where(&machines, trusts_disks);
    let targets = machines.into_iter().map(|machine| machine.machine_id).collect();
    let work = Work { noun: "machines", targets, flags: &args.bulk, quiet: false };
    let (exit, _) = bulk::each(session, work, |client: Client, machine: String, _: News| {
        let (already, trusted) = (same.contains(&machine), trusted.contains(&machine));
        let request = request(&client, machine);
        async move {
            client.clear_intervention(request).await?;
            let state = match (already, trusted) {
                (true, _) => "nothing to clear",
                (false, false) => "cleared",
                (false, true) => "cleared, disks trusted again",
            };
            Ok(Outcome::now(already, state.to_owned()))
        }
    })
    .await?;
    Ok(exit)
}

async fn delete(session: &mut Session, args: &DeleteArgs) -> Result<Exit, Error> {
    check_name("machine", &args.machine)?;
    let client = session.client().await?;
    let about = || About::Machine(args.machine.clone());
    let found = pb::GetMachineRequest { machine_id: args.machine.clone(), ..Default::default() };
    let found = client.get_machine(found).await.map_err(|error| error.about(about()))?;
    // Of one in another phase the server says why not.
    if found.status.as_ref().is_some_and(|status| status.phase() == pb::Phase::Retired) {
        let question = Question {
            what: "Delete".to_owned(),
            noun: "machine",
            targets: vec![described(&found)],
            refused: None,
            loss: Some(
                "Its record cannot be brought back; its history is kept for a while.".to_owned(),
            ),
            always: true,
        };
        question.settle(session, args.yes)?;
    }
    let request = pb::DeleteMachineRequest {
        machine_id: args.machine.clone(),
        reason: args.reason.clone(),
        request_id: client.new_request_id(),
        etag: args.if_etag.clone(),
    };
    let deleted = client.delete_machine(request).await;
    deleted.map_err(|error| error.about(about()))?;
    session.ui.note(&format!("Deleted {}.", sanitized(&args.machine)));
    Ok(Exit::Ok)
}
