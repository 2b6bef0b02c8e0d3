//! What a file would change.

use crate::pb;

use super::file::Wanted;

/// What to do with a machine.
#[derive(Debug)]
pub(super) enum Change {
    Register(pb::Machine),
    Update(pb::Machine, Vec<String>),
    Nothing,
}

/// What to do with a machine, and its differences in words.
pub(super) fn change(wanted: &Wanted, known: Option<&pb::Machine>) -> (Change, Vec<String>) {
    let spec = &wanted.spec;
    let Some(known) = known else {
        let set = |value: &Option<String>| value.clone().unwrap_or_default();
        let labels = wanted.labels.iter();
        let machine = pb::Machine {
            machine_id: wanted.machine_id.clone(),
            labels: labels.filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect(),
            spec: Some(pb::MachineSpec {
                provider: spec.provider.clone().unwrap_or_else(|| "fake".to_owned()),
                mac_addresses: spec.mac_addresses.clone().unwrap_or_default(),
                ssh_endpoint: set(&spec.ssh_endpoint),
                bmc_endpoint: set(&spec.bmc_endpoint),
                target_cluster: set(&spec.target_cluster),
                serial: set(&spec.serial),
                bmc_system_id: set(&spec.bmc_system_id),
                bmc_credentials: set(&spec.bmc_credentials),
                bmc_certificate_sha256: set(&spec.bmc_certificate_sha256),
            }),
            ..pb::Machine::default()
        };
        let words = words_of_new(wanted);
        return (Change::Register(machine), words);
    };
    let has = known.spec.clone().unwrap_or_default();
    let mut paths = Vec::new();
    let mut words = Vec::new();
    let mut differs = |path: String, before: &str, after: &str| {
        // The file's words, not those of the API.
        let name = match path.strip_prefix("labels.") {
            Some(key) => format!("label {key}"),
            None => in_file(&path).to_owned(),
        };
        words.push(match (before, after) {
            (before, "") => format!("{name} removed (was {before})"),
            ("", after) => format!("{name} set to {after}"),
            (before, after) => format!("{name} from {before} to {after}"),
        });
        paths.push(path);
    };
    let mut machine = pb::Machine {
        machine_id: wanted.machine_id.clone(),
        etag: known.etag.clone(),
        ..pb::Machine::default()
    };
    for (key, value) in &wanted.labels {
        let before = known.labels.get(key);
        if before != value.as_ref() {
            differs(
                format!("labels.{key}"),
                before.map_or("", String::as_str),
                value.as_deref().unwrap_or(""),
            );
            if let Some(value) = value {
                machine.labels.insert(key.clone(), value.clone());
            }
        }
    }
    let mut after = pb::MachineSpec::default();
    for (path, wanted, before, field) in [
        ("provider", &spec.provider, &has.provider, &mut after.provider),
        ("ssh_endpoint", &spec.ssh_endpoint, &has.ssh_endpoint, &mut after.ssh_endpoint),
        ("bmc_endpoint", &spec.bmc_endpoint, &has.bmc_endpoint, &mut after.bmc_endpoint),
        ("target_cluster", &spec.target_cluster, &has.target_cluster, &mut after.target_cluster),
        ("serial", &spec.serial, &has.serial, &mut after.serial),
        ("bmc_system_id", &spec.bmc_system_id, &has.bmc_system_id, &mut after.bmc_system_id),
        (
            "bmc_credentials",
            &spec.bmc_credentials,
            &has.bmc_credentials,
            &mut after.bmc_credentials,
        ),
        (
            "bmc_certificate_sha256",
            &spec.bmc_certificate_sha256,
            &has.bmc_certificate_sha256,
            &mut after.bmc_certificate_sha256,
        ),
    ] {
        if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != before) {
            differs(format!("spec.{path}"), before, wanted);
            field.clone_from(wanted);
        }
    }
    if let Some(macs) = &spec.mac_addresses {
        let macs: Vec<String> = macs.iter().map(|mac| mac.to_ascii_lowercase()).collect();
        if macs != has.mac_addresses {
            differs("spec.mac_addresses".to_owned(), &has.mac_addresses.join(" "), &macs.join(" "));
            after.mac_addresses = macs;
        }
    }
    if paths.is_empty() {
        return (Change::Nothing, words);
    }
    machine.spec = Some(after);
    (Change::Update(machine, paths), words)
}

/// What a new machine is registered with, in words.
fn words_of_new(wanted: &Wanted) -> Vec<String> {
    let spec = &wanted.spec;
    let provider = match &spec.provider {
        Some(provider) => format!("provider {provider}"),
        None => "provider fake, because the file names none".to_owned(),
    };
    let fields = [
        ("sshEndpoint", &spec.ssh_endpoint),
        ("bmcEndpoint", &spec.bmc_endpoint),
        ("targetCluster", &spec.target_cluster),
        ("serial", &spec.serial),
        ("bmcSystemId", &spec.bmc_system_id),
        ("bmcCredentials", &spec.bmc_credentials),
        ("bmcCertificateSha256", &spec.bmc_certificate_sha256),
    ];
    let given =
        fields.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    let macs = spec.mac_addresses.as_ref().map(|macs| format!("macAddresses {}", macs.join(" ")));
    let labels = wanted.labels.iter();
    let labels: Vec<String> =
        labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))).collect();
    let labels = (!labels.is_empty()).then(|| format!("labels {}", labels.join(" ")));
    [provider].into_iter().chain(given).chain(macs).chain(labels).collect()
}

/// How a file spells a field.
fn in_file(path: &str) -> &str {
    match path {
        "spec.ssh_endpoint" => "sshEndpoint",
        "spec.bmc_endpoint" => "bmcEndpoint",
        "spec.target_cluster" => "targetCluster",
        "spec.mac_addresses" => "macAddresses",
        "spec.bmc_system_id" => "bmcSystemId",
        "spec.bmc_credentials" => "bmcCredentials",
        "spec.bmc_certificate_sha256" => "bmcCertificateSha256",
        path => path.trim_start_matches("spec."),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::machines_of;
    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let known = pb::Machine {
            machine_id: "a".to_owned(),
            labels: [("rack", "r1"), ("old", "x"), ("kept", "y")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
            etag: "\"7\"".to_owned(),
            ..Default::default()
        };
        let wanted = |text: &str| machines_of(text).unwrap().remove(0);
        let text = "machineId: a\nlabels: {rack: r2, old: null}\nspec: {provider: fake, bmcEndpoint: https://h}";
        let (Change::Update(machine, paths), words) = change(&wanted(text), Some(&known)) else {
            panic!("it differs")
        };
        assert_eq!(paths, ["labels.old", "labels.rack", "spec.bmc_endpoint"]);
        assert_eq!(machine.etag, "\"7\"");
        assert_eq!(
            words,
            [
                "label old removed (was x)",
                "label rack from r1 to r2",
                "bmcEndpoint set to https://h"
            ]
        );
        let same = "machineId: a\nlabels: {rack: r1, gone: null}";
        assert!(matches!(change(&wanted(same), Some(&known)).0, Change::Nothing));
        assert!(matches!(change(&wanted(same), None).0, Change::Register(_)));
    }
}
