//! Join material on its way from the program that mints it to the one that redeems it: looked for wherever it must not be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};

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
