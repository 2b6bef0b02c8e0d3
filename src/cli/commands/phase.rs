//! `machine set-phase`

use std::collections::HashSet;

use clap::Args;

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::flags::OutputArgs;
use super::super::output::{phase_name, sanitized};
use super::super::query::Selection;
use super::super::session::Session;
use super::bulk::{self, BulkFlags, News, Outcome, Work};
use super::confirm::{Question, described};
use super::{refusals, show, targets};

/// Set the phase of machines, if their lifecycle allows it. RETIRED, and RMA of a machine in service, need a
/// confirmation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine set-phase machine-1 MAINTENANCE --reason \"fan is loud\"
  bmdemo-cli machine set-phase -l rack=r1 MAINTENANCE --reason \"new power feed\" --yes")]
pub(crate) struct SetPhaseArgs {
    /// Machines, then the phase: FACTORY_READY, READY, IN_SERVICE, MAINTENANCE, RMA or RETIRED
    #[arg(value_name = "MACHINE|PHASE", required = true, num_args = 1..)]
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Return machines to use although their disks are not trusted; needs --reason
    #[arg(long)]
    force: bool,
    /// With one machine: only if it still has this etag
    #[arg(long, value_name = "ETAG", default_value = "")]
    if_etag: String,
    #[command(flatten)]
    bulk: BulkFlags,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn set_phase(session: &mut Session, args: &SetPhaseArgs) -> Result<Exit, Error> {
    show::check_columns::<pb::Machine>(&args.output)?;
    let Some((phase, ids)) = args.words.split_last() else {
        return Err(Error::usage("no phase was named", "for example: MAINTENANCE"));
    };
    let phase = parse_phase(phase)?;
    let client = session.client().await?;
    let machines = targets::machines(&client, ids, &args.selection).await?;
    if machines.len() > 1 && !args.if_etag.is_empty() {
        return Err(Error::usage(
            "--if-etag works with one machine only",
            "each machine has its own etag",
        ));
    }
    check_forced(args.force, &args.reason)?;
    let leaves = matches!(phase, pb::Phase::Rma | pb::Phase::Retired);
    let status = |machine: &pb::Machine| machine.status.clone().unwrap_or_default();
    let serving = machines
        .iter()
        .filter(|machine| status(machine).effective_state() == pb::EffectiveState::InService)
        .count();
    let name = phase_name(phase.into());
    let refused = refusals::count(
        machines.iter().map(|machine| refusals::of_phase(machine, phase, args.force)),
    );
    let retires = phase == pb::Phase::Retired
        && refused.is_none()
        && machines.iter().any(|machine| status(machine).phase() != phase);
    let question = Question {
        what: format!("Set phase {name} of"),
        noun: "machine",
        targets: machines.iter().map(described).collect(),
        refused,
        loss: match (leaves && serving > 0, phase == pb::Phase::Retired) {
            (true, true) => Some(format!(
                "{serving} of them in service; {name} ends that. There is no way back."
            )),
            (true, false) => Some(format!(
                "{serving} of them in service; {name} ends that. The way back is a repair and a new installation."
            )),
            (false, true) => Some(format!("There is no way back from {name}.")),
            (false, false) => None,
        },
        always: (leaves && serving > 0) || retires,
    };
    question.settle(session, args.bulk.yes)?;
    let change = |client: &Client, machine_id: String| pb::UpdateMachineRequest {
        machine: Some(pb::Machine {
            machine_id,
            status: Some(pb::MachineStatus { phase: phase.into(), ..pb::MachineStatus::default() }),
            etag: args.if_etag.clone(),
            ..pb::Machine::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["status.phase".to_owned()] }),
        request_id: client.new_request_id(),
        reason: args.reason.clone(),
        force: args.force,
        validate_only: false,
    };
    if let ([machine], true) = (machines.as_slice(), args.selection.is_empty()) {
        let updated = client.update_machine(change(&client, machine.machine_id.clone())).await?;
        if status(machine).phase() == phase {
            let id = sanitized(&machine.machine_id);
            session.ui.note(&format!("Unchanged: the phase of {id} was {name} before."));
            if trusts_disks(&updated) {
                session.ui.note(&format!(
                    "Its disks are still not trusted. Once you have looked: bmdemo-cli machine clear-intervention {id} --reason \"what you found\""
                ));
            }
        }
        return show::machine(session, &updated, &args.output);
    }
    let same = ids_where(&machines, |machine| status(machine).phase() == phase);
    let targets = machines.into_iter().map(|machine| machine.machine_id).collect();
    let work = Work { noun: "machines", targets, flags: &args.bulk, quiet: false };
    let (exit, _) = bulk::each(session, work, |client: Client, machine: String, _: News| {
        let already = same.contains(&machine);
        let request = change(&client, machine);
        async move {
            let status = client.update_machine(request).await?.status.unwrap_or_default();
            Ok(Outcome::now(already, phase_name(status.phase)))
        }
    })
    .await?;
    Ok(exit)
}

/// Whether to clear NeedsIntervention also says that the disks of the machine can be trusted.
pub(crate) fn trusts_disks(machine: &pb::Machine) -> bool {
    machine.status.as_ref().is_some_and(|status| status.untrusted_disks.is_some())
}

/// The ids of the machines for which something holds.
pub(crate) fn ids_where(
    machines: &[pb::Machine],
    holds: impl Fn(&pb::Machine) -> bool,
) -> HashSet<String> {
    machines.iter().filter(|one| holds(one)).map(|one| one.machine_id.clone()).collect()
}

/// Refuses force without a reason, whether anything is there to be overridden or not: it is audited.
///
/// # Errors
/// Usage.
pub(crate) fn check_forced(force: bool, reason: &str) -> Result<(), Error> {
    if !force || !reason.trim().is_empty() {
        return Ok(());
    }
    Err(Error::usage(
        "--force needs --reason",
        "say why, for the audit, for example: --reason \"the customer has moved away\"",
    ))
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
                format!("the last word is the phase, one of {}", names.join(", ")),
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
