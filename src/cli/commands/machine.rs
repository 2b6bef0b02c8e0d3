//! `machine …` and `list`

use clap::{Args, Subcommand};

use crate::pb;

use super::super::error::{About, Error, Exit};
use super::super::flags::OutputArgs;
use super::super::output::{phase_name, sanitized, write_machine};
use super::super::query::{Paging, Selection};
use super::super::session::Session;
use super::{confirm, history, live, register, show};

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
    /// Say what a machine is, why, and what to do next
    Describe(DescribeArgs),
    /// Register one machine
    Register(register::RegisterArgs),
    /// Change what is known of a machine
    Update(register::UpdateArgs),
    /// Set and remove labels
    Label(register::LabelArgs),
    /// Set the phase of a machine
    SetPhase(SetPhaseArgs),
    /// Clear NeedsIntervention after having looked
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
  bmdemo-cli list --watch")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    paging: Paging,
    /// Go on with changes as they happen, until Ctrl-C
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

/// Say what a machine is, which rule gives its effective state, what its conditions are, and what to do next.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli machine describe machine-1")]
pub(crate) struct DescribeArgs {
    /// Machine, or the beginning of its id
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Set the phase of a machine, if its lifecycle allows it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli machine set-phase machine-1 MAINTENANCE --reason \"fan is loud\""
)]
pub(crate) struct SetPhaseArgs {
    /// Machine
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// FACTORY_READY, READY, IN_SERVICE, MAINTENANCE, RMA or RETIRED
    #[arg(value_name = "PHASE")]
    phase: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Offer the machine although its disks cannot be trusted; needs --reason
    #[arg(long)]
    force: bool,
    /// Do not ask before a machine in service is taken out for good (RMA, RETIRED)
    #[arg(short, long)]
    yes: bool,
    /// Only if the machine has not changed since it had this etag
    #[arg(long, value_name = "ETAG", default_value = "")]
    if_etag: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Clear NeedsIntervention after having looked at the machine.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli machine clear-intervention machine-2 --reason \"disk replaced\""
)]
pub(crate) struct ClearArgs {
    /// Machine
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// What you found; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Delete a machine in phase RETIRED. Its id can be registered again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli machine delete machine-9 --reason \"sold\"")]
pub(crate) struct DeleteArgs {
    /// Machine
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only if the machine has not changed since it had this etag
    #[arg(long, value_name = "ETAG", default_value = "")]
    if_etag: String,
}

pub(crate) async fn machine(session: &mut Session, command: MachineCommand) -> Result<Exit, Error> {
    match command {
        MachineCommand::List(args) => list(session, &args).await,
        MachineCommand::Get(args) => get(session, &args).await,
        MachineCommand::Describe(args) => describe(session, &args).await,
        MachineCommand::Register(args) => register::register(session, &args).await,
        MachineCommand::Update(args) => register::update(session, &args).await,
        MachineCommand::Label(args) => register::label(session, &args).await,
        MachineCommand::SetPhase(args) => set_phase(session, &args).await,
        MachineCommand::ClearIntervention(args) => clear_intervention(session, &args).await,
        MachineCommand::History(args) => history::machine(session, &args).await,
        MachineCommand::Delete(args) => delete(session, &args).await,
    }
}

pub(crate) async fn list(session: &mut Session, args: &ListArgs) -> Result<Exit, Error> {
    let filter = args.selection.to_filter()?;
    if args.watch {
        return live::machines(session, filter, args.output.output).await;
    }
    let (order_by, max) = (args.paging.order_by(), args.paging.fetch_max());
    let client = session.client().await?;
    let mut machines = client.ordered_machines(&filter, order_by, max).await?;
    args.paging.machines(&mut machines)?;
    show::machines(session, &machines, args.output.output)
}

async fn get(session: &mut Session, args: &GetArgs) -> Result<Exit, Error> {
    let machine = session.client().await?.find_machine(&args.machine).await?;
    show::machine(session, &machine, args.output.output)
}

async fn describe(session: &mut Session, args: &DescribeArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let machine = client.find_machine(&args.machine).await?;
    if args.output.output.data().is_some() {
        return show::machine(session, &machine, args.output.output);
    }
    let active =
        machine.status.as_ref().map(|status| status.active_run_id.clone()).unwrap_or_default();
    let run = if active.is_empty() {
        // The last run explains the conditions; a machine without one is no error.
        client.last_run(&machine.machine_id).await?
    } else {
        Some(
            client
                .get_run(pb::GetRunRequest { run_id: active, ..pb::GetRunRequest::default() })
                .await?,
        )
    };
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    write_machine(session.ui.out(), look, &machine, run.as_ref(), now_ms)?;
    Ok(Exit::Ok)
}

async fn set_phase(session: &mut Session, args: &SetPhaseArgs) -> Result<Exit, Error> {
    let phase = parse_phase(&args.phase)?;
    let client = session.client().await?;
    if matches!(phase, pb::Phase::Rma | pb::Phase::Retired) {
        let machine = client.find_machine(&args.machine).await?;
        let state = machine.status.as_ref().map(pb::MachineStatus::effective_state);
        if state == Some(pb::EffectiveState::InService) {
            let text = format!(
                "{} is in service. {} takes it out of service for good: there is no way back to IN_SERVICE but through a \
                 repair and a new installation.",
                sanitized(&machine.machine_id),
                phase_name(phase.into())
            );
            confirm::ask(session, &text, "nothing was changed", args.yes)?;
        }
    }
    let request = pb::UpdateMachineRequest {
        machine: Some(pb::Machine {
            machine_id: args.machine.clone(),
            status: Some(pb::MachineStatus { phase: phase.into(), ..pb::MachineStatus::default() }),
            etag: args.if_etag.clone(),
            ..pb::Machine::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["status.phase".to_owned()] }),
        request_id: client.new_request_id(),
        reason: args.reason.clone(),
        force: args.force,
    };
    let updated = client.update_machine(request).await;
    let machine = updated.map_err(|error| error.about(About::Machine(args.machine.clone())))?;
    show::machine(session, &machine, args.output.output)
}

async fn clear_intervention(session: &mut Session, args: &ClearArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request = pb::ClearInterventionRequest {
        machine_id: args.machine.clone(),
        reason: args.reason.clone(),
        request_id: client.new_request_id(),
        ..pb::ClearInterventionRequest::default()
    };
    let cleared = client.clear_intervention(request).await;
    let machine = cleared.map_err(|error| error.about(About::Machine(args.machine.clone())))?;
    show::machine(session, &machine, args.output.output)
}

async fn delete(session: &mut Session, args: &DeleteArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request = pb::DeleteMachineRequest {
        machine_id: args.machine.clone(),
        reason: args.reason.clone(),
        request_id: client.new_request_id(),
        etag: args.if_etag.clone(),
    };
    let deleted = client.delete_machine(request).await;
    deleted.map_err(|error| error.about(About::Machine(args.machine.clone())))?;
    session.ui.note(&format!("Deleted {}.", sanitized(&args.machine)));
    Ok(Exit::Ok)
}

/// A phase by its name, in either case, with or without its prefix.
pub(crate) fn parse_phase(text: &str) -> Result<pb::Phase, Error> {
    let upper = text.to_ascii_uppercase().replace('-', "_");
    let full = if upper.starts_with("PHASE_") { upper } else { format!("PHASE_{upper}") };
    match pb::Phase::from_str_name(&full) {
        Some(phase) if phase != pb::Phase::Unspecified => Ok(phase),
        _ => {
            let names: Vec<String> = (1..=6).map(phase_name).collect();
            Err(Error::usage(
                format!("{text:?} is not a phase"),
                format!("the phases are {}", names.join(", ")),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_in_any_case() {
        for text in ["MAINTENANCE", "maintenance", "PHASE_MAINTENANCE"] {
            assert_eq!(parse_phase(text).unwrap(), pb::Phase::Maintenance);
        }
        assert_eq!(parse_phase("in-service").unwrap(), pb::Phase::InService);
        assert_eq!(parse_phase("UNSPECIFIED").unwrap_err().code(), 2);
        assert_eq!(parse_phase("BROKEN").unwrap_err().to_string(), "\"BROKEN\" is not a phase");
    }
}
