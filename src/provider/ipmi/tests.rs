//! The driver against a program that behaves as `ipmitool` with a controller does, in real time.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::credentials::Credentials;
use crate::ids::{MachineId, OperationId, RunId};
use crate::model::{LogStream, MachineSpec};
use crate::outbound::{Networks, TcpDial};
use crate::provider::{LogSink, ProviderErrorKind};

/// Keeps its state in files beside it: `power`, `boot`, `trouble`; notes its arguments in `calls`. The last two arguments
/// say what is asked.
const TOOL: &str = r#"#!/bin/sh
d=$(dirname "$0")
[ "$IPMITOOL_PASSWORD" = canary-ipmi ] || { echo "> RAKP 2 HMAC is invalid" >&2; echo refused >> "$d/calls"; exit 1; }
[ -z "$HOME" ] || exit 9
echo "$*" >> "$d/calls"
trouble=$(cat "$d/trouble" 2>/dev/null)
case "$trouble $*" in
"blind "*"bootdev "*) exit 0;;
"lost "*"bootdev "*) echo "Set Chassis Boot Parameter 5 failed" >&2; exit 1;;
esac
case "$*" in
*"chassis status")
  [ "$trouble" != away ] || { echo "Error: Unable to establish IPMI v2 / RMCP+ session" >&2; exit 1; }
  echo "System Power         : $(cat "$d/power")"; echo "Drive Fault          : false";;
*"power on") [ "$trouble" = deaf ] || echo on > "$d/power"
  [ "$trouble" != lost ] || { echo "Set Chassis Power Control to Up/On failed" >&2; exit 1; };;
*"power off") echo off > "$d/power";;
*"power soft") [ "$trouble" = hangs ] && exec sleep 600
  [ "$trouble" = ignores ] || echo off > "$d/power";;
*"bootdev pxe "*) echo "Force PXE" > "$d/boot";;
*"bootdev disk "*) echo "Force Boot from default Hard-Drive" > "$d/boot";;
*"bootdev none") echo "No override" > "$d/boot";;
*"bootparam get 5") echo "   - Boot Flag Valid"; echo "   - Boot Device Selector : $(cat "$d/boot")";;
*"fru print 0") echo " Product Manufacturer  : Acme"; echo " Product Serial        : S-1";;
*"mc info") echo "Firmware Revision         : 9.08";;
*) exit 2;;
esac
"#;

#[derive(Default)]
struct Lines(std::sync::Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, _: LogStream, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

struct Setup {
    dir: tempfile::TempDir,
    driver: Ipmi,
    target: Target,
    lines: Arc<Lines>,
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn setup() -> Setup {
    setup_with(IpmiSettings::default())
}

fn setup_with(settings: IpmiSettings) -> Setup {
    let ms = Duration::from_millis;
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("tool"), TOOL, 0o755);
    write(&dir.path().join("power"), "on", 0o644);
    write(&dir.path().join("boot"), "No override", 0o644);
    write(&dir.path().join("rack"), "admin\ncanary-ipmi\n", 0o600);
    let settings = IpmiSettings {
        program: dir.path().join("tool"),
        cipher_suite: 3,
        settle: ms(50),
        power: ms(500),
        graceful: ms(300),
        poll: ms(10),
        request: Duration::from_secs(5),
        ..settings
    };
    let networks = Networks::new("networks.bmc", vec!["127.0.0.0/8".parse().unwrap()]);
    let ports = IpmiPorts {
        networks: TcpDial::new(networks),
        credentials: Credentials::new(Some(dir.path().to_owned())),
        clock: Arc::new(SystemClock::new()),
    };
    let spec = MachineSpec {
        provider: "rack".to_owned(),
        bmc_endpoint: "ipmi://127.0.0.1:9623".to_owned(),
        bmc_credentials: "rack".to_owned(),
        ..MachineSpec::default()
    };
    let target = Target { machine_id: MachineId::parse("node-1").unwrap(), spec };
    Setup { driver: Ipmi::new(settings, ports), dir, target, lines: Arc::default() }
}

fn call(action: &str, args: &[(&str, &'static str)], attempt: u32) -> Call {
    let run = RunId::new(crate::clock::Timestamp(1), [1, 2]);
    let text = |text: &'static str| Value::Str(text.into());
    Call {
        operation: OperationId::new(run, action, attempt),
        epoch: Epoch(1),
        action: action.to_owned(),
        capability: Capability::Power,
        args: args.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
        inputs: std::collections::BTreeMap::new(),
        handle: None,
    }
}

impl Setup {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn trouble(&self, what: &str) {
        write(&self.file("trouble"), what, 0o644);
    }

    fn power(&self) -> String {
        std::fs::read_to_string(self.file("power")).unwrap().trim().to_owned()
    }

    /// What was asked for, without what all requests have in common.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file("calls")).unwrap_or_default();
        text.lines().map(|line| line.rsplit(" -R 4 ").next().unwrap().to_owned()).collect()
    }

    /// Acts, and follows the operation to its end.
    async fn attempt(&self, call: &Call) -> Result<String, ProviderError> {
        let logs: Logs = self.lines.clone();
        let mut call = call.clone();
        match self.driver.act(&self.target, &call, logs.clone()).await? {
            Acted::Done { evidence, .. } => return Ok(evidence),
            Acted::Accepted { handle, .. } => call.handle = Some(handle),
        }
        loop {
            match self.driver.observe(&self.target, &call, logs.clone()).await? {
                Observation::Done { evidence, .. } => return Ok(evidence),
                Observation::InProgress { .. } => {
                    self.driver.ports.clock.sleep(Duration::from_millis(10)).await;
                }
                Observation::NotDone { observed } => panic!("not done: {observed}"),
                Observation::Unknowable { why } => panic!("unknowable: {why}"),
            }
        }
    }
}

fn class(error: &ProviderError) -> ErrorClass {
    match error.kind {
        ProviderErrorKind::Class(class) => class,
        ProviderErrorKind::Fenced { .. } => panic!("fenced: {error}"),
    }
}

#[tokio::test]
async fn a_restart_is_off_and_on() {
    let setup = setup();
    let evidence = setup.attempt(&call("reboot", &[], 1)).await.unwrap();
    assert_eq!((evidence.as_str(), &*setup.power()), ("power on, after it was seen off", "on"));
    let changes: Vec<_> = setup.calls().into_iter().filter(|at| at.contains("power ")).collect();
    assert_eq!(changes, ["chassis power soft", "chassis power on"]);
    // An operating system that ignores it.
    setup.trouble("ignores");
    setup.attempt(&call("reboot", &[], 2)).await.unwrap();
    let log = setup.lines.0.lock().unwrap().join("\n");
    assert!(log.contains("the power is cut"), "{log}");
    assert!(setup.calls().contains(&"chassis power off".to_owned()));
    // The same operation does nothing again.
    let before = setup.calls().len();
    setup.driver.act(&setup.target, &call("reboot", &[], 2), setup.lines.clone()).await.unwrap();
    assert_eq!(setup.calls().len(), before);
}

#[tokio::test]
async fn what_is_accepted_and_not_done_fails_and_what_is_lost_and_done_does_not() {
    let setup = setup();
    setup.trouble("deaf");
    let force = |attempt| call("reboot", &[("mode", "force")], attempt);
    let first = force(1);
    let logs: Logs = setup.lines.clone();
    let accepted = setup.driver.act(&setup.target, &first, logs.clone()).await.unwrap();
    assert!(matches!(accepted, Acted::Accepted { .. }));
    let seen = loop {
        match setup.driver.observe(&setup.target, &first, logs.clone()).await.unwrap() {
            Observation::InProgress { .. } => {
                setup.driver.ports.clock.sleep(Duration::from_millis(10)).await;
            }
            seen => break seen,
        }
    };
    let Observation::NotDone { observed } = seen else { panic!("{seen:?}") };
    assert!(observed.contains("although the controller accepted the request"), "{observed}");
    setup.trouble("lost");
    setup.attempt(&force(2)).await.unwrap();
    assert_eq!(setup.power(), "on");
}

#[tokio::test]
async fn the_boot_device_is_set_and_read_back() {
    let setup = setup();
    for (action, target, asked, seen) in [
        ("set-netboot", "pxe", "bootdev pxe options=persistent,efiboot", "Force PXE"),
        ("set-netboot", "disk", "bootdev disk options=persistent,efiboot", "Hard-Drive"),
        ("clear-netboot", "", "bootdev none", "No override"),
    ] {
        let call = call(action, &[("target", target)], 1);
        let before = setup.driver.observe(&setup.target, &call, setup.lines.clone()).await.unwrap();
        assert!(matches!(before, Observation::NotDone { .. }), "{before:?}");
        let evidence = setup.attempt(&call).await.unwrap();
        assert!(evidence.contains(seen), "{evidence}");
        assert!(setup.calls().iter().any(|call| call.ends_with(asked)), "{:?}", setup.calls());
        let holds = setup.driver.verify(&setup.target, &call, setup.lines.clone()).await.unwrap();
        assert!(matches!(holds, Verification::Holds { .. }), "{holds:?}");
    }
    let http = call("set-netboot", &[("target", "http")], 1);
    let error = setup.attempt(&http).await.unwrap_err();
    assert_eq!((class(&error), error.code), (ErrorClass::Permanent, ErrorCode::Invalid));
}

/// A controller that sets the boot device and always reports none.
#[tokio::test]
async fn a_boot_device_that_cannot_be_read_back_is_believed_if_the_class_says_so() {
    let set = call("set-netboot", &[("target", "pxe")], 1);
    let strict = setup();
    strict.trouble("blind");
    let error = strict.attempt(&set).await.unwrap_err();
    assert!(error.message.contains("although the controller accepted the request"), "{error}");
    assert_eq!(
        strict.driver.warning(Capability::Power),
        strict.driver.warning(Capability::Netboot)
    );

    let setup = setup_with(IpmiSettings { reads_boot_device: false, ..IpmiSettings::default() });
    setup.trouble("blind");
    let evidence = setup.attempt(&set).await.unwrap();
    assert_eq!(evidence, "boot device pxe, as the controller took it; it is not read back");
    assert_eq!(setup.calls(), ["chassis bootdev pxe options=persistent,efiboot"]);
    let held = setup.driver.verify(&setup.target, &set, setup.lines.clone()).await.unwrap();
    assert!(matches!(held, Verification::Holds { .. }), "{held:?}");
    // A new owner cannot know, and sets it again.
    let seen = setup.driver.observe(&setup.target, &set, setup.lines.clone()).await.unwrap();
    assert!(matches!(seen, Observation::NotDone { .. }), "{seen:?}");
    // What may not have arrived is not believed.
    setup.trouble("lost");
    let error = setup.attempt(&set).await.unwrap_err();
    assert_eq!((class(&error), error.code), (ErrorClass::Transient, ErrorCode::Failed));
    for (capability, is_said) in [
        (Capability::Netboot, true),
        (Capability::Imaging, true),
        (Capability::Wipe, true),
        (Capability::Power, false),
    ] {
        let warning = setup.driver.warning(capability).unwrap_or_default();
        assert_eq!(warning.contains("not read back"), is_said, "{warning}");
    }
}

/// The password is in the environment alone, the address is a number, and the inventory is read once.
#[tokio::test]
async fn a_probe_says_how_the_machine_is() {
    let setup = setup();
    for _ in 0..3 {
        let health = setup.driver.probe(&setup.target).await.unwrap();
        assert!(health.reachable && !health.degraded);
        assert_eq!(health.message, "power on, health OK");
        let facts = health.facts;
        assert_eq!((facts.power, &*facts.serial, &*facts.model), (Power::On, "S-1", "Acme"));
        assert_eq!(facts.firmware, "BMC 9.08");
    }
    let text = std::fs::read_to_string(setup.file("calls")).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let first = text.lines().next().unwrap();
    let wanted = "-v -I lanplus -H 127.0.0.1 -p 9623 -U admin -E -C 3 -N 2 -R 4 chassis status";
    assert_eq!(first, wanted);
    assert_eq!(setup.calls().iter().filter(|call| call.contains("fru")).count(), 1);
    setup.driver.inspect(&setup.target).await.unwrap();
    assert_eq!(setup.calls().iter().filter(|call| call.contains("fru")).count(), 2);
}

#[tokio::test]
async fn a_controller_that_is_away_is_left_alone() {
    let setup = setup();
    setup.trouble("away");
    for _ in 0..3 {
        let error = setup.driver.probe(&setup.target).await.unwrap_err();
        assert_eq!((class(&error), error.code), (ErrorClass::Transient, ErrorCode::Unreachable));
        assert_eq!(error.retry_at, None);
    }
    let before = setup.calls().len();
    let error = setup.driver.probe(&setup.target).await.unwrap_err();
    assert!(error.retry_at.is_some() && error.message.contains("left alone"), "{error:?}");
    assert_eq!(setup.calls().len(), before);
}

#[tokio::test]
async fn a_refused_login_is_not_sent_again_until_it_changes() {
    let setup = setup();
    write(&setup.file("rack"), "admin\nwrong\n", 0o600);
    for _ in 0..3 {
        let error = setup.driver.probe(&setup.target).await.unwrap_err();
        assert_eq!((class(&error), error.code), (ErrorClass::Permanent, ErrorCode::Unauthorized));
        assert!(!error.message.contains("wrong"), "{error}");
    }
    assert_eq!(setup.calls(), ["refused"]);
    write(&setup.file("rack"), "admin\ncanary-ipmi\n", 0o600);
    setup.driver.probe(&setup.target).await.unwrap();
    write(&setup.file("rack"), "admin\n123456789012345678901\n", 0o600);
    let error = setup.driver.probe(&setup.target).await.unwrap_err();
    assert!(error.message.contains("longer than the 20 bytes of IPMI"), "{error}");
    write(&setup.file("rack"), "-x\nsecret\n", 0o600);
    assert!(setup.driver.probe(&setup.target).await.is_err());
}

#[tokio::test]
async fn addresses_outside_the_networks_are_not_called() {
    let mut setup = setup();
    for endpoint in ["ipmi://10.0.0.8", "ipmi://169.254.169.254", "ipmi://[::ffff:10.0.0.8]"] {
        endpoint.clone_into(&mut setup.target.spec.bmc_endpoint);
        let error = setup.driver.probe(&setup.target).await.unwrap_err();
        assert_eq!((class(&error), error.code), (ErrorClass::Permanent, ErrorCode::Precondition));
    }
    assert_eq!(setup.calls(), Vec::<String>::new());
}

/// Whether a process is there.
fn is_alive(marker: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("environ")).ok())
        .any(|text| text.windows(marker.len()).any(|window| window == marker.as_bytes()))
}

/// A program that hangs is ended with its call, and with its time.
#[tokio::test]
async fn a_program_ends_with_its_call() {
    let setup = setup();
    let marker = "IPMITOOL_PASSWORD=canary-ipmi-hang";
    write(&setup.file("hang"), "#!/bin/sh\nsleep 600 & wait\n", 0o755);
    let password = crate::credentials::Secret::new("canary-ipmi-hang".to_owned());
    let clock = SystemClock::new();
    let program = setup.file("hang");
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(200));
    {
        let run = tool::run(&program, &[], &password, long, &clock);
        tokio::pin!(run);
        while !is_alive(marker) {
            tokio::select! {
                biased;
                ended = &mut run => panic!("{ended:?}"),
                () = clock.sleep(Duration::from_millis(10)) => {}
            }
        }
    }
    let gone = async || {
        while is_alive(marker) {
            clock.sleep(Duration::from_millis(10)).await;
        }
    };
    gone().await;
    let ran = tool::run(&program, &[], &password, short, &clock).await.unwrap();
    assert!(matches!(ran, tool::Ran::TimedOut), "{ran:?}");
    gone().await;
    let missing = tool::run(&setup.file("missing"), &[], &password, short, &clock).await;
    assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

/// A newer owner of the machine keeps this one from changing anything.
#[tokio::test]
async fn a_former_owner_changes_nothing() {
    let setup = setup();
    let every = Capabilities::all();
    setup.driver.fence(&setup.target, Epoch(2), every).await.unwrap();
    let error = setup.attempt(&call("reboot", &[], 1)).await.unwrap_err();
    assert!(matches!(error.kind, ProviderErrorKind::Fenced { current: Epoch(2) }), "{error:?}");
    assert_eq!(setup.calls(), Vec::<String>::new());
    assert!(setup.driver.fence(&setup.target, Epoch(1), every).await.is_err());
}
