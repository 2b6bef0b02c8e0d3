//! The figures that the engine is held to, in one run: runs per second and processor time per run, a lone run, the
//! cost of watchers and probes, memory, restarts, pages of a large fleet, and starts. Measured over gRPC against the
//! server binary.
//!
//! Prints a table, then one line of JSON. `cargo bench --bench figures`; `BMDEMO_BENCH_SCALE` divides the sizes
//! (default 1; 100 to check that it works), `BMDEMO_BENCH_SERVER` names another server binary.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints real time"
)]

use std::collections::HashMap;
use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

const IN_FLIGHT: usize = 256;
const BATCH: usize = 1_000;
const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

struct Server {
    child: Child,
    channel: Channel,
    /// From its start until it answered.
    served_after: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    async fn start(data: &Path, flags: &[&str]) -> Self {
        let began = Instant::now();
        let server = std::env::var_os("BMDEMO_BENCH_SERVER");
        let mut child = Command::new(server.unwrap_or(env!("CARGO_BIN_EXE_bmdemo-server").into()))
            .args(["--port", "0", "--log-level", "error", "--fake-world", "memory", "--data-dir"])
            .arg(data)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("where it listens");
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
        let channel = channel.connect().await.expect("a connection");
        let request = pb::ListMachinesRequest { page_size: 1, ..Default::default() };
        machines(&channel).list_machines(request).await.expect("an answer");
        Self { child, channel, served_after: began.elapsed() }
    }

    fn memory_mb(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }

    fn processor_ms(&self) -> f64 {
        processor_ms(self.child.id())
    }
}

/// Processor time that a process has used: the kernel counts in ticks of 10 ms.
fn processor_ms(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<u32>().ok()).map(f64::from).sum::<f64>() * 10.0
}

fn machines(channel: &Channel) -> MachineServiceClient<Channel> {
    MachineServiceClient::new(channel.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

fn runs(channel: &Channel) -> RunServiceClient<Channel> {
    RunServiceClient::new(channel.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

/// What was measured, in order.
#[derive(Default)]
struct Figures(Vec<(&'static str, f64, &'static str)>);

impl Figures {
    fn add(&mut self, name: &'static str, value: f64, unit: &'static str) {
        println!("{name:<64} {value:>12.3} {unit}");
        self.0.push((name, value, unit));
    }

    fn json(&self) -> String {
        let figures = self.0.iter().map(
            |(name, value, unit)| serde_json::json!({ "name": name, "value": value, "unit": unit }),
        );
        serde_json::json!({ "figures": figures.collect::<Vec<_>>() }).to_string()
    }
}

/// Every tenth machine has another provider, and two hundred share a rack.
async fn register(channel: &Channel, count: usize) {
    for begin in (0..count).step_by(BATCH) {
        let batch = (begin..count.min(begin + BATCH)).map(|number| pb::Machine {
            machine_id: format!("bench-{number}"),
            labels: [("rack".to_owned(), format!("r{}", number / 200))].into(),
            spec: Some(pb::MachineSpec {
                provider: if number % 10 == 9 { "other" } else { "fake" }.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let request =
            pb::BatchRegisterMachinesRequest { machines: batch.collect(), ..Default::default() };
        machines(channel).batch_register_machines(request).await.expect("registered");
    }
}

/// Starts `count` runs on the machines of the simulator from `from` on; returns the machine after the last.
async fn start(channel: &Channel, from: usize, count: usize) -> usize {
    let ids: Vec<_> = (from..).filter(|number| number % 10 != 9).take(count).collect();
    for batch in ids.chunks(BATCH) {
        let request = pb::BatchStartRunsRequest {
            request_id: format!("bench-{}", batch[0]),
            machine_ids: batch.iter().map(|number| format!("bench-{number}")).collect(),
            plan_id: "plan/repave-join".to_owned(),
            force: true,
            ..Default::default()
        };
        runs(channel).batch_start_runs(request).await.expect("started");
    }
    ids.last().map_or(from, |last| last + 1)
}

type Waiters = Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>;

/// Runs to their end, `in_flight` at a time, each on its own machine; returns how long each took.
async fn drive(channel: &Channel, in_flight: usize, count: usize) -> (Duration, Vec<Duration>) {
    let waiters: Waiters = Arc::default();
    let mut stream = runs(channel)
        .watch_runs(pb::WatchRunsRequest::default())
        .await
        .expect("a watch")
        .into_inner();
    let waiting = waiters.clone();
    let watch = tokio::spawn(async move {
        while let Ok(Some(event)) = stream.message().await {
            let Some(run) = event.snapshot.filter(|run| run.phase() == pb::RunPhase::Succeeded)
            else {
                continue;
            };
            let waiter =
                waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&run.request_id);
            if let Some(waiter) = waiter {
                let _ = waiter.send(());
            }
        }
    });
    let usable = (0..).filter(|number| number % 10 != 9).take(in_flight).collect::<Vec<usize>>();
    let free = Arc::new(Mutex::new(usable));
    let slots = Arc::new(Semaphore::new(in_flight));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..count {
        let slot = slots.clone().acquire_owned().await.expect("open");
        let machine = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let machine = machine.expect("one machine a slot");
        let (channel, waiters, free) = (channel.clone(), waiters.clone(), free.clone());
        tasks.push(tokio::spawn(async move {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let request_id = format!("drive-{}", NUMBER.fetch_add(1, Relaxed));
            let (done, ended) = oneshot::channel();
            waiters.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id.clone(), done);
            let began = Instant::now();
            let request = pb::StartRunRequest {
                machine_id: format!("bench-{machine}"),
                plan_id: "plan/repave-join".to_owned(),
                force: true,
                request_id,
                ..Default::default()
            };
            runs(&channel).start_run(request).await.expect("started");
            ended.await.expect("ended");
            let took = began.elapsed();
            free.lock().unwrap_or_else(PoisonError::into_inner).push(machine);
            drop(slot);
            took
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.push(task.await.expect("a latency"));
    }
    let took = began.elapsed();
    watch.abort();
    latencies.sort();
    (took, latencies)
}

async fn per_second(channel: &Channel, count: usize) -> f64 {
    let (took, _) = drive(channel, IN_FLIGHT, count).await;
    count as f64 / took.as_secs_f64()
}

async fn watchers(channel: &Channel, count: usize, filter: &str) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let request = pb::WatchRunsRequest { filter: filter.to_owned(), ..Default::default() };
        let mut stream = runs(channel).watch_runs(request).await.expect("a watch").into_inner();
        tasks.push(tokio::spawn(async move { while let Ok(Some(_)) = stream.message().await {} }));
    }
    tasks
}

async fn throughput(figures: &mut Figures, dir: &Path, scale: usize) {
    let count = 20_000 / scale;
    let server = Server::start(&dir.join("runs"), &["--fake-timing", "zero"]).await;
    figures.add("start, empty", server.served_after.as_secs_f64() * 1e3, "ms");
    let channel = &server.channel;
    register(channel, 300).await;
    drive(channel, IN_FLIGHT, IN_FLIGHT).await;
    let (before, client) = (server.processor_ms(), processor_ms(std::process::id()));
    let alone = per_second(channel, count).await;
    let (server_ms, client_ms) =
        (server.processor_ms() - before, processor_ms(std::process::id()) - client);
    figures.add("256 in flight", alone, "runs/s");
    figures.add("processor time of the server a run", server_ms / count as f64, "ms");
    figures.add("processor time of the client a run", client_ms / count as f64, "ms");
    let (_, latencies) = drive(channel, 1, count / 20).await;
    figures.add("lone run, p50", latencies[latencies.len() / 2].as_secs_f64() * 1e3, "ms");
    for (name, watching, filter) in [
        ("kept with 500 watchers whose filter matches nothing", 500, "phase = FAILED"),
        ("kept with 100 watchers without a filter", 100, ""),
    ] {
        let tasks = watchers(channel, watching / scale.min(10), filter).await;
        let with = per_second(channel, count / 4).await;
        tasks.iter().for_each(JoinHandle::abort);
        let without = per_second(channel, count / 4).await;
        figures.add(name, with / without * 100.0, "%");
    }
}

async fn restart(figures: &mut Figures, dir: &Path, scale: usize) {
    let (idle, active) = (100_000 / scale, 10_000 / scale);
    let limit = format!("[limits]\nruns_max = {active}\n");
    std::fs::write(dir.join("limit.toml"), limit).expect("room");
    let config = dir.join("limit.toml").to_string_lossy().into_owned();
    let flags = ["--fake-timing", "1000", "--config", config.as_str()];
    let data = dir.join("restart");
    let server = Server::start(&data, &flags).await;
    // A tenth has another provider, on which nothing runs.
    register(&server.channel, (idle * 2 + active) * 10 / 9).await;
    let next = start(&server.channel, 0, active).await;
    settle().await;
    figures.add("memory, 100,000 idle machines and 10,000 slow runs", server.memory_mb(), "MB");
    drop(server);
    let server = Server::start(&data, &flags).await;
    figures.add("kill -9 then: until it serves", server.served_after.as_secs_f64() * 1e3, "ms");
    let began = Instant::now();
    recovered(&server.channel).await;
    let all = server.served_after + began.elapsed();
    figures.add("kill -9 then: until every run is recovered", all.as_secs_f64() * 1e3, "ms");
    settle().await;
    let before = server.memory_mb();
    figures.add("memory after that", before, "MB");
    start(&server.channel, next, idle).await;
    settle().await;
    figures.add("memory, 100,000 pending runs more", server.memory_mb() - before, "MB");
    let request = || pb::ListRunsRequest {
        page_size: 100,
        order_by: "created_at desc".to_owned(),
        ..Default::default()
    };
    let p50 = p50_of(async || {
        runs(&server.channel).list_runs(request()).await.expect("a page");
    });
    figures.add("page of 100: newest runs, 100,000 waiting", p50.await, "ms");
}

/// Reads the active runs, page by page, until none waits for its recovery.
async fn recovered(channel: &Channel) {
    let mut page_token = String::new();
    loop {
        let request = pb::ListRunsRequest {
            filter: "phase = RUNNING".to_owned(),
            page_size: 1_000,
            page_token: page_token.clone(),
            ..Default::default()
        };
        let page = runs(channel).list_runs(request).await.expect("a page").into_inner();
        let waits = |run: &pb::Run| {
            run.waiting.as_ref().is_some_and(|why| why.reason() == pb::WaitReason::Recovery)
        };
        if page.runs.iter().any(waits) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        } else if page.next_page_token.is_empty() {
            return;
        } else {
            page_token = page.next_page_token;
        }
    }
}

async fn probes(figures: &mut Figures, dir: &Path, scale: usize) {
    let (fleet, count) = (100_000 / scale, 10_000 / scale);
    let mut rates = Vec::new();
    let mut memory = Vec::new();
    let text = "[probes.fake]\ninterval = \"10m\"\n[probes.other]\ninterval = \"10m\"\n";
    for (name, text) in [("unprobed", ""), ("probed", text)] {
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, text).expect("room");
        let config = path.to_string_lossy().into_owned();
        let flags = ["--fake-timing", "zero", "--config", config.as_str()];
        let server = Server::start(&dir.join(name), &flags).await;
        register(&server.channel, fleet).await;
        settle().await;
        memory.push(server.memory_mb());
        let before = server.processor_ms();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let busy = (server.processor_ms() - before) / 10_000.0 * 100.0;
        if name == "probed" {
            figures.add("100,000 probed machines: of a core", busy, "%");
        }
        drive(&server.channel, IN_FLIGHT, IN_FLIGHT).await;
        rates.push(per_second(&server.channel, count).await);
    }
    figures.add("100,000 probed machines: memory above idle", memory[1] - memory[0], "MB");
    figures.add("100,000 probed machines: throughput kept", rates[1] / rates[0] * 100.0, "%");
}

async fn pages(figures: &mut Figures, dir: &Path, scale: usize) {
    let data = dir.join("pages");
    let flags = ["--fake-timing", "zero"];
    let server = Server::start(&data, &flags).await;
    register(&server.channel, 1_000_000 / scale).await;
    drop(server);
    let server = Server::start(&data, &flags).await;
    figures.add("start, 1,000,000 machines idle", server.served_after.as_secs_f64() * 1e3, "ms");
    for (name, filter, order_by) in [
        ("page of 100 of 1,000,000 machines", "", ""),
        ("page of 100 of 1,000,000 machines, by provider", "provider = other", ""),
        ("page of 100 of 1,000,000 machines, by label", "labels.rack = r40", ""),
        ("page of 100 of 1,000,000 machines, ordered by id", "", "id desc"),
    ] {
        let request = || pb::ListMachinesRequest {
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            page_size: 100,
            ..Default::default()
        };
        let p50 = p50_of(async || {
            machines(&server.channel).list_machines(request()).await.expect("a page");
        });
        figures.add(name, p50.await, "ms");
    }
}

/// Median of 200 calls, one at a time, in milliseconds.
async fn p50_of(call: impl AsyncFn()) -> f64 {
    let mut latencies = Vec::new();
    for _ in 0..220 {
        let began = Instant::now();
        call().await;
        latencies.push(began.elapsed());
    }
    let mut measured = latencies.split_off(20);
    measured.sort();
    measured[measured.len() / 2].as_secs_f64() * 1e3
}

/// Waits until background work has settled.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    // Without Cargo's `--bench`, as in `cargo test --benches`, only check that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let scale = std::env::var("BMDEMO_BENCH_SCALE").ok().and_then(|text| text.parse().ok());
    let scale: usize = scale.unwrap_or(if measured { 1 } else { 100 });
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory is made");
    let mut figures = Figures::default();
    throughput(&mut figures, dir.path(), scale).await;
    restart(&mut figures, dir.path(), scale).await;
    probes(&mut figures, dir.path(), scale).await;
    pages(&mut figures, dir.path(), scale).await;
    println!("{}", figures.json());
}
