//! A wave of repaves over machines behind controllers in this process, some of which are sick: boot source, power, installer and
//! installed system are played, everything else is the real thing.
//!
//! 200 machines at a limit of 10; `BMDEMO_CONTROLLERS=2000` for 2,000 at a limit of 100.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::harness::{START, machine_id, new_run, origin};
use crate::clock::{Clock, SeededRandom, TokioClock};
use crate::credentials::Credentials;
use crate::executor::request::NewMachine;
use crate::executor::{Engine, EngineConfig, Limits};
use crate::ids::MachineId;
use crate::lifecycle::run::Phase;
use crate::model::{InstallReport, InstallStage, MachineSpec};
use crate::outbound::{Networks, TcpDial};
use crate::plan::registry::BUILT_IN;
use crate::plan::{Capability, Registry, SourceFile, compile};
use crate::provider::Provider;
use crate::provider::boot::{
    Desk, Image, InMemory, Installer, InstallerOptions, Installing, Patience, TokenKey,
};
use crate::provider::redfish::mock::{Fault, LOGIN, Mock, Racks, Traits};
use crate::provider::redfish::{Redfish, RedfishPorts, RedfishSettings};
use crate::provider::routed::Routed;
use crate::store::memory::MemoryStore;

/// The steps of plan/repave-join that a controller and an installer do, and a look whether the machine stays up.
const PLAN: &str = r#"
id = "plan/wave"
destructive = true
allowed_phases = ["FACTORY_READY"]

[params.image]
kind = "string"
default = "os"

[[steps]]
name = "set-netboot"
action = "set-netboot"
timeout = "1m"
retry = { max_attempts = 5, backoff = "2s", backoff_max = "30s" }
compensation = { action = "clear-netboot" }

[[steps]]
name = "repave"
action = "repave"
args = { image = { param = "image" } }
timeout = "1h"
retry = { max_attempts = 3, on = ["transient"], backoff = "30s", backoff_max = "5m" }
on_unknown = "verify"
needs = ["set-netboot"]

[[steps]]
name = "verify-up"
action = "verify-up"
timeout = "5m"

[result]
phase = "READY"
"#;

/// Every machine with this remainder of twenty has a sick controller.
const SICK: usize = 7;
const SHA256: &str = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff";

/// What a wave took, and how its runs ended.
struct Wave {
    took: Duration,
    succeeded: usize,
    failed: usize,
    /// How often a disk was written.
    written: usize,
    requests: usize,
    /// Memory of the process once there are all controllers, and nothing else, in bytes.
    memory_of_controllers: u64,
    /// Memory of the process while all controllers and the engine are there, in bytes.
    memory: u64,
}

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn mac(number: usize) -> String {
    format!("52:54:00:00:{:02x}:{:02x}", number / 256, number % 256)
}

fn desk(clock: &Arc<dyn Clock>) -> Arc<Desk> {
    let image = Image {
        url: "http://10.0.0.1/os".to_owned(),
        sha256: SHA256.to_owned(),
        architecture: "x86_64".to_owned(),
        kernel_arguments: String::new(),
    };
    let (images, url) = (BTreeMap::from([("os".to_owned(), image)]), "http://10.0.0.1:8069");
    let (reports, key) = (Arc::<InMemory>::default(), TokenKey::new(&[7; 32]));
    Arc::new(Desk::new(reports, clock.clone(), key, images, url.to_owned()))
}

/// A machine behind a controller: what it does by itself.
struct Played {
    mock: Arc<Mock>,
    desk: Arc<Desk>,
    clock: Arc<dyn Clock>,
    id: MachineId,
    mac: String,
    written: Arc<AtomicUsize>,
}

impl Played {
    /// Whatever it does ends when its power goes. It was on when it was registered.
    async fn live(self) {
        let mut token = String::new();
        self.mock.until_power("Off").await;
        loop {
            self.mock.until_power("On").await;
            tokio::select! {
                biased;
                () = self.mock.until_power("Off") => continue,
                () = self.boot(&mut token) => {}
            }
            self.mock.until_power("Off").await;
        }
    }

    async fn boot(&self, token: &mut String) {
        self.pass(40).await;
        let (enabled, source) = self.mock.boot();
        if enabled == "Disabled" || source != "Pxe" {
            if !token.is_empty() {
                self.report(token, InstallStage::Up).await;
            }
            return;
        }
        let settings = loop {
            match self.desk.take_settings(&self.mac).await {
                Ok(settings) => break settings,
                Err(_) => self.pass(2).await,
            }
        };
        let line = settings.lines().find_map(|line| line.strip_prefix("token="));
        line.unwrap().clone_into(token);
        self.report(token, InstallStage::Installing).await;
        self.pass(60).await;
        self.written.fetch_add(1, Ordering::SeqCst);
        self.report(token, InstallStage::Written).await;
    }

    async fn report(&self, token: &str, stage: InstallStage) {
        let (image_sha256, boot_id) = (SHA256.to_owned(), "boot-1".to_owned());
        let report = InstallReport { image_sha256, boot_id, message: String::new() };
        self.desk.report(&self.id, token, stage, report).await.unwrap();
    }

    async fn pass(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }
}

async fn wave(count: usize, has_sick: bool) -> Wave {
    let clock = Arc::new(TokioClock::new(START));
    let racks = Racks::default();
    let dir = tempfile::tempdir().unwrap();
    let login = dir.path().join("rack");
    std::fs::write(&login, format!("{}\n{}\n", LOGIN.0, LOGIN.1)).unwrap();
    std::fs::set_permissions(&login, std::fs::Permissions::from_mode(0o600)).unwrap();
    let clock_of_all: Arc<dyn Clock> = clock.clone();
    let desk = desk(&clock_of_all);
    let (mut mocks, written) = (Vec::new(), Arc::<AtomicUsize>::default());
    let mut machines = tokio::task::JoinSet::new();
    for number in 1..=count {
        let mock = Mock::new(Traits::default(), clock.clone());
        let is_sick = has_sick && number % 20 == SICK;
        match (is_sick, number / 20 % 4) {
            // Nothing answers at its address.
            (true, 0) => continue,
            (true, 1) => mock.fail("", Fault::Hang, usize::MAX),
            (true, 2) => mock.fail("", Fault::Status(503), usize::MAX),
            (true, _) => mock.fail("ComputerSystem.Reset", Fault::Nothing, usize::MAX),
            (false, _) => {}
        }
        racks.add(&format!("bmc-{number}"), mock.clone());
        let played = Played {
            mock: mock.clone(),
            desk: desk.clone(),
            clock: clock.clone(),
            id: machine_id(number),
            mac: mac(number),
            written: written.clone(),
        };
        machines.spawn(played.live());
        mocks.push(mock);
    }
    let memory_of_controllers = memory();
    let settings = RedfishSettings {
        is_insecure: true,
        power: Duration::from_secs(20),
        poll: Duration::from_secs(5),
        request: Duration::from_secs(15),
        ..RedfishSettings::default()
    };
    let ports = RedfishPorts {
        dial: Arc::new(racks),
        images: TcpDial::new(Networks::new("networks.image", Vec::new())),
        credentials: Credentials::new(Some(dir.path().to_owned())),
        clock: clock.clone(),
    };
    let redfish = Arc::new(Redfish::new(settings, ports));
    let seconds = Duration::from_secs;
    let (boot, write, up) = (seconds(300), seconds(600), seconds(300));
    let patience = Patience { boot, write, up, look: seconds(5) };
    let options = InstallerOptions { patience, ..InstallerOptions::default() };
    let installer = Installer::new(desk, redfish.clone(), options, clock.clone());
    let driver: Arc<dyn Provider> = Arc::new(Installing::new(redfish, installer));
    let all = [Capability::Power, Capability::Netboot, Capability::Imaging, Capability::Probe];
    let routes = all.map(|capability| (capability, driver.clone()));
    let class = Routed::new("rack-server".to_owned(), routes.into());
    let own = compile(&[SourceFile { name: "wave.toml", bytes: PLAN.as_bytes() }]).unwrap();
    let engine = Engine::start(EngineConfig {
        store: Arc::new(MemoryStore::new(clock.clone())),
        providers: vec![Arc::new(class)],
        plans: Registry::from_plans(BUILT_IN.iter().cloned().chain(own).collect()).unwrap(),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(1)),
        limits: Limits { runs_max: count / 20, ..Limits::default() },
        planted: None,
    })
    .await
    .unwrap();
    let mut runs = Vec::new();
    for number in 1..=count {
        let spec = MachineSpec {
            provider: "rack-server".to_owned(),
            bmc_endpoint: format!("http://bmc-{number}"),
            bmc_system_id: "1".to_owned(),
            bmc_credentials: "rack".to_owned(),
            mac_addresses: vec![mac(number)],
            ..MachineSpec::default()
        };
        let new =
            NewMachine { id: machine_id(number), labels: BTreeMap::new(), spec, in_service: false };
        engine.register_machine(&origin(), new).await.unwrap();
    }
    let began = clock.monotonic();
    for number in 1..=count {
        let new = new_run(number, "plan/wave");
        runs.push(engine.start_run(&origin(), new).await.unwrap().id);
    }
    while engine.load() != (0, 0, 0) {
        clock.sleep(Duration::from_secs(1)).await;
        assert!(clock.monotonic() - began < Duration::from_secs(100_000), "it does not end");
    }
    let took = clock.monotonic() - began;
    let memory = memory();
    let (mut succeeded, mut failed) = (0, 0);
    for run in runs {
        match engine.run(run).await.unwrap().phase() {
            Phase::Succeeded => succeeded += 1,
            Phase::Failed => failed += 1,
            other => panic!("{run} is {other:?}"),
        }
    }
    let requests = mocks.iter().map(|mock| mock.seen("").len()).sum();
    engine.kill();
    machines.shutdown().await;
    let written = written.load(Ordering::SeqCst);
    Wave { took, succeeded, failed, written, requests, memory_of_controllers, memory }
}

#[tokio::test(start_paused = true)]
async fn sick_controllers_delay_a_wave_by_a_fifth_at_most() {
    let count = std::env::var("BMDEMO_CONTROLLERS").map_or(200, |text| text.parse().unwrap());
    let before = memory();
    let healthy = wave(count, false).await;
    assert_eq!((healthy.succeeded, healthy.failed, healthy.written), (count, 0, count));
    let sick = wave(count, true).await;
    for (name, wave) in [("healthy", &healthy), ("5 % sick", &sick)] {
        let (seconds, requests) = (wave.took.as_secs(), wave.requests);
        eprintln!("{count} controllers, {name}: {seconds} s, {requests} requests");
    }
    // The second wave uses again what the first has left.
    let more = |bytes: u64| bytes.saturating_sub(before) / 1_000_000;
    let (controllers, all) = (more(healthy.memory_of_controllers), more(healthy.memory));
    eprintln!(
        "{count} controllers: {controllers} MB for them, {all} MB with engine, store and connections"
    );
    let well = count - count / 20;
    assert_eq!((sick.succeeded, sick.failed, sick.written), (well, count / 20, well));
    assert!(sick.took <= healthy.took * 6 / 5, "{:?} instead of {:?}", sick.took, healthy.took);
}
