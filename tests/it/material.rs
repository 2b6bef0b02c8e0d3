//! Join material on its way from the program that mints it to the one that redeems it: looked for wherever it must not be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::metrics::get;
use crate::support::{Server, within};
use crate::terminal::piped;

/// What is looked for. Only the programs have it whole: each minting adds its number.
const CANARY: &str = "canary-7f3a91c2";

const PLAN: &str = r#"
id = "plan/join-only"
display_name = "Join"
description = "Joins."
allowed_phases = ["FACTORY_READY"]
[[steps]]
name = "mint-join"
action = "mint-join"
[[steps]]
name = "join"
action = "join"
needs = ["mint-join"]
on_unknown = "verify"
retry = { max_attempts = 3, backoff = "10ms", backoff_max = "20ms" }
"#;

/// A step before the others.
const REPAVE: &str = r#"
[params.image]
kind = "string"
default = "os"
[[steps]]
name = "repave"
action = "repave"
args = { image = { param = "image" } }
on_unknown = "verify"
[[steps]]"#;

const MAC: &str = "02:00:00:00:00:01";
const SHA256: &str = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff";

/// Where machines that are installed reach a server.
async fn boot_listener(server: &Server) -> String {
    let log = server.logged("/boot/v1").await;
    log.split("http://").find_map(|rest| rest.split_once("/boot/v1")).unwrap().0.to_owned()
}

/// What an installed machine reports, and the status and body of the answer.
async fn report(boot: &str, token: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(boot).await.unwrap();
    let request = format!(
        "POST /boot/v1/report/node-1 HTTP/1.1\r\nHost: {boot}\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("a report is answered", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().to_owned(), body.to_owned())
}

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.at("plans")).unwrap();
        std::fs::write(site.at("plans/join-only.toml"), PLAN).unwrap();
        site.program(
            "mint",
            &format!(
                "cat > /dev/null; echo mint >> mints; n=$(wc -l < mints)\n\
                 echo \"bmdemo: {{\\\"material\\\":\\\"{CANARY}-$n\\\",\\\"evidence\\\":\\\"minted $n\\\"}}\""
            ),
        );
        // It has the secret in its memory while the test looks around.
        site.program(
            "join",
            &format!(
                "secret=$(grep -o '{CANARY}-[0-9]*')\necho $$ > leader; trap 'exit 3' TERM\n\
                 while [ ! -e go ]; do sleep 0.01; done\necho \"$secret\" >> redeemed; echo joined"
            ),
        );
        site.program("joined", "cat > /dev/null; [ -s redeemed ] && exit 0; exit 10");
        let at = |name: &str| site.at(name).display().to_string();
        let config = format!(
            "[plans]\ndir = {plans:?}\n[machine_classes.rack]\ncluster-join = \"exec\"\n[machine_classes.rack.exec]\n\
             working_dir = {dir:?}\ngrace = \"1s\"\n[machine_classes.rack.exec.actions.mint-join]\nact = [{mint:?}]\n\
             [machine_classes.rack.exec.actions.join]\nact = [{join:?}]\nobserve = [{joined:?}]\n",
            plans = at("plans"),
            dir = at(""),
            mint = at("mint"),
            join = at("join"),
            joined = at("joined"),
        );
        std::fs::write(site.at("bmdemo.toml"), config).unwrap();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        std::fs::write(self.at(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.at(name), mode).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_default().trim().to_owned()
    }

    /// The same with machines that are installed first, and get the secret as the answer to a report.
    fn reporting() -> Self {
        let site = Self::new();
        std::fs::write(site.at("plans/join-only.toml"), PLAN.replacen("[[steps]]", REPAVE, 1))
            .unwrap();
        std::fs::create_dir(site.at("credentials")).unwrap();
        std::fs::write(site.at("credentials/rack"), "admin\nsecret\n").unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(site.at("credentials/rack"), mode).unwrap();
        // In the place of ipmitool, with a machine that is what it was asked to be.
        site.program(
            "tool",
            "cd \"$(dirname \"$0\")\"\n\
             case \"$*\" in *'power on') echo on > power;; *'power off') echo off > power;;\n\
             *'chassis status') echo \"System Power : $(cat power 2>/dev/null || echo off)\";;\n\
             *'bootparam get 5') echo ' - Boot Device Selector : Force Boot from default Hard-Drive';; esac; exit 0",
        );
        site.program(
            "join",
            "cat >> input\necho $$ > leader; trap 'exit 3' TERM\n\
             while [ ! -e go ]; do sleep 0.01; done; echo joined >> redeemed",
        );
        let at = |name: &str| site.at(name).display().to_string();
        let config = site.read("bmdemo.toml");
        let config = config.replace(
            "cluster-join = ",
            "power = \"ipmi\"\nnetboot = \"ipmi\"\nimaging = \"ipmi\"\ncluster-join = ",
        );
        let config = format!(
            "{config}\nmaterial = \"report\"\n[machine_classes.rack.ipmi]\nprogram = {tool:?}\nsettle = \"10ms\"\npoll = \"10ms\"\n\
             [machine_classes.rack.installer]\npoll = \"100ms\"\n\
             [networks]\nbmc = [\"127.0.0.0/8\"]\n[credentials]\ndir = {credentials:?}\n[boot]\nlisten = \"127.0.0.1:0\"\n\
             [images.os]\nurl = \"http://127.0.0.1:1/os\"\nsha256 = \"{SHA256}\"\n",
            tool = at("tool"),
            credentials = at("credentials"),
        );
        std::fs::write(site.at("bmdemo.toml"), config).unwrap();
        site
    }

    async fn server(&self) -> (Server, String) {
        let (config, data) = (self.at("bmdemo.toml"), self.at("data"));
        let mut args = vec!["--port", "0", "--log-level", "debug", "--config"];
        args.extend([config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]);
        args.extend(["--metrics-listen", "127.0.0.1:0"]);
        let server = Server::start(&args).await;
        let log = server.logged("/metrics").await;
        let url = log.split("http://").find_map(|rest| rest.split_once("/metrics"));
        let url = url.unwrap().0.to_owned();
        (server, url)
    }

    /// Waits until a program that joins has its input.
    async fn joining(&self, but: &str) -> String {
        let clock = SystemClock::new();
        within("a program joins", async {
            while self.read("leader").is_empty() || self.read("leader") == but {
                clock.sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        self.read("leader")
    }

    /// Looks into the files of the server: they have the handle, and not the secret.
    fn look_at_files(&self) {
        let found =
            files(&self.at("data"), &[&b"material:mint-join:900000:"[..], CANARY.as_bytes()]);
        assert_eq!(found.iter().map(|files| files.is_empty()).collect::<Vec<_>>(), [false, true]);
    }

    /// Looks for the secret wherever it must not be, and for something else that must be there.
    async fn look(&self, server: &Server, metrics: &str, program: &str) {
        let mut seen = String::new();
        for line in [
            "run describe node-1",
            "run describe node-1 -o json",
            "run history node-1 -o json",
            "machine describe node-1 -o json",
            "machine history node-1",
            "logs node-1",
            "list -o yaml",
        ] {
            seen += &piped(&server.address.to_string(), line).await;
        }
        seen += &get(metrics, "/metrics").await.1;
        assert!(seen.contains("minted 1"), "what the program says is shown: {seen}");
        seen += &server.logged("").await;
        let own = server.pid().to_string();
        for pid in [own.as_str(), program] {
            for file in ["cmdline", "environ"] {
                let read = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                seen += &String::from_utf8_lossy(&read);
            }
        }
        assert!(seen.contains("BMDEMO_ACTION=join"), "the program was looked at");
        assert!(!seen.contains(CANARY), "{seen}");
        self.look_at_files();
    }
}

/// For each of some texts, the files below a folder that have it. Named pipes have nothing in them that could be read again.
fn files(folder: &Path, texts: &[&[u8]]) -> Vec<Vec<PathBuf>> {
    let mut found = vec![Vec::new(); texts.len()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for (all, below) in found.iter_mut().zip(files(&path, texts)) {
                all.extend(below);
            }
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for (all, text) in found.iter_mut().zip(texts) {
                if bytes.windows(text.len()).any(|window| window == *text) {
                    all.push(path.clone());
                }
            }
        }
    }
    found
}

/// The server dies with the secret: the next one mints another, within the step that needs it, and what was recorded as done is
/// not done again.
#[tokio::test]
async fn join_material_is_nowhere_but_in_memory_and_is_minted_again_when_it_is_lost() {
    let site = Site::new();
    let (server, metrics) = site.server().await;
    let address = server.address.to_string();
    piped(&address, "machine register node-1 --provider rack").await;
    let started = piped(&address, "run start join-only node-1 --yes --detach").await;
    assert!(started.contains("join-only"), "{started}");
    let first = site.joining("").await;
    site.look(&server, &metrics, &first).await;
    server.signal("KILL").await;
    let (_, _, log) = server.ended().await;
    assert!(!log.contains(CANARY));
    site.look_at_files();

    let (server, metrics) = site.server().await;
    let second = site.joining(&first).await;
    site.look(&server, &metrics, &second).await;
    std::fs::write(site.at("go"), "").unwrap();
    let address = server.address.to_string();
    let waited = piped(&address, "run wait node-1 --timeout 1m").await;
    assert!(!waited.contains("--- exit"), "{waited}");
    assert_eq!(site.read("redeemed"), format!("{CANARY}-2"), "another one, and that once");
    assert_eq!(site.read("mints").lines().count(), 2, "by mint-join, and by join");
    let logs = piped(&address, "logs node-1").await;
    assert!(logs.contains("the material of mint-join is lost: it is minted again"), "{logs}");
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert!(status.success() && !log.contains(CANARY));
    site.look_at_files();
}

/// The machine fetches the secret itself. What it did not fetch before the server died is minted again; what it fetched is gone.
#[tokio::test]
async fn join_material_is_the_answer_to_a_report_while_its_step_runs() {
    let site = Site::reporting();
    let (server, metrics) = site.server().await;
    let address = server.address.to_string();
    let register =
        "machine register node-1 --provider rack --bmc ipmi://127.0.0.1 --credentials rack --mac";
    piped(&address, &format!("{register} {MAC}")).await;
    let started = piped(&address, "run start join-only node-1 --yes --detach").await;
    assert!(started.contains("join-only"), "{started}");

    // The installer, and the system that it installs.
    let boot = boot_listener(&server).await;
    let clock = SystemClock::new();
    let settings = within("the settings are offered", async {
        loop {
            let (head, body) = get(&boot, &format!("/boot/v1/settings?mac={MAC}")).await;
            if head.contains(" 200 ") {
                return body;
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let token = settings.lines().find_map(|line| line.strip_prefix("token=")).unwrap().to_owned();
    let wants = r#"{"stage":"up","boot_id":"one","wants_material":true}"#;
    let none = ("204".to_owned(), String::new());
    let written =
        format!(r#"{{"stage":"written","image_sha256":"{SHA256}","wants_material":true}}"#);
    assert_eq!(report(&boot, &token, &written).await, none);
    assert_eq!(report(&boot, &token, wants).await, none, "the run is not at join");

    let first = site.joining("").await;
    assert_eq!(report(&boot, "bmi_00", wants).await.0, "403");
    site.look(&server, &metrics, &first).await;
    server.signal("KILL").await;
    let (_, _, log) = server.ended().await;
    assert!(!log.contains(CANARY));
    site.look_at_files();

    let (server, metrics) = site.server().await;
    let boot = boot_listener(&server).await;
    let second = site.joining(&first).await;
    site.look(&server, &metrics, &second).await;
    let fetched = report(&boot, &token, wants).await;
    assert_eq!(fetched, ("200".to_owned(), format!("{CANARY}-2")), "another one");
    assert_eq!(report(&boot, &token, wants).await, none, "once");
    site.look(&server, &metrics, &second).await;
    std::fs::write(site.at("go"), "").unwrap();
    let address = server.address.to_string();
    let waited = piped(&address, "run wait node-1 --timeout 1m").await;
    assert!(!waited.contains("--- exit"), "{waited}");
    assert_eq!(report(&boot, &token, wants).await, none, "the run has ended");
    assert_eq!(site.read("mints").lines().count(), 2, "by mint-join, and by join");
    let logs = piped(&address, "logs node-1").await;
    for part in ["is lost: it is minted again", "the machine has fetched the material"] {
        assert!(logs.contains(part), "{part}: {logs}");
    }
    let input = site.read("input");
    assert!(input.contains("material:mint-join:") && !input.contains(CANARY), "{input}");
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert!(status.success() && !log.contains(CANARY));
    site.look_at_files();
}
