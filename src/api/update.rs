//! Validation of `UpdateMachine`: the paths that its mask may name.

use super::convert::machine::phase_given;
use super::status::ApiError;
use super::validate::{Checks, SPEC_TEXT_CHARS_MAX};
use crate::executor::request::MachineChanges;
use crate::ids::{MachineId, Revision};
use crate::pb;

/// Paths that a mask may name, for people.
const KNOWN: &str = "labels, labels.<key>, spec.provider, spec.ssh_endpoint, spec.bmc_endpoint, \
                     spec.target_cluster, spec.mac_addresses, spec.serial, spec.bmc_system_id, \
                     spec.bmc_credentials, spec.bmc_certificate_sha256, status.phase";

/// A checked request.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) id: MachineId,
    pub(super) changes: MachineChanges,
    pub(super) expected: Option<Revision>,
}

/// Checks a request.
pub(super) fn update(request: &pb::UpdateMachineRequest) -> Result<Update, ApiError> {
    let mut checks = Checks::default();
    let empty = pb::Machine::default();
    if request.machine.is_none() {
        checks.refuse("machine", "must be given");
    }
    let machine = request.machine.as_ref().unwrap_or(&empty);
    let id = request
        .machine
        .as_ref()
        .and_then(|machine| checks.machine_id("machine.machine_id", &machine.machine_id));
    checks.request_id(&request.request_id);
    checks.reason(&request.reason);
    // Even where it overrides nothing: it is audited, and what it was for must be in the audit.
    if request.force && request.reason.trim().is_empty() {
        checks.refuse("reason", "say why: force needs a reason");
    }
    let expected = checks.etag("machine.etag", &machine.etag);
    let mut changes = MachineChanges { force: request.force, ..MachineChanges::default() };
    match request.update_mask.as_ref().map(|mask| &mask.paths) {
        Some(paths) if !paths.is_empty() => {
            for path in paths {
                apply(&mut checks, &mut changes, machine, path);
            }
        }
        Some(_) | None => {
            changes.as_it_was = true;
            for path in populated(machine) {
                apply(&mut checks, &mut changes, machine, path);
            }
        }
    }
    let id = checks.done(id)?;
    Ok(Update { id, changes, expected })
}

/// The meaning of a request without a mask (AIP-134): every populated field. A client that reads a machine and sends
/// it back populates many fields that only the server sets: those are ignored.
fn populated(machine: &pb::Machine) -> impl Iterator<Item = &'static str> {
    let none = pb::MachineSpec::default();
    let spec = machine.spec.as_ref().unwrap_or(&none);
    [
        ("labels", !machine.labels.is_empty()),
        ("spec.provider", !spec.provider.is_empty()),
        ("spec.ssh_endpoint", !spec.ssh_endpoint.is_empty()),
        ("spec.bmc_endpoint", !spec.bmc_endpoint.is_empty()),
        ("spec.target_cluster", !spec.target_cluster.is_empty()),
        ("spec.mac_addresses", !spec.mac_addresses.is_empty()),
        ("spec.serial", !spec.serial.is_empty()),
        ("spec.bmc_system_id", !spec.bmc_system_id.is_empty()),
        ("spec.bmc_credentials", !spec.bmc_credentials.is_empty()),
        ("spec.bmc_certificate_sha256", !spec.bmc_certificate_sha256.is_empty()),
        ("status.phase", machine.status.as_ref().is_some_and(|status| status.phase != 0)),
    ]
    .into_iter()
    .filter_map(|(path, given)| given.then_some(path))
}

fn apply(checks: &mut Checks, changes: &mut MachineChanges, machine: &pb::Machine, path: &str) {
    let none = pb::MachineSpec::default();
    let spec = machine.spec.as_ref().unwrap_or(&none);
    let mut line = |field: &str, text: &str| {
        checks.line(field, text, SPEC_TEXT_CHARS_MAX);
        Some(text.to_owned())
    };
    match path {
        "labels" => {
            checks.labels("machine.labels", &machine.labels);
            changes.labels = Some(machine.labels.clone());
        }
        "spec.provider" => {
            checks.name("machine.spec.provider", &spec.provider);
            changes.provider = Some(spec.provider.clone());
        }
        "spec.ssh_endpoint" => {
            checks.ssh_endpoint("machine.spec.ssh_endpoint", &spec.ssh_endpoint);
            changes.ssh_endpoint = Some(spec.ssh_endpoint.clone());
        }
        "spec.bmc_endpoint" => {
            checks.bmc_endpoint("machine.spec.bmc_endpoint", &spec.bmc_endpoint);
            changes.bmc_endpoint = Some(spec.bmc_endpoint.clone());
        }
        "spec.target_cluster" => {
            changes.target_cluster = line("machine.spec.target_cluster", &spec.target_cluster);
        }
        "spec.serial" => changes.serial = line("machine.spec.serial", &spec.serial),
        "spec.bmc_system_id" => {
            checks.bmc_system_id("machine.spec.bmc_system_id", &spec.bmc_system_id);
            changes.bmc_system_id = Some(spec.bmc_system_id.clone());
        }
        "spec.bmc_credentials" => {
            checks.bmc_credentials("machine.spec.bmc_credentials", &spec.bmc_credentials);
            changes.bmc_credentials = Some(spec.bmc_credentials.clone());
        }
        "spec.bmc_certificate_sha256" => {
            let field = "machine.spec.bmc_certificate_sha256";
            changes.bmc_certificate_sha256 =
                Some(checks.bmc_certificate(field, &spec.bmc_certificate_sha256));
        }
        "spec.mac_addresses" => {
            let macs = checks.macs("machine.spec.mac_addresses", &spec.mac_addresses);
            changes.mac_addresses = Some(macs);
        }
        "status.phase" => {
            let phase = machine.status.as_ref().map_or(0, |status| status.phase);
            changes.phase = checks.given("machine.status.phase", phase).and_then(phase_given);
        }
        _ => match path.strip_prefix("labels.") {
            Some(key) => {
                let value = machine.labels.get(key);
                let field = format!("machine.labels.{key}");
                checks.label(&field, key, value.map(String::as_str));
                changes.label_edits.insert(key.to_owned(), value.cloned());
            }
            None => checks.refuse("update_mask", refusal(path)),
        },
    }
}

fn refusal(path: &str) -> String {
    match path {
        "*" => format!(
            "* is refused because it would overwrite fields that you have not seen: name fields from {KNOWN}"
        ),
        "machine_id" => "machine_id cannot be changed: register another machine".to_owned(),
        "status" | "created_at" | "updated_at" | "etag" | "revision" => {
            format!("{path} is set by the server; in status only status.phase can be changed")
        }
        _ if path.starts_with("status.") => {
            format!("{path} is set by the server; in status only status.phase can be changed")
        }
        _ => format!("{path:?} is not a field that can be changed: name fields from {KNOWN}"),
    }
}
