//! Stored form of machines.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::format::{
    DecodeError, FORMAT, Text, check_format, from_json, is_default, known, to_json,
};
use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, Revision, RunId};
use crate::lifecycle::machine::Phase;
use crate::model::{
    Condition, ConditionKind, Conditions, Machine, MachineSpec, RunType, UntrustedDisks,
};

#[derive(Serialize, Deserialize)]
struct MachineBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    id: &'a str,
    #[serde(default, skip_serializing_if = "is_default")]
    labels: Cow<'a, BTreeMap<String, String>>,
    provider: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    ssh: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    bmc: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    cluster: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    macs: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "is_default")]
    serial: Text<'a>,
    #[serde(default, rename = "sys", skip_serializing_if = "is_default")]
    system: Text<'a>,
    #[serde(default, rename = "cred", skip_serializing_if = "is_default")]
    credentials: Text<'a>,
    #[serde(default, rename = "cert", skip_serializing_if = "is_default")]
    certificate: Text<'a>,
    phase: &'a str,
    #[serde(default, rename = "conds", borrow, skip_serializing_if = "is_default")]
    conditions: Vec<ConditionBody<'a>>,
    #[serde(default, rename = "run", skip_serializing_if = "is_default")]
    active_run: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    epoch: u64,
    #[serde(default, rename = "destr", skip_serializing_if = "is_default")]
    destructive_at: Vec<u64>,
    #[serde(default, rename = "disks", borrow, skip_serializing_if = "is_default")]
    untrusted_disks: Option<UntrustedBody<'a>>,
    created: u64,
    updated: u64,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct UntrustedBody<'a> {
    run: String,
    #[serde(rename = "type")]
    run_type: &'a str,
    plan: Text<'a>,
    step: Text<'a>,
    at: u64,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct ConditionBody<'a> {
    kind: &'a str,
    on: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    reason: Text<'a>,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    at: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    by: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    plan: Text<'a>,
}

/// The stored form of a machine, without ordinal and revision.
pub(crate) fn encode_machine(machine: &Machine) -> String {
    let spec = &machine.spec;
    to_json(&MachineBody {
        format: FORMAT,
        id: machine.id.as_str(),
        labels: Cow::Borrowed(&machine.labels),
        provider: Cow::Borrowed(&spec.provider),
        ssh: Cow::Borrowed(&spec.ssh_endpoint),
        bmc: Cow::Borrowed(&spec.bmc_endpoint),
        cluster: Cow::Borrowed(&spec.target_cluster),
        macs: Cow::Borrowed(&spec.mac_addresses),
        serial: Cow::Borrowed(&spec.serial),
        system: Cow::Borrowed(&spec.bmc_system_id),
        credentials: Cow::Borrowed(&spec.bmc_credentials),
        certificate: Cow::Borrowed(&spec.bmc_certificate_sha256),
        phase: machine.phase.as_str(),
        conditions: machine
            .conditions
            .iter()
            .map(|(kind, condition)| ConditionBody {
                kind: kind.as_str(),
                on: condition.status,
                reason: Cow::Borrowed(&condition.reason),
                message: Cow::Borrowed(&condition.message),
                at: condition.last_transition_at.0,
                by: Cow::Borrowed(&condition.observed_by),
                plan: Cow::Borrowed(&condition.plan_id),
            })
            .collect(),
        active_run: machine.active_run.map(|run| run.to_string()),
        epoch: machine.epoch.0,
        destructive_at: machine.destructive_at.iter().map(|at| at.0).collect(),
        untrusted_disks: machine.untrusted_disks.as_ref().map(|disks| UntrustedBody {
            run: disks.run_id.to_string(),
            run_type: disks.run_type.as_str(),
            plan: Cow::Borrowed(&disks.plan_id),
            step: Cow::Borrowed(&disks.step),
            at: disks.at.0,
        }),
        created: machine.created_at.0,
        updated: machine.updated_at.0,
    })
}

/// Decodes a machine from its stored form.
pub(crate) fn decode_machine(
    text: &str,
    ordinal: u64,
    revision: Revision,
) -> Result<Machine, DecodeError> {
    let body: MachineBody<'_> = from_json(text)?;
    check_format(body.format)?;
    let mut conditions = Conditions::default();
    for condition in body.conditions {
        let kind = known("condition", condition.kind, ConditionKind::parse(condition.kind))?;
        conditions.set(
            kind,
            Condition {
                status: condition.on,
                reason: condition.reason.into_owned(),
                message: condition.message.into_owned(),
                last_transition_at: Timestamp(condition.at),
                observed_by: condition.by.into_owned(),
                plan_id: condition.plan.into_owned(),
            },
        );
    }
    Ok(Machine {
        id: machine_id(body.id)?,
        labels: body.labels.into_owned(),
        spec: MachineSpec {
            provider: body.provider.into_owned(),
            ssh_endpoint: body.ssh.into_owned(),
            bmc_endpoint: body.bmc.into_owned(),
            target_cluster: body.cluster.into_owned(),
            mac_addresses: body.macs.into_owned(),
            serial: body.serial.into_owned(),
            bmc_system_id: body.system.into_owned(),
            bmc_credentials: body.credentials.into_owned(),
            bmc_certificate_sha256: body.certificate.into_owned(),
        },
        phase: known("phase", body.phase, Phase::parse(body.phase))?,
        conditions,
        active_run: body.active_run.as_deref().map(run_id).transpose()?,
        epoch: Epoch(body.epoch),
        destructive_at: body.destructive_at.into_iter().map(Timestamp).collect(),
        untrusted_disks: body.untrusted_disks.map(UntrustedBody::decode).transpose()?,
        created_at: Timestamp(body.created),
        updated_at: Timestamp(body.updated),
        ordinal,
        revision,
    })
}

impl UntrustedBody<'_> {
    fn decode(self) -> Result<UntrustedDisks, DecodeError> {
        Ok(UntrustedDisks {
            run_id: run_id(&self.run)?,
            run_type: known("run type", self.run_type, RunType::parse(self.run_type))?,
            plan_id: self.plan.into_owned(),
            step: self.step.into_owned(),
            at: Timestamp(self.at),
        })
    }
}

pub(super) fn machine_id(text: &str) -> Result<MachineId, DecodeError> {
    MachineId::parse(text)
        .map_err(|error| DecodeError::Invalid(format!("machine id {text:?} {error}")))
}

pub(super) fn run_id(text: &str) -> Result<RunId, DecodeError> {
    RunId::parse(text).map_err(|error| DecodeError::Invalid(format!("run id {text:?} {error}")))
}
