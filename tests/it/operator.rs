//! What an operator meets beside the main sessions: servers that change, addresses that are wrong, dry runs.

use std::io::Write as _;

use tokio::net::TcpListener;

use crate::metrics::measured_with;
use crate::support::{Server, run_to_end, text, within};
use crate::terminal::{Terminal, piped};

/// A server without storage on a given port.
async fn at_port(port: u16) -> Server {
    let port = port.to_string();
    Server::start(&["--ephemeral", "--port", &port, "--fake-timing", "zero"]).await
}

/// A server with fewer changes behind it takes over the address: live screens start over and say so, and show nothing
/// of the server before.
#[tokio::test]
async fn another_server_at_the_address_is_read_anew() {
    let server = at_port(0).await;
    let address = server.address.to_string();
    piped(&address, "import 5").await;
    for rack in ["r1", "r2", "r3", "r4", "r5", "r6"] {
        piped(&address, &format!("machine label machine-1 rack={rack}")).await;
    }
    let mut list = Terminal::sized(&address, (80, 24), &[], "list -w");
    let mut rows = Terminal::sized(&address, (80, 24), &[], "list -w -o name");
    let mut top = Terminal::sized(&address, (80, 24), &[], "top");
    let line = "wait machine-4 machine-5 --for phase=RMA";
    let mut wait = Terminal::sized(&address, (80, 24), &[], line);
    piped(&address, "machine set-phase machine-4 RMA").await;
    wait.until("phase=RMA is met").await;
    list.until("machine-5").await;
    rows.until("machine-5").await;
    top.until("5 machines").await;
    let port = server.address.port();
    server.signal("KILL").await;
    server.ended().await;
    wait.until("reconnecting").await;
    let server = at_port(port).await;
    piped(&address, "import 1").await;
    list.until("server changed: all read again").await;
    list.until("machine-1").await;
    assert!(!list.shown().contains("machine-5"), "{}", list.shown());
    top.until("server changed: all read again").await;
    top.until("1 machine ").await;
    rows.until("does not know what was seen last: reading everything").await;
    let ended = wait.ended().await;
    assert!(ended.contains("machine machine-5 was deleted"), "{ended}");
    assert!(ended.ends_with("--- exit 69\n\n"), "{ended}");
    // They follow the new server.
    piped(&address, "machine register another").await;
    list.until("another").await;
    top.until("2 machines").await;
    drop(server);
}

#[tokio::test]
async fn top_ends_once_nothing_is_in_progress() {
    let script = "step=repave do=slow:1s; machine=machine-2 step=join do=fail-permanent";
    let server = Server::ephemeral(&["--fake-script", script]).await;
    let address = server.address.to_string();
    piped(&address, "import 3").await;
    piped(&address, "repave machine-1 machine-2 --detach --yes").await;
    let shown = piped(&address, "top --until-idle").await;
    assert!(shown.contains("3 machines") && !shown.contains("--- exit"), "{shown}");
    // The last state of the machines, which is sent apart from that of the runs.
    assert!(shown.contains("IN_SERVICE 1"), "{shown}");
    assert!(shown.contains("NEEDS A PERSON 1"), "{shown}");
    let idle = piped(&address, "top --until-idle").await;
    assert!(idle.contains("IN_SERVICE 1"), "an idle fleet is shown at once: {idle}");
}

/// Something else listens at the address.
#[tokio::test]
async fn an_address_of_something_else_is_called_that() {
    let (_server, metrics) = measured_with("").await;
    let shown = piped(&metrics, "list").await;
    assert!(shown.contains("something else answers at this address"), "{shown}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = tokio::spawn(async move {
        // Held, and not read: to close a connection with unread bytes resets it, and what was said may be lost.
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let said = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-other\r\n");
            said.await.unwrap();
            held.push(stream);
        }
    });
    let shown = within("another protocol", piped(&address, "list --request-timeout 5s")).await;
    assert!(shown.contains("something else answers at this address"), "{shown}");
    other.abort();
}

/// The flag before the variable, the variable before the context in use.
#[tokio::test]
async fn the_server_of_the_environment_precedes_that_of_the_context() {
    let (first, second) = (Server::ephemeral(&[]).await, Server::ephemeral(&[]).await);
    let (first, second) = (first.address.to_string(), second.address.to_string());
    let mut config = tempfile::NamedTempFile::new().unwrap();
    writeln!(config, "current = \"lab\"\n[contexts.lab]\nserver = \"{second}\"").unwrap();
    let config = config.path().to_str().unwrap();
    for (variable, line, used, from) in [
        (first.as_str(), "doctor".to_owned(), &first, "(BMDEMO_SERVER)"),
        ("", "doctor".to_owned(), &second, "(context)"),
        (&first, "doctor --context lab".to_owned(), &second, "(--context)"),
        (&first, format!("doctor --server {second}"), &second, "(--server)"),
    ] {
        let env = [("BMDEMO_CONFIG", config), ("BMDEMO_SERVER", variable)];
        let mut terminal = Terminal::start("", 200, &env, &line);
        terminal.ended().await;
        let shown = terminal.shown();
        assert!(shown.contains(&format!("{used} {from}")), "{line}: {shown}");
    }
}

/// What a person does next after a backup, and what helps where one cannot be made or restored.
#[tokio::test]
async fn backups_and_restores_say_what_to_do() {
    let all = tempfile::tempdir().unwrap();
    let path = |name: &str| all.path().join(name).to_str().unwrap().to_owned();
    let (data, copy, none) = (path("data"), path("copy.db"), path("none"));
    let server = Server::start(&["--port", "0", "--data-dir", &data]).await;
    piped(&server.address.to_string(), "import 2").await;
    let backup = run_to_end(&["backup", &copy, "--data-dir", &data]).await;
    assert_eq!(backup.status.code(), Some(0), "{}", text(&backup.stderr));
    let printed = text(&backup.stdout);
    assert!(printed.contains(&format!("restore {copy} --data-dir")), "{printed}");
    for (args, hint) in [
        (["backup", &copy, "--data-dir", &data], "name of a new file"),
        (["backup", &path("b.db"), "--data-dir", &none], "--data-dir DIR"),
        (["restore", &copy, "--data-dir", &data], "--data-dir DIR"),
        (["restore", &path("no.db"), "--data-dir", &none], "bmdemo-server backup"),
    ] {
        let output = run_to_end(&args).await;
        let error = text(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{args:?}");
        let hints = error.lines().skip_while(|line| !line.starts_with("Hint: "));
        let hints: Vec<&str> = hints.collect();
        assert!(hints.join(" ").contains(hint), "{args:?}: {error}");
    }
}

/// A bulk command does not call done what was so before.
#[tokio::test]
async fn what_changes_nothing_is_called_unchanged() {
    let script = "step=set-netboot do=slow:1h";
    let server = Server::ephemeral(&["--fake-script", script]).await;
    let address = server.address.to_string();
    piped(&address, "import 3").await;
    piped(&address, "machine label machine-1 rack=r1").await;
    for (line, summary, row) in [
        ("machine label -l role=worker rack=r1", "3 machines: 2 done, 1 unchanged", "unchanged: r"),
        ("machine label -l role=worker rack=r1", "3 machines: 3 unchanged", "= unchanged: rack=r1"),
        ("machine unlabel none -l role=worker", "3 machines: 3 unchanged", "unchanged: none-"),
        ("machine set-phase -l role=worker FACTORY_READY", "3 machines: 3 unchanged", "unchanged"),
        ("machine clear-intervention -l role=worker --reason x", "3 unchanged", "nothing to clear"),
        ("repave machine-1 machine-2 --detach", "2 machines: 2 started", "started"),
        ("pause machine-1 machine-2", "2 runs: 2 done", "pause requested"),
        ("pause machine-1 machine-2", "2 runs: 2 unchanged", "unchanged: RUNNING"),
        ("cancel machine-1 machine-2", "2 runs: 2 done", "cancel requested"),
        ("cancel machine-1 machine-2", "2 runs: 2 unchanged", "unchanged: "),
    ] {
        let shown = piped(&address, &format!("{line} --yes")).await;
        assert!(shown.contains(summary) && shown.contains(row), "{shown}");
    }
    let shown = piped(&address, "machine label machine-1 rack=r1").await;
    assert!(shown.contains("machine-1 is unchanged."), "{shown}");
}

/// A selection repeats what failed, not what an operator has ended.
#[tokio::test]
async fn a_selection_of_runs_to_retry_leaves_out_what_an_operator_ended() {
    let script = "machine=machine-1 do=fail-permanent times=1; machine=machine-2 do=slow:1h; \
                  machine=machine-3 do=slow:1h";
    let server = Server::ephemeral(&["--fake-script", script]).await;
    let address = server.address.to_string();
    piped(&address, "import 3").await;
    piped(&address, "repave machine-1").await;
    piped(&address, "repave machine-2 machine-3 --detach --yes").await;
    piped(&address, "cancel machine-2").await;
    piped(&address, "run wait machine-2 --timeout 30s").await;
    piped(&address, "abort machine-3 --reason smoke").await;
    let shown = piped(&address, "retry -l role=worker --detach --yes").await;
    assert!(shown.contains("machine-1     ✓ started"), "{shown}");
    assert!(shown.contains("1 run: 1 started"), "{shown}");
    let shown = piped(&address, "retry --filter 'phase = CANCELED' --detach --yes").await;
    assert!(shown.contains("canceled and aborted ones are repeated by name"), "{shown}");
    // By name, whatever ended them.
    let shown = piped(&address, "retry machine-2 --detach").await;
    assert!(!shown.contains("--- exit"), "{shown}");
}

/// A plan whose steps cannot be undone: the end of the run says so, wherever it is read.
#[tokio::test]
async fn what_was_not_undone_is_said_at_the_end() {
    let plans = tempfile::tempdir().unwrap();
    let plan = r#"
id = "plan/maint"
allowed_phases = ["FACTORY_READY"]

[[steps]]
name = "drain"
action = "drain"
on_unknown = "hold"
compensation = { action = "undrain" }

[[steps]]
name = "soak"
action = "wait"
until = { label = { ready = "yes" } }
timeout = "1h"

[[steps]]
name = "restart"
action = "reboot"
on_unknown = "verify"

[[finally]]
name = "tell"
action = "notify"
"#;
    std::fs::write(plans.path().join("maint.toml"), plan).unwrap();
    let script = "step=restart do=fail-permanent; step=undo-drain do=fail-permanent; \
                  step=tell do=fail-permanent";
    let plans = plans.path().to_str().unwrap();
    let server = Server::ephemeral(&["--plans-dir", plans, "--fake-script", script]).await;
    let address = server.address.to_string();
    piped(&address, "import 2").await;
    let mut run = Terminal::start(&address, 100, &[], "run start maint machine-1");
    run.until("… waits until label ready=yes, at most until 2").await;
    let described = piped(&address, "run describe machine-1").await;
    assert!(
        described.contains("why:          step soak waits until label ready=yes"),
        "{described}"
    );
    piped(&address, "machine label machine-1 ready=yes").await;
    let shown = run.ended().await;
    for said in ["Error: STEP_FAILED", "│ Not undone: drain: ", "│ Also failed: tell: "] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let described = piped(&address, "run describe machine-1").await;
    assert!(described.contains("Not undone: drain: "), "{described}");
    piped(&address, "machine label machine-2 ready=yes").await;
    piped(&address, "machine clear-intervention machine-1 --reason looked").await;
    let shown = piped(&address, "run start maint machine-1 machine-2 --yes --max-failures 2").await;
    assert_eq!(shown.matches("Not undone: drain: ").count(), 2, "{shown}");
}

#[tokio::test]
async fn an_unknown_kind_of_history_is_refused() {
    let server = Server::ephemeral(&[]).await;
    let address = server.address.to_string();
    piped(&address, "import 1").await;
    piped(&address, "reboot machine-1").await;
    for line in [
        "history --kind run.fialed",
        "machine history machine-1 --kind run.fialed",
        "run history machine-1 --kind run.fialed",
    ] {
        let shown = piped(&address, line).await;
        assert!(shown.contains("did you mean run.failed?"), "{shown}");
        assert!(shown.ends_with("--- exit 67\n\n"), "{shown}");
    }
    // The name of the operator is in a line once.
    piped(&address, "machine set-phase machine-1 RMA --reason 'fan is loud'").await;
    let shown = piped(&address, "history").await;
    assert!(shown.lines().all(|line| line.matches("by ops").count() <= 1), "{shown}");
    assert!(shown.contains("(fan is loud) [by ops unverified]"), "{shown}");
}

/// One kind of error has one exit code, whichever command met it.
#[tokio::test]
async fn a_wrong_field_in_a_file_has_the_exit_code_of_a_wrong_field() {
    let server = Server::ephemeral(&[]).await;
    let address = server.address.to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let wrong = "machineId: node-1\nspec: {bmcEndpoint: \"ftp://h\"}\n";
    let invalid = file("invalid.yaml", wrong);
    let taken =
        "---\nmachineId: node-2\nspec: {provider: fake, macAddresses: [\"02:00:00:00:00:07\"]}\n";
    let both = file("both.yaml", &format!("{wrong}{taken}"));
    piped(&address, "machine register node-7 --mac 02:00:00:00:00:07").await;
    let register = piped(&address, "machine register node-1 --bmc ftp://h").await;
    assert!(register.ends_with("--- exit 67\n\n"), "{register}");
    for (file, dry_run, code) in [(&invalid, false, 67), (&invalid, true, 67), (&both, false, 73)] {
        let flag = if dry_run { " --dry-run" } else { "" };
        let shown = piped(&address, &format!("machine apply -f {file} --yes{flag}")).await;
        assert!(shown.ends_with(&format!("--- exit {code}\n\n")), "{file}{flag}: {shown}");
    }
    let listed = piped(&address, "list -o name").await;
    assert_eq!(listed, "$ bmdemo-cli list -o name\nnode-7\n\n", "nothing else was registered");
}

/// Hints name runs as tables do, and a hint can be followed.
#[tokio::test]
async fn hints_name_runs_by_their_short_form() {
    let script = "step=repave do=fail-permanent times=1";
    let server = Server::ephemeral(&["--fake-script", script]).await;
    let address = server.address.to_string();
    piped(&address, "import 1").await;
    let mut run = Terminal::start(&address, 100, &[], "repave machine-1");
    run.ended().await;
    let shown = run.shown();
    let short = regex::Regex::new("retry ([0-9a-f]{12})\n").unwrap();
    let id = short.captures(&format!("{}\n", shown.trim_end())).unwrap()[1].to_owned();
    let again = piped(&address, &format!("retry {id} --detach")).await;
    assert!(!again.contains("--- exit"), "{again}");
    // Two runs: each candidate is shown as it can be typed.
    let mut whole = Terminal::start(&address, 100, &[], "run get machine-1 -o name");
    whole.ended().await;
    // Ids begin with the time.
    let part = whole.shown().trim()[..4].to_owned();
    let several = piped(&address, &format!("run get {part}")).await;
    assert!(several.contains("type more of the id: [short run], [short run]"), "{several}");
}

/// Nothing that is printed is wider than the terminal, so that no word is broken.
#[tokio::test]
async fn rows_fit_a_narrow_terminal() {
    let script = "machine=machine-2 step=repave do=fail-permanent";
    let server = Server::ephemeral(&["--fake-script", script]).await;
    let address = server.address.to_string();
    piped(&address, "import 3").await;
    piped(&address, "repave -l role=worker --yes --max-failures 3").await;
    let colours = regex::Regex::new("\u{1b}\\[[0-9;?]*[a-zA-Z]").unwrap();
    let simulate = "plan simulate examples/plans/drain-and-return.toml --phase READY --after repave-join --force";
    for columns in [60, 80] {
        for line in [
            "doctor",
            "plans",
            "top --once",
            "issues",
            "plan simulate upgrade --phase READY",
            "plan simulate repave-join --fail repave,times=1",
            "plan simulate repave-join --machines 3 --fail step=join,do=fail-permanent",
            simulate,
            &format!("{simulate} --fail restart,do=fail-permanent"),
            "machine apply -f examples/rack.yaml --dry-run",
        ] {
            let mut terminal = Terminal::start(&address, columns, &[], line);
            terminal.ended().await;
            let raw = String::from_utf8_lossy(&terminal.raw).into_owned();
            let plain = colours.replace_all(&raw, "");
            for row in plain.lines() {
                let fits = row.trim_end().chars().count() <= usize::from(columns);
                assert!(fits, "{line} at {columns}: {row}");
            }
        }
    }
}

/// A rack that already serves is taken over, a machine gets another class and another board: each with its reason.
#[tokio::test]
async fn machines_are_adopted_and_boards_are_swapped() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    let capabilities = ["power", "netboot", "imaging", "cluster-join", "drain", "wipe", "probe"];
    let drivers: String = capabilities.map(|name| format!("{name} = \"fake\"\n")).concat();
    write!(config, "[machine_classes.rack-server]\n{drivers}").unwrap();
    let server = Server::ephemeral(&["--config", config.path().to_str().unwrap()]).await;
    let address = server.address.to_string();
    let asked = piped(&address, "machine register node-1 --in-service").await;
    assert!(asked.contains("--reason") && asked.ends_with("--- exit 2\n\n"), "{asked}");
    let shown =
        piped(&address, "machine register node-1 --in-service --reason 'serves since May'").await;
    assert!(shown.contains("IN_SERVICE"), "{shown}");
    let refused = piped(&address, "repave node-1").await;
    assert!(refused.ends_with("--- exit 73\n\n"), "{refused}");
    let described = piped(&address, "machine describe node-1").await;
    assert!(described.contains("ADOPTED since"), "{described}");
    assert!(described.contains("in service when it was registered: serves since May"));
    let line = "machine apply -f examples/rack.yaml --in-service --reason 'serves too'";
    let dry = piped(&address, &format!("{line} --dry-run")).await;
    assert!(dry.contains("+ node-7 is new, and in service"), "{dry}");
    piped(&address, &format!("{line} --yes")).await;
    let listed = piped(&address, "list --columns machine_id,effective").await;
    assert_eq!(listed.matches("IN_SERVICE").count(), 3, "{listed}");
    piped(&address, "machine register node-2").await;
    let known = piped(&address, "machine register node-2 --in-service --reason x").await;
    assert!(known.contains("set its phase to IN_SERVICE"), "{known}");

    let swap = "machine update node-1 --provider rack-server --serial SN-9 --mac 02:00:00:00:00:09";
    let asked = piped(&address, swap).await;
    assert!(asked.contains("--reason") && asked.ends_with("--- exit 2\n\n"), "{asked}");
    piped(&address, &format!("{swap} --reason 'board swapped'")).await;
    let history = piped(&address, "machine history node-1 --kind machine.updated").await;
    for said in ["provider fake -> rack-server", "serial none -> SN-9", "(board swapped) [by ops"] {
        assert!(history.contains(said), "{history}");
    }
    let upgraded = piped(&address, "upgrade node-1 --yes").await;
    assert!(upgraded.contains("✓ SUCCEEDED"), "driven by its class: {upgraded}");
}

/// What is printed as the next command can be given as it is, and refusals do not send anyone the wrong way.
#[tokio::test]
async fn hints_are_commands_that_work() {
    let script = "machine=machine-1 step=repave do=slow:60s";
    let server = Server::ephemeral(&["--fake-script", script]).await;
    let address = server.address.to_string();
    piped(&address, "import 3 --label rack=r1").await;
    let both = "repave machine-2 machine-3 --detach --max-parallel 1 --yes";
    let shown = piped(&address, both).await;
    assert!(shown.contains("cannot be used with '--max-parallel"), "{shown}");
    for line in ["list -l rack=r1", "runs -l rack=r1", "runs --since 1h"] {
        let shown = piped(&address, &format!("{line} --filter 'phase = PAUSED'")).await;
        assert!(shown.contains("at character 9"), "{line}: {shown}");
    }
    let shown = piped(&address, "machine unlabel machine-1 rack").await;
    assert!(shown.contains("machine unlabel KEY MACHINE"), "{shown}");
    assert!(shown.contains("--- exit 69"), "{shown}");
    let shown = piped(&address, "list --server foo.invalid:1").await;
    assert!(shown.contains("Hint: check the address"), "{shown}");

    piped(&address, "repave machine-1 --detach").await;
    let waited = "run describe machine-1 -o jsonpath={.currentStep}";
    within("repave begins", async { while !piped(&address, waited).await.contains("repave") {} })
        .await;
    piped(&address, "abort machine-1 --reason smoke").await;
    let shown = piped(&address, "run describe machine-1").await;
    assert!(shown.contains("Not undone: set-netboot"), "{shown}");
    assert!(shown.contains("Next: bmdemo-cli machine describe machine-1"), "{shown}");
    let shown = piped(&address, "machine clear-intervention machine-1 --reason looked").await;
    assert!(shown.contains("disks are trusted again"), "{shown}");

    piped(&address, "machine set-phase machine-2 RETIRED --yes --reason old").await;
    let shown = piped(&address, "machine set-phase machine-2 READY").await;
    assert!(!shown.contains("to go ahead"), "{shown}");
    let shown = piped(&address, "machine delete machine-2 --reason gone").await;
    assert!(shown.contains("machine-2 --reason gone --yes"), "{shown}");
    piped(&address, "machine delete machine-2 --reason gone --yes").await;
    let shown = piped(&address, "history --machine machine-2").await;
    assert!(shown.contains("machine deleted"), "{shown}");
    let shown = piped(&address, "machine history nowhere").await;
    assert!(shown.contains("not found"), "{shown}");
}
