//! A wave of restarts over machines behind controllers in this process, some of which are sick.
//!
//! 200 machines at a limit of 10; `BMDEMO_CONTROLLERS=2000` for 2,000 at a limit of 100.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use super::harness::{START, machine_id, new_run, origin};
use crate::clock::{Clock as _, SeededRandom, TokioClock};
use crate::credentials::Credentials;
use crate::executor::request::{NewMachine, NewRun};
use crate::executor::{Engine, EngineConfig, Limits};
use crate::lifecycle::run::Phase;
use crate::model::MachineSpec;
use crate::outbound::{Networks, TcpDial};
use crate::plan::{Capability, Registry};
use crate::provider::Provider;
use crate::provider::redfish::mock::{Fault, LOGIN, Mock, Racks, Traits};
use crate::provider::redfish::{Redfish, RedfishPorts, RedfishSettings};
use crate::provider::routed::Routed;
use crate::store::memory::MemoryStore;

/// Every machine with this remainder of twenty has a sick controller.
const SICK: usize = 7;

/// What a wave took, and how its runs ended.
struct Wave {
    took: Duration,
    succeeded: usize,
    failed: usize,
    requests: usize,
    /// Memory of the process while all controllers and the engine are there, in bytes.
    memory: u64,
}

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

async fn wave(count: usize, has_sick: bool) -> Wave {
    let clock = Arc::new(TokioClock::new(START));
    let racks = Racks::default();
    let dir = tempfile::tempdir().unwrap();
    let login = dir.path().join("rack");
    std::fs::write(&login, format!("{}\n{}\n", LOGIN.0, LOGIN.1)).unwrap();
    std::fs::set_permissions(&login, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut mocks = Vec::new();
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
        mocks.push(mock);
    }
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
    let driver: Arc<dyn Provider> = Arc::new(Redfish::new(settings, ports));
    let routes = [(Capability::Power, driver.clone()), (Capability::Probe, driver)];
    let class = Routed::new("rack-server".to_owned(), routes.into());
    let engine = Engine::start(EngineConfig {
        store: Arc::new(MemoryStore::new(clock.clone())),
        providers: vec![Arc::new(class)],
        plans: Registry::built_in(),
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
            ..MachineSpec::default()
        };
        let new =
            NewMachine { id: machine_id(number), labels: BTreeMap::new(), spec, in_service: false };
        engine.register_machine(&origin(), new).await.unwrap();
    }
    let began = clock.monotonic();
    for number in 1..=count {
        let parameters = BTreeMap::from([("mode".to_owned(), "force".to_owned())]);
        let new = NewRun { parameters, ..new_run(number, "plan/reboot") };
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
    Wave { took, succeeded, failed, requests, memory }
}

#[tokio::test(start_paused = true)]
async fn sick_controllers_delay_a_wave_by_a_fifth_at_most() {
    let count = std::env::var("BMDEMO_CONTROLLERS").map_or(200, |text| text.parse().unwrap());
    let before = memory();
    let healthy = wave(count, false).await;
    assert_eq!((healthy.succeeded, healthy.failed), (count, 0));
    let sick = wave(count, true).await;
    for (name, wave) in [("healthy", &healthy), ("5 % sick", &sick)] {
        eprintln!(
            "{count} controllers, {name}: {} s, {} requests, {} MB more memory",
            wave.took.as_secs(),
            wave.requests,
            wave.memory.saturating_sub(before) / 1_000_000
        );
    }
    assert_eq!((sick.succeeded, sick.failed), (count - count / 20, count / 20));
    assert!(sick.took <= healthy.took * 6 / 5, "{:?} instead of {:?}", sick.took, healthy.took);
}
