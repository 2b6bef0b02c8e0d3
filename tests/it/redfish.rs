//! Machines behind a controller that was written elsewhere: sushy-emulator with its fake driver, over TLS with a password,
//! the real server and the real command line. Its machines change their power 1 to 11 s after a request, at random.
//!
//! Needs `sushy-emulator` on the PATH (`pip install sushy-tools==2.2.0`); skipped without it, and an error with
//! `BMDEMO_REDFISH_REQUIRED=1`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use sha2::Digest as _;
use tokio::process::{Child, Command};

use crate::support::{Server, announce, text, within};

/// The password, and its hash as htpasswd makes it.
const PASSWORD: &str = "canary-redfish";
const HASH: &str = "$2b$04$w1U54BuoTUTBlJUaO6gFw.fnt/ys65iDruG2cwQzLlStW/fp5oV3e";
const SYSTEM: &str = "11111111-2222-4333-8444-555555555555";

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

/// The emulator, ended when dropped.
struct Emulator {
    _child: Child,
    port: u16,
    fingerprint: String,
}

/// `None` if it is not installed.
fn program() -> Option<&'static str> {
    let found = std::process::Command::new("sushy-emulator")
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_ok_and(|status| status.success()) {
        return Some("sushy-emulator");
    }
    let required = std::env::var("BMDEMO_REDFISH_REQUIRED").is_ok_and(|required| required == "1");
    assert!(!required, "sushy-emulator is not on the PATH, and BMDEMO_REDFISH_REQUIRED=1");
    announce("SKIPPED redfish: sushy-emulator is not on the PATH; pip install sushy-tools==2.2.0");
    None
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// An authority, and the certificate of 127.0.0.1 with its key, in files.
fn certificates(dir: &Path) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
    let other = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().unwrap()));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    write(&dir.join("ca.pem"), &authority.pem());
    write(&dir.join("other-ca.pem"), &other.pem());
    write(&dir.join("cert.pem"), &certificate.pem());
    write(&dir.join("key.pem"), &key.serialize_pem());
    sha2::Sha256::digest(certificate.der()).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn emulator(dir: &Path) -> Option<Emulator> {
    let program = program()?;
    let fingerprint = certificates(dir);
    // Free now, and taken by the emulator a moment later.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::create_dir(dir.join("state")).unwrap();
    write(&dir.join("htpasswd"), &format!("admin:{HASH}\n"));
    let at = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
         SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FEATURE_SET = 'full'\n\
         SUSHY_EMULATOR_STATE_DIR = '{}'\nSUSHY_EMULATOR_SSL_CERT = '{}'\nSUSHY_EMULATOR_SSL_KEY = '{}'\n\
         SUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{SYSTEM}', 'name': 'fake-0', \
         'power_state': 'On', 'external_notifier': False, 'nics': [{{'mac': '02:00:00:00:00:01', 'ip': \
         '172.22.0.1'}}]}}]\n",
        at("state"),
        at("cert.pem"),
        at("key.pem"),
        at("htpasswd"),
    );
    write(&dir.join("emulator.conf"), &config);
    let log = std::fs::File::create(dir.join("emulator.log")).unwrap();
    let child = Command::new(program)
        .args(["--config", &at("emulator.conf")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let clock = SystemClock::new();
    within("the emulator listens", async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            clock.sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    Some(Emulator { _child: child, port, fingerprint })
}

struct Setup {
    server: Server,
    emulator: Emulator,
    _dir: tempfile::TempDir,
}

async fn setup() -> Option<Setup> {
    let dir = tempfile::tempdir().unwrap();
    let emulator = emulator(dir.path()).await?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(dir.path().join("credentials")).unwrap();
    write(&dir.path().join("credentials/rack"), &format!("admin\n{PASSWORD}\n"));
    write(&dir.path().join("credentials/wrong"), "admin\ncanary-wrong\n");
    std::fs::create_dir(dir.path().join("plans")).unwrap();
    write(&dir.path().join("plans/boot.toml"), PLAN);
    let class = |name: &str, ca: &str| {
        format!(
            "[machine_classes.{name}]\npower = \"redfish\"\nnetboot = \"redfish\"\nprobe = \"redfish\"\n\
             [machine_classes.{name}.redfish]\nca_file = \"{}\"\nsettle = \"2s\"\npower = \"40s\"\ngraceful = \"40s\"\n\
             poll = \"250ms\"\n",
            at(ca)
        )
    };
    let config = format!(
        "[networks]\nbmc = [\"127.0.0.0/8\"]\n[credentials]\ndir = \"{}\"\n[plans]\ndir = \"{}\"\n{}{}",
        at("credentials"),
        at("plans"),
        class("rack-server", "ca.pem"),
        class("mistrusted", "other-ca.pem"),
    );
    write(&dir.path().join("bmdemo.toml"), &config);
    let data = at("data");
    let flags = [
        "--config",
        &at("bmdemo.toml"),
        "--data-dir",
        &data,
        "--port",
        "0",
        "--log-level",
        "debug",
    ];
    let server = Server::start(&flags).await;
    Some(Setup { server, emulator, _dir: dir })
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
        // Two changes of the power, each up to 11 s late, and the settle times.
        let late = SystemClock::new();
        let output = tokio::select! {
            output = output => output.unwrap(),
            () = late.sleep(Duration::from_secs(180)) => panic!("{line}: no end after three minutes"),
        };
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        (output.status.code().unwrap_or(-1), printed)
    }

    async fn register(&self, machine: &str, class: &str, credentials: &str, more: &str) {
        let port = self.emulator.port;
        let line = format!(
            "machine register {machine} --provider {class} --bmc https://127.0.0.1:{port} --bmc-system {SYSTEM} \
             --credentials {credentials} {more}"
        );
        let (code, printed) = self.cli(&line).await;
        assert_eq!(code, 0, "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_behind_a_foreign_controller_is_restarted() {
    let Some(setup) = setup().await else { return };
    setup.register("node-1", "rack-server", "rack", "--mac 02:00:00:00:00:01").await;
    let (_, inspected) = setup.cli("machine inspect node-1").await;
    for part in ["HardwareMatches", "AS_REGISTERED", "02:00:00:00:00:01"] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    // The same system under the address of another machine.
    setup.register("node-2", "rack-server", "rack", "--mac 02:00:00:00:00:02").await;
    let (_, inspected) = setup.cli("machine inspect node-2").await;
    assert!(inspected.contains("MAC_DIFFERS"), "{inspected}");
    let (_, described) = setup.cli("machine describe node-1").await;
    for part in ["netboot, power, probe by redfish", SYSTEM, "rack"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let (code, printed) = setup.cli("reboot node-1 --yes").await;
    assert_eq!(code, 0, "{printed}");
    let (_, log) = setup.cli("logs node-1").await;
    for part in ["reset GracefulShutdown", "the machine is off", "reset On", "the machine is on"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let (code, printed) = setup.cli("run start plan/boot node-1 --yes").await;
    assert_eq!(code, 0, "{printed}");
    let (code, printed) = setup.cli("reboot node-1 --set mode=force --yes").await;
    assert_eq!(code, 0, "{printed}");
    assert!(setup.cli("logs node-1").await.1.contains("reset ForceOff"));

    // The password is in nothing that was stored or logged.
    let log = setup.server.logged("serving").await;
    assert!(!log.contains("canary-"), "{log}");
    for entry in std::fs::read_dir(setup._dir.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let canary = bytes.windows(7).any(|part| part == b"canary-");
        assert!(!canary, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_or_authority_is_named() {
    let Some(setup) = setup().await else { return };
    setup.register("locked-out", "rack-server", "wrong", "").await;
    let (code, printed) = setup.cli("reboot locked-out --yes").await;
    assert_ne!(code, 0, "{printed}");
    let (_, described) = setup.cli("run describe locked-out").await;
    assert!(described.contains("refused the credentials \"wrong\""), "{described}");

    setup.register("stranger", "mistrusted", "rack", "").await;
    let (code, printed) = setup.cli("reboot stranger --yes").await;
    assert_ne!(code, 0, "{printed}");
    let (_, described) = setup.cli("run describe stranger").await;
    assert!(described.contains("cannot be trusted"), "{described}");

    // A pinned certificate is believed whatever the authority.
    let pin = format!("--bmc-certificate {}", setup.emulator.fingerprint);
    setup.register("pinned", "mistrusted", "rack", &pin).await;
    let (code, printed) = setup.cli("run start plan/boot pinned --yes").await;
    assert_eq!(code, 0, "{printed}");
}
