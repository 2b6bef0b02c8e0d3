//! `machine register` and `machine update`

use clap::Args;

use crate::pb;

use super::super::client::Client;
use super::super::error::{About, Error, Exit};
use super::super::flags::{OutputArgs, by_key, parse_pair};
use super::super::output::sanitized;
use super::super::session::Session;
use super::show;

/// Fields of a machine that clients set.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpecArgs {
    /// Address of the baseboard management controller
    #[arg(long, value_name = "URL")]
    bmc: Option<String>,
    /// Id of the machine's system at its controller
    #[arg(long = "bmc-system", value_name = "ID")]
    system: Option<String>,
    /// Name of the controller's credentials on the server
    #[arg(long, value_name = "NAME")]
    credentials: Option<String>,
    /// SHA-256 of the controller's certificate, which is then the only one believed
    #[arg(long = "bmc-certificate", value_name = "SHA256")]
    certificate: Option<String>,
    /// Address for remote commands
    #[arg(long, value_name = "HOST[:PORT]")]
    ssh: Option<String>,
    /// Cluster that the machine is to join
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// MAC address; repeatable
    #[arg(long = "mac", value_name = "ADDRESS")]
    macs: Vec<String>,
    /// Serial number
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
}

/// Register one machine in phase FACTORY_READY, or IN_SERVICE if it already serves. Repeating it changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine register node-7 --provider fake --mac 02:00:00:00:00:07
  bmdemo-cli machine register node-8 --provider fake --bmc https://10.0.0.8 --label rack=r1
  bmdemo-cli machine register node-9 --provider rack-server --bmc https://10.0.0.9 --bmc-system 1 --credentials rack
  bmdemo-cli machine register node-9 --provider fake --in-service --reason \"serves since May\"

A machine registered with --in-service is protected as one in service from its first second.")]
pub(crate) struct RegisterArgs {
    /// Id of the machine
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// Provider that drives it
    #[arg(long, value_name = "NAME", default_value = "fake")]
    provider: String,
    #[command(flatten)]
    spec: SpecArgs,
    /// Label; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// The machine already serves: register it IN_SERVICE and protected; needs --reason
    #[arg(long, requires = "reason")]
    in_service: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Change fields of a machine; fields that are not given stay as they are.
///
/// Provider, BMC, SSH and MAC addresses cannot be changed while a run is active. Everything given is one change, with
/// one entry in the history.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine update node-8 --serial SN-9 --mac 02:00:00:00:00:09 --reason \"board swapped\"
  bmdemo-cli machine update node-8 --provider rack-server --reason \"driven by its BMC from now on\"")]
pub(crate) struct UpdateArgs {
    /// Machine
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// Another provider: a class of machines of the server, or fake; needs --reason
    #[arg(long, value_name = "NAME", requires = "reason")]
    provider: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only if the machine still has this etag
    #[arg(long, value_name = "ETAG", default_value = "")]
    if_etag: String,
    #[command(flatten)]
    output: OutputArgs,
}

impl SpecArgs {
    /// The fields that were given, and their paths for an update mask.
    fn given(&self) -> (pb::MachineSpec, Vec<String>) {
        let mut paths = Vec::new();
        let mut take = |value: &Option<String>, path: &str| {
            if value.is_some() {
                paths.push(format!("spec.{path}"));
            }
            value.clone().unwrap_or_default()
        };
        let mut spec = pb::MachineSpec {
            provider: String::new(),
            bmc_endpoint: take(&self.bmc, "bmc_endpoint"),
            ssh_endpoint: take(&self.ssh, "ssh_endpoint"),
            target_cluster: take(&self.cluster, "target_cluster"),
            serial: take(&self.serial, "serial"),
            bmc_system_id: take(&self.system, "bmc_system_id"),
            bmc_credentials: take(&self.credentials, "bmc_credentials"),
            bmc_certificate_sha256: take(&self.certificate, "bmc_certificate_sha256"),
            mac_addresses: Vec::new(),
        };
        if !self.macs.is_empty() {
            paths.push("spec.mac_addresses".to_owned());
            spec.mac_addresses = self.macs.iter().map(|mac| mac.to_ascii_lowercase()).collect();
        }
        (spec, paths)
    }
}

pub(crate) async fn register(session: &mut Session, args: &RegisterArgs) -> Result<Exit, Error> {
    let labels = by_key("--label ", &args.labels)?;
    show::check_columns::<pb::Machine>(&args.output)?;
    let client = session.client().await?;
    let (spec, _) = args.spec.given();
    let wanted = pb::Machine {
        machine_id: args.machine.clone(),
        labels,
        spec: Some(pb::MachineSpec { provider: args.provider.clone(), ..spec }),
        ..pb::Machine::default()
    };
    if args.in_service {
        check_adoption(&client).await?;
    }
    let request = pb::RegisterMachineRequest {
        machine: Some(wanted.clone()),
        request_id: client.new_request_id(),
        in_service: args.in_service,
        reason: args.reason.clone().unwrap_or_default(),
    };
    let machine = client.register_machine(request).await?;
    let untaken = untaken(&wanted, &machine);
    if !untaken.is_empty() {
        session.ui.note(&format!(
            "{} is already registered and unchanged; ignored: {}. Change it with machine update or machine label.",
            sanitized(&machine.machine_id),
            untaken.join(", ")
        ));
    }
    show::machine(session, &machine, &args.output)
}

/// Feature of a server that registers machines in service.
const ADOPTION: &str = "machines.in_service";

/// Refuses to adopt machines on a server that would register them as free ones, because it does not know the flag.
pub(crate) async fn check_adoption(client: &Client) -> Result<(), Error> {
    if client.has_feature(ADOPTION).await? {
        return Ok(());
    }
    Err(Error::local(
        "the server is too old for --in-service: it would register the machine as one that is free",
        "update the server; nothing was changed",
    ))
}

/// What a machine that was already registered ignored of the request.
pub(crate) fn untaken(sent: &pb::Machine, known: &pb::Machine) -> Vec<String> {
    let none = pb::MachineSpec::default();
    let (wanted, has) = (sent.spec.as_ref().unwrap_or(&none), known.spec.as_ref().unwrap_or(&none));
    let mut untaken = Vec::new();
    for (field, wanted, has) in [
        ("bmc_endpoint", &wanted.bmc_endpoint, &has.bmc_endpoint),
        ("ssh_endpoint", &wanted.ssh_endpoint, &has.ssh_endpoint),
        ("target_cluster", &wanted.target_cluster, &has.target_cluster),
        ("serial", &wanted.serial, &has.serial),
        ("bmc_system_id", &wanted.bmc_system_id, &has.bmc_system_id),
        ("bmc_credentials", &wanted.bmc_credentials, &has.bmc_credentials),
    ] {
        if !wanted.is_empty() && wanted != has {
            untaken.push(format!("{field} {wanted:?} (it has {has:?})"));
        }
    }
    for (key, value) in &sent.labels {
        match known.labels.get(key) {
            Some(has) if has == value => {}
            Some(has) => untaken.push(format!("label {key}={value} (it has {key}={has})")),
            None => untaken.push(format!("label {key}={value} (it has none)")),
        }
    }
    untaken.into_iter().map(|text| sanitized(&text).into_owned()).collect()
}

pub(crate) async fn update(session: &mut Session, args: &UpdateArgs) -> Result<Exit, Error> {
    show::check_columns::<pb::Machine>(&args.output)?;
    let (mut spec, mut paths) = args.spec.given();
    if let Some(provider) = &args.provider {
        spec.provider.clone_from(provider);
        paths.push("spec.provider".to_owned());
    }
    if paths.is_empty() {
        return Err(Error::usage(
            "nothing to change",
            "give a field, for example --bmc https://10.0.0.9",
        ));
    }
    let machine = pb::Machine {
        machine_id: args.machine.clone(),
        spec: Some(spec),
        etag: args.if_etag.clone(),
        ..pb::Machine::default()
    };
    let machine = write(session, machine, paths, &args.reason).await?;
    show::machine(session, &machine, &args.output)
}

async fn write(
    session: &mut Session,
    machine: pb::Machine,
    paths: Vec<String>,
    reason: &str,
) -> Result<pb::Machine, Error> {
    let client = session.client().await?;
    let about = About::Machine(machine.machine_id.clone());
    let request = pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths }),
        request_id: client.new_request_id(),
        reason: reason.to_owned(),
        force: false,
        validate_only: false,
    };
    client.update_machine(request).await.map_err(|error| error.about(about))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_known_machine_did_not_take_is_named() {
        let machine = |bmc: &str, labels: &[(&str, &str)]| pb::Machine {
            machine_id: "node-7".to_owned(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            spec: Some(pb::MachineSpec { bmc_endpoint: bmc.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let known = machine("https://10.0.0.1", &[("rack", "r1"), ("gpu", "yes")]);
        assert!(untaken(&known, &known).is_empty());
        assert!(untaken(&machine("", &[]), &known).is_empty());
        assert_eq!(
            untaken(&machine("https://10.0.0.2", &[("rack", "r2"), ("row", "\u{202e}")]), &known),
            [
                "bmc_endpoint \"https://10.0.0.2\" (it has \"https://10.0.0.1\")",
                "label rack=r2 (it has rack=r1)",
                "label row=\\u{202e} (it has none)",
            ]
        );
    }
}
