//! `import N`

use clap::Args;

use crate::pb;

use super::super::Context;
use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{write_import_header, write_import_row};

/// Most machines of one import.
const MACHINES_MAX: u32 = 100_000;

/// Register N fake machines, machine-1 to machine-N, in phase FACTORY_READY. Doing it again changes nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli import 3\n  bmdemo-cli import 300 --server 10.0.0.7:50051"
)]
pub(crate) struct ImportArgs {
    /// How many, 1 to 100000
    #[arg(value_name = "N", allow_hyphen_values = true)]
    count: String,
}

pub(crate) async fn import(ctx: &mut Context, args: &ImportArgs) -> Result<Exit, Error> {
    let count = args.count.parse::<u32>().ok().filter(|count| (1..=MACHINES_MAX).contains(count));
    let Some(count) = count else {
        return Err(Error::usage(
            format!("{:?} is not a number of machines between 1 and 100000", args.count),
            "for example: bmdemo-cli import 3",
        ));
    };
    let client = ctx.client().await?;
    let look = ctx.ui.look;
    let id_columns = format!("machine-{count}").len();
    let noun = if count == 1 { "machine" } else { "machines" };
    writeln!(ctx.ui.out(), "Importing {count} fake {noun}...")?;
    write_import_header(ctx.ui.out(), look, id_columns)?;
    // One after the other: lists come in the order of registration, and machine-2 belongs before machine-10.
    for number in 1..=count {
        let machine = register(&client, number).await?;
        write_import_row(ctx.ui.out(), &machine, id_columns)?;
    }
    Ok(Exit::Ok)
}

async fn register(client: &Client, number: u32) -> Result<pb::Machine, Error> {
    let labels = [("role", "worker"), ("imported", "true")];
    let machine = pb::Machine {
        machine_id: format!("machine-{number}"),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        spec: Some(pb::MachineSpec {
            provider: "fake".to_owned(),
            mac_addresses: vec![mac(number)],
            ..pb::MachineSpec::default()
        }),
        ..pb::Machine::default()
    };
    let request_id = client.new_request_id();
    client.register_machine(pb::RegisterMachineRequest { machine: Some(machine), request_id }).await
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
