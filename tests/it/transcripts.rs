//! The main sessions, typed into the real client against the real server, as transcripts.

use crate::support::Server;
use crate::terminal::{Terminal, piped, typed};

macro_rules! assert_transcript {
    ($name:expr, $value:expr) => {
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!($name, $value) });
    };
}

/// A server whose machines take the usual time, and its address.
async fn server(script: &str) -> (Server, String) {
    let args = ["--ephemeral", "--port", "0", "--seed", "42", "--fake-timing", "0.3"];
    let server = Server::start(&[&args[..], &["--fake-script", script]].concat()).await;
    let address = server.address.to_string();
    (server, address)
}

/// The id of the newest run on a machine.
async fn newest_run(address: &str, machine: &str) -> String {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
        .args(["runs", "--machine", machine, "-o", "name", "--server", address])
        .output()
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_on_a_terminal() {
    let (_server, address) = server("machine=machine-1 step=repave do=slow:2s").await;
    let mut shown = String::new();
    for line in ["import 3", "list"] {
        shown += &typed(&address, line).await;
    }
    let mut repave = Terminal::start(&address, 120, &[], "repave machine-1");
    // The line that moves while a step is in progress.
    repave.until_raw("s (expected 10m)").await;
    shown += &repave.ended().await;
    let raw = String::from_utf8_lossy(&repave.raw).into_owned();
    assert!(raw.contains("\u{1b}[32m✓\u{1b}[0m"), "coloured");
    for line in [
        "list -o wide",
        "machine describe machine-1",
        "runs -o wide",
        "machine history machine-1 --last 3",
        "history --kind machine",
        "plans",
    ] {
        shown += &typed(&address, line).await;
    }
    assert_transcript!("terminal_session", shown);
}

#[tokio::test]
async fn a_session_on_pipes() {
    let (_server, address) = server("").await;
    let mut shown = String::new();
    for line in [
        "import 3",
        "list",
        "repave machine-1",
        "rma machine-1 --reason 'fan is loud'",
        "list",
        "runs",
        "machine history machine-1 --limit 3",
        "history --kind run --actor ops -o wide",
        "history --last 1 -o json",
        "wait machine-1 machine-2 --for run=done",
        "wait machine-9 --for run=done",
    ] {
        shown += &piped(&address, line).await;
    }
    assert_transcript!("piped_session", shown);
}

#[tokio::test]
async fn a_failed_run_says_why_and_what_to_do() {
    let script = "machine=machine-2 step=repave do=fail-permanent times=1; \
                  machine=machine-3 step=set-netboot do=fail times=1; \
                  machine=machine-3 step=repave do=slow:1h";
    let (_server, address) = server(script).await;
    let mut shown = String::new();
    piped(&address, "import 3").await;
    shown += &typed(&address, "repave machine-2").await;
    let run = newest_run(&address, "machine-2").await;
    for line in ["machine describe machine-2", "issues", &format!("run describe {run}")] {
        shown += &typed(&address, line).await;
    }
    shown += &piped(&address, &format!("run wait {run}")).await;
    shown += &piped(&address, &format!("run history {run}")).await;
    shown += &typed(&address, &format!("retry {run}")).await;
    shown += &typed(&address, "issues").await;
    let mut again = Terminal::start(&address, 120, &[], "repave machine-3");
    again.until("→ repave...").await;
    again.press("\u{3}").await;
    shown += &again.ended().await;
    assert_transcript!("terminal_failure", shown);
}

#[tokio::test]
async fn ctrl_c_detaches_and_a_cancel_ends_the_run() {
    let (_server, address) = server("machine=machine-1 step=drain do=slow:1h").await;
    let mut shown = String::new();
    piped(&address, "import 2").await;
    let mut first = Terminal::start(&address, 120, &[], "rma machine-1");
    first.until("→ drain...").await;
    first.press("\u{3}").await;
    shown += &first.ended().await;
    let run = newest_run(&address, "machine-1").await;
    let mut second = Terminal::start(&address, 120, &[], &format!("watch {run}"));
    let mut wait = Terminal::start(&address, 120, &[], &format!("run wait {run}"));
    let mut free = Terminal::start(&address, 120, &[], "wait machine-1 --for run=done");
    second.until("→ drain...").await;
    shown += &piped(&address, "rma machine-1").await;
    shown += &piped(&address, &format!("cancel {run} --reason 'wrong machine'")).await;
    for terminal in [&mut second, &mut wait, &mut free] {
        shown += &terminal.ended().await;
    }
    shown += &piped(&address, &format!("cancel {run}")).await;
    let mut waits =
        Terminal::start(&address, 120, &[], "wait machine-1 --for effective=IN_SERVICE");
    // A waiting client shows nothing: Ctrl-C ends it at any moment.
    let ended = waits.press_until_ended("\u{3}").await;
    assert!(ended.ends_with("--- exit 130\n\n"), "{ended}");
    shown += &piped(&address, "wait machine-1 --for effective=IN_SERVICE --timeout 1ms").await;
    assert_transcript!("terminal_cancel", shown);
}

#[tokio::test]
async fn a_watch_resumes_after_the_server_was_killed() {
    let data = tempfile::tempdir().unwrap();
    let port = |port: &str| {
        let script = "machine=machine-1 step=join do=slow:5s";
        let args = ["--fake-timing", "0.3", "--fake-script", script, "--port", port, "--data-dir"];
        let mut args = args.map(str::to_owned).to_vec();
        args.push(data.path().join("data").to_str().unwrap().to_owned());
        args
    };
    let start = async |args: Vec<String>| {
        Server::start(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let server = start(port("0")).await;
    let address = server.address.to_string();
    piped(&address, "import 2").await;
    let mut repave = Terminal::start(&address, 120, &[], "repave machine-1");
    let mut runs = Terminal::start(&address, 120, &[], "runs --watch -o jsonl");
    repave.until("→ join...").await;
    // Before the provider has the operation, a kill may or may not cost an attempt.
    runs.until_raw("the provider is working on join").await;
    server.signal("KILL").await;
    let again = port(&server.address.port().to_string());
    server.ended().await;
    repave.until("connection lost, reconnecting…").await;
    runs.until_raw("connection lost, reconnecting…").await;
    let _server = start(again).await;
    let shown = repave.ended().await;
    assert_transcript!("terminal_restart", shown);
    runs.until_raw("RUN_PHASE_SUCCEEDED").await;
    runs.press("\u{3}").await;
    assert!(runs.ended().await.ends_with("--- exit 130\n\n"));
    // No line twice: the revisions of one run only rise. How many there are depends on when the watch started.
    let raw = String::from_utf8_lossy(&runs.raw).into_owned();
    let shown = |line: &str| serde_json::from_str::<serde_json::Value>(line.trim()).ok();
    let revisions: Vec<u64> = raw
        .lines()
        .filter_map(|line| shown(line)?.get("revision")?.as_str()?.parse().ok())
        .collect();
    assert!(revisions.len() > 2 && revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
}

#[tokio::test]
async fn many_machines_are_asked_about_once() {
    let script = "machine=machine-2 do=fail-permanent; machine=machine-3 do=slow:2s";
    let (_server, address) = server(script).await;
    let mut shown = String::new();
    piped(&address, "import 4").await;
    shown += &piped(&address, "reboot -l role=worker --max-parallel 1").await;
    shown += &piped(&address, "repave -l role=worker --dry-run").await;
    let mut no = Terminal::start(&address, 120, &[], "reboot machine-1 machine-2");
    no.until("Go ahead? [y/N]").await;
    no.press("n\n").await;
    shown += &no.ended().await;
    let line = "reboot -l role=worker --max-parallel 1 --max-failures 2";
    let mut yes = Terminal::start(&address, 120, &[], line);
    yes.until("Go ahead? [y/N]").await;
    yes.press("y\n").await;
    shown += &yes.ended().await;
    let raw = String::from_utf8_lossy(&yes.raw).into_owned();
    assert!(raw.contains("2/4"), "a bar moved on");
    shown += &piped(&address, "reboot -l role=worker --max-parallel 1 --yes").await;
    let etag = "repave machine-1 --dry-run --if-etag";
    shown += &piped(&address, &format!("{etag} '\"1\"'")).await;
    shown += &piped(&address, "repave machine-1 machine-2 --dry-run --if-etag '\"1\"'").await;
    assert_transcript!("terminal_bulk", shown);
}

#[tokio::test]
async fn terminals_of_every_kind() {
    let (_server, address) = server("").await;
    piped(&address, "import 2").await;
    piped(&address, "repave machine-1").await;
    let mut shown = String::new();
    let mut raw = Vec::new();
    for (columns, env, line) in [
        (40, &[][..], "list"),
        (40, &[], "reboot machine-2"),
        (40, &[], "machine describe machine-2"),
        (120, &[("NO_COLOR", "1")], "list"),
        (120, &[("LANG", "C")], "list"),
        (120, &[("TERM", "dumb")], "reboot machine-2"),
        (120, &[], "list --color never --ascii"),
    ] {
        let mut terminal = Terminal::start(&address, columns, env, line);
        let ended = terminal.ended().await;
        let set: String = env.iter().map(|(key, value)| format!("{key}={value} ")).collect();
        shown += &format!("({columns} columns) {set}{ended}");
        raw.push(String::from_utf8_lossy(&terminal.raw).into_owned());
    }
    assert!(raw[0].contains("\u{1b}[32m"), "coloured: {}", raw[0]);
    for place in [3, 5, 6] {
        assert!(!raw[place].contains("\u{1b}[3"), "no colour: {}", raw[place]);
    }
    assert!(!raw[5].contains('\u{1b}'), "a dumb terminal gets no escape sequence: {}", raw[5]);
    assert!(raw[4].is_ascii() && raw[6].is_ascii(), "{} {}", raw[4], raw[6]);
    assert_transcript!("terminal_kinds", shown);
}

/// Disks that a step should have destroyed and did not: such machines are marked, and put to use only by force and
/// with a reason.
#[tokio::test]
async fn machines_with_disks_that_are_not_trusted() {
    let script = "machine=machine-1 step=wipe do=fail-permanent; machine=machine-2 step=wipe do=slow:1h; \
                  machine=machine-3 step=wipe do=unknowable";
    let (_server, address) = server(script).await;
    let mut shown = String::new();
    piped(&address, "import 4").await;
    shown += &piped(&address, "rma machine-1").await;
    let mut rma = Terminal::start(&address, 120, &[], "rma machine-2");
    rma.until("→ wipe...").await;
    shown += &piped(&address, "abort machine-2 --reason 'smoke from the rack' -o name").await;
    rma.ended().await;
    piped(&address, "rma machine-3").await;
    shown += &piped(&address, "abort machine-3 --reason 'gone for repair' -o name").await;
    for line in [
        "list",
        "list --columns machine_id,phase,disks_trusted",
        "issues",
        "machine set-phase machine-1 READY",
        "machine set-phase machine-1 READY --force",
        "machine set-phase -l role=worker READY",
        "machine set-phase machine-1 READY --force --reason 'the disks were replaced'",
        "list --filter 'machine_id = machine-1'",
        "machine clear-intervention machine-1 --reason 'looked at it'",
        "machine clear-intervention machine-2 --reason 'wiped by hand'",
        "list",
        "machine history machine-1",
    ] {
        shown += &piped(&address, line).await;
    }
    assert_transcript!("disks_not_trusted", shown);
}

/// One command takes a machine from its customer: it asks for confirmation at the terminal, and needs --yes
/// elsewhere.
#[tokio::test]
async fn a_machine_in_service_is_not_sent_away_by_a_slip() {
    let (_server, address) = server("").await;
    let mut shown = String::new();
    piped(&address, "import 2").await;
    piped(&address, "repave machine-1").await;
    for phase in ["RMA", "RETIRED"] {
        let line = format!("machine set-phase machine-1 {phase}");
        shown += &piped(&address, &line).await;
        let mut no = Terminal::start(&address, 80, &[], &line);
        no.until("Go ahead? [y/N]").await;
        no.press("n\n").await;
        shown += &no.ended().await;
    }
    // Machines that are not in service are changed at once.
    shown += &piped(&address, "machine set-phase machine-2 RMA").await;
    shown += &piped(&address, "list").await;
    let mut yes = Terminal::start(&address, 80, &[], "machine set-phase machine-1 RMA");
    yes.until("Go ahead? [y/N]").await;
    yes.press("y\n").await;
    shown += &yes.ended().await;
    shown += &piped(&address, "machine set-phase machine-1 RETIRED --yes").await;
    shown += &piped(&address, "machine history machine-1").await;
    assert_transcript!("set_phase_in_service", shown);
}

/// The confirmation of every bulk verb says how many would be refused, and why.
#[tokio::test]
async fn questions_say_what_would_be_refused() {
    let script = "machine=machine-1 step=repave do=slow:1h; machine=machine-2 step=repave do=slow:1h; \
                  machine=machine-3 do=fail-permanent; machine=machine-5 step=repave do=fail-permanent";
    let (_server, address) = server(script).await;
    let mut shown = String::new();
    piped(&address, "import 4").await;
    piped(&address, "machine register machine-5").await;
    piped(&address, "repave machine-5").await;
    for machine in ["machine-1", "machine-2"] {
        piped(&address, &format!("repave {machine} --detach")).await;
        let mut watch = Terminal::start(&address, 120, &[], &format!("watch {machine}"));
        watch.until("→ repave...").await;
        watch.press("\u{3}").await;
        watch.ended().await;
    }
    piped(&address, "reboot machine-3").await;
    piped(&address, "reboot machine-4").await;
    shown += &piped(&address, "pause machine-1").await;
    piped(&address, "cancel machine-2").await;
    for line in [
        "runs",
        "run describe machine-1",
        "pause -l role=worker",
        "resume -l role=worker",
        "cancel machine-1 machine-4",
        "abort machine-1 machine-4 --reason x",
        "retry machine-3 machine-4",
        "retry machine-3 machine-5",
        "repave -l role=worker",
        "machine set-phase -l role=worker RMA",
        "machine clear-intervention -l role=worker --reason x",
        "machine label -l role=worker a=b",
        "cancel --filter ''",
        "machine set-phase --filter '' RETIRED --yes",
    ] {
        shown += &piped(&address, line).await;
    }
    assert_transcript!("questions", shown);
}

/// What an operator reads every day, at the two widths that most terminals have: no row is wrapped by the terminal.
#[tokio::test]
async fn a_week_at_80_and_at_140_columns() {
    let script = "machine=machine-2 step=repave do=fail-permanent";
    let (_server, address) = server(script).await;
    piped(&address, "import 3 --label rack=r1").await;
    piped(&address, "repave -l rack=r1 --yes --max-parallel 1 --max-failures 3").await;
    let ages = regex::Regex::new(r" +\[t\]s").unwrap();
    let indents = regex::Regex::new("(?m)^ {16,}").unwrap();
    let colours = regex::Regex::new("\u{1b}\\[[0-9;?]*[a-zA-Z]").unwrap();
    for columns in [80, 140] {
        let mut shown = String::new();
        for line in [
            "list -l rack=r1",
            "list --columns machine_id,phase,labels.rack,needs_intervention",
            "runs -l rack=r1 --since 1h",
            "runs -o wide",
            "issues",
            "plans",
            "plan describe upgrade",
            "run describe machine-2",
            "machine history machine-2 --kind run",
            "run start net-reconfig machine-1 --dry-run",
            "machine set-phase machine-1 RMA",
            "watch machine-2",
            "top --once",
        ] {
            let mut terminal = Terminal::start(&address, columns, &[], line);
            if line.contains("set-phase") {
                terminal.until("Go ahead? [y/N]").await;
                terminal.press("n\n").await;
            }
            shown += &terminal.ended().await;
            let raw = String::from_utf8_lossy(&terminal.raw).into_owned();
            let plain = colours.replace_all(&raw, "");
            for row in plain.lines() {
                // A box and a digest have a fixed length; everything else fits the terminal.
                let words = row.split(' ').map(str::len).max().unwrap_or(0);
                let fits = row.trim_end().chars().count() <= usize::from(columns);
                assert!(fits || words > 40, "{line} at {columns}: {row}");
            }
        }
        // How far a row is shifted to the right depends on how long ago things were.
        let shown = ages.replace_all(&shown, " [t]s");
        let shown = indents.replace_all(&shown, "                ");
        assert_transcript!(format!("terminal_week_{columns}"), shown.as_ref());
    }
}

/// The live screen at 80 by 24: it is repainted in place, filtered, a run is opened, and it restores the terminal.
#[tokio::test]
async fn the_live_screen_at_80_by_24() {
    let script =
        "machine=machine-1 step=repave do=slow:1h; machine=machine-2 step=repave do=slow:1h";
    let (_server, address) = server(script).await;
    piped(&address, "import 30 --label rack=r1").await;
    for machine in ["machine-1", "machine-2"] {
        piped(&address, &format!("repave {machine} --detach")).await;
    }
    let mut top = Terminal::sized(&address, (80, 24), &[], "top -l rack=r1");
    top.until("RUNS IN PROGRESS 2").await;
    assert!(top.shown().lines().all(|line| line.chars().count() <= 80), "{}", top.shown());
    // A change comes by itself.
    piped(&address, "repave machine-3 --detach").await;
    top.until("PROVISIONING 3").await;
    top.press("/machine-2").await;
    top.until("/machine-2_").await;
    top.press("\r").await;
    top.until("RUNS IN PROGRESS 1").await;
    top.press("\r").await;
    top.until("Plan:           plan/repave-join").await;
    assert!(top.shown().contains("Machine:        machine-2"), "{}", top.shown());
    top.press("q").await;
    let ended = top.ended().await;
    // The alternate screen is gone, and the cursor is back.
    assert_eq!(ended, "$ bmdemo-cli top -l rack=r1\n\n\n");
    let raw = String::from_utf8_lossy(&top.raw).into_owned();
    assert!(raw.contains("\u{1b}[?1049h") && raw.ends_with("\u{1b}[?25h\u{1b}[?1049l"));
}

/// A file describes a rack: new machines are registered, differing ones are changed, and a dry run says so first.
#[tokio::test]
async fn a_rack_is_applied_from_a_file() {
    let (_server, address) = server("").await;
    let mut shown = String::new();
    for line in [
        "machine apply -f examples/rack.yaml --dry-run",
        "machine apply -f examples/rack.yaml",
        "machine apply -f examples/rack.yaml --yes",
        "machine apply -f examples/rack.yaml",
        "machine label node-7 node-8 rack=r2 old=x --yes --max-parallel 1",
        "machine apply -f examples/rack.yaml --dry-run",
        "machine apply -f examples/rack.yaml --yes --max-parallel 1 --reason 'moved back'",
        "list --columns machine_id,labels.rack,labels.old,serial",
        "machine apply -f Cargo.toml",
        "machine apply -f examples",
        "machine apply -f /dev/zero",
    ] {
        shown += &piped(&address, line).await;
    }
    assert_transcript!("apply_rack", shown);
}

/// A closed window or a `kill` restores the terminal, too.
#[tokio::test]
async fn a_signal_leaves_the_live_screen() {
    let (_server, address) = server("").await;
    piped(&address, "import 2").await;
    let mut top = Terminal::sized(&address, (80, 24), &[], "top");
    top.until("2 machines").await;
    top.signal("TERM").await;
    let ended = top.ended().await;
    assert!(ended.ends_with("--- exit 130\n\n"), "{ended}");
    let raw = String::from_utf8_lossy(&top.raw).into_owned();
    assert!(raw.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{raw:?}");
}

#[tokio::test]
async fn watched_lists_are_repainted_on_a_terminal() {
    let (_server, address) = server("machine=machine-1 step=repave do=slow:1h").await;
    piped(&address, "import 2").await;
    let mut list = Terminal::sized(&address, (80, 24), &[], "list -w");
    list.until("machine-2").await;
    piped(&address, "repave machine-1 --detach").await;
    list.until("PROVISIONING").await;
    // In place: each machine has one row.
    assert_eq!(list.shown().matches("machine-1").count(), 1, "{}", list.shown());
    list.press("\u{3}").await;
    let ended = list.ended().await;
    assert!(ended.contains("machine-1     FACTORY_READY  PROVISIONING"), "{ended}");
    assert!(ended.ends_with("--- exit 130\n\n"), "{ended}");
}
