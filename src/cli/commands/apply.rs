//! `machine apply`

use std::collections::BTreeMap;
use std::io::Read as _;

use clap::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::pb;
use crate::pb::machine_result::Outcome as Registered;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{Meaning, sanitized, wrapped};
use super::super::session::Session;
use super::bulk::{self, BulkFlags, News, Outcome, Work};
use super::confirm::Question;

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Machines of one request.
const BATCH: usize = 500;

/// Register the machines of a file that are new, and change those that are known as the file says.
///
/// The file is YAML or JSON: machines as `list -o yaml` prints them, one a document or many in a list `machines`. Labels
/// and fields that the file does not name stay as they are; a label without a value (`old: null`) is removed. The status,
/// times and etags of the file are ignored.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine apply -f rack-7.yaml --dry-run
  bmdemo-cli machine apply -f rack-7.yaml --reason \"new rack\" --yes
  bmdemo-cli list -l rack=r1 -o yaml | sed s/r1/r2/ | bmdemo-cli machine apply -f - --yes

A file:
  machineId: node-7
  labels: {rack: r1, gpu: \"yes\"}
  spec:
    provider: redfish
    bmcEndpoint: https://10.0.0.7
    macAddresses: [\"02:00:00:00:00:07\"]
  ---
  machineId: node-8
  labels: {rack: r1}")]
pub(crate) struct ApplyArgs {
    /// File to read, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// Show what would change; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    bulk: BulkFlags,
}

/// One document: a machine, or many.
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
struct Spec {
    provider: Option<String>,
    #[serde(alias = "mac_addresses")]
    mac_addresses: Option<Vec<String>>,
    #[serde(alias = "ssh_endpoint")]
    ssh_endpoint: Option<String>,
    #[serde(alias = "bmc_endpoint")]
    bmc_endpoint: Option<String>,
    #[serde(alias = "target_cluster")]
    target_cluster: Option<String>,
    serial: Option<String>,
}

/// A machine as a file wants it.
#[derive(Debug, Clone)]
struct Wanted {
    machine_id: String,
    labels: BTreeMap<String, Option<String>>,
    spec: Spec,
}

/// What has to be done about a machine.
#[derive(Debug)]
enum Change {
    Register(pb::Machine),
    Update(pb::Machine, Vec<String>),
    Nothing,
}

pub(crate) async fn apply(session: &mut Session, args: &ApplyArgs) -> Result<Exit, Error> {
    let text = read(session, &args.file)?;
    let wanted = machines_of(&text)?;
    let client = session.client().await?;
    let known = known(&client, &wanted).await?;
    let look = session.ui.look;
    let mut changes = Vec::new();
    for wanted in &wanted {
        let (change, differences) = change(wanted, known.get(&wanted.machine_id));
        let (sign, meaning) = match change {
            Change::Register(_) => ("+", Meaning::Good),
            Change::Update(..) => ("~", Meaning::Attention),
            Change::Nothing => ("=", Meaning::Dim),
        };
        if args.dry_run || !matches!(change, Change::Nothing) {
            let text = format!("{sign} {}", sanitized(&wanted.machine_id));
            writeln!(session.ui.out(), "{}", look.paint(meaning, &text))?;
            for difference in differences {
                let line = format!("    {}", sanitized(&difference));
                writeln!(session.ui.out(), "{}", wrapped(look, &line, 6))?;
            }
        }
        changes.push((wanted.machine_id.clone(), change));
    }
    session.ui.flush()?;
    let count = |of: fn(&Change) -> bool| changes.iter().filter(|(_, change)| of(change)).count();
    let new = count(|change| matches!(change, Change::Register(_)));
    let differing = count(|change| matches!(change, Change::Update(..)));
    let same = count(|change| matches!(change, Change::Nothing));
    if args.dry_run {
        let text =
            format!("Nothing was changed: {new} new, {differing} to change, {same} as they are.");
        session.ui.note(&text);
        return Ok(Exit::Ok);
    }
    if new + differing == 0 {
        session.ui.note(&format!("Nothing to do: {same} as they are."));
        return Ok(Exit::Ok);
    }
    let due = changes.iter().filter(|(_, change)| !matches!(change, Change::Nothing));
    let question = Question {
        what: format!("Register {new} and change {differing} of"),
        noun: "machine",
        targets: due.map(|(id, _)| sanitized(id).into_owned()).collect(),
        refused: None,
        loss: None,
        always: false,
    };
    question.settle(session, args.bulk.yes)?;
    carry_out(session, changes, args).await
}

/// Registers in batches, then changes the others one by one.
async fn carry_out(
    session: &mut Session,
    changes: Vec<(String, Change)>,
    args: &ApplyArgs,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let (mut new, mut updates) = (Vec::new(), BTreeMap::new());
    for (id, change) in changes {
        match change {
            Change::Register(machine) => new.push(machine),
            Change::Update(machine, paths) => {
                updates.insert(id, (machine, paths));
            }
            Change::Nothing => {}
        }
    }
    let mut refused = 0;
    let look = session.ui.look;
    for machines in new.chunks(BATCH) {
        let request = pb::BatchRegisterMachinesRequest { machines: machines.to_vec() };
        for result in client.batch_register_machines(request).await?.results {
            let (glyph, meaning, text) = match result.outcome {
                Some(Registered::Machine(_)) => {
                    (look.good(), Meaning::Good, "registered".to_owned())
                }
                Some(Registered::Error(error)) => {
                    refused += 1;
                    let hint = if error.hint.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", error.hint)
                    };
                    (look.bad(), Meaning::Bad, format!("refused: {}{hint}", error.message))
                }
                None => return Err(Error::Answer(format!("no result for {}", result.machine_id))),
            };
            let id = sanitized(&result.machine_id);
            let line = format!("{id:13} {} {}", look.paint(meaning, glyph), sanitized(&text));
            writeln!(session.ui.out(), "{}", wrapped(look, &line, 16))?;
        }
    }
    let exit = if refused > 0 { Exit::Blocked } else { Exit::Ok };
    if updates.is_empty() {
        return Ok(exit);
    }
    let targets = updates.keys().cloned().collect();
    let work = Work { noun: "machines", targets, flags: &args.bulk, quiet: false };
    let (updated, _) = bulk::each(session, work, |client: Client, id: String, _: News| {
        let (machine, paths) = updates.get(&id).cloned().unwrap_or_default();
        let request = pb::UpdateMachineRequest {
            machine: Some(machine),
            update_mask: Some(prost_types::FieldMask { paths }),
            request_id: client.new_request_id(),
            reason: args.reason.clone(),
            force: false,
        };
        async move {
            client.update_machine(request).await?;
            Ok(Outcome::Changed("changed".to_owned()))
        }
    })
    .await?;
    Ok(updated.or(exit))
}

/// The text of a file, or of standard input. What is no file or too large is refused before it is read.
fn read(session: &mut Session, file: &str) -> Result<String, Error> {
    let failed = |source: std::io::Error| Error::Local {
        message: format!("cannot read {file}"),
        hint: None,
        source: Some(source.into()),
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
                format!("{file} is not a regular file"),
                "pipe it in with -f -",
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

/// The machines of all documents; each may be named once.
fn machines_of(text: &str) -> Result<Vec<Wanted>, Error> {
    let documents: Vec<Document> = serde_saphyr::from_multiple(text).map_err(|error| {
        Error::usage(error.to_string(), "machines are as `list -o yaml` prints them; see --help")
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
                format!("the file names {} twice", sanitized(&machine_id)),
                "name each machine once",
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

/// The machines that are there already, by their ids.
async fn known(client: &Client, wanted: &[Wanted]) -> Result<BTreeMap<String, pb::Machine>, Error> {
    let machines = client.all_machines("", usize::MAX).await?;
    let ids: std::collections::HashSet<&str> =
        wanted.iter().map(|wanted| wanted.machine_id.as_str()).collect();
    Ok(machines
        .into_iter()
        .filter(|machine| ids.contains(machine.machine_id.as_str()))
        .map(|machine| (machine.machine_id.clone(), machine))
        .collect())
}

/// What has to be done about a machine, and its differences in words.
fn change(wanted: &Wanted, known: Option<&pb::Machine>) -> (Change, Vec<String>) {
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
            }),
            ..pb::Machine::default()
        };
        return (Change::Register(machine), Vec::new());
    };
    let has = known.spec.clone().unwrap_or_default();
    let mut paths = Vec::new();
    let mut words = Vec::new();
    let mut differs = |path: String, before: &str, after: &str| {
        let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        words.push(format!("{path}: {} -> {}", shown(before), shown(after)));
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

#[cfg(test)]
mod tests {
    use super::*;

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
            ("machineId: a\n---\nmachineId: a", "the file names a twice"),
            ("machineId: a\nspec: {bmc: x}", "bmc"),
            ("machineId: [a", ""),
            ("- machineId: a", ""),
        ] {
            let error = machines_of(text).unwrap_err();
            assert_eq!(error.code(), 2, "{text}");
            assert!(error.to_string().contains(message), "{text}: {error}");
        }
    }

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
            ["labels.old: x -> -", "labels.rack: r1 -> r2", "spec.bmc_endpoint: - -> https://h"]
        );
        let same = "machineId: a\nlabels: {rack: r1, gone: null}";
        assert!(matches!(change(&wanted(same), Some(&known)).0, Change::Nothing));
        assert!(matches!(change(&wanted(same), None).0, Change::Register(_)));
    }
}
