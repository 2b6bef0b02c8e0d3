//! Validation of a machine that a client registers.

use super::validate::{Checks, SPEC_TEXT_CHARS_MAX};
use crate::executor::Engine;
use crate::executor::request::NewMachine;
use crate::model::MachineSpec;
use crate::pb;

/// Checks a machine to register: fields that only the server sets must be absent.
pub(super) fn new_machine(
    engine: &Engine,
    checks: &mut Checks,
    machine: Option<&pb::Machine>,
    in_service: bool,
) -> Option<NewMachine> {
    let Some(machine) = machine else {
        checks.refuse("machine", "must be given");
        return None;
    };
    let id = checks.machine_id("machine.machine_id", &machine.machine_id);
    checks.labels("machine.labels", &machine.labels);
    for (field, given) in [
        ("machine.status", machine.status.is_some()),
        ("machine.created_at", machine.created_at.is_some()),
        ("machine.updated_at", machine.updated_at.is_some()),
        ("machine.etag", !machine.etag.is_empty()),
        ("machine.revision", machine.revision != 0),
    ] {
        if given {
            checks.refuse(field, "is set by the server: leave it out");
        }
    }
    let Some(spec) = &machine.spec else {
        checks.refuse("machine.spec", "must be given");
        return None;
    };
    checks.provider("machine.spec.provider", &spec.provider, engine.providers().keys());
    checks.ssh_endpoint("machine.spec.ssh_endpoint", &spec.ssh_endpoint);
    checks.bmc_endpoint("machine.spec.bmc_endpoint", &spec.bmc_endpoint);
    checks.bmc_system_id("machine.spec.bmc_system_id", &spec.bmc_system_id);
    checks.bmc_credentials("machine.spec.bmc_credentials", &spec.bmc_credentials);
    let certificate = "machine.spec.bmc_certificate_sha256";
    let bmc_certificate_sha256 = checks.bmc_certificate(certificate, &spec.bmc_certificate_sha256);
    for (field, text) in [
        ("machine.spec.target_cluster", &spec.target_cluster),
        ("machine.spec.serial", &spec.serial),
    ] {
        checks.line(field, text, SPEC_TEXT_CHARS_MAX);
    }
    let mac_addresses = checks.macs("machine.spec.mac_addresses", &spec.mac_addresses);
    let spec = MachineSpec {
        provider: spec.provider.clone(),
        ssh_endpoint: spec.ssh_endpoint.clone(),
        bmc_endpoint: spec.bmc_endpoint.clone(),
        target_cluster: spec.target_cluster.clone(),
        mac_addresses,
        serial: spec.serial.clone(),
        bmc_system_id: spec.bmc_system_id.clone(),
        bmc_credentials: spec.bmc_credentials.clone(),
        bmc_certificate_sha256,
    };
    Some(NewMachine { id: id?, labels: machine.labels.clone(), spec, in_service })
}

/// Checks the reason of a registration: a machine that already serves needs one.
pub(super) fn reason(checks: &mut Checks, in_service: bool, reason: &str) {
    if in_service {
        checks.required_reason(reason);
    } else {
        checks.reason(reason);
    }
}
