//! What an operator changes of a machine: applied to the record, with what the history says of it.

use crate::executor::admission;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::request::{MachineChanges, Origin};
use crate::lifecycle::machine::Phase;
use crate::model::machine::MachineSpec;
use crate::model::{ConditionKind, Entry, EntryKind, Machine};

/// Applies the changes to `machine` and adds their entries.
///
/// # Errors
/// Invalid input or a refusal; then `machine` is not to be written.
pub(in crate::executor) fn apply_changes(
    machine: &mut Machine,
    changes: &MachineChanges,
    origin: &Origin,
    entries: &mut Vec<Entry>,
) -> Result<(), EngineError> {
    let before = machine.clone();
    spec_is_free(machine, changes)?;
    if let Some(provider) = changes.provider.as_ref().filter(|new| **new != machine.spec.provider) {
        provider_is_free(machine, &origin.reason)?;
        machine.spec.provider.clone_from(provider);
    }
    if let Some(labels) = &changes.labels {
        machine.labels.clone_from(labels);
    }
    for (key, value) in &changes.label_edits {
        match value {
            Some(value) => machine.labels.insert(key.clone(), value.clone()),
            None => machine.labels.remove(key),
        };
    }
    origin.keeps_scope(&before, machine)?;
    let spec = &mut machine.spec;
    let texts = [
        (&mut spec.ssh_endpoint, &changes.ssh_endpoint),
        (&mut spec.bmc_endpoint, &changes.bmc_endpoint),
        (&mut spec.target_cluster, &changes.target_cluster),
        (&mut spec.serial, &changes.serial),
        (&mut spec.bmc_system_id, &changes.bmc_system_id),
        (&mut spec.bmc_credentials, &changes.bmc_credentials),
        (&mut spec.bmc_certificate_sha256, &changes.bmc_certificate_sha256),
    ];
    for (field, change) in texts {
        if let Some(value) = change {
            field.clone_from(value);
        }
    }
    if let Some(addresses) = &changes.mac_addresses {
        machine.spec.mac_addresses.clone_from(addresses);
    }
    if machine.labels != before.labels || machine.spec != before.spec {
        let entry = Entry::new(EntryKind::MachineUpdated, origin.actor.clone());
        entries.push(entry.reason(&origin.reason).message(what_changed(&before, machine)));
        compare_again(&before.spec, machine, origin, entries);
    }
    let Some(to) = changes.phase else { return Ok(()) };
    if changes.as_it_was && to == machine.phase {
        return Ok(());
    }
    if let Some(run_id) = machine.active_run {
        return Err(EngineError::Refused {
            refusal: Refusal::RunActive,
            subject: format!("runs/{run_id}"),
            message: format!(
                "the phase of machine {} cannot be set while run {run_id} is active",
                machine.id
            ),
            hint: format!("wait for run {run_id}, or cancel it"),
        });
    }
    disks_allow(machine, to, changes.force, &origin.reason)?;
    let from = machine.phase;
    machine.phase = from.moved_to(to).map_err(|illegal| EngineError::Refused {
        refusal: Refusal::IllegalPhase,
        subject: format!("machines/{}", machine.id),
        message: illegal.to_string(),
        hint: String::new(),
    })?;
    if from != to {
        entries.push(
            Entry::new(EntryKind::PhaseChanged, origin.actor.clone())
                .moved(from.as_str(), to.as_str())
                .reason(&origin.reason)
                .message(format!("phase {from} -> {to} by {}", origin.actor.name)),
        );
    }
    Ok(())
}

/// What was compared with the hardware, or the hardware itself, is another now. That it matched says nothing any more; a
/// difference stays until a look at the hardware shows that there is none.
fn compare_again(
    before: &MachineSpec,
    machine: &mut Machine,
    origin: &Origin,
    entries: &mut Vec<Entry>,
) {
    let kind = ConditionKind::HardwareMatches;
    let spec = &machine.spec;
    let is_as_before = spec.serial == before.serial
        && spec.mac_addresses == before.mac_addresses
        && spec.provider == before.provider
        && spec.bmc_endpoint == before.bmc_endpoint
        && spec.bmc_system_id == before.bmc_system_id;
    if is_as_before || !machine.conditions.is_true(kind) {
        return;
    }
    let entry = Entry::new(EntryKind::ConditionChanged, origin.actor.clone());
    let message = format!("{} is unknown: not compared since the change", kind.as_str());
    entries.push(entry.moved("true", "unknown").reason("MACHINE_CHANGED").message(message));
    machine.conditions.unset(kind);
}

/// Most labels whose new values the history names for one change; a change of more says how many there were.
const LABELS_NAMED_MAX: usize = 8;

/// Most MAC addresses of one list that the history names.
const MACS_NAMED_MAX: usize = 4;

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Which labels and fields differ, for the history: labels with their new values, fields of the spec with both.
fn what_changed(before: &Machine, after: &Machine) -> String {
    let set = after
        .labels
        .iter()
        .filter(|(key, value)| before.labels.get(*key) != Some(*value))
        .map(|(key, value)| format!("{key}={value}"));
    let removed = before
        .labels
        .keys()
        .filter(|key| !after.labels.contains_key(*key))
        .map(|key| format!("{key} removed"));
    let mut labels: Vec<String> = set.chain(removed).collect();
    if labels.len() > LABELS_NAMED_MAX {
        let more = labels.len() - LABELS_NAMED_MAX;
        labels.truncate(LABELS_NAMED_MAX);
        labels.push(format!("{more} more"));
    }
    let old = &before.spec;
    // Taken apart, so that a new field is not forgotten here.
    let MachineSpec {
        provider,
        ssh_endpoint,
        bmc_endpoint,
        target_cluster,
        mac_addresses,
        serial,
        bmc_system_id,
        bmc_credentials,
        bmc_certificate_sha256,
    } = &after.spec;
    let macs = |macs: &[String]| {
        let more = macs.len().saturating_sub(MACS_NAMED_MAX);
        let named = macs[..macs.len() - more].join(" ");
        if more > 0 { format!("{named} and {more} more") } else { named }
    };
    let (old_macs, macs) = (macs(&old.mac_addresses), macs(mac_addresses));
    let fields: Vec<String> = [
        ("provider", &old.provider, provider),
        ("mac_addresses", &old_macs, &macs),
        ("ssh_endpoint", &old.ssh_endpoint, ssh_endpoint),
        ("bmc_endpoint", &old.bmc_endpoint, bmc_endpoint),
        ("target_cluster", &old.target_cluster, target_cluster),
        ("serial", &old.serial, serial),
        ("bmc_system_id", &old.bmc_system_id, bmc_system_id),
        ("bmc_credentials", &old.bmc_credentials, bmc_credentials),
        ("bmc_certificate_sha256", &old.bmc_certificate_sha256, bmc_certificate_sha256),
    ]
    .into_iter()
    .filter(|(name, old_value, new)| {
        // Lists that differ only beyond what is named differ, too.
        old_value != new || (*name == "mac_addresses" && old.mac_addresses != *mac_addresses)
    })
    .map(|(name, old, new)| format!("{name} {} -> {}", or_none(old), or_none(new)))
    .collect();
    let mut parts = Vec::new();
    if !labels.is_empty() {
        parts.push(format!("labels changed: {}", labels.join(", ")));
    }
    if !fields.is_empty() {
        parts.push(format!("spec changed: {}", fields.join(", ")));
    }
    parts.join("; ")
}

/// Fields that calls depend on cannot change while a run is active: a call must not reach a controller that was never
/// fenced.
fn spec_is_free(machine: &Machine, changes: &MachineChanges) -> Result<(), EngineError> {
    let Some(run_id) = machine.active_run else { return Ok(()) };
    let spec = &machine.spec;
    let moves = |new: &Option<String>, old: &String| new.as_ref().is_some_and(|new| new != old);
    let macs = changes.mac_addresses.as_ref().is_some_and(|new| *new != spec.mac_addresses);
    let moved = [
        ("spec.provider", moves(&changes.provider, &spec.provider)),
        ("spec.bmc_endpoint", moves(&changes.bmc_endpoint, &spec.bmc_endpoint)),
        ("spec.bmc_system_id", moves(&changes.bmc_system_id, &spec.bmc_system_id)),
        ("spec.bmc_credentials", moves(&changes.bmc_credentials, &spec.bmc_credentials)),
        (
            "spec.bmc_certificate_sha256",
            moves(&changes.bmc_certificate_sha256, &spec.bmc_certificate_sha256),
        ),
        ("spec.ssh_endpoint", moves(&changes.ssh_endpoint, &spec.ssh_endpoint)),
        ("spec.mac_addresses", macs),
    ];
    let Some((field, _)) = moved.into_iter().find(|(_, moves)| *moves) else { return Ok(()) };
    Err(EngineError::Refused {
        refusal: Refusal::RunActive,
        subject: format!("runs/{run_id}"),
        message: format!(
            "{field} of machine {} cannot be changed while run {run_id} is active",
            machine.id
        ),
        hint: format!("wait for run {run_id}, or cancel it"),
    })
}

/// Another provider is another driver: the operator says why, and nothing that the present one was asked to do may still
/// be in progress, since only the new one will be fenced.
fn provider_is_free(machine: &Machine, reason: &str) -> Result<(), EngineError> {
    if reason.trim().is_empty() {
        return Err(EngineError::invalid("reason", "say why the machine gets another provider"));
    }
    let Some(block) = machine.blocked_by() else { return Ok(()) };
    Err(EngineError::Refused {
        refusal: Refusal::InterventionNeeded,
        subject: format!("machines/{}", machine.id),
        message: format!(
            "spec.provider of machine {} cannot be changed while it is blocked, {}: {}",
            machine.id, block.reason, block.message
        ),
        hint: admission::cleared_by(&machine.id),
    })
}

/// A phase that returns the machine to use is refused while its disks are not trusted.
fn disks_allow(machine: &Machine, to: Phase, force: bool, reason: &str) -> Result<(), EngineError> {
    let offers = match to {
        Phase::FactoryReady | Phase::Ready | Phase::InService => true,
        Phase::Maintenance | Phase::Rma | Phase::Retired => false,
    };
    let Some(disks) = machine.untrusted_disks.as_ref().filter(|_| offers && to != machine.phase)
    else {
        return Ok(());
    };
    if force && reason.trim().is_empty() {
        let why = "say why the machine can be used although its disks are not trusted";
        return Err(EngineError::invalid("reason", why));
    }
    if force {
        return Ok(());
    }
    Err(EngineError::Refused {
        refusal: Refusal::DisksUntrusted,
        subject: format!("machines/{}", machine.id),
        message: format!(
            "machine {} cannot be set to {to}: step {} of {} destroys data and did not succeed in run {}",
            machine.id, disks.step, disks.plan_id, disks.run_id
        ),
        hint: format!(
            "run {} successfully, or look at the machine and trust them again with machine clear-intervention {} --reason \"what you found\", or use `force` with a reason",
            disks.plan_id, machine.id
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::MachineId;

    #[test]
    fn history_names_labels_and_fields() {
        let id = MachineId::parse("machine-1").unwrap();
        let labels = [("rack", "r1"), ("old", "1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let before = Machine::registered(id, labels, MachineSpec::default(), Timestamp(1));
        let mut after = before.clone();
        after.labels.insert("rack".to_owned(), "r2".to_owned());
        after.labels.remove("old");
        assert_eq!(what_changed(&before, &after), "labels changed: rack=r2, old removed");
        after.spec.serial = "S1".to_owned();
        after.spec.ssh_endpoint = "h:22".to_owned();
        after.labels.clone_from(&before.labels);
        assert_eq!(
            what_changed(&before, &after),
            "spec changed: ssh_endpoint none -> h:22, serial none -> S1"
        );
        let macs = |count: usize| (0..count).map(|n| format!("02:00:00:00:00:{n:02}")).collect();
        let mut more = after.clone();
        more.spec = MachineSpec { mac_addresses: macs(5), ..before.spec.clone() };
        let mut most = more.clone();
        most.spec.mac_addresses = macs(6);
        let text = what_changed(&more, &most);
        assert!(text.ends_with(":03 and 2 more") && text.contains("and 1 more -> 02"), "{text}");
        after.labels = BTreeMap::new();
        for number in 0..20 {
            after.labels.insert(format!("k{number:02}"), "v".to_owned());
        }
        let text = what_changed(&before, &after);
        assert!(text.contains("k07=v, 14 more; spec changed"), "{text}");
    }
}
