//! Machines.

use super::{etag, timestamp};
use crate::lifecycle::effective::{EffectiveState, Rule};
use crate::lifecycle::machine::Phase;
use crate::model::{ConditionKind, InstallStage, Installation, Machine, Observed, Power};
use crate::pb;

/// The message of a machine.
pub(in crate::api) fn machine(machine: &Machine) -> pb::Machine {
    let (effective, rule) = machine.effective();
    let conditions = machine.conditions.iter().map(|(kind, condition)| pb::Condition {
        r#type: condition_type(kind).into(),
        status: condition.status,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_at: Some(timestamp(condition.last_transition_at)),
        observed_by: condition.observed_by.clone(),
    });
    let spec = &machine.spec;
    pb::Machine {
        machine_id: machine.id.to_string(),
        labels: machine.labels.clone(),
        spec: Some(pb::MachineSpec {
            provider: spec.provider.clone(),
            ssh_endpoint: spec.ssh_endpoint.clone(),
            bmc_endpoint: spec.bmc_endpoint.clone(),
            target_cluster: spec.target_cluster.clone(),
            mac_addresses: spec.mac_addresses.clone(),
            serial: spec.serial.clone(),
            bmc_system_id: spec.bmc_system_id.clone(),
            bmc_credentials: spec.bmc_credentials.clone(),
            bmc_certificate_sha256: spec.bmc_certificate_sha256.clone(),
        }),
        status: Some(pb::MachineStatus {
            phase: phase(machine.phase).into(),
            effective_state: effective_state(effective).into(),
            conditions: conditions.collect(),
            active_run_id: machine.active_run.map(|run| run.to_string()).unwrap_or_default(),
            effective_rule: effective_rule(rule).into(),
            epoch: machine.epoch.0,
            untrusted_disks: machine.untrusted_disks.as_ref().map(|disks| pb::UntrustedDisks {
                run_id: disks.run_id.to_string(),
                plan_id: disks.plan_id.clone(),
                step: disks.step.clone(),
                at: Some(timestamp(disks.at)),
            }),
            observed: None,
            capabilities: Vec::new(),
            installation: None,
        }),
        created_at: Some(timestamp(machine.created_at)),
        updated_at: Some(timestamp(machine.updated_at)),
        etag: etag(machine.revision),
        revision: machine.revision.0,
    }
}

/// The message of what was observed of a machine.
pub(in crate::api) fn observed(observed: &Observed) -> pb::ObservedFacts {
    let Observed { facts, since } = observed;
    let power = match facts.power {
        Power::Unknown => pb::PowerState::Unspecified,
        Power::On => pb::PowerState::On,
        Power::Off => pb::PowerState::Off,
    };
    pb::ObservedFacts {
        power: power.into(),
        firmware: facts.firmware.clone(),
        serial: facts.serial.clone(),
        health: facts.health.clone(),
        since: Some(timestamp(*since)),
        model: facts.model.clone(),
        mac_addresses: facts.mac_addresses.clone(),
        power_word: facts.power_word.clone(),
    }
}

/// The message of what a machine reported about its installation.
pub(in crate::api) fn installation(of: &Installation) -> pb::Installation {
    let stage = match of.stage {
        InstallStage::SettingsTaken => pb::InstallationStage::SettingsTaken,
        InstallStage::Installing => pb::InstallationStage::Installing,
        InstallStage::Written => pb::InstallationStage::Written,
        InstallStage::Failed => pb::InstallationStage::Failed,
        InstallStage::Up => pb::InstallationStage::Up,
    };
    pb::Installation {
        operation_id: of.operation.to_string(),
        stage: stage.into(),
        image_sha256: of.image_sha256.clone(),
        boot_id: of.boot_id.clone(),
        message: of.message.clone(),
        at: Some(timestamp(of.at)),
    }
}

/// The message value of a phase.
pub(in crate::api) fn phase(phase: Phase) -> pb::Phase {
    match phase {
        Phase::FactoryReady => pb::Phase::FactoryReady,
        Phase::Ready => pb::Phase::Ready,
        Phase::InService => pb::Phase::InService,
        Phase::Maintenance => pb::Phase::Maintenance,
        Phase::Rma => pb::Phase::Rma,
        Phase::Retired => pb::Phase::Retired,
    }
}

/// The phase of a message value; `None` for the unspecified one.
pub(in crate::api) fn phase_given(phase: pb::Phase) -> Option<Phase> {
    match phase {
        pb::Phase::Unspecified => None,
        pb::Phase::FactoryReady => Some(Phase::FactoryReady),
        pb::Phase::Ready => Some(Phase::Ready),
        pb::Phase::InService => Some(Phase::InService),
        pb::Phase::Maintenance => Some(Phase::Maintenance),
        pb::Phase::Rma => Some(Phase::Rma),
        pb::Phase::Retired => Some(Phase::Retired),
    }
}

fn effective_state(state: EffectiveState) -> pb::EffectiveState {
    match state {
        EffectiveState::Provisioning => pb::EffectiveState::Provisioning,
        EffectiveState::Phase(phase) => match phase {
            Phase::FactoryReady => pb::EffectiveState::FactoryReady,
            Phase::Ready => pb::EffectiveState::Ready,
            Phase::InService => pb::EffectiveState::InService,
            Phase::Maintenance => pb::EffectiveState::Maintenance,
            Phase::Rma => pb::EffectiveState::Rma,
            Phase::Retired => pb::EffectiveState::Retired,
        },
    }
}

fn effective_rule(rule: Rule) -> pb::EffectiveRule {
    match rule {
        Rule::ActiveRun => pb::EffectiveRule::ActiveRun,
        Rule::ExplicitPhase => pb::EffectiveRule::ExplicitPhase,
        Rule::InCustomerCluster => pb::EffectiveRule::InCustomerCluster,
        Rule::Phase => pb::EffectiveRule::Phase,
    }
}

pub(super) fn condition_type(kind: ConditionKind) -> pb::ConditionType {
    match kind {
        ConditionKind::Reachable => pb::ConditionType::Reachable,
        ConditionKind::InCustomerCluster => pb::ConditionType::InCustomerCluster,
        ConditionKind::NeedsIntervention => pb::ConditionType::NeedsIntervention,
        ConditionKind::Degraded => pb::ConditionType::Degraded,
        ConditionKind::HardwareMatches => pb::ConditionType::HardwareMatches,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TOML, tables and filters say READY, the API says PHASE_READY: the same name after a prefix.
    #[test]
    fn api_names_are_the_names_behind_a_prefix() {
        for value in Phase::ALL {
            let message = phase(value);
            assert_eq!(message.as_str_name(), format!("PHASE_{value}"));
            assert_eq!(phase_given(message), Some(value));
        }
        for value in EffectiveState::ALL {
            let name = effective_state(value).as_str_name();
            assert_eq!(name, format!("EFFECTIVE_STATE_{value}"));
        }
        for value in ConditionKind::ALL {
            let name = condition_type(value).as_str_name().replace('_', "").to_lowercase();
            assert_eq!(name, format!("conditiontype{}", value.as_str().to_lowercase()));
        }
    }
}
