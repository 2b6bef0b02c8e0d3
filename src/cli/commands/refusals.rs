//! What the server would refuse, judged from the records, for the confirmation before a bulk command. The server
//! judges again when the command is sent.

use crate::pb;

use super::super::output::{hold, phase_name};

/// How many would be refused, and why the first.
pub(crate) fn count(whys: impl IntoIterator<Item = Option<String>>) -> Option<(usize, String)> {
    let mut whys = whys.into_iter().flatten();
    let first = whys.next()?;
    Some((1 + whys.count(), first))
}

/// Why a machine would not change to a phase.
pub(crate) fn of_phase(machine: &pb::Machine, to: pb::Phase, force: bool) -> Option<String> {
    let status = machine.status.clone().unwrap_or_default();
    let (id, name) = (&machine.machine_id, phase_name(to.into()));
    let from = status.phase();
    if !status.active_run_id.is_empty() {
        return Some(format!("a run is active on {id}"));
    }
    let offers = matches!(to, pb::Phase::FactoryReady | pb::Phase::Ready | pb::Phase::InService);
    if offers && from != to && status.untrusted_disks.is_some() && !force {
        return Some(format!("the disks of {id} are not trusted"));
    }
    if !may_move(from, to) {
        return Some(format!("{id} is {}, and cannot change to {name}", phase_name(status.phase)));
    }
    None
}

/// Whether an operator may change the phase of a machine from one to another.
fn may_move(from: pb::Phase, to: pb::Phase) -> bool {
    use pb::Phase::{FactoryReady, InService, Maintenance, Ready, Retired, Rma, Unspecified};
    match from {
        Unspecified => true,
        FactoryReady => !matches!(to, InService),
        Ready | InService => !matches!(to, FactoryReady | Retired),
        Maintenance => !matches!(to, FactoryReady | InService),
        Rma => matches!(to, Rma | FactoryReady | Retired),
        Retired => false,
    }
}

/// Why NeedsIntervention of a machine would not be cleared.
pub(crate) fn of_clearing(machine: &pb::Machine) -> Option<String> {
    let status = machine.status.clone().unwrap_or_default();
    let needs = status.conditions.iter().find(|condition| {
        condition.r#type() == pb::ConditionType::NeedsIntervention && condition.status
    })?;
    let is_of_run = !status.active_run_id.is_empty() && needs.reason != "ABORTED";
    is_of_run
        .then(|| format!("NeedsIntervention of {} belongs to its active run", machine.machine_id))
}

/// Whether there is anything that clear-intervention would change.
pub(crate) fn is_to_clear(machine: &pb::Machine) -> bool {
    let status = machine.status.clone().unwrap_or_default();
    let needs = status.conditions.iter().any(|condition| {
        condition.r#type() == pb::ConditionType::NeedsIntervention && condition.status
    });
    needs || status.untrusted_disks.is_some()
}

/// Why the named fields would not be changed.
pub(crate) fn of_spec(machine: &pb::Machine, paths: &[String]) -> Option<String> {
    let is_active = machine.status.as_ref().is_some_and(|status| !status.active_run_id.is_empty());
    let fixed = |path: &&String| match path.as_str() {
        "spec.provider"
        | "spec.bmc_endpoint"
        | "spec.bmc_system_id"
        | "spec.bmc_credentials"
        | "spec.bmc_certificate_sha256"
        | "spec.ssh_endpoint"
        | "spec.mac_addresses" => is_active,
        _ => false,
    };
    let path = paths.iter().find(fixed)?;
    Some(format!("{path} of {} cannot be changed while a run is active", machine.machine_id))
}

/// Why a run would not be paused.
pub(crate) fn of_pause(run: &pb::Run) -> Option<String> {
    of_ended(run).or_else(|| match (run.cancel_requested, run.compensating) {
        (_, true) => Some(format!("the run of {} is being unwound", run.machine_id)),
        (true, _) => Some(format!("the run of {} is being canceled", run.machine_id)),
        (false, false) => None,
    })
}

/// Why a run would not be resumed.
pub(crate) fn of_resume(run: &pb::Run) -> Option<String> {
    let machine = &run.machine_id;
    of_ended(run).or_else(|| match hold(run).map(pb::Waiting::reason) {
        Some(pb::WaitReason::OutcomeUnknown) => {
            Some(format!("the outcome of a step on {machine} is unknown: resolve the step instead"))
        }
        Some(_) => None,
        None if run.pause_requested => None,
        None => Some(format!("the run of {machine} is not held")),
    })
}

/// Why a run that has ended can be neither ended nor held.
pub(crate) fn of_ended(run: &pb::Run) -> Option<String> {
    run.finished_at.is_some().then(|| format!("the run of {} has ended", run.machine_id))
}

/// Why a run would not be repeated.
pub(crate) fn of_retry(run: &pb::Run) -> Option<String> {
    let machine = &run.machine_id;
    match run.phase() {
        pb::RunPhase::Failed | pb::RunPhase::Canceled | pb::RunPhase::Unspecified => None,
        pb::RunPhase::Succeeded => Some(format!("the run of {machine} succeeded")),
        pb::RunPhase::Pending | pb::RunPhase::Running => {
            Some(format!("the run of {machine} has not ended"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::machine::Phase;

    fn machine(phase: pb::Phase) -> pb::Machine {
        let status = pb::MachineStatus { phase: phase.into(), ..Default::default() };
        pb::Machine { machine_id: "m".to_owned(), status: Some(status), ..Default::default() }
    }

    /// The server's own rules, without its code in the client.
    #[test]
    fn phases_are_judged_as_the_server_does() {
        for from in Phase::ALL {
            for to in Phase::ALL {
                let message = |phase: Phase| {
                    pb::Phase::from_str_name(&format!("PHASE_{}", phase.as_str())).unwrap()
                };
                let judged = of_phase(&machine(message(from)), message(to), false);
                assert_eq!(
                    judged.is_none(),
                    from.moved_to(to).is_ok(),
                    "{from} -> {to}: {judged:?}"
                );
            }
        }
    }

    #[test]
    fn machines_that_are_busy_or_not_trusted_are_refused() {
        let mut machine = machine(pb::Phase::Maintenance);
        let status = machine.status.as_mut().unwrap();
        status.untrusted_disks = Some(pb::UntrustedDisks::default());
        assert!(of_phase(&machine, pb::Phase::Ready, false).unwrap().contains("not trusted"));
        assert_eq!(of_phase(&machine, pb::Phase::Ready, true), None);
        assert_eq!(of_phase(&machine, pb::Phase::Rma, false), None);
        machine.status.as_mut().unwrap().active_run_id = "r".to_owned();
        assert!(of_phase(&machine, pb::Phase::Rma, true).unwrap().contains("active"));
        assert_eq!(of_clearing(&machine), None);
        let needs = pb::Condition {
            r#type: pb::ConditionType::NeedsIntervention.into(),
            status: true,
            reason: "OUTCOME_UNKNOWN".to_owned(),
            ..Default::default()
        };
        machine.status.as_mut().unwrap().conditions.push(needs);
        assert!(of_clearing(&machine).is_some());
        assert!(of_spec(&machine, &["labels.a".to_owned()]).is_none());
        assert!(of_spec(&machine, &["spec.bmc_endpoint".to_owned()]).is_some());
    }

    #[test]
    fn runs_are_judged_by_their_state() {
        let run = |phase: pb::RunPhase| pb::Run {
            machine_id: "m".to_owned(),
            phase: phase.into(),
            finished_at: matches!(phase, pb::RunPhase::Succeeded | pb::RunPhase::Failed)
                .then(prost_types::Timestamp::default),
            ..Default::default()
        };
        let running = run(pb::RunPhase::Running);
        assert_eq!((of_pause(&running), of_ended(&running)), (None, None));
        assert!(of_resume(&running).is_some() && of_retry(&running).is_some());
        let pausing = pb::Run { pause_requested: true, ..running.clone() };
        assert_eq!(of_resume(&pausing), None);
        let canceling = pb::Run { cancel_requested: true, ..running.clone() };
        assert!(of_pause(&canceling).is_some());
        let held = |reason: pb::WaitReason| pb::Run {
            waiting: Some(pb::Waiting { reason: reason.into(), ..Default::default() }),
            ..running.clone()
        };
        assert_eq!(of_resume(&held(pb::WaitReason::Paused)), None);
        assert!(of_resume(&held(pb::WaitReason::OutcomeUnknown)).unwrap().contains("resolve"));
        let failed = run(pb::RunPhase::Failed);
        assert!(of_pause(&failed).is_some() && of_resume(&failed).is_some());
        assert_eq!(of_retry(&failed), None);
        let all = [of_retry(&running), of_retry(&failed), of_retry(&run(pb::RunPhase::Succeeded))];
        assert_eq!(count(all), Some((2, "the run of m has not ended".to_owned())));
        assert_eq!(count([None]), None);
    }
}
