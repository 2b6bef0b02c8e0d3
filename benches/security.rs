//! What security costs: a handshake and a call over TLS against plain ones, both by the server binary, in interleaved pairs;
//! and an entry of the audit, by commits of the SQLite store with and without one.
//!
//! Processor time is that of the server (calls) or of this process (commits). Prints a table and one line of JSON.
//! `cargo bench --bench security`; `BMDEMO_BENCH_SCALE=100` checks quickly that it works.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints real time"
)]

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::ids::MachineId;
use bmdemo::model::{AuditEntry, Decision, Machine, MachineSpec};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::store::sqlite::{SqliteOptions, SqliteStore};
use bmdemo::store::{Batch, Store, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

const PAIRS: usize = 5;
const CALLS: usize = 8_000;
const HANDSHAKES: usize = 400;
const COMMITS: u64 = 24_000;
/// Commits at the same time, which share their flushes.
const WRITERS: u64 = 64;

struct Server {
    child: Child,
    address: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bmdemo-server"))
}

impl Server {
    /// A server with one machine; over TLS, with a certificate of the client, if there is a directory for those.
    async fn start(certificates: Option<&Path>) -> Self {
        let mut command = server();
        command.args(["--port", "0", "--log-level", "error", "--ephemeral"]);
        if let Some(dir) = certificates {
            let config = dir.parent().expect("a parent").join("bmdemo.toml");
            let at = |name: &str| dir.join(name).display().to_string();
            let text = format!(
                "[tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n[principals.ann]\nrole = \"admin\"\n\
                 [server]\nmutations_per_peer_per_s = 100000\n",
                at("server.pem"),
                at("server-key.pem"),
                at("ca.pem")
            );
            std::fs::write(&config, text).expect("a file");
            command.arg("--config").arg(config);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("where it listens");
        let tls = certificates.map(|dir| Arc::new(client(dir)));
        let this = Self { child, address: address.to_owned(), tls };
        let spec = pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() };
        let machine = pb::Machine {
            machine_id: "bench-1".to_owned(),
            spec: Some(spec),
            ..Default::default()
        };
        let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
        let mut machines = MachineServiceClient::new(this.channel().await);
        machines.register_machine(request).await.expect("registered");
        this
    }

    /// A new connection.
    async fn channel(&self) -> Channel {
        let stream = TcpStream::connect(&self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint =
            Endpoint::from_shared(format!("{scheme}://{}", self.address)).expect("an address");
        let Some(config) = &self.tls else {
            return endpoint.connect_with_connector(once(stream)).await.expect("HTTP/2");
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let stream = connector.connect(name, stream).await.expect("a handshake");
        endpoint.connect_with_connector(once(stream)).await.expect("HTTP/2")
    }

    fn processor(&self) -> Duration {
        processor(&self.child.id().to_string())
    }
}

/// Gives out one connection.
fn once<S>(
    stream: S,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<S>,
    Error = std::io::Error,
    Future = std::future::Ready<std::io::Result<TokioIo<S>>>,
> {
    let mut stream = Some(TokioIo::new(stream));
    tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("one connection only"));
        std::future::ready(stream)
    })
}

fn client(dir: &Path) -> ClientConfig {
    let pem = |name: &str| std::fs::read(dir.join(name)).expect("a file of dev-certs");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.pem")).expect("PEM")).expect("an authority");
    let cert = CertificateDer::from_pem_slice(&pem("client-ann.pem")).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(&pem("client-ann-key.pem")).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version");
    let mut config = builder
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![cert], key)
        .expect("a key of the certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each handshake is a whole one.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// Processor time that a process has used; the kernel counts in ticks of 10 ms.
fn processor(pid: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    Duration::from_millis(ticks.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// Microseconds of the server's processor time a call, and the median call, over one connection.
async fn calls(server: &Server, count: usize) -> (f64, f64) {
    let mut machines = MachineServiceClient::new(server.channel().await);
    let mut took = Vec::with_capacity(count);
    let before = server.processor();
    for _ in 0..count {
        let began = Instant::now();
        let request =
            pb::GetMachineRequest { machine_id: "bench-1".to_owned(), ..Default::default() };
        machines.get_machine(request).await.expect("a machine");
        took.push(began.elapsed());
    }
    let used = server.processor() - before;
    took.sort();
    (micros(used) / count as f64, micros(took[took.len() / 2]))
}

/// Microseconds of the server's processor time a connection with one call.
async fn connections(server: &Server, count: usize) -> f64 {
    let before = server.processor();
    for _ in 0..count {
        let mut machines = MachineServiceClient::new(server.channel().await);
        let request =
            pb::GetMachineRequest { machine_id: "bench-1".to_owned(), ..Default::default() };
        machines.get_machine(request).await.expect("a machine");
    }
    micros(server.processor() - before) / count as f64
}

/// Microseconds of processor time a commit that registers a machine.
async fn commits(dir: &Path, count: u64, audited: bool) -> f64 {
    let store = SqliteStore::open(dir, SqliteOptions::default());
    let store = Arc::new(store.expect("a store"));
    let before = processor("self");
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in (writer..count).step_by(usize::try_from(WRITERS).expect("small")) {
                let id = MachineId::parse(&format!("machine-{number}")).expect("an id");
                let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
                let now = SystemClock::new().now();
                let machine = Machine::registered(id, BTreeMap::new(), spec, now);
                let audit = audited.then(|| entry(number)).into_iter().collect();
                let write = Write::new(None, machine, Vec::new());
                let batch = Batch { audit, ..Batch::of(write) };
                store.commit(batch).await.expect("a commit");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    micros(processor("self") - before) / count as f64
}

fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        decision: Decision::Done,
        principal: "ann".into(),
        verified: true,
        proof: "certificate".to_owned(),
        peer: "10.0.0.7:40000".to_owned(),
        rpc: "StartRun".to_owned(),
        objects: vec![format!("machines/machine-{number}"), format!("runs/{number}")],
        request_id: format!("request-{number}"),
        reason: String::new(),
        body_digest: "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35".to_owned(),
        plan_digest: "sha256:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"
            .to_owned(),
        calls: 1,
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let scale = std::env::var("BMDEMO_BENCH_SCALE").ok().and_then(|scale| scale.parse().ok());
    let scale: usize = scale.unwrap_or(1);
    let dir = tempfile::tempdir().expect("a directory");
    let certificates = dir.path().join("certificates");
    let made = server()
        .args(["dev-certs", "--client", "ann"])
        .arg(&certificates)
        .stdout(Stdio::null())
        .status();
    assert!(made.expect("dev-certs runs").success());
    let (plain, tls) = (Server::start(None).await, Server::start(Some(&certificates)).await);
    let mut found: [Vec<f64>; 8] = Default::default();
    for pair in 0..PAIRS {
        let (cpu, p50) = calls(&plain, CALLS / scale).await;
        let (cpu_tls, p50_tls) = calls(&tls, CALLS / scale).await;
        let handshakes = [
            connections(&plain, HANDSHAKES / scale).await,
            connections(&tls, HANDSHAKES / scale).await,
        ];
        let count = COMMITS / u64::try_from(scale).expect("small");
        let bare = commits(&dir.path().join(format!("bare-{pair}")), count, false).await;
        let audited = commits(&dir.path().join(format!("audited-{pair}")), count, true).await;
        let values = [cpu, cpu_tls, p50, p50_tls, handshakes[0], handshakes[1], bare, audited];
        for (all, value) in found.iter_mut().zip(values) {
            all.push(value);
        }
    }
    let [cpu, cpu_tls, p50, p50_tls, connection, connection_tls, bare, audited] = found.map(median);
    let figures = [
        ("call, server's processor time, plain (us)", cpu),
        ("call, server's processor time, TLS (us)", cpu_tls),
        ("call, server's processor time, TLS against plain", cpu_tls / cpu),
        ("call, p50, plain (us)", p50),
        ("call, p50, TLS (us)", p50_tls),
        ("call, p50, TLS against plain", p50_tls / p50),
        ("connection with one call, server's processor time, plain (us)", connection),
        ("connection with one call, server's processor time, TLS (us)", connection_tls),
        ("commit, processor time, not audited (us)", bare),
        ("commit, processor time, audited (us)", audited),
        ("entry of the audit, processor time (us)", audited - bare),
    ];
    for (name, value) in figures {
        println!("{name:<64} {value:>10.2}");
    }
    let json = figures.map(|(name, value)| serde_json::json!({ "name": name, "value": value }));
    println!("{}", serde_json::json!({ "figures": json }));
}
