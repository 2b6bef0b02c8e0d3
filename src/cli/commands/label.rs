//! `machine label` and `machine unlabel`

use std::collections::{BTreeMap, HashSet};

use clap::Args;

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::flags::{Format, OutputArgs};
use super::super::output::sanitized;
use super::super::query::Selection;
use super::super::session::Session;
use super::bulk::{self, BulkFlags, News, Outcome, Work};
use super::confirm::{Question, described};
use super::{show, targets};

/// Set labels with KEY=VALUE and remove them with KEY-, on the machines named or selected.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine label machine-1 rack=r1 gpu=yes old-
  bmdemo-cli machine label machine-1 machine-2 machine-3 rack=r1
  bmdemo-cli machine label -l rack=r1 row=7 --reason \"moved\" --yes")]
pub(crate) struct LabelArgs {
    /// Machines and labels; a label is KEY=VALUE, or KEY- to remove it
    #[arg(value_name = "MACHINE|LABEL", required = true, num_args = 1..)]
    words: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Remove labels from the machines named or selected.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine unlabel gpu,old machine-1
  bmdemo-cli machine unlabel row -l rack=r1 --yes")]
pub(crate) struct UnlabelArgs {
    /// Keys, separated by commas
    #[arg(value_name = "KEYS")]
    keys: String,
    /// Machines
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Options of both verbs.
#[derive(Debug, Args)]
struct How {
    #[command(flatten)]
    selection: Selection,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    bulk: BulkFlags,
    #[command(flatten)]
    output: OutputArgs,
}

/// Labels to set, or to remove where the value is `None`.
type Labels = BTreeMap<String, Option<String>>;

pub(crate) async fn label(session: &mut Session, args: &LabelArgs) -> Result<Exit, Error> {
    let (ids, labels) = parted(&args.words)?;
    change(session, &ids, &labels, &args.how).await
}

pub(crate) async fn unlabel(session: &mut Session, args: &UnlabelArgs) -> Result<Exit, Error> {
    let labels: Labels = args.keys.split(',').map(|key| (key.trim().to_owned(), None)).collect();
    if labels.contains_key("") {
        return Err(Error::usage(
            "a key is empty",
            "separate keys with commas, for example: gpu,old",
        ));
    }
    let changed = change(session, &args.machines, &labels, &args.how).await;
    if let Err(error) = &changed
        && error.status().is_some_and(|status| status.code() == tonic::Code::NotFound)
    {
        session.ui.note("Keys come first: bmdemo-cli machine unlabel KEY MACHINE");
    }
    changed
}

/// Splits words into machines and labels: an id has neither `=` nor a dash at its end.
fn parted(words: &[String]) -> Result<(Vec<String>, Labels), Error> {
    let (mut ids, mut labels) = (Vec::new(), Labels::new());
    for word in words {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => {
                ids.push(word.clone());
                continue;
            }
        };
        if key.is_empty() {
            return Err(Error::usage(
                format!("{word:?} is not a label to set or to remove"),
                "set with KEY=VALUE, remove with KEY-",
            ));
        }
        if labels.insert(key.to_owned(), value).is_some() {
            return Err(Error::usage(format!("label {key} is given twice"), "give it once"));
        }
    }
    if labels.is_empty() {
        return Err(Error::usage(
            "no label was given",
            "set with KEY=VALUE, remove with KEY-, for example: rack=r1 old-",
        ));
    }
    Ok((ids, labels))
}

async fn change(
    session: &mut Session,
    ids: &[String],
    labels: &Labels,
    how: &How,
) -> Result<Exit, Error> {
    show::check_columns::<pb::Machine>(&how.output)?;
    let client = session.client().await?;
    let machines = targets::machines(&client, ids, &how.selection).await?;
    if let ([machine], true) = (machines.as_slice(), how.selection.is_empty()) {
        let request = request(&client, &machine.machine_id, labels, &how.reason);
        if is_so(machine, labels) {
            session.ui.note(&format!("{} is unchanged.", sanitized(&machine.machine_id)));
        }
        let machine = client.update_machine(request).await?;
        let mut output = how.output.clone();
        if output.output == Format::Table && output.columns.is_empty() {
            // What was asked for is what is shown.
            output.columns = ["machine_id", "phase", "labels"].map(str::to_owned).to_vec();
        }
        return show::machine(session, &machine, &output);
    }
    let text = text(labels);
    let question = Question {
        what: format!("Change labels ({}) of", sanitized(&text)),
        noun: "machine",
        targets: machines.iter().map(described).collect(),
        refused: None,
        loss: None,
        always: false,
    };
    question.settle(session, how.bulk.yes)?;
    let same: HashSet<String> =
        machines.iter().filter(|machine| is_so(machine, labels)).map(id).collect();
    let targets = machines.iter().map(id).collect();
    let work = Work { noun: "machines", targets, flags: &how.bulk, quiet: false };
    let (exit, _) = bulk::each(session, work, |client: Client, machine: String, _: News| {
        let (request, text) = (request(&client, &machine, labels, &how.reason), text.clone());
        let already = same.contains(&machine);
        async move {
            client.update_machine(request).await?;
            Ok(Outcome::now(already, text))
        }
    })
    .await?;
    Ok(exit)
}

fn id(machine: &pb::Machine) -> String {
    machine.machine_id.clone()
}

/// Whether a machine has these labels already.
fn is_so(machine: &pb::Machine, labels: &Labels) -> bool {
    labels.iter().all(|(key, value)| machine.labels.get(key) == value.as_ref())
}

/// `rack=r1 old-`, as typed.
fn text(labels: &Labels) -> String {
    let each = labels.iter().map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => format!("{key}-"),
    });
    each.collect::<Vec<_>>().join(" ")
}

fn request(
    client: &Client,
    machine: &str,
    labels: &Labels,
    reason: &str,
) -> pb::UpdateMachineRequest {
    let set = labels.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    pb::UpdateMachineRequest {
        machine: Some(pb::Machine {
            machine_id: machine.to_owned(),
            labels: set.collect(),
            ..pb::Machine::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: labels.keys().map(|key| format!("labels.{key}")).collect(),
        }),
        request_id: client.new_request_id(),
        reason: reason.to_owned(),
        force: false,
        validate_only: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn words_are_machines_or_labels() {
        let (ids, labels) = parted(&words("machine-1 a.b/c=d=e old- m2")).unwrap();
        assert_eq!(ids, ["machine-1", "m2"]);
        assert_eq!(text(&labels), "a.b/c=d=e old-");
        for wrong in ["machine-1", "=x", "-", "a=1 a=1", "a=1 a-"] {
            assert_eq!(parted(&words(wrong)).unwrap_err().code(), 2, "{wrong}");
        }
    }
}
