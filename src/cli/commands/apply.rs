//! `machine apply`

mod file;

use std::collections::BTreeMap;

use clap::Args;
use tonic::Code;

use crate::pb;
use crate::pb::machine_result::Outcome as Registered;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{Meaning, sanitized, wrapped};
use super::super::session::Session;
use super::bulk::{self, BulkFlags, News, Outcome, Work};
use super::confirm::Question;
use super::refusals;
use file::{Wanted, machines_of, read};

/// Machines in one request.
const BATCH: usize = 500;

/// Register the new machines of a file, and change the registered ones to match it.
///
/// The file is YAML or JSON: machines as `list -o yaml` prints them, one per document or several in a list
/// `machines`. Labels and fields that the file does not name stay as they are; a label without a value (`old: null`)
/// is removed. Status, times and etags in the file are ignored.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine apply -f rack-7.yaml --dry-run
  bmdemo-cli machine apply -f rack-7.yaml --reason \"new rack\" --yes
  bmdemo-cli list -l rack=r1 -o yaml | sed s/r1/r2/ | bmdemo-cli machine apply -f - --yes

A file:
  machineId: node-7
  labels: {rack: r1, gpu: \"yes\"}
  spec:
    provider: fake
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

/// What to do with a machine.
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
    let mut refused = Vec::new();
    let found: Vec<_> = wanted
        .iter()
        .map(|wanted| (wanted, change(wanted, known.get(&wanted.machine_id))))
        .collect();
    let mut refusals = if args.dry_run {
        would_refuse(&client, found.iter().map(|(_, (change, _))| change), args).await?
    } else {
        BTreeMap::new()
    };
    for (wanted, (change, differences)) in found {
        let refusal = match (&change, known.get(&wanted.machine_id)) {
            _ if args.dry_run => refusals.remove(&wanted.machine_id),
            (Change::Update(_, paths), Some(machine)) => refusals::of_spec(machine, paths),
            _ => None,
        };
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
            if let Some(why) = refusal.as_ref().filter(|_| args.dry_run) {
                let line =
                    format!("    {} {}", look.paint(Meaning::Bad, look.bad()), sanitized(why));
                writeln!(session.ui.out(), "{}", wrapped(look, &line, 6))?;
            }
        }
        refused.push(refusal);
        changes.push((wanted.machine_id.clone(), change));
    }
    let refused = refusals::count(refused);
    session.ui.flush()?;
    let count = |of: fn(&Change) -> bool| changes.iter().filter(|(_, change)| of(change)).count();
    let new = count(|change| matches!(change, Change::Register(_)));
    let differing = count(|change| matches!(change, Change::Update(..)));
    let same = count(|change| matches!(change, Change::Nothing));
    if args.dry_run {
        let (refused, exit) = match &refused {
            Some((count, _)) => (format!(", {count} of them would be refused"), Exit::Blocked),
            None => (String::new(), Exit::Ok),
        };
        session.ui.note(&format!(
            "Nothing was changed: {new} new, {differing} to change{refused}, {same} unchanged."
        ));
        return Ok(exit);
    }
    if new + differing == 0 {
        session.ui.note(&format!("Nothing to do: {same} unchanged."));
        return Ok(Exit::Ok);
    }
    let due = changes.iter().filter(|(_, change)| !matches!(change, Change::Nothing));
    let question = Question {
        what: match (new, differing) {
            (_, 0) => "Register".to_owned(),
            (0, _) => "Change".to_owned(),
            _ => format!("Register {new} and change {differing} of"),
        },
        noun: "machine",
        targets: due.map(|(id, _)| sanitized(id).into_owned()).collect(),
        refused,
        loss: None,
        always: false,
    };
    question.settle(session, args.bulk.yes)?;
    carry_out(session, changes, args).await
}

/// What the server says against changes, by machine. Nothing is changed.
async fn would_refuse(
    client: &Client,
    changes: impl Iterator<Item = &Change>,
    args: &ApplyArgs,
) -> Result<BTreeMap<String, String>, Error> {
    let mut refusals = BTreeMap::new();
    let mut new = Vec::new();
    for change in changes {
        match change {
            Change::Register(machine) => new.push(machine.clone()),
            Change::Update(machine, paths) => {
                let request = pb::UpdateMachineRequest {
                    validate_only: true,
                    ..update(client, machine.clone(), paths.clone(), &args.reason)
                };
                match client.update_machine(request).await {
                    Err(error) if is_refusal(&error) => {
                        refusals.insert(machine.machine_id.clone(), error.to_string());
                    }
                    other => drop(other?),
                }
            }
            Change::Nothing => {}
        }
    }
    for machines in new.chunks(BATCH) {
        let request =
            pb::BatchRegisterMachinesRequest { machines: machines.to_vec(), validate_only: true };
        for result in client.batch_register_machines(request).await?.results {
            if let Some(Registered::Error(error)) = result.outcome {
                refusals.insert(result.machine_id, error.message);
            }
        }
    }
    Ok(refusals)
}

/// Whether an error is about this machine alone; what concerns the server ends the command.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.grpc_code(),
        Some(
            Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::AlreadyExists
                | Code::Aborted
                | Code::NotFound
        )
    )
}

fn update(
    client: &Client,
    machine: pb::Machine,
    paths: Vec<String>,
    reason: &str,
) -> pb::UpdateMachineRequest {
    pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths }),
        request_id: client.new_request_id(),
        reason: reason.to_owned(),
        ..pb::UpdateMachineRequest::default()
    }
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
        let request =
            pb::BatchRegisterMachinesRequest { machines: machines.to_vec(), validate_only: false };
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
        let request = update(&client, machine, paths, &args.reason);
        async move {
            client.update_machine(request).await?;
            Ok(Outcome::Changed("changed".to_owned()))
        }
    })
    .await?;
    Ok(updated.or(exit))
}

/// The machines that are already registered, by id.
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

/// What to do with a machine, and its differences in words.
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
        let words = match &spec.provider {
            Some(provider) => format!("spec.provider: {provider}"),
            None => "spec.provider: fake, because the file names none".to_owned(),
        };
        return (Change::Register(machine), vec![words]);
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
