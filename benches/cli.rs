//! The cost of commands for an operator of 10,000 machines: the client's process from start to end, against the
//! server binary with its store on disk. The fleet is registered through `BatchRegisterMachines`; 20 racks of equal
//! size.
//!
//! Prints the best and the worst of five times for each command; the design requires less than a second each.
//!
//! `cargo bench --bench cli`; `BMDEMO_BENCH_SIZES` sets the sizes (default `10000`).

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints real time"
)]

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;

/// How often each command is run.
const TIMES: usize = 5;
/// Most machines of a batch.
const BATCH: usize = 1_000;
/// Number of values of the label `rack` over which machines are spread.
const RACKS: usize = 20;

/// A command, with the number of lines that it must print for a fleet of a given size.
type Measured = (&'static str, fn(usize) -> usize);

const COMMANDS: [Measured; 8] = [
    ("list", |size| size + 1),
    ("list -o json", |_| 1),
    ("list -o name", |size| size),
    ("list -l rack=r7", |size| size / RACKS + 1),
    ("list --filter phase=READY", |_| 1),
    ("list --sort-by id:desc --limit 10", |_| 11),
    ("repave -l role=worker --dry-run", |_| 50),
    ("repave -l rack=r7 --dry-run", |_| 50),
];

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let sizes = std::env::var("BMDEMO_BENCH_SIZES").unwrap_or("10000".to_owned());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("machines   command                                 best ms   worst ms");
    for size in sizes.split(',') {
        let size: usize = size.trim().parse().expect("a number of machines");
        let dir = tempfile::tempdir().expect("a directory");
        let (_server, address) = spawn(dir.path());
        runtime.block_on(register(&address, size));
        for (command, lines) in COMMANDS {
            let mut times: Vec<Duration> =
                (0..TIMES).map(|_| timed(&address, command, lines(size))).collect();
            times.sort();
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            println!(
                "{size:>8}   {command:<36} {:>10.0} {:>10.0}",
                ms(times[0]),
                ms(times[times.len() - 1])
            );
        }
    }
}

fn spawn(data: &std::path::Path) -> (Server, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bmdemo-server"))
        .args(["--port", "0", "--fake-timing", "zero", "--log-level", "warn", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the server starts");
    let stdout = child.stdout.take().expect("piped");
    let server = Server(child);
    let mut line = String::new();
    std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("listening on ").expect("where it listens");
    (server, address.to_owned())
}

async fn register(address: &str, size: usize) {
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("a connection");
    let mut client = MachineServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
    let machine = |number: usize| pb::Machine {
        machine_id: format!("machine-{number}"),
        labels: [
            ("role".to_owned(), "worker".to_owned()),
            ("rack".to_owned(), format!("r{}", number % RACKS)),
        ]
        .into(),
        spec: Some(pb::MachineSpec {
            provider: "fake".to_owned(),
            mac_addresses: vec![format!(
                "02:00:00:{:02x}:{:02x}:{:02x}",
                number >> 16 & 255,
                number >> 8 & 255,
                number & 255
            )],
            ..pb::MachineSpec::default()
        }),
        ..pb::Machine::default()
    };
    let machines: Vec<pb::Machine> = (1..=size).map(machine).collect();
    for batch in machines.chunks(BATCH) {
        let request =
            pb::BatchRegisterMachinesRequest { machines: batch.to_vec(), ..Default::default() };
        let results = client.batch_register_machines(request).await.expect("registered");
        for result in results.into_inner().results {
            let registered =
                matches!(result.outcome, Some(pb::machine_result::Outcome::Machine(_)));
            assert!(registered, "{result:?}");
        }
    }
}

/// Duration of a command, which must succeed and print at least `lines` lines.
fn timed(address: &str, command: &str, lines: usize) -> Duration {
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
        .args(["--server", address])
        .args(command.split(' '))
        .env_remove("NO_COLOR")
        .output()
        .expect("the client runs");
    let took = start.elapsed();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert!(printed >= lines, "{command}: {printed} lines");
    took
}
