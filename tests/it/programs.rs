//! Programs as the drivers of a class: real scripts under a real server, looked at through the command line.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::run_service_client::RunServiceClient;

use crate::support::{Server, run_to_end, text, within};
use crate::terminal::piped;

/// A folder with programs, a plan that drains, and a configuration that names both.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new(step: &str, class: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.at("plans")).unwrap();
        let plan = format!(
            "id = \"plan/drain-only\"\ndisplay_name = \"Drain\"\ndescription = \"Drains.\"\ndestructive = true\n\
             allowed_phases = [\"FACTORY_READY\"]\n[[steps]]\nname = \"drain\"\naction = \"drain\"\nexpected = \"1s\"\n\
             retry = {{ max_attempts = 3, backoff = \"10ms\", backoff_max = \"20ms\" }}\n{step}\n"
        );
        std::fs::write(site.at("plans/drain-only.toml"), plan).unwrap();
        site.program("act", "exit 64");
        site.program("look", "exit 10");
        let at = |name: &str| site.at(name).display().to_string();
        let config = format!(
            "[plans]\ndir = {plans:?}\n[machine_classes.rack]\ndrain = \"exec\"\n[machine_classes.rack.exec]\n\
             working_dir = {dir:?}\ngrace = \"1s\"\n[machine_classes.rack.exec.actions.undrain]\nact = [\"/bin/true\"]\n\
             [machine_classes.rack.exec.actions.drain]\nact = [{act:?}]\n{class}\n",
            plans = at("plans"),
            dir = at(""),
            act = at("act"),
            class = class.replace("LOOK", &at("look")),
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

    async fn server(&self) -> Server {
        let (config, data) = (self.at("bmdemo.toml"), self.at("data"));
        let flags = ["--port", "0", "--fake-timing", "zero", "--config"];
        let named = [config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        Server::start(&[&flags[..], &named].concat()).await
    }

    /// A server with a machine, on which the plan has been started.
    async fn started(&self) -> Server {
        let server = self.server().await;
        let address = server.address.to_string();
        piped(&address, "machine register node-1 --provider rack").await;
        let started = piped(&address, "run start drain-only node-1 --yes --detach").await;
        assert!(started.contains("drain-only"), "{started}");
        server
    }

    /// Waits until a file that a program writes is there.
    async fn written(&self, name: &str) -> String {
        let clock = SystemClock::new();
        within(name, async {
            while self.read(name).is_empty() {
                clock.sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        self.read(name)
    }
}

/// Waits until the newest run of the machine is described with a text, and returns how it is described.
async fn until(server: &Server, wanted: &str) -> String {
    let address = server.address.to_string();
    let clock = SystemClock::new();
    within(wanted, async {
        loop {
            let shown = piped(&address, "run describe node-1").await;
            if shown.contains(wanted) {
                return shown;
            }
            clock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn gone(pid: &str) {
    let clock = SystemClock::new();
    within("a program is ended", async {
        while is_alive(pid) {
            clock.sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_that_fails_is_retried_and_its_output_is_the_log_of_the_step() {
    let site = Site::new("on_unknown = \"verify\"", "observe = [\"LOOK\"]");
    site.program(
        "act",
        "echo \"attempt of $BMDEMO_MACHINE\"\nif [ ! -e failed ]; then echo 'no quorum' >&2; touch failed; exit 75; fi\n\
         touch done; echo 'bmdemo: {\"evidence\":\"7 pods moved\"}'",
    );
    site.program("look", "[ -e done ] && exit 0; exit 10");
    let server = site.started().await;
    until(&server, "SUCCEEDED").await;
    let address = server.address.to_string();
    let logs = piped(&address, "logs node-1").await;
    assert_eq!(logs.matches("attempt of node-1").count(), 2, "{logs}");
    assert!(logs.contains("no quorum"), "{logs}");
    assert!(!logs.contains("bmdemo: {"), "the answer is no line of the log: {logs}");
    let history = piped(&address, "run history node-1").await;
    assert!(history.contains("act of drain exited with 75: no quorum"), "{history}");
    let described = piped(&address, "machine describe node-1").await;
    assert!(described.contains("exec"), "{described}");
}

#[tokio::test]
async fn a_step_that_times_out_leaves_no_process() {
    let site = Site::new("timeout = \"1s\"\non_unknown = \"verify\"", "observe = [\"LOOK\"]");
    site.program("act", "trap '' TERM\nsh -c 'trap \"\" TERM; echo $$ > child; exec sleep 1000' &\necho $$ > leader\nwait; sleep 1000");
    site.program("look", "[ -e child ] && exit 12; exit 10");
    let server = site.started().await;
    let (leader, child) = (site.written("leader").await, site.written("child").await);
    until(&server, "OUTCOME_UNKNOWN").await;
    gone(&leader).await;
    gone(&child).await;
}

/// What a killed server leaves running is ended by the next one before it acts; the rule of the step decides.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_program_is_decided_by_the_rule_of_the_step() {
    for (rule, look, wanted, acts) in [
        ("retry", "", "SUCCEEDED", 2),
        ("hold", "", "OUTCOME_UNKNOWN", 1),
        ("verify", "", "OUTCOME_UNKNOWN", 1),
        ("verify", "observe = [\"LOOK\"]", "SUCCEEDED", 2),
    ] {
        let site = Site::new(&format!("on_unknown = \"{rule}\""), look);
        site.program(
            "act",
            "echo act >> acts\n[ -e again ] && exit 0\ntouch again\ntrap '' PIPE; trap 'echo asked >> notes; exit 3' TERM\n\
             echo $$ > leader\nwhile :; do sleep 0.01; done",
        );
        site.program("look", "[ \"$(wc -l < acts)\" = 2 ] && exit 0; exit 10");
        let server = site.started().await;
        let leader = site.written("leader").await;
        server.signal("KILL").await;
        server.ended().await;
        assert!(is_alive(&leader), "{rule}: no one could end it");
        let server = site.server().await;
        let shown = until(&server, wanted).await;
        gone(&leader).await;
        assert_eq!(site.read("notes"), "asked", "{rule}");
        assert_eq!(site.read("acts").lines().count(), acts, "{rule} {look}: {shown}");
    }
}

#[tokio::test]
async fn a_server_that_ends_ends_its_programs() {
    let site = Site::new("on_unknown = \"hold\"", "");
    site.program("act", "echo $$ > leader; exec sleep 1000");
    let config = site.read("bmdemo.toml");
    std::fs::write(
        site.at("bmdemo.toml"),
        format!("[server]\nshutdown_grace = \"0s\"\n{config}\n"),
    )
    .unwrap();
    let server = site.started().await;
    let leader = site.written("leader").await;
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert!(status.success(), "{log}");
    assert!(!is_alive(&leader), "{log}");
}

#[tokio::test]
async fn a_program_that_others_could_exchange_keeps_the_server_from_starting() {
    let site = Site::new("on_unknown = \"hold\"", "");
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(site.at("act"), mode).unwrap();
    let config = site.at("bmdemo.toml");
    let output =
        run_to_end(&["--ephemeral", "--port", "0", "--config", config.to_str().unwrap()]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("machine_classes.rack.exec.actions.drain.act"), "{said}");
    assert!(said.contains("chmod go-w"), "{said}");
}

/// Declared, planned, refused where no program performs it, and pinned by a run in flight.
#[tokio::test]
async fn an_action_of_ones_own_is_performed_by_a_program_and_pinned_by_its_run() {
    let site = Site::new("on_unknown = \"hold\"", "");
    std::fs::create_dir(site.at("actions")).unwrap();
    let declare = |name: &str, times: &str| {
        let text = format!(
            "name = \"{name}\"\ndescription = \"Does it.\"\nrisk = \"none\"\nidempotent = true\n{times}\n\
             [args.version]\nkind = \"string\"\n"
        );
        std::fs::write(site.at(&format!("actions/{name}.toml")), text).unwrap();
    };
    declare("flash", "timeout = \"1h\"");
    declare("scan", "timeout = \"1h\"");
    for name in ["flash", "scan"] {
        let plan = format!(
            "id = \"plan/{name}-it\"\nallowed_phases = [\"FACTORY_READY\"]\n[[steps]]\nname = \"{name}\"\naction = \"{name}\"\n\
             args = {{ version = \"2.1\" }}\n"
        );
        std::fs::write(site.at(&format!("plans/{name}-it.toml")), plan).unwrap();
    }
    site.program("act", "cat > input; echo $$ > leader; while [ ! -e go ]; do sleep 0.01; done");
    let config = site.read("bmdemo.toml");
    let config = config.replace("drain = \"exec\"", "drain = \"exec\"\ncustom = \"exec\"");
    let (act, actions) = (site.at("act"), site.at("actions"));
    let config = format!(
        "{config}\n[machine_classes.rack.exec.actions.flash]\nact = [{act:?}]\n[actions]\ndir = {actions:?}\n"
    );
    std::fs::write(site.at("bmdemo.toml"), &config).unwrap();

    let server = site.server().await;
    let address = server.address.to_string();
    piped(&address, "machine register node-1 --provider rack").await;
    let refused = piped(&address, "run start scan-it node-1 --yes --detach").await;
    assert!(refused.contains("needs the action scan"), "{refused}");
    assert!(refused.contains("[machine_classes.rack.exec.actions.scan]"), "{refused}");

    let started = piped(&address, "run start flash-it node-1 --yes --detach").await;
    assert!(!started.contains("exit"), "{started}");
    site.written("leader").await;
    let input: serde_json::Value = serde_json::from_str(&site.read("input")).unwrap();
    assert_eq!((&input["action"], &input["capability"]), (&"flash".into(), &"custom".into()));
    assert_eq!(input["args"], serde_json::json!({ "version": "2.1" }));
    let before = newest(&server).await.plan_digest;

    // The declaration changes, and then goes, while the run is in flight.
    declare("flash", "timeout = \"2h\"");
    server.signal("HUP").await;
    server.logged("reloaded configuration, plans and certificates").await;
    assert_eq!(newest(&server).await.plan_digest, before);
    let changed = piped(&address, "plan describe flash-it").await;
    assert!(changed.contains("2h"), "{changed}");
    std::fs::write(site.at("go"), "").unwrap();
    until(&server, "SUCCEEDED").await;
    let ended = newest(&server).await;
    assert_eq!((ended.plan_digest, ended.phase), (before, pb::RunPhase::Succeeded.into()));

    let bad = config.replace("actions.flash", "actions.flahs");
    std::fs::write(site.at("bad.toml"), bad).unwrap();
    let path = site.at("bad.toml");
    let output =
        run_to_end(&["--ephemeral", "--port", "0", "--config", path.to_str().unwrap()]).await;
    let said = text(&output.stderr);
    assert!(said.contains("exec.actions.flahs is no action: did you mean flash?"), "{said}");
}

/// The newest run.
async fn newest(server: &Server) -> pb::Run {
    let mut client = RunServiceClient::new(server.channel().await);
    let listed = client.list_runs(pb::ListRunsRequest::default()).await.unwrap().into_inner();
    listed.runs.into_iter().next_back().unwrap()
}
