//! `import N`

use std::collections::{BTreeMap, HashMap};

use clap::Args;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::pb;
use crate::pb::machine_result::Outcome;

use super::super::error::{Error, Exit};
use super::super::flags::{by_key, parse_pair};
use super::super::output::{instant, write_import_header, write_import_row};
use super::super::session::Session;

/// Machines in one request: registered in few commits, and listed in the given order.
const BATCH_MACHINES: u32 = 500;
/// The same number as a `usize`, for `step_by`.
const BATCH: usize = BATCH_MACHINES as usize;
/// Most machines in one import.
const MACHINES_MAX: u32 = 100_000;

/// Register N fake machines, machine-1 to machine-N, in phase FACTORY_READY. Repeating it changes nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli import 3\n  bmdemo-cli import 20 --label rack=r1 --label row=7\n  bmdemo-cli import 300 --server 10.0.0.7:50051"
)]
pub(crate) struct ImportArgs {
    /// How many, 1 to 100000
    #[arg(value_name = "N", allow_hyphen_values = true)]
    count: String,
    /// Label of every machine, besides role=worker and imported=true; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
}

pub(crate) async fn import(session: &mut Session, args: &ImportArgs) -> Result<Exit, Error> {
    let count = args.count.parse::<u32>().ok().filter(|count| (1..=MACHINES_MAX).contains(count));
    let Some(count) = count else {
        return Err(Error::usage(
            format!("{:?} is not a number of machines between 1 and 100000", args.count),
            "for example: bmdemo-cli import 3; machines in a file are registered by: bmdemo-cli machine apply -f FILE",
        ));
    };
    let own = by_key("--label ", &args.labels)?;
    let client = session.client().await?;
    let look = session.ui.look;
    let id_columns = format!("machine-{count}").len();
    let noun = if count == 1 { "machine" } else { "machines" };
    writeln!(session.ui.out(), "Importing {count} fake {noun}...")?;
    write_import_header(session.ui.out(), look, id_columns)?;
    // Machines older than this were registered before.
    let began_ms = client.server_facts().await.ok().and_then(|facts| facts.clock_ms);
    let (mut known, mut unlike) = (0, 0);
    for first in (1..=count).step_by(BATCH) {
        let last = count.min(first.saturating_add(BATCH_MACHINES - 1));
        let machines = (first..=last).map(|number| machine(number, &own)).collect();
        let answer = client
            .batch_register_machines(pb::BatchRegisterMachinesRequest {
                machines,
                ..Default::default()
            })
            .await?;
        for result in answer.results {
            match result.outcome {
                Some(Outcome::Machine(machine)) => {
                    let is_older = began_ms.zip(instant(machine.created_at.as_ref()));
                    if is_older.is_some_and(|(began, created)| created < began) {
                        known += 1;
                        let same =
                            own.iter().all(|(key, value)| machine.labels.get(key) == Some(value));
                        unlike += u32::from(!same);
                    }
                    write_import_row(session.ui.out(), &machine, id_columns)?
                }
                Some(Outcome::Error(error)) => return Err(refused(&result.machine_id, &error)),
                None => return Err(Error::Answer(format!("no result for {}", result.machine_id))),
            }
        }
    }
    if known > 0 {
        session.ui.note(&format!("{known} of them were already registered and are unchanged."));
    }
    if unlike > 0 {
        session.ui.note(&format!(
            "{unlike} of them have other labels, and keep them. Label them with: bmdemo-cli machine label -l imported=true {}",
            own.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        ));
    }
    Ok(Exit::Ok)
}

fn machine(number: u32, own: &BTreeMap<String, String>) -> pb::Machine {
    let labels = [("role", "worker"), ("imported", "true")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    pb::Machine {
        machine_id: format!("machine-{number}"),
        labels: labels.into_iter().chain(own.clone()).collect(),
        spec: Some(pb::MachineSpec {
            provider: "fake".to_owned(),
            mac_addresses: vec![mac(number)],
            ..pb::MachineSpec::default()
        }),
        ..pb::Machine::default()
    }
}

/// The refusal of one machine, as if it were the answer to a single request.
fn refused(machine: &str, error: &pb::ItemError) -> Error {
    let message = format!("{machine}: {}", error.message);
    let mut metadata = HashMap::new();
    if !error.hint.is_empty() {
        metadata.insert("hint".to_owned(), error.hint.clone());
    }
    let details = ErrorDetails::with_error_info(error.reason.as_str(), "baremetal.v1", metadata);
    Error::rpc(Status::with_error_details(Code::from_i32(error.code), message, details))
}

/// Locally administered addresses that count up: machine 1 is 02:00:00:00:00:01.
fn mac(number: u32) -> String {
    let [a, b, c, d] = number.to_be_bytes();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count() {
        assert_eq!(mac(1), "02:00:00:00:00:01");
        assert_eq!(mac(300), "02:00:00:00:01:2c");
    }
}
