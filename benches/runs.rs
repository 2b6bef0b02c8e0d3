//! End to end: `StartRun` over gRPC, five zero-time steps, the terminal event seen by a watching client; every
//! transition durable. Measured against the server binary, with its store and its simulated world on disk.
//!
//! Prints, for each number of runs in flight: runs per second, latency from the call to the terminal event (p50,
//! p99), disk flushes per run as the kernel counts them, and the ratio to bare append + fdatasync on the same disk,
//! measured in the same rounds. Absolute figures drift with the machine; compare ratios.
//!
//! `cargo bench --bench runs`; `BMDEMO_BENCH_RUNS` sets the number of runs of a round (default 4000), and
//! `BMDEMO_BENCH_IN_FLIGHT` the numbers in flight (default `1,64,256,1024`). `BMDEMO_BENCH_SERVER` names another
//! server binary, to compare two in turns. `BMDEMO_BENCH_WORLD` (default `disk,memory`) says where the simulated
//! machines are stored: on disk the simulator flushes its own journal, five times for a lone run; in memory only the
//! engine flushes.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints real time"
)]

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tonic::transport::Channel;

type Waiters = Arc<Mutex<HashMap<String, oneshot::Sender<Instant>>>>;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let runs: usize =
        std::env::var("BMDEMO_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    // Ignore Criterion's arguments; a filter or --bench changes nothing.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    println!(
        "world    in flight   runs/s     p50 ms     p99 ms   server ms/run   client ms/run   flushes/run   flush limit/s   \
         runs/s : flushes/s"
    );
    let worlds = std::env::var("BMDEMO_BENCH_WORLD").unwrap_or("disk,memory".to_owned());
    let worlds: Vec<String> = worlds.split(',').map(|text| text.trim().to_owned()).collect();
    let in_flight = std::env::var("BMDEMO_BENCH_IN_FLIGHT").unwrap_or("1,64,256,1024".to_owned());
    for (in_flight, world) in in_flight
        .split(',')
        .map(|text| text.trim().parse::<usize>().expect("a number"))
        .flat_map(|in_flight| worlds.iter().map(move |world| (in_flight, world)))
    {
        let flushes_per_s = flush_rate(dir.path());
        let data = dir.path().join(format!("data-{in_flight}-{world}"));
        let (server, address) = spawn(&data, world);
        let runs = if in_flight == 1 { runs / 8 } else { runs };
        let figures =
            runtime.block_on(measure(&server, &address, in_flight, runs.max(in_flight * 2)));
        println!(
            "{world:<8} {in_flight:>9} {:>8.0} {:>10.2} {:>10.2} {:>15.3} {:>15.3} {:>13.3} {flushes_per_s:>15.0} {:>20.2}",
            figures.per_second,
            figures.p50.as_secs_f64() * 1e3,
            figures.p99.as_secs_f64() * 1e3,
            figures.server_ms_per_run,
            figures.client_ms_per_run,
            figures.flushes_per_run,
            figures.per_second / flushes_per_s,
        );
    }
}

fn spawn(data: &std::path::Path, world: &str) -> (Server, String) {
    let server = std::env::var_os("BMDEMO_BENCH_SERVER");
    let mut child = Command::new(server.unwrap_or(env!("CARGO_BIN_EXE_bmdemo-server").into()))
        .args(["--port", "0", "--fake-timing", "zero", "--log-level", "warn", "--data-dir"])
        .arg(data)
        .args(["--fake-world", world])
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

struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Processor time.
    server_ms_per_run: f64,
    client_ms_per_run: f64,
    flushes_per_run: f64,
}

async fn measure(server: &Server, address: &str, in_flight: usize, runs: usize) -> Figures {
    let channel = Channel::from_shared(address.to_owned())
        .expect("an address")
        .connect()
        .await
        .expect("a connection");
    register(channel.clone(), in_flight).await;
    let waiters: Waiters = Arc::default();
    watch(channel.clone(), waiters.clone()).await;
    // Warm up: connections, caches, the first pages of the store.
    drive(&channel, &waiters, in_flight, in_flight * 2).await;
    let before = flushes();
    let (server_before, client_before) =
        (processor_ms(server.0.id()), processor_ms(std::process::id()));
    let start = Instant::now();
    let mut latencies = drive(&channel, &waiters, in_flight, runs).await;
    let took = start.elapsed();
    let flushed = flushes() - before;
    latencies.sort();
    Figures {
        per_second: runs as f64 / took.as_secs_f64(),
        p50: latencies[latencies.len() / 2],
        p99: latencies[latencies.len() * 99 / 100],
        server_ms_per_run: (processor_ms(server.0.id()) - server_before) / runs as f64,
        client_ms_per_run: (processor_ms(std::process::id()) - client_before) / runs as f64,
        flushes_per_run: flushed as f64 / runs as f64,
    }
}

async fn register(channel: Channel, count: usize) {
    let mut client = MachineServiceClient::new(channel);
    for number in 0..count {
        let machine = pb::Machine {
            machine_id: format!("bench-{number}"),
            spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
        client.register_machine(request).await.expect("registered");
    }
}

/// One watch of all runs; it notifies the waiter of a run when its terminal event arrives.
async fn watch(channel: Channel, waiters: Waiters) {
    let mut client = RunServiceClient::new(channel);
    let mut stream =
        client.watch_runs(pb::WatchRunsRequest::default()).await.expect("a watch").into_inner();
    tokio::spawn(async move {
        while let Ok(Some(event)) = stream.message().await {
            let Some(run) = event.snapshot else { continue };
            if !matches!(
                run.phase(),
                pb::RunPhase::Succeeded | pb::RunPhase::Failed | pb::RunPhase::Canceled
            ) {
                continue;
            }
            assert_eq!(run.phase(), pb::RunPhase::Succeeded, "{run:?}");
            if let Some(waiter) = waiters.lock().await.remove(&run.request_id) {
                let _ = waiter.send(Instant::now());
            }
        }
    });
}

async fn drive(
    channel: &Channel,
    waiters: &Waiters,
    in_flight: usize,
    runs: usize,
) -> Vec<Duration> {
    let slots = Arc::new(Semaphore::new(in_flight));
    let machines = Arc::new(Mutex::new((0..in_flight).collect::<Vec<_>>()));
    let mut tasks = Vec::with_capacity(runs);
    for _ in 0..runs {
        let slot = slots.clone().acquire_owned().await.expect("open");
        let machine = machines.lock().await.pop().expect("one machine a slot");
        let (channel, waiters, machines) = (channel.clone(), waiters.clone(), machines.clone());
        tasks.push(tokio::spawn(async move {
            let request_id =
                format!("{:?}-{machine}-{:?}", std::thread::current().id(), Instant::now());
            let (done, ended) = oneshot::channel();
            waiters.lock().await.insert(request_id.clone(), done);
            let start = Instant::now();
            RunServiceClient::new(channel)
                .start_run(pb::StartRunRequest {
                    machine_id: format!("bench-{machine}"),
                    plan_id: "plan/repave-join".to_owned(),
                    force: true,
                    request_id,
                    ..Default::default()
                })
                .await
                .expect("started");
            let seen = ended.await.expect("ended");
            machines.lock().await.push(machine);
            drop(slot);
            seen - start
        }));
    }
    let mut latencies = Vec::with_capacity(runs);
    for task in tasks {
        latencies.push(task.await.expect("a latency"));
    }
    latencies
}

/// Processor time that a process has used, user and system, in milliseconds: the kernel counts in ticks of 10 ms.
fn processor_ms(pid: u32) -> f64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    // The second field is the name in brackets, and may hold spaces.
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u32>().ok());
    ticks.map(f64::from).sum::<f64>() * 10.0
}

/// Flush requests that the disks have completed, as the kernel counts them.
fn flushes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/diskstats") else { return 0 };
    text.lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let whole_disk = fields
                .get(2)
                .is_some_and(|name| !name.starts_with("loop") && !name.starts_with("ram"));
            whole_disk.then(|| fields.get(18).and_then(|field| field.parse::<u64>().ok())).flatten()
        })
        .sum()
}

/// Appends of 1 KiB, each with its fdatasync, for half a second: what the disk allows one writer.
fn flush_rate(dir: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(dir.join("flush-rate")).expect("a file");
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_millis(500) {
        file.write_all(&[0_u8; 1024]).expect("room");
        file.sync_data().expect("a flush");
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
