//! The machines in a file.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::super::error::Error;
use super::super::super::output::sanitized;
use super::super::super::session::Session;

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One document: one machine or several.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Document {
    machines: Option<Vec<Document>>,
    next_page_token: Option<IgnoredAny>,
    #[serde(alias = "machine_id")]
    machine_id: Option<String>,
    labels: BTreeMap<String, Option<String>>,
    spec: Spec,
    status: Option<IgnoredAny>,
    #[serde(alias = "created_at")]
    created_at: Option<IgnoredAny>,
    #[serde(alias = "updated_at")]
    updated_at: Option<IgnoredAny>,
    etag: Option<IgnoredAny>,
    revision: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Spec {
    pub(super) provider: Option<String>,
    #[serde(alias = "mac_addresses")]
    pub(super) mac_addresses: Option<Vec<String>>,
    #[serde(alias = "ssh_endpoint")]
    pub(super) ssh_endpoint: Option<String>,
    #[serde(alias = "bmc_endpoint")]
    pub(super) bmc_endpoint: Option<String>,
    #[serde(alias = "target_cluster")]
    pub(super) target_cluster: Option<String>,
    pub(super) serial: Option<String>,
    #[serde(alias = "bmc_system_id")]
    pub(super) bmc_system_id: Option<String>,
    #[serde(alias = "bmc_credentials")]
    pub(super) bmc_credentials: Option<String>,
    #[serde(alias = "bmc_certificate_sha256")]
    pub(super) bmc_certificate_sha256: Option<String>,
}

/// A machine as the file describes it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) machine_id: String,
    pub(super) labels: BTreeMap<String, Option<String>>,
    pub(super) spec: Spec,
}

/// The text of a file, or of standard input. A path that is not a regular file, or a file that is too large, is
/// refused before it is read.
pub(super) fn read(session: &mut Session, file: &str) -> Result<String, Error> {
    let failed = |source: std::io::Error| {
        Error::usage(
            format!("cannot read {file}: {source}"),
            "give a file of YAML or JSON (UTF-8), or - for standard input",
        )
    };
    let too_large = || {
        Error::usage(
            format!("{file} is larger than {} MiB", FILE_BYTES_MAX / 1024 / 1024),
            "apply it in several parts",
        )
    };
    let mut text = String::new();
    if file == "-" {
        let mut input = session.ui.take_input().take(FILE_BYTES_MAX + 1);
        input.read_to_string(&mut text).map_err(failed)?;
    } else {
        // A pipe or a device may never end.
        let about = std::fs::metadata(file).map_err(failed)?;
        if !about.is_file() {
            return Err(Error::usage(
                format!("{file} is {}, not a regular file", kind(&about)),
                "give a file, or - for standard input",
            ));
        }
        if about.len() > FILE_BYTES_MAX {
            return Err(too_large());
        }
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    }
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large());
    }
    Ok(text)
}

/// What is there instead of a file.
fn kind(about: &std::fs::Metadata) -> &'static str {
    if about.is_dir() { "a directory" } else { "a pipe or a device" }
}

/// The machines of all documents; each may appear once.
pub(super) fn machines_of(text: &str) -> Result<Vec<Wanted>, Error> {
    let first = text.lines().next().unwrap_or_default();
    // TOML begins like a list, too.
    let list = text.trim_start().strip_prefix('[').map(str::trim_start);
    if list.is_some_and(|list| list.starts_with(['{', ']', '"'])) {
        return Err(Error::usage(
            "the file is a list",
            "give the list a name, as `list -o json` prints it: {\"machines\": [...]}",
        ));
    }
    if first.contains(',') && !first.contains([':', '{']) {
        return Err(Error::usage(
            "the file is CSV, which cannot be applied",
            "give YAML or JSON, as `list -o yaml` prints it",
        ));
    }
    let documents: Vec<Document> = serde_saphyr::from_multiple(text).map_err(|error| {
        // The lines after the first repeat the position in the file, which the first one names.
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let message = format!("the file cannot be read: {}", first.trim_start_matches("error: "))
            .replace("expected mapping start", "expected keys such as machineId");
        Error::usage(message, "machines are as `list -o yaml` prints them; see --help")
    })?;
    let mut machines: Vec<Wanted> = Vec::new();
    let each = documents.into_iter().flat_map(|mut document| match document.machines.take() {
        Some(machines) => machines,
        None => vec![document],
    });
    for (place, document) in each.enumerate() {
        let Some(machine_id) = document.machine_id else {
            return Err(Error::usage(
                format!("machine {} of the file has no machineId", place + 1),
                "give each machine its id",
            ));
        };
        if machines.iter().any(|machine| machine.machine_id == machine_id) {
            return Err(Error::usage(
                format!("machine {} is in the file twice", sanitized(&machine_id)),
                "list each machine once",
            ));
        }
        machines.push(Wanted { machine_id, labels: document.labels, spec: document.spec });
    }
    if machines.is_empty() {
        return Err(Error::usage(
            "the file has no machines",
            "see: bmdemo-cli machine apply --help",
        ));
    }
    Ok(machines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_machines_is_named() {
        let says = |text: &str| machines_of(text).unwrap_err().to_string();
        assert_eq!(says("[{\"machineId\": \"node-1\"}]"), "the file is a list");
        assert!(says("machine_id,phase\nnode-1,READY\n").contains("CSV"));
    }

    #[test]
    fn yaml_and_json_with_one_machine_or_many() {
        let yaml = "machineId: node-7\nlabels: {rack: 1, gpu: yes, old: null}\nspec:\n  serial: 0123\n---\nmachines:\n- machine_id: node-8\n  revision: \"7\"\n  status: {phase: PHASE_READY}\n";
        let machines = machines_of(yaml).unwrap();
        assert_eq!(machines.len(), 2);
        assert_eq!(machines[0].labels["rack"].as_deref(), Some("1"));
        assert_eq!(machines[0].labels["gpu"].as_deref(), Some("yes"));
        assert_eq!(machines[0].labels["old"], None);
        assert_eq!(machines[0].spec.serial.as_deref(), Some("0123"));
        assert_eq!(machines[1].machine_id, "node-8");
        let json = "{\n\t\"machines\": [{\"machineId\": \"a\"}, {\"machineId\": \"b\"}]\n}";
        assert_eq!(machines_of(json).unwrap().len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("", "the file has no machines"),
            ("labels: {a: b}", "machine 1 of the file has no machineId"),
            ("machineId: a\n---\nmachineId: a", "machine a is in the file twice"),
            ("machineId: a\nspec: {bmc: x}", "bmc"),
            ("machineId: [a", ""),
            ("- machineId: a", ""),
        ] {
            let error = machines_of(text).unwrap_err();
            assert_eq!(error.code(), 2, "{text}");
            assert!(error.to_string().contains(message), "{text}: {error}");
        }
    }
}
