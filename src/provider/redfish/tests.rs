//! The driver against controllers that misbehave, in virtual time.

mod boot;
mod faults;
mod sessions;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::mock::{Fault, LOGIN, Mock, Racks, Traits};
use super::*;
use crate::clock::{Clock, Timestamp, TokioClock};
use crate::credentials::Credentials;
use crate::ids::{MachineId, OperationId};
use crate::model::{LogStream, MachineSpec, Power};
use crate::outbound::{Networks, TcpDial};
use crate::provider::{LogSink, ProviderErrorKind};

/// Keeps the lines of the log.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, _: LogStream, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

struct Setup {
    driver: Redfish,
    mock: Arc<Mock>,
    racks: Racks,
    clock: Arc<TokioClock>,
    target: Target,
    lines: Arc<Lines>,
    credentials: tempfile::TempDir,
}

fn write_login(dir: &tempfile::TempDir, password: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.path().join("rack");
    std::fs::write(&path, format!("{}\n{password}\n", LOGIN.0)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn insecure() -> RedfishSettings {
    RedfishSettings { is_insecure: true, ..RedfishSettings::default() }
}

fn setup_with(traits: Traits, settings: RedfishSettings) -> Setup {
    let clock = Arc::new(TokioClock::new(Timestamp(1_700_000_000_000)));
    let (racks, credentials) = (Racks::default(), tempfile::tempdir().unwrap());
    write_login(&credentials, LOGIN.1);
    let mock = Mock::new(traits, clock.clone());
    racks.add("bmc-1", mock.clone());
    let driver = driver(&racks, &credentials, &clock, settings);
    let spec = MachineSpec {
        provider: "rack-server".to_owned(),
        bmc_endpoint: "http://bmc-1".to_owned(),
        bmc_system_id: "1".to_owned(),
        bmc_credentials: "rack".to_owned(),
        ..MachineSpec::default()
    };
    let target = Target { machine_id: MachineId::parse("node-1").unwrap(), spec };
    Setup { driver, mock, racks, clock, target, lines: Arc::default(), credentials }
}

fn setup(traits: Traits) -> Setup {
    setup_with(traits, insecure())
}

/// A driver of its own, as another server has.
fn driver(
    racks: &Racks,
    credentials: &tempfile::TempDir,
    clock: &Arc<TokioClock>,
    settings: RedfishSettings,
) -> Redfish {
    let images = Networks::new("networks.image", vec!["10.0.0.0/8".parse().unwrap()]);
    Redfish::new(
        settings,
        RedfishPorts {
            dial: Arc::new(racks.clone()),
            images: TcpDial::new(images),
            credentials: Credentials::new(Some(credentials.path().to_owned())),
            clock: clock.clone(),
        },
    )
}

fn call(action: &str, capability: Capability, args: &[(&str, Value)], attempt: u32) -> Call {
    let run = crate::ids::RunId::new(Timestamp(1), [1, 2]);
    Call {
        operation: OperationId::new(run, action, attempt),
        epoch: Epoch(1),
        action: action.to_owned(),
        capability,
        args: args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        inputs: std::collections::BTreeMap::new(),
        handle: None,
    }
}

fn text(value: &'static str) -> Value {
    Value::Str(value.into())
}

fn reboot(mode: &'static str) -> Call {
    call("reboot", Capability::Power, &[("mode", text(mode))], 1)
}

fn netboot(target: &'static str) -> Call {
    call("set-netboot", Capability::Netboot, &[("target", text(target))], 1)
}

impl Setup {
    fn logs(&self) -> Logs {
        self.lines.clone()
    }

    fn log(&self) -> String {
        self.lines.0.lock().unwrap().join("\n")
    }

    async fn fence(&self) -> Result<(), ProviderError> {
        let uses = CAPABILITIES.into_iter().collect();
        self.driver.fence(&self.target, Epoch(1), uses).await
    }

    async fn observe(&self, call: &Call) -> Result<Observation, ProviderError> {
        self.driver.observe(&self.target, call, self.logs()).await
    }

    async fn act(&self, call: &Call) -> Result<Acted, ProviderError> {
        self.driver.act(&self.target, call, self.logs()).await
    }

    async fn verify(&self, call: &Call) -> Result<Verification, ProviderError> {
        self.driver.verify(&self.target, call, self.logs()).await
    }

    /// One attempt, as the engine makes it: the evidence, or what failed.
    async fn attempt(&self, call: &Call) -> Result<String, ProviderError> {
        self.fence().await?;
        if let Observation::Done { evidence, .. } = self.observe(call).await? {
            return Ok(evidence);
        }
        if let Acted::Accepted { handle, mut poll_at } = self.act(call).await? {
            let polled = Call { handle: Some(handle), ..call.clone() };
            loop {
                self.clock.sleep(poll_at.since(self.clock.now())).await;
                match self.observe(&polled).await? {
                    Observation::Done { .. } => break,
                    Observation::InProgress { poll_at: next } => poll_at = next,
                    Observation::NotDone { observed: why } | Observation::Unknowable { why } => {
                        let (class, code) = (ErrorClass::Transient, ErrorCode::Failed);
                        return Err(ProviderError::new(class, code, why));
                    }
                }
            }
        }
        match self.verify(call).await? {
            Verification::Holds { evidence } => Ok(evidence),
            Verification::Broken { expected, observed } => Err(ProviderError::new(
                ErrorClass::Transient,
                ErrorCode::Failed,
                format!("expected {expected}, observed {observed}"),
            )),
        }
    }

    /// The resets that the controller took.
    fn resets(&self) -> Vec<String> {
        let seen = self.mock.seen("ComputerSystem.Reset");
        seen.iter().map(|line| line.split('"').nth(3).unwrap_or_default().to_owned()).collect()
    }
}

fn class(error: &ProviderError) -> ErrorClass {
    match error.kind {
        ProviderErrorKind::Class(class) => class,
        ProviderErrorKind::Fenced { .. } => panic!("fenced"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_off_and_on_and_both_are_seen() {
    let setup = setup(Traits::default());
    assert_eq!(setup.attempt(&reboot("graceful")).await.unwrap(), "power On for 10 s");
    assert_eq!(setup.resets(), ["GracefulShutdown", "On"]);
    assert_eq!(setup.mock.power(), "On");
    let log = setup.log();
    assert!(log.contains("the machine is off\n") && log.ends_with("the machine is on"), "{log}");

    let setup = self::setup(Traits::default());
    setup.attempt(&reboot("force")).await.unwrap();
    assert_eq!(setup.resets(), ["ForceOff", "On"]);

    let setup = self::setup(Traits { ignores_shutdown: true, ..Traits::default() });
    let began = setup.clock.monotonic();
    setup.attempt(&reboot("graceful")).await.unwrap();
    assert_eq!(setup.resets(), ["GracefulShutdown", "ForceOff", "On"]);
    assert!(setup.clock.monotonic() - began >= Duration::from_secs(180));
    assert!(setup.log().contains("no shutdown within 180 s (power On): the power is cut"));

    let setup = self::setup(Traits { resets: vec!["On", "ForceOff"], ..Traits::default() });
    setup.attempt(&reboot("graceful")).await.unwrap();
    assert_eq!(setup.resets(), ["ForceOff", "On"]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_off_is_only_switched_on() {
    let setup = setup(Traits::default());
    setup.mock.set_power("Off");
    setup.attempt(&reboot("graceful")).await.unwrap();
    assert_eq!(setup.resets(), ["On"]);
    // A state that no one has heard of is not Off: it is switched off first.
    setup.mock.set_power("Paused");
    let next = call("reboot", Capability::Power, &[("mode", text("force"))], 2);
    setup.attempt(&next).await.unwrap();
    assert_eq!(setup.resets(), ["On", "ForceOff", "On"]);
}

/// It came on by itself, from a restart that was asked for before: that is a restart, too.
#[tokio::test(start_paused = true)]
async fn a_machine_that_comes_on_by_itself_is_not_asked_again() {
    let comes_back = Some(Duration::from_secs(4));
    let setup = setup(Traits { comes_back, ..Traits::default() });
    setup.attempt(&reboot("force")).await.unwrap();
    assert_eq!(setup.resets(), ["ForceOff"]);
    assert!(setup.log().contains("the machine came on by itself"));
}

#[tokio::test(start_paused = true)]
async fn the_same_operation_never_acts_twice() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    let call = reboot("force");
    // The first call is dropped midway, as at a deadline; the operation continues.
    tokio::select! {
        biased;
        _ = setup.act(&call) => panic!("it takes longer"),
        () = setup.clock.sleep(Duration::from_millis(500)) => {}
    }
    let seen = setup.observe(&call).await.unwrap();
    assert!(matches!(seen, Observation::InProgress { .. }), "{seen:?}");
    assert!(matches!(setup.act(&call).await.unwrap(), Acted::Accepted { .. }));
    setup.clock.sleep(Duration::from_secs(60)).await;
    assert!(matches!(setup.observe(&call).await.unwrap(), Observation::Done { .. }));
    assert!(matches!(setup.act(&call).await.unwrap(), Acted::Done { .. }));
    assert_eq!(setup.resets(), ["ForceOff", "On"]);
}

/// What another server sees after the first was killed: by the handle, or by the state alone.
#[tokio::test(start_paused = true)]
async fn after_a_crash_the_machine_says_what_it_can() {
    let setup = setup(Traits::default());
    let after = driver(&setup.racks, &setup.credentials, &setup.clock, insecure());
    let look = async |power, handle: Option<&str>| {
        setup.mock.set_power(power);
        let call = Call { handle: handle.map(str::to_owned), ..reboot("force") };
        after.observe(&setup.target, &call, setup.logs()).await.unwrap()
    };
    assert!(matches!(look("On", Some("seen-off")).await, Observation::Done { .. }));
    assert!(matches!(look("Off", Some("seen-off")).await, Observation::NotDone { .. }));
    assert!(matches!(look("Off", None).await, Observation::NotDone { .. }));
    assert!(matches!(look("On", None).await, Observation::Unknowable { .. }));
    assert!(matches!(look("PoweringOn", None).await, Observation::Unknowable { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_probe_reports_what_the_controller_knows() {
    let setup = setup(Traits::default());
    let health = setup.driver.probe(&setup.target).await.unwrap();
    assert!(health.reachable && !health.degraded);
    assert_eq!(health.message, "power On, health OK");
    assert_eq!(health.facts.power, Power::On);
    assert_eq!((&*health.facts.serial, &*health.facts.firmware), ("S-1", "BIOS 2.1"));
    assert_eq!((&*health.facts.health, &*health.facts.model), ("OK", "Acme R1"));
    assert_eq!(health.facts.power_word, "");
    setup.mock.set_health("Critical");
    setup.mock.set_power("Paused");
    let health = setup.driver.probe(&setup.target).await.unwrap();
    assert!(health.degraded);
    assert_eq!(health.facts.power, Power::Unknown);
    assert_eq!((&*health.facts.health, &*health.facts.power_word), ("Critical", "Paused"));
    // The system is found without its id where there is one alone.
    let mut target = setup.target.clone();
    target.spec.bmc_system_id = String::new();
    assert!(setup.driver.probe(&target).await.unwrap().reachable);
    target.spec.bmc_system_id = "2".to_owned();
    let error = setup.driver.probe(&target).await.unwrap_err();
    assert_eq!(error.message, "http://bmc-1 has no system \"2\": see spec.bmc_system_id");
}

#[tokio::test(start_paused = true)]
async fn adapters_are_read_now_and_then_and_when_someone_asks() {
    let adapters = vec!["02-00-00-00-00-0B", "02:00:00:00:00:0a", "00:00:00:00:00:00", "none"];
    let setup = setup(Traits { adapters, ..Traits::default() });
    let macs = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];
    let reads = || setup.mock.seen("/EthernetInterfaces/").len();
    for _ in 0..3 {
        let health = setup.driver.probe(&setup.target).await.unwrap();
        assert_eq!(health.facts.mac_addresses, macs);
    }
    assert_eq!(reads(), 4, "once");
    setup.driver.inspect(&setup.target).await.unwrap();
    assert_eq!(reads(), 8, "someone asks");
    // A controller that cannot say now has said it before, and another board is read at once.
    setup.mock.fail("GET /redfish/v1/Systems/1/EthernetInterfaces", Fault::Status(500), 1);
    let health = setup.driver.inspect(&setup.target).await.unwrap();
    assert_eq!((health.facts.mac_addresses.as_slice(), reads()), (&macs.map(str::to_owned)[..], 8));
    setup.mock.set_serial("S-2");
    let health = setup.driver.probe(&setup.target).await.unwrap();
    assert_eq!((&*health.facts.serial, reads()), ("S-2", 12));
    setup.clock.sleep(Duration::from_secs(3_601)).await;
    setup.driver.probe(&setup.target).await.unwrap();
    assert_eq!(reads(), 16, "an hour later");
}

#[tokio::test(start_paused = true)]
async fn adapters_are_left_out_where_the_class_says_so() {
    let traits = Traits { adapters: vec!["02:00:00:00:00:0a"], ..Traits::default() };
    let setup = setup_with(traits, RedfishSettings { reads_adapters: false, ..insecure() });
    let health = setup.driver.inspect(&setup.target).await.unwrap();
    assert_eq!(health.facts.mac_addresses, Vec::<String>::new());
    assert_eq!(setup.mock.seen("EthernetInterfaces"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn up_is_on_for_a_while() {
    let setup = setup(Traits::default());
    let settle = Value::DurationMs(20_000);
    let call = call("verify-up", Capability::Probe, &[("settle", settle)], 1);
    assert_eq!(setup.attempt(&call).await.unwrap(), "power On for 20 s");
    setup.mock.set_power("Off");
    let error = setup.attempt(&call).await.unwrap_err();
    assert_eq!(error.message, "the machine is not up: power Off");
    for action in ["verify", "verify-connectivity", "levitate"] {
        let call = self::call(action, Capability::Probe, &[], 1);
        let error = setup.attempt(&call).await.unwrap_err();
        assert_eq!((class(&error), error.code), (ErrorClass::NeedsHuman, ErrorCode::Unsupported));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_machine_lacks_is_named() {
    let setup = setup_with(Traits::default(), RedfishSettings::default());
    let probe = async |change: fn(&mut MachineSpec)| {
        let mut target = setup.target.clone();
        change(&mut target.spec);
        let error = setup.driver.probe(&target).await.unwrap_err();
        assert_eq!(class(&error), ErrorClass::Permanent);
        error.message
    };
    let plain = probe(|_| ()).await;
    assert!(plain.contains("not called without TLS"), "{plain}");
    assert!(probe(|spec| spec.bmc_endpoint = String::new()).await.contains("spec.bmc_endpoint"));
    let path = probe(|spec| spec.bmc_endpoint = "https://bmc-1/x".to_owned()).await;
    assert!(path.contains("has the path \"/x\""), "{path}");
    assert_eq!(setup.driver.warning(Capability::Power), None);

    let setup = self::setup(Traits::default());
    assert!(setup.driver.warning(Capability::Power).is_some());
    let mut target = setup.target.clone();
    target.spec.bmc_credentials = String::new();
    let error = setup.driver.probe(&target).await.unwrap_err();
    assert!(error.message.contains("set spec.bmc_credentials"), "{error}");
    target.spec.bmc_credentials = "absent".to_owned();
    let error = setup.driver.probe(&target).await.unwrap_err();
    assert_eq!((class(&error), error.code), (ErrorClass::Permanent, ErrorCode::Unauthorized));
    assert!(error.message.contains("credentials \"absent\" cannot be used"), "{error}");
}
