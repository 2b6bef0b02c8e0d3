//! Commands around the main job: contexts, completion, doctor, terminals.

use super::client;
use super::server::{Behaviour, Server};

#[tokio::test]
async fn contexts_are_kept_and_flags_win_over_them() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let mut transcript = String::new();
    for line in [
        "context list",
        "context set lab 10.0.0.7:50051 --as-name ops",
        "context set here localhost:1",
        "context use lab",
        "context use here",
        "context use -",
        "context list",
        "context show",
        "context show --server x:1",
        "context show --context here",
        "context use nowhere",
        "context delete lab",
        "context list",
    ] {
        let output = client(line).env("HOME", dir).run().await;
        transcript.push_str(&format!("$ bmdemo-cli {line}\n{output}\n"));
    }
    let file = home.path().join(".config/bmdemo/config.toml");
    transcript.push_str(&std::fs::read_to_string(&file).unwrap());
    crate::assert_golden!("cli_contexts", transcript);
    let environment =
        client("context show").env("HOME", dir).env("BMDEMO_SERVER", "y:2").run().await;
    assert_eq!(environment.stdout, "y:2 (BMDEMO_SERVER)\n");
    // A context named on the command line takes precedence over a variable that was set before.
    let named = client("context show --context here").env("HOME", dir).env("BMDEMO_SERVER", "y:2");
    assert_eq!(named.run().await.stdout, "localhost:1 (--context)\n");

    std::fs::write(&file, "current = 1\n").unwrap();
    let broken = client("list").env("HOME", dir).run().await;
    assert_eq!(broken.code, 1);
    assert!(broken.stderr.contains("there is a mistake in"), "{}", broken.stderr);
    let why = "because: line 1: invalid type: integer `1`, expected a string\n";
    assert!(broken.stderr.contains(why), "{}", broken.stderr);
}

#[tokio::test]
async fn completion_knows_live_ids_and_is_silent_without_a_server() {
    let server = Server::start().await;
    client("import 2").on(&server).run().await;
    let machines = client("__complete -- repave mach").on(&server).run().await;
    assert_eq!(machines.stdout, "machine-1\tFACTORY_READY\nmachine-2\tFACTORY_READY\n");
    let silent = client("__complete -- repave mach --server localhost:1")
        .env("BMDEMO_SERVER", "localhost:1");
    let silent = silent.run().await;
    assert_eq!((silent.stdout.as_str(), silent.stderr.as_str(), silent.code), ("", "", 0));
    for shell in ["bash", "zsh", "fish"] {
        let script = client(&format!("completions {shell}")).run().await;
        assert!(script.stdout.contains("bmdemo-cli __complete"), "{shell}");
    }
}

#[tokio::test]
async fn doctor_and_version_work_with_and_without_a_server() {
    let server = Server::start().await;
    client("import 2").on(&server).run().await;
    let healthy = client("doctor").on(&server).run().await;
    assert_eq!(healthy.code, 0, "{healthy}");
    assert!(healthy.stdout.contains("2 machines, 0 active runs, 0 in need of a look"), "{healthy}");
    for line in [
        "memory, nothing survives a restart; revision 7, watches resume from 2",
        "0 of at most 500 runs in progress, 0 waiting; at most 20 for each rack",
        "/var/lib/bmdemo: 3.0 MiB, 5.0 GiB free; no backup known",
        "the previous configuration stays in force: plans/maint.toml:3:1: unknown key\n",
        "chat: has everything\n",
        "ops: 3 events wait, the oldest for ",
        "1 left out: it answers 503",
    ] {
        assert!(healthy.stdout.contains(line), "{line}: {healthy}");
    }
    let alone = client("doctor --server localhost:1").run().await;
    assert_eq!(alone.code, 78);
    assert!(
        alone.stdout.contains("cannot reach a server at http://localhost:1 (--server)"),
        "{alone}"
    );
    let version = client("version --server localhost:1").run().await;
    assert_eq!(version.to_string(), format!("bmdemo-cli {}\n", env!("CARGO_PKG_VERSION")));
    let man = client("man").run().await;
    assert!(man.stdout.contains(".TH bmdemo-cli 1"), "{}", man.stdout);
}

#[tokio::test]
async fn a_terminal_gets_colour_and_a_line_that_moves() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    server.behave("machine-1", Behaviour::Hang("repave"));
    let watching = client("repave machine-1").on(&server).terminal();
    let (interrupt, stderr) = (watching.interrupt.clone(), watching.stderr.clone());
    let stop = async {
        while !stderr.text().contains("repave") {
            tokio::task::yield_now().await;
        }
        interrupt.cancel();
    };
    let (output, ()) = tokio::join!(watching.run(), stop);
    assert_eq!(output.code, 130);
    assert!(output.stdout.contains("\u{1b}[36m→\u{1b}[0m repave...\n"), "{:?}", output.stdout);
    // Which frame it is depends on how long the machine took.
    let status = output.stderr.split('\r').find(|line| line.contains("repave")).unwrap();
    assert!(status.starts_with("\u{1b}[2K  ") && status.contains(" repave 0.0s"), "{status:?}");
    let detached = "\r\u{1b}[2KDetached; the run continues.";
    assert!(output.stderr.contains(detached), "{:?}", output.stderr);
}

#[tokio::test]
async fn colour_follows_the_usual_variables() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    let colored = |output: super::Output| output.stdout.contains('\u{1b}');
    let list = || client("list").on(&server);
    assert!(!colored(list().run().await));
    assert!(colored(list().terminal().run().await));
    assert!(!colored(list().terminal().env("NO_COLOR", "1").run().await));
    assert!(!colored(list().terminal().env("TERM", "dumb").run().await));
    assert!(colored(list().env("CLICOLOR_FORCE", "1").run().await));
    assert!(!colored(client("list --color never").on(&server).terminal().run().await));
    assert!(colored(client("list --color always").on(&server).run().await));
    let ascii =
        client("plans").on(&server).terminal().env("LANG", "C").env("NO_COLOR", "1").run().await;
    assert!(ascii.stdout.is_ascii(), "{}", ascii.stdout);
    let piped = client("plans").on(&server).env("LANG", "C").run().await;
    assert!(piped.stdout.contains('→'));
}

#[tokio::test]
async fn words_of_other_tools_lead_to_ours() {
    for (line, hint) in [
        ("explain", "Hint: for actions of plans: bmdemo-cli plan explain"),
        ("drain", "Hint: to drain and install"),
    ] {
        let output = client(line).run().await;
        assert_eq!(output.code, 2);
        assert!(output.stderr.starts_with("Error: "), "{output}");
        assert!(output.stderr.contains(hint) && !output.stderr.contains("similar"), "{output}");
    }
    let page = client("man run start").run().await;
    assert!(page.stdout.contains(".TH bmdemo-cli-run-start 1"), "{page}");
    assert_eq!(client("man run begin").run().await.code, 2);
}

#[tokio::test]
async fn columns_csv_and_paths() {
    let server = Server::start().await;
    client("import 2 --label rack=r1").on(&server).run().await;
    let run = async |line: &str| client(line).on(&server).run().await;
    assert_eq!(
        run("list -o csv --columns machine_id,labels.rack,active_run").await.stdout,
        "machine_id,labels.rack,active_run\nmachine-1,r1,\nmachine-2,r1,\n"
    );
    assert_eq!(
        run("list --columns machine_id,reachable").await.stdout,
        "MACHINE_ID REACHABLE\nmachine-1  -\nmachine-2  -\n"
    );
    assert_eq!(
        run("list -o jsonpath={.machines[*].machineId}").await.stdout,
        "machine-1 machine-2\n"
    );
    assert_eq!(run("machine get machine-1 -o jsonpath=.labels.rack").await.stdout, "r1\n");
    for wrong in [
        "list --columns color",
        "list -o jsonpath={.a",
        "list -o xml",
        "plans --columns color -o csv",
        "runs --since tomorrow",
    ] {
        assert_eq!(run(wrong).await.code, 2, "{wrong}");
    }
}
