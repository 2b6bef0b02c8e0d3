//! `machine apply`

mod difference;
mod file;

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use tonic::{Code, Status};

use crate::pb;
use crate::pb::machine_result::Outcome as Registered;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{Meaning, padded, sanitized, width, wrapped};
use super::super::session::Session;
use super::bulk::{self, BulkFlags, News, Outcome, Work};
use super::confirm::{Question, is_answered};
use super::refusals;
use super::register::check_adoption;
use difference::{Change, change};
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
    /// New machines already serve: register them IN_SERVICE and protected; needs --reason
    #[arg(long, requires = "reason")]
    in_service: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    bulk: BulkFlags,
}

pub(crate) async fn apply(session: &mut Session, args: &ApplyArgs) -> Result<Exit, Error> {
    let text = read(session, &args.file)?;
    let wanted = machines_of(&text)?;
    let client = session.client().await?;
    let known = known(&client, &wanted).await?;
    if args.in_service {
        check_adoption(&client).await?;
    }
    let look = session.ui.look;
    let mut changes = Vec::new();
    let mut refused = Vec::new();
    let mut codes = BTreeSet::new();
    // With --yes the rows of what is done say the same.
    let is_shown = args.dry_run || !is_answered(session, args.bulk.yes);
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
            _ if args.dry_run => refusals.remove(&wanted.machine_id).map(|(why, code)| {
                codes.insert(code);
                why
            }),
            (Change::Update(_, paths), Some(machine)) => refusals::of_spec(machine, paths),
            _ => None,
        };
        let (sign, meaning, what) = match change {
            Change::Register(_) if args.in_service => {
                ("+", Meaning::Good, "is new, and in service")
            }
            Change::Register(_) => ("+", Meaning::Good, "is new"),
            Change::Update(..) => ("~", Meaning::Attention, "differs"),
            Change::Nothing => ("=", Meaning::Dim, "is as in the file"),
        };
        if is_shown && (args.dry_run || !matches!(change, Change::Nothing)) {
            let text = format!("{sign} {} {what}", sanitized(&wanted.machine_id));
            writeln!(session.ui.out(), "{}", look.paint(meaning, &text))?;
            for difference in &differences {
                let line = format!("    {}", sanitized(difference));
                writeln!(session.ui.out(), "{}", wrapped(look, &line, 6))?;
            }
            if let Some(why) = refusal.as_ref().filter(|_| args.dry_run) {
                let bad = look.paint(Meaning::Bad, look.bad());
                let line = format!("    {bad} would be refused: {}", sanitized(why));
                writeln!(session.ui.out(), "{}", wrapped(look, &line, 6))?;
            }
        }
        refused.push(refusal);
        changes.push((wanted.machine_id.clone(), change, differences));
    }
    let refused = refusals::count(refused);
    session.ui.flush()?;
    let count =
        |of: fn(&Change) -> bool| changes.iter().filter(|(_, change, _)| of(change)).count();
    let new = count(|change| matches!(change, Change::Register(_)));
    let differing = count(|change| matches!(change, Change::Update(..)));
    let same = count(|change| matches!(change, Change::Nothing));
    if args.dry_run {
        let refused = refused.as_ref().map_or(0, |(count, _)| *count);
        let parts = parts(&[
            (new, "would be registered"),
            (differing, "would be changed"),
            (refused, "of these would be refused"),
            (same, if same == 1 { "is as in the file" } else { "are as in the file" }),
        ]);
        session.ui.note(&format!("Dry run, nothing was changed: {parts}."));
        return Ok(Exit::of_refusals(&codes));
    }
    if new + differing == 0 {
        let all = if same == 1 { "the machine is" } else { "all machines are" };
        session.ui.note(&format!("Nothing to do: {all} as in the file."));
        return Ok(Exit::Ok);
    }
    let due = changes.iter().filter(|(_, change, _)| !matches!(change, Change::Nothing));
    let question = Question {
        what: match (new, differing) {
            (_, 0) => "Register".to_owned(),
            (0, _) => "Change".to_owned(),
            _ => format!("Register {new} and change {differing} of"),
        },
        noun: "machine",
        targets: due.map(|(id, _, _)| sanitized(id).into_owned()).collect(),
        refused,
        loss: None,
        always: false,
    };
    question.settle(session, args.bulk.yes)?;
    carry_out(session, changes, args).await
}

/// The counts that are not zero, each with what it counts.
fn parts(counts: &[(usize, &str)]) -> String {
    let counted = counts.iter().filter(|(count, _)| *count > 0);
    counted.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// Feature of a server that judges requests about machines without carrying them out.
const DRY_RUNS: &str = "machines.validate_only";

/// Refuses a dry run on a server that would carry it out, because it does not know `validate_only`.
async fn check_dry_runs(client: &Client) -> Result<(), Error> {
    if client.has_feature(DRY_RUNS).await? {
        return Ok(());
    }
    Err(Error::local(
        "the server is too old for a dry run of machines: it would carry the request out",
        "update the server; nothing was changed",
    ))
}

/// What the server says against changes, by machine, and the code of the process for that. Nothing is changed.
async fn would_refuse(
    client: &Client,
    changes: impl Iterator<Item = &Change>,
    args: &ApplyArgs,
) -> Result<BTreeMap<String, (String, u8)>, Error> {
    check_dry_runs(client).await?;
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
                        let refusal = (error.to_string(), error.code());
                        refusals.insert(machine.machine_id.clone(), refusal);
                    }
                    other => drop(other?),
                }
            }
            Change::Nothing => {}
        }
    }
    for machines in new.chunks(BATCH) {
        let request = registration(machines, args, true);
        for result in client.batch_register_machines(request).await?.results {
            if let Some(Registered::Error(error)) = result.outcome {
                refusals.insert(result.machine_id, (error.message, exit_code(error.code)));
            }
        }
    }
    Ok(refusals)
}

/// Code of the process for what the server refuses with this gRPC code.
fn exit_code(grpc: i32) -> u8 {
    Error::rpc(Status::new(Code::from(grpc), "")).code()
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

fn registration(
    machines: &[pb::Machine],
    args: &ApplyArgs,
    validate_only: bool,
) -> pb::BatchRegisterMachinesRequest {
    pb::BatchRegisterMachinesRequest {
        machines: machines.to_vec(),
        validate_only,
        in_service: args.in_service,
        reason: args.reason.clone(),
    }
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
    changes: Vec<(String, Change, Vec<String>)>,
    args: &ApplyArgs,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let (mut new, mut updates) = (Vec::new(), BTreeMap::new());
    for (id, change, differences) in changes {
        match change {
            Change::Register(machine) => new.push(machine),
            Change::Update(machine, paths) => {
                updates.insert(id, (machine, paths, differences.join(", ")));
            }
            Change::Nothing => {}
        }
    }
    let mut refused = 0;
    let mut codes = BTreeSet::new();
    let look = session.ui.look;
    let all = new.len();
    let columns = new.iter().map(|machine| width(&sanitized(&machine.machine_id))).max();
    let columns = columns.unwrap_or(0).max(13);
    for machines in new.chunks(BATCH) {
        let request = registration(machines, args, false);
        for result in client.batch_register_machines(request).await?.results {
            let (glyph, meaning, text) = match result.outcome {
                Some(Registered::Machine(_)) => {
                    (look.good(), Meaning::Good, "registered".to_owned())
                }
                Some(Registered::Error(error)) => {
                    refused += 1;
                    codes.insert(exit_code(error.code));
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
            let line = format!(
                "{} {} {}",
                padded(&id, columns),
                look.paint(meaning, glyph),
                sanitized(&text)
            );
            writeln!(session.ui.out(), "{}", wrapped(look, &line, columns + 3))?;
        }
    }
    session.ui.flush()?;
    if all > 0 {
        let plural = if all == 1 { "" } else { "s" };
        let parts = parts(&[(all - refused, "registered"), (refused, "refused")]);
        session.ui.note(&format!("{all} new machine{plural}: {parts}"));
    }
    let exit = Exit::of_refusals(&codes);
    if updates.is_empty() {
        return Ok(exit);
    }
    let targets = updates.keys().cloned().collect();
    let work = Work { noun: "machines", targets, flags: &args.bulk, quiet: false };
    let (updated, _) = bulk::each(session, work, |client: Client, id: String, _: News| {
        let (machine, paths, differences) = updates.get(&id).cloned().unwrap_or_default();
        let request = update(&client, machine, paths, &args.reason);
        async move {
            client.update_machine(request).await?;
            Ok(Outcome::Changed(format!("changed {differences}")))
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
