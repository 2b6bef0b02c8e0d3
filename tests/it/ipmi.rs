//! Machines behind a controller that was written elsewhere: `ipmi_sim` of OpenIPMI, by `ipmitool`, the real server and the
//! real command line.
//!
//! Needs `ipmitool` and `ipmi_sim` (`apt-get install ipmitool openipmi`); skipped without them, and an error with
//! `BMDEMO_IPMI_REQUIRED=1`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use tokio::process::{Child, Command};

use crate::support::{Server, announce, text, within};

const PASSWORD: &str = "canary-ipmi";

/// Steps that the built-in plans have only together with others.
const PLAN: &str = r#"
id = "plan/boot"
allowed_phases = ["FACTORY_READY", "READY"]

[[steps]]
name = "network"
action = "set-netboot"
args = { target = "pxe" }

[[steps]]
name = "own"
action = "clear-netboot"

[[steps]]
name = "up"
action = "verify-up"
args = { settle = "1s" }
"#;

struct Setup {
    server: Server,
    _controller: Child,
    port: u16,
    dir: tempfile::TempDir,
}

/// The path of a program.
fn program(name: &str) -> Option<String> {
    let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
    let paths = folders.map(|folder| format!("{folder}/{name}"));
    paths.into_iter().find(|path| Path::new(path).exists())
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// `None` if a program is missing.
async fn setup() -> Option<Setup> {
    let (Some(tool), Some(_)) = (program("ipmitool"), program("ipmi_sim")) else {
        let required = std::env::var("BMDEMO_IPMI_REQUIRED").is_ok_and(|required| required == "1");
        assert!(!required, "ipmitool or ipmi_sim is missing, and BMDEMO_IPMI_REQUIRED=1");
        announce("SKIPPED ipmi: no ipmitool and ipmi_sim; apt-get install ipmitool openipmi");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    // Free now, and taken by the controller a moment later.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let log = std::fs::File::create(dir.path().join("controller.log")).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/ipmi_sim.sh");
    let controller = Command::new("bash")
        .args([script, &at("controller"), &port.to_string(), PASSWORD])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let clock = SystemClock::new();
    within("the controller listens", async {
        while std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            clock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for (folder, file, content) in [
        ("credentials", "rack", format!("admin\n{PASSWORD}\n")),
        ("credentials", "wrong", "admin\ncanary-wrong\n".to_owned()),
        ("plans", "boot.toml", PLAN.to_owned()),
    ] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        write(&dir.path().join(folder).join(file), &content);
    }
    let class = |name: &str, own: &str| {
        format!(
            "[machine_classes.{name}]\npower = \"ipmi\"\nnetboot = \"ipmi\"\nprobe = \"ipmi\"\n\
             [machine_classes.{name}.ipmi]\nprogram = \"{tool}\"\n{own}\nsettle = \"500ms\"\n\
             power = \"20s\"\ngraceful = \"20s\"\npoll = \"100ms\"\n"
        )
    };
    let config = format!(
        "[networks]\nbmc = [\"127.0.0.0/8\"]\n[credentials]\ndir = \"{}\"\n[plans]\ndir = \"{}\"\n{}{}{}",
        at("credentials"),
        at("plans"),
        class("old-rack", "cipher_suite = 3"),
        class("blind-rack", "cipher_suite = 3\nboot_device_readback = false"),
        class("new-rack", "cipher_suite = 17"),
    );
    write(&dir.path().join("bmdemo.toml"), &config);
    let (config, data) = (at("bmdemo.toml"), at("data"));
    let flags = ["--config", &config, "--data-dir", &data, "--port", "0", "--log-level", "debug"];
    let server = Server::start(&flags).await;
    Some(Setup { server, _controller: controller, port, dir })
}

impl Setup {
    /// A line of the command line: its exit code, and what it printed.
    async fn cli(&self, line: &str) -> (i32, String) {
        let address = self.server.address.to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
            .args(line.split_whitespace())
            .args(["--server", &address])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let late = SystemClock::new();
        let output = tokio::select! {
            output = output => output.unwrap(),
            () = late.sleep(Duration::from_secs(120)) => panic!("{line}: no end after two minutes"),
        };
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        (output.status.code().unwrap_or(-1), printed)
    }

    async fn succeeds(&self, line: &str) -> String {
        let (code, printed) = self.cli(line).await;
        assert_eq!(code, 0, "{line}: {printed}");
        printed
    }

    async fn register(&self, machine: &str, class: &str, credentials: &str) {
        let port = self.port;
        self.succeeds(&format!(
            "machine register {machine} --provider {class} --bmc ipmi://127.0.0.1:{port} --credentials {credentials}"
        ))
        .await;
    }

    /// What the controller has for its power or its boot device.
    fn state(&self, name: &str) -> String {
        let path = self.dir.path().join("controller").join(name);
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_behind_a_foreign_ipmi_controller_is_driven() {
    let Some(setup) = setup().await else { return };
    setup.register("node-1", "old-rack", "rack").await;
    let described = setup.succeeds("machine describe node-1").await;
    for part in ["netboot, power, probe by ipmi", "SHA-1"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let inspected = setup.succeeds("machine inspect node-1").await;
    for part in ["OFF", "BMC 9.08", "Reachable"] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    setup.succeeds("reboot node-1 --yes").await;
    assert_eq!(setup.state("power"), "1");
    let log = setup.succeeds("logs node-1").await;
    for part in ["the machine is off already", "chassis power on", "the machine is on"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    setup.succeeds("reboot node-1 --yes").await;
    let log = setup.succeeds("logs node-1").await;
    assert!(log.contains("chassis power soft") && !log.contains("the power is cut"), "{log}");
    setup.succeeds("reboot node-1 --set mode=force --yes").await;
    assert!(setup.succeeds("logs node-1").await.contains("chassis power off"));
    setup.succeeds("run start plan/boot node-1 --yes").await;
    let log = setup.succeeds("logs node-1").await;
    assert!(log.contains("bootdev pxe") && log.contains("bootdev none"), "{log}");
    assert_eq!((&*setup.state("power"), &*setup.state("boot")), ("1", "none"));
    assert!(setup.succeeds("machine inspect node-1").await.contains("ON"));

    // A class that does not read the boot device back believes that it is set, and says so.
    setup.succeeds("machine update node-1 --provider blind-rack --reason test").await;
    let described = setup.succeeds("machine describe node-1").await;
    for part in ["SHA-1", "the boot device is not read back"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    setup.succeeds("run start plan/boot node-1 --yes").await;
    let history = setup.succeeds("run describe node-1").await;
    assert!(history.contains("boot device none, as the controller took it"), "{history}");
    assert_eq!(setup.state("boot"), "none");

    // The password is in nothing that was stored or logged.
    let log = setup.server.logged("serving").await;
    assert!(!log.contains("canary-"), "{log}");
    for entry in std::fs::read_dir(setup.dir.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(7).any(|part| part == b"canary-"), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_or_cipher_suite_is_named() {
    let Some(setup) = setup().await else { return };
    for (machine, class, credentials, says) in [
        ("locked-out", "old-rack", "wrong", "refuses the login"),
        ("too-new", "new-rack", "rack", "does not take cipher suite 17"),
    ] {
        setup.register(machine, class, credentials).await;
        let (code, printed) = setup.cli(&format!("reboot {machine} --yes")).await;
        assert_ne!(code, 0, "{printed}");
        let described = setup.succeeds(&format!("run describe {machine}")).await;
        assert!(described.contains(says), "{says}: {described}");
    }
}
