//! The machines, and the server under test beside them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time for what a machine does by itself.
const SOON: Duration = Duration::from_secs(180);
/// Between two looks at something that has no way to say when it changes.
const LOOK: Duration = Duration::from_millis(500);
/// Port of the server inside the namespace.
const PORT: &str = "50051";
/// The class whose controllers speak IPMI.
pub(crate) const IPMI: &str = "lab-ipmi";

/// The lab, with a folder of its own for this test.
pub(crate) struct Lab {
    environment: BTreeMap<String, String>,
    file: PathBuf,
    /// Inside the lab's own, so that what is in it is there after a failure.
    folder: PathBuf,
    begun: Instant,
}

impl Lab {
    /// The lab that `BMDEMO_LAB` names; `None`, said loudly, if it names none.
    pub(crate) fn find() -> Option<Self> {
        let Some(file) = std::env::var_os("BMDEMO_LAB").map(PathBuf::from) else {
            assert!(
                std::env::var_os("BMDEMO_LAB_REQUIRED").is_none(),
                "BMDEMO_LAB_REQUIRED is set and BMDEMO_LAB names no lab"
            );
            eprintln!(
                "SKIPPED lab: no real machines; see docs/hardware-lab.md, then set BMDEMO_LAB=WORKDIR/lab.env"
            );
            return None;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        let environment = text.lines().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = value.split("   #").next().unwrap_or(value);
            Some((key.to_owned(), value.trim().trim_matches('\'').trim().to_owned()))
        });
        let environment: BTreeMap<String, String> = environment.collect();
        let folder = tempfile::Builder::new().prefix("test.").tempdir_in(&environment["LAB"]);
        let folder = folder.unwrap().keep();
        Some(Self { environment, file, folder, begun: Instant::now() })
    }

    pub(crate) fn get(&self, key: &str) -> String {
        self.environment.get(key).unwrap_or_else(|| panic!("{key} in the lab's file")).clone()
    }

    pub(crate) fn part(&self, name: &str) {
        eprintln!("lab {:>4} s: {name}", self.begun.elapsed().as_secs());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the configuration, the credentials, and what the programs need.
    pub(crate) fn configure(&self) {
        self.password(&self.get("LAB_PASS"));
        // A copy: the server refuses programs that a group may write to, as some checkouts are.
        let node = self.path("node.sh");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/node.sh"), &node)
            .unwrap();
        std::fs::set_permissions(&node, PermissionsExt::from_mode(0o755)).unwrap();
        let program = |what: &str| format!("[{:?}, {:?}, {what:?}]", node, self.file);
        let mut text = format!(
            "[credentials]\ndir = {:?}\n[networks]\nbmc = [\"127.0.0.0/8\"]\nimage = [\"{}.0/24\"]\n[boot]\nlisten = {:?}\nfiles_dir = {:?}\n",
            self.path("credentials"),
            self.get("LAB_NET"),
            self.get("LAB_BOOT"),
            Path::new(&self.get("LAB")).join("www"),
        );
        let (image, sha256) = (self.get("LAB_IMAGE"), self.get("LAB_IMAGE_SHA256"));
        let damaged = "00".repeat(32);
        for (name, sha256) in [("ubuntu-24.04", &sha256), ("damaged", &damaged)] {
            write!(text, "[images.{name:?}]\nurl = {image:?}\nsha256 = {sha256:?}\n").unwrap();
        }
        let key = std::fs::read_to_string(format!("{}.pub", self.get("LAB_SSH_KEY"))).unwrap();
        let own = self.get("LAB_CACERT");
        let foreign = self.foreign_authority();
        for (class, medium, authority) in [
            (IPMI, false, ""),
            ("lab-media", true, own.as_str()),
            ("lab-network", false, &own),
            // Believes another authority than that of its controllers.
            ("lab-elsewhere", true, &foreign),
        ] {
            let (driver, own) = match class {
                // The only suite of the lab's controllers, which report what a machine was started with for as long as it is on.
                IPMI => ("ipmi", "cipher_suite = 3\nboot_device_readback = false".to_owned()),
                _ => ("redfish", format!("ca_file = {authority:?}")),
            };
            write!(
                text,
                "[machine_classes.{class}]\npower = {driver:?}\nnetboot = {driver:?}\nimaging = {driver:?}\nwipe = {driver:?}\n\
                 cluster-join = \"exec\"\ndrain = \"exec\"\nnetwork = \"exec\"\nnotify = \"exec\"\nprobe = \"exec\"\n\
                 [machine_classes.{class}.{driver}]\n{own}\nsettle = \"2s\"\ngraceful = \"30s\"\n",
            )
            .unwrap();
            if medium {
                writeln!(text, "image = {:?}", self.get("LAB_ISO")).unwrap();
            }
            write!(
                text,
                "[machine_classes.{class}.installer]\ndisk = \"smallest\"\nssh_keys = [{:?}]\n\
                 [machine_classes.{class}.exec]\nprobe = {}\n",
                key.trim(),
                program("probe"),
            )
            .unwrap();
            for (action, act, observe) in [
                ("mint-join", "mint-join", ""),
                ("join", "join", "joined"),
                ("drain", "drain", "drained"),
                ("undrain", "undrain", "joined"),
                ("apply-net-config", "net-config", "net-configured"),
                ("restore-net-config", "net-restore", "net-restored"),
                ("notify", "notify", ""),
                ("verify", "joined", ""),
                ("verify-up", "up", ""),
                ("verify-connectivity", "connected", ""),
            ] {
                // One class hands join material over by SSH, and the others as the answer to a report.
                let (act, material) = match (medium, action) {
                    (false, "mint-join") => ("mint-config", ""),
                    (false, "join") => ("join-reported", "material = \"report\"\n"),
                    _ => (act, ""),
                };
                let act = program(act);
                write!(
                    text,
                    "[machine_classes.{class}.exec.actions.{action}]\nact = {act}\n{material}"
                )
                .unwrap();
                if !observe.is_empty() {
                    writeln!(text, "observe = {}", program(observe)).unwrap();
                }
            }
        }
        let plans = self.path("plans");
        std::fs::create_dir(&plans).unwrap();
        let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plans/install-here.toml");
        std::fs::copy(plan, plans.join("install-here.toml")).unwrap();
        // The drills install again and again, and abort runs in a row that have begun to.
        text += "[loop_breaker]\ndestructive_max = 1000\n[limits]\npause_plan_after = 0\n";
        std::fs::write(self.path("bmdemo.toml"), text).unwrap();
    }

    /// The certificate of an authority that no controller here knows.
    fn foreign_authority(&self) -> String {
        let (key, certificate) = (self.path("foreign.key"), self.path("foreign.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "30", "-subj", "/CN=another-authority", "-keyout"])
            .args([&key, Path::new("-out"), &certificate])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        certificate.to_str().unwrap().to_owned()
    }

    /// The password of the controllers, as the server has it from now on.
    pub(crate) fn password(&self, password: &str) {
        let folder = self.path("credentials");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        let file = folder.join("lab");
        std::fs::write(&file, format!("{}\n{password}\n", self.get("LAB_USER"))).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }

    pub(crate) fn register(&self, number: usize, class: &str) {
        let systems = self.get("LAB_SYSTEMS");
        let system = systems.split_whitespace().nth(number - 1).unwrap();
        let (node, mac) = (format!("node{number}"), format!("52:54:00:d0:00:{number:02x}"));
        let ssh = format!("{}:22", self.address(number));
        let redfish = self.get("LAB_REDFISH");
        let args = [
            "machine",
            "register",
            &node,
            "--provider",
            class,
            "--bmc",
            &redfish,
            "--bmc-system",
            system,
            "--credentials",
            "lab",
            "--mac",
            &mac,
            "--ssh",
            &ssh,
        ];
        succeeds(self.cli(&args), SOON);
    }

    fn address(&self, number: usize) -> String {
        format!("{}.{}", self.get("LAB_NET"), 10 + number)
    }

    /// A command inside the lab's network.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.get("LAB_NS"), program]);
        command
    }

    pub(crate) fn cli(&self, args: &[&str]) -> Ready {
        let mut command = self.inside(env!("CARGO_BIN_EXE_bmdemo-cli"));
        command.args(args).env("BMDEMO_SERVER", format!("127.0.0.1:{PORT}"));
        command.env("BMDEMO_CONFIG", self.path("contexts.toml"));
        Ready(command)
    }

    /// What a command prints on a machine, if it can be reached.
    pub(crate) fn on(&self, number: usize, text: &str) -> Option<String> {
        let host = format!("root@{}", self.address(number));
        let (key, mut command) = (self.get("LAB_SSH_KEY"), self.inside("ssh"));
        command.args(["-i", &key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=3",
        ]);
        let output = command.args([&host, text]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub(crate) fn boot_id(&self, number: usize) -> String {
        self.on(number, "cat /proc/sys/kernel/random/boot_id").unwrap()
    }

    /// What the cluster's member list says of a machine.
    pub(crate) fn member(&self, node: &str) -> String {
        let address = format!("-rpc-addr={}", self.get("LAB_SERF_RPC"));
        let output = self.inside("serf").args(["members", &address]).output().unwrap();
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = list.lines().find(|line| line.split_whitespace().next() == Some(node));
        of.and_then(|line| line.split_whitespace().nth(2)).unwrap_or("unknown").to_owned()
    }

    pub(crate) fn disk(&self, number: usize) -> Vec<u8> {
        std::fs::read(format!("{}/disks/node{number}.raw", self.get("LAB"))).unwrap()
    }

    /// How often an image was written to a disk, by a count in its last sector.
    pub(crate) fn writes(&self, number: usize) -> usize {
        let disk = self.disk(number);
        let last = String::from_utf8_lossy(&disk[disk.len() - 512..]).into_owned();
        let count = last.trim_end_matches('\0').strip_prefix("writes=");
        count.map_or(0, |count| count.parse().unwrap())
    }

    /// How often the image was downloaded whole, by the image server's own log.
    pub(crate) fn downloads(&self) -> usize {
        let log = std::fs::read_to_string(format!("{}/log/images", self.get("LAB"))).unwrap();
        log.lines()
            .filter(|line| line.contains("GET /disk.raw.gz") && line.contains(" 200 "))
            .count()
    }

    /// The files of the server that have the key of the cluster, by name: its data and its log.
    pub(crate) fn leaks(&self) -> String {
        let folders = [self.path("data"), self.path("server.log")];
        let key = self.get("LAB_JOINKEY");
        let found = Command::new("grep").args(["-rlF", "--", &key]).args(folders).output().unwrap();
        String::from_utf8_lossy(&found.stdout).into_owned()
    }

    /// How many requests the controllers have had, by their own log.
    pub(crate) fn requests(&self) -> usize {
        let log = std::fs::read_to_string(format!("{}/log/sushy", self.get("LAB"))).unwrap();
        log.lines().filter(|line| line.contains(" /redfish/")).count()
    }

    /// What firmware and systems of a machine have printed, without control characters.
    pub(crate) fn serial(&self, number: usize) -> String {
        let bytes = std::fs::read(format!("{}/serial/node{number}.log", self.get("LAB")));
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        text.chars().filter(|c| c.is_ascii_graphic() || matches!(c, ' ' | '\n')).collect()
    }

    /// What a step of node1's latest run has printed.
    pub(crate) fn log_of(&self, step: &str) -> String {
        succeeds(self.cli(&["logs", "node1", "--step", step]), SOON)
    }

    /// The next program that acts for this action waits where it begins, until it is ended.
    pub(crate) fn hold(&self, action: &str) {
        std::fs::write(format!("{}/hold.{action}", self.get("LAB")), "").unwrap();
    }

    /// Waits until it waits, as long as an installation may take; others are not held any more.
    pub(crate) fn until_held(&self, action: &str) {
        let file = |name: &str| format!("{}/{name}.{action}", self.get("LAB"));
        self.until_within(super::RUN, "a program waits", || Path::new(&file("held")).exists());
        for name in ["hold", "held"] {
            std::fs::remove_file(file(name)).unwrap();
        }
    }

    /// What libvirt says: behind the controller's back.
    pub(crate) fn virsh(&self, args: &[&str]) -> String {
        let uri = self.get("LAB_LIBVIRT_URI");
        let output = Command::new("virsh").args(["-q", "-c", &uri]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends libvirtd at once; its machines stay on.
    pub(crate) fn kill_libvirtd(&self) {
        let pid = std::fs::read_to_string(format!("{}/pids/libvirtd", self.get("LAB"))).unwrap();
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    }

    /// Starts it again, and the controllers, which do not find it again by themselves.
    pub(crate) fn start_libvirtd(&self) {
        for name in ["libvirtd.sh", "bmc.sh"] {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(name);
            let mut command = self.inside(script.to_str().unwrap());
            command.arg(self.get("LAB"));
            succeeds(Ready(command), SOON);
        }
    }

    /// Waits for something that a machine does by itself.
    pub(crate) fn until(&self, what: &str, is_so: impl FnMut() -> bool) {
        self.until_within(SOON, what, is_so);
    }

    fn until_within(&self, within: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + within;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: not within {} s", within.as_secs());
            std::thread::sleep(LOOK);
        }
    }
}

/// A command that has not begun.
pub(crate) struct Ready(Command);

/// A command whose output goes to files.
pub(crate) struct Begun {
    child: Child,
    said: File,
    what: String,
}

impl Ready {
    pub(crate) fn spawn(mut self) -> Begun {
        let said = tempfile::tempfile().unwrap();
        let (out, err) = (said.try_clone().unwrap(), said.try_clone().unwrap());
        self.0.stdin(Stdio::null()).stdout(out).stderr(err);
        let what = format!("{:?}", self.0);
        Begun { child: self.0.spawn().unwrap(), said, what }
    }
}

impl From<Ready> for Begun {
    fn from(ready: Ready) -> Self {
        ready.spawn()
    }
}

impl Begun {
    fn end(mut self, within: Duration) -> (bool, String) {
        let deadline = Instant::now() + within;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() >= deadline => {
                    self.child.kill().unwrap();
                    let said = self.text();
                    panic!("{} did not end: {said}", self.what);
                }
                None => std::thread::sleep(LOOK),
            }
        };
        (status.success(), self.text())
    }

    fn text(&mut self) -> String {
        use std::io::{Read as _, Seek as _};
        let mut text = String::new();
        self.said.rewind().unwrap();
        self.said.read_to_string(&mut text).unwrap();
        text
    }
}

/// Runs a command that must succeed, and returns what it printed.
pub(crate) fn succeeds(command: impl Into<Begun>, within: Duration) -> String {
    let command = command.into();
    let what = command.what.clone();
    let (succeeded, text) = command.end(within);
    assert!(succeeded, "{what} failed: {text}");
    text
}

/// Runs a command that must fail, and returns what it printed.
pub(crate) fn fails(command: impl Into<Begun>, within: Duration) -> String {
    let command = command.into();
    let what = command.what.clone();
    let (succeeded, text) = command.end(within);
    assert!(!succeeded, "{what} succeeded: {text}");
    text
}

/// The server under test.
pub(crate) struct Server(Child);

impl Server {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(lab: &Lab) -> Self {
        let log = File::options().create(true).append(true).open(lab.path("server.log")).unwrap();
        let mut command = lab.inside(env!("CARGO_BIN_EXE_bmdemo-server"));
        command.arg("--config").arg(lab.path("bmdemo.toml"));
        command.arg("--data-dir").arg(lab.path("data")).args(["--port", PORT]);
        command.arg("--plans-dir");
        command.arg(lab.path("plans"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Self(command.spawn().unwrap());
        let deadline = Instant::now() + SOON;
        loop {
            let (answers, _) = lab.cli(&["list"]).spawn().end(SOON);
            if answers {
                return server;
            }
            let ended = server.0.try_wait().unwrap();
            if ended.is_some() || Instant::now() >= deadline {
                panic!(
                    "the server does not serve: {}",
                    std::fs::read_to_string(lab.path("server.log")).unwrap()
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends it without a chance to say anything.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
