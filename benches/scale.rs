//! The cost of calls with a fleet of 1,000, of 10,000 and of 100,000 machines: a page of 100 (the first, and one from
//! the middle), a page filtered on an indexed field, get and update. Measured over gRPC against the server binary,
//! with its store on disk; the fleet is registered through `BatchRegisterMachines`.
//!
//! Prints p50 and p99 of 200 calls each, one at a time, and the ratio of the p50 to that of the smallest fleet. A
//! page must not cost more than twice as much at 100,000 as at 1,000.
//!
//! `cargo bench --bench scale`; `BMDEMO_BENCH_SIZES` sets the sizes (default `1000,10000,100000`).

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
use tonic::transport::Channel;

/// Calls of each kind that are measured.
const CALLS: usize = 200;
/// Calls of each kind that come first and are not measured.
const WARM_UP: usize = 20;
/// Most machines of a batch.
const BATCH: usize = 1_000;
const PAGE: i32 = 100;
const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

type Client = MachineServiceClient<Channel>;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let sizes = std::env::var("BMDEMO_BENCH_SIZES").unwrap_or("1000,10000,100000".to_owned());
    let sizes: Vec<usize> =
        sizes.split(',').map(|size| size.trim().parse().expect("a number of machines")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut base: Vec<Duration> = Vec::new();
    println!(
        "machines   registered/s   call                  p50 ms     p99 ms   p50 : p50 of the first fleet"
    );
    for size in sizes {
        // A separate fleet, so that every size starts with a fresh store.
        let dir = tempfile::tempdir().expect("a directory");
        let (_server, address) = spawn(dir.path());
        let (per_second, rows) = runtime.block_on(measure(&address, size));
        for (place, (call, mut latencies)) in rows.into_iter().enumerate() {
            latencies.sort();
            let p50 = latencies[latencies.len() / 2];
            let p99 = latencies[latencies.len() * 99 / 100];
            if base.len() == place {
                base.push(p50);
            }
            println!(
                "{size:>8} {per_second:>14.0}   {call:<18} {:>9.3} {:>10.3} {:>9.2}",
                p50.as_secs_f64() * 1e3,
                p99.as_secs_f64() * 1e3,
                p50.as_secs_f64() / base[place].as_secs_f64(),
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
    (server, format!("http://{address}"))
}

type Row = (&'static str, Vec<Duration>);

/// Machines registered per second, and the latencies of each kind of call.
async fn measure(address: &str, size: usize) -> (f64, Vec<Row>) {
    let channel = Channel::from_shared(address.to_owned())
        .expect("an address")
        .connect()
        .await
        .expect("a connection");
    let mut client = Client::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
    let start = Instant::now();
    register(&mut client, size).await;
    let per_second = size as f64 / start.elapsed().as_secs_f64();
    let middle = token_of_the_middle(&mut client, size).await;

    let first = timed(async |_| list(&client, "", String::new()).await).await;
    let deep = timed(async |_| list(&client, "", middle.clone()).await).await;
    let filtered = timed(async |_| list(&client, "provider = other", String::new()).await).await;
    // Machines all over the fleet, in a fixed order.
    let id = |call: usize| name(call * 7_919 % size);
    let get = timed(async |call| {
        let request = pb::GetMachineRequest { machine_id: id(call), read_mask: None };
        client.clone().get_machine(request).await.expect("a machine");
    })
    .await;
    let update = timed(async |call| {
        let machine = pb::Machine {
            machine_id: id(call),
            labels: [("bench".to_owned(), call.to_string())].into(),
            ..Default::default()
        };
        let paths = vec!["labels.bench".to_owned()];
        let request = pb::UpdateMachineRequest {
            machine: Some(machine),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        client.clone().update_machine(request).await.expect("updated");
    })
    .await;
    let rows = vec![
        ("page of 100", first),
        ("page in the middle", deep),
        ("page, provider", filtered),
        ("get", get),
        ("update", update),
    ];
    (per_second, rows)
}

async fn timed(call: impl AsyncFn(usize)) -> Vec<Duration> {
    for number in 0..WARM_UP {
        call(number).await;
    }
    let mut latencies = Vec::with_capacity(CALLS);
    for number in WARM_UP..WARM_UP + CALLS {
        let start = Instant::now();
        call(number).await;
        latencies.push(start.elapsed());
    }
    latencies
}

fn name(number: usize) -> String {
    format!("bench-{number}")
}

async fn register(client: &mut Client, size: usize) {
    for begin in (0..size).step_by(BATCH) {
        let machines = (begin..size.min(begin + BATCH)).map(machine).collect();
        let request = pb::BatchRegisterMachinesRequest { machines, ..Default::default() };
        let results =
            client.batch_register_machines(request).await.expect("a batch").into_inner().results;
        for result in results {
            let registered =
                matches!(result.outcome, Some(pb::machine_result::Outcome::Machine(_)));
            assert!(registered, "{result:?}");
        }
    }
}

/// Every tenth has another provider, so that a filtered page is full in the smallest fleet too.
fn machine(number: usize) -> pb::Machine {
    let provider = if number.is_multiple_of(10) { "other" } else { "fake" };
    let mac = number.to_be_bytes();
    let [.., a, b, c, d] = mac;
    pb::Machine {
        machine_id: name(number),
        labels: [("rack".to_owned(), format!("r{}", number / 40))].into(),
        spec: Some(pb::MachineSpec {
            provider: provider.to_owned(),
            ssh_endpoint: format!("bench-{number}.example.com:22"),
            mac_addresses: vec![format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")],
            serial: format!("SN{number:08}"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn list(client: &Client, filter: &str, page_token: String) {
    let request = pb::ListMachinesRequest {
        filter: filter.to_owned(),
        page_size: PAGE,
        page_token,
        ..Default::default()
    };
    let page = client.clone().list_machines(request).await.expect("a page").into_inner();
    assert_eq!(page.machines.len(), PAGE as usize, "the page is full");
}

/// Token of the page that begins in the middle of the fleet.
async fn token_of_the_middle(client: &mut Client, size: usize) -> String {
    let (mut token, mut seen) = (String::new(), 0);
    while seen < size / 2 {
        let page_size = (size / 2 - seen).min(1_000) as i32;
        let request =
            pb::ListMachinesRequest { page_size, page_token: token, ..Default::default() };
        let page = client.list_machines(request).await.expect("a page").into_inner();
        seen += page.machines.len();
        token = page.next_page_token;
    }
    token
}
