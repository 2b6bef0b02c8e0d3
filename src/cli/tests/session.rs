//! Commands as typed, with their output.

use super::client;
use super::server::{Behaviour, Server};

#[tokio::test]
async fn the_main_session() {
    let server = Server::start().await;
    let mut transcript = String::new();
    for line in [
        "import 3",
        "list",
        "repave machine-1",
        "list",
        "rma machine-1 --detach",
        "runs",
        "plans",
        "machine get machine-2",
        "machine set-phase machine-2 MAINTENANCE",
        "plan describe rma",
    ] {
        if line.starts_with("rma") {
            server.behave("machine-1", Behaviour::Hang("drain"));
        }
        let output = client(line).on(&server).run().await;
        transcript.push_str(&format!("$ bmdemo-cli {line}\n{output}\n"));
        if line.starts_with("rma") {
            server.until_running("drain").await;
        }
    }
    crate::assert_golden!("cli_session", transcript);
}

#[tokio::test]
async fn importing_again_changes_nothing_and_prints_the_same() {
    let server = Server::start().await;
    let first = client("import 100").on(&server).run().await;
    let second = client("import 100").on(&server).run().await;
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert_eq!(first.stdout, second.stdout);
    let ids: Vec<String> = (1..=100).map(|number| format!("machine-{number}")).collect();
    let printed: Vec<&str> =
        first.stdout.lines().skip(2).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(printed, ids);
    assert_eq!(server.world().machines.len(), 100);
}

#[tokio::test]
async fn a_bad_number_of_machines_registers_nothing() {
    let server = Server::start().await;
    for wrong in ["0", "-5", "three", "10000000", "1.5", "99999999999999999999"] {
        let output = client(&format!("import {wrong}")).on(&server).run().await;
        assert_eq!(output.code, 2, "{wrong}");
        assert!(output.stderr.starts_with("Error: "), "{}", output.stderr);
        assert!(
            output.stderr.contains("Hint: for example: bmdemo-cli import 3"),
            "{}",
            output.stderr
        );
        assert_eq!(output.stdout, "");
    }
    assert!(server.world().machines.is_empty());
}

#[tokio::test]
async fn a_refused_connection_says_how_to_start_a_server() {
    let output = client("list --server localhost:1").run().await;
    crate::assert_golden!("cli_no_server", output.to_string());
    // The user learns about the assumed port here at the latest.
    let assumed = client("list --server 127.0.0.9").run().await;
    assert!(assumed.stderr.contains("50051 was tried: give HOST:PORT"), "{}", assumed.stderr);
}

#[tokio::test]
async fn errors_say_what_and_what_next() {
    let server = Server::start().await;
    client("import 12").on(&server).run().await;
    server.behave("machine-3", Behaviour::Hang("repave"));
    client("repave machine-3 --detach").on(&server).run().await;
    let mut gallery = String::new();
    for line in [
        "repave machne-1",
        "machine get machine-77",
        "watch 00000000-0000-7000-8000-000000000009",
        "watch 99999999",
        "plan describe repave-jion",
        "repave machine-3",
        "machine set-phase machine-1 BROKEN",
        "machine get machine-1x",
        "machine describe mach",
        "lst",
    ] {
        let output = client(line).on(&server).run().await;
        gallery.push_str(&format!("$ bmdemo-cli {line}\n{output}\n\n"));
    }
    crate::assert_golden!("cli_errors", gallery);
}

#[tokio::test]
async fn a_call_is_repeated_with_its_request_id() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    server.world().unavailable = 2;
    let output = client("repave machine-1 --detach").on(&server).env("USER", "ops").run().await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let world = server.world();
    assert_eq!(world.start_requests.len(), 3);
    assert!(world.start_requests.iter().all(|id| *id == world.start_requests[0] && id.len() == 36));
    assert_eq!(world.runs.len(), 1);
    assert_eq!(world.actors, ["ops", "ops", "ops"]);
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_error() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    server.world().unavailable = 9;
    let output = client("repave machine-1 --detach").on(&server).run().await;
    assert_eq!(output.code, 78);
    assert_eq!(server.world().start_requests.len(), 4);
}

#[tokio::test]
async fn a_closed_pipe_is_no_error() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let server = Server::start().await;
    let run = client("plans").on(&server);
    let mut io = run.io();
    io.stdout = Box::new(Closed);
    let args = ["bmdemo-cli", "plans"].map(std::ffi::OsString::from);
    assert_eq!(super::super::run(args.into_iter(), io).await, 0);
    assert_eq!(run.stderr.text(), "");
}

#[tokio::test]
async fn logs_cannot_drive_the_terminal() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    client("repave machine-1").on(&server).run().await;
    let output = client("logs 00000000 -f").on(&server).run().await;
    assert_eq!(output.stdout, "[repave] writing image\n[repave] done \\u{1b}[31mred\\u{1b}[0m\n");
}

#[tokio::test]
async fn the_demo_is_a_transcript() {
    let server = Server::start().await;
    server.behave("machine-2", Behaviour::Fail("repave"));
    let output = client(&format!("demo --server {}", server.address)).run().await;
    crate::assert_golden!("cli_demo", output.to_string());
}

/// Help of every command, in the order of the tree.
#[test]
fn the_whole_help() {
    fn collect(command: &mut clap::Command, path: &str, text: &mut String) {
        let rule = "=".repeat(path.len());
        let help = command.render_long_help().to_string();
        assert!(help.contains("\nExamples:\n"), "{path} --help has no example");
        text.push_str(&format!("{path}\n{rule}\n{help}\n\n"));
        for sub in command
            .get_subcommands_mut()
            .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        {
            let path = format!("{path} {}", sub.get_name());
            collect(sub, &path, text);
        }
    }
    let mut command = super::super::tree::command().term_width(100);
    command.build();
    let mut text = String::new();
    collect(&mut command, "bmdemo-cli", &mut text);
    crate::assert_golden!("cli_help", text);
}

#[tokio::test]
async fn the_same_answer_in_every_form() {
    let server = Server::start().await;
    client("import 12").on(&server).run().await;
    let mut transcript = String::new();
    for line in [
        "machine label machine-2 rack=r1 role-",
        "machine register node-7 --mac 02:00:00:00:AA:07 --label rack=r1 --cluster c1",
        "list -l rack=r1",
        "list -l rack=r1 -o name",
        "machine get machine-2 -o json",
        "machine get machine-2 -o yaml",
        "list -l rack=r1 -o jsonl",
        "list --sort-by id:desc --limit 3",
        "list --sort-by weight",
        "plan list -o name",
        "runs -o json",
        "machine history machine-1 -o jsonl",
        "wait machine-1 machine-2 --for phase=FACTORY_READY",
        "wait machine-1 --for effective=IN_SERVICE --timeout 1ms",
        "wait machine-1 --for sunshine",
        "issues",
    ] {
        let output = client(line).on(&server).run().await;
        transcript.push_str(&format!("$ bmdemo-cli {line}\n{output}\n"));
    }
    crate::assert_golden!("cli_forms", transcript);
}

#[tokio::test]
async fn issues_say_why_and_what_next() {
    let server = Server::start().await;
    client("import 3").on(&server).run().await;
    server.behave("machine-1", Behaviour::Fail("repave"));
    server.behave("machine-3", Behaviour::Hold("wipe"));
    client("repave machine-1").on(&server).run().await;
    client("rma machine-3").on(&server).run().await;
    let output = client("issues").on(&server).run().await;
    let names = client("issues -o name").on(&server).run().await;
    assert_eq!(names.stdout, "machine-1\nmachine-3\n");
    let mut shown = output.to_string();
    for form in ["json", "csv", "table --columns machine_id,what,next", "table --columns phase"] {
        let output = client(&format!("issues -o {form}")).on(&server).run().await;
        shown.push_str(&format!("$ bmdemo-cli issues -o {form}\n{output}"));
    }
    crate::assert_golden!("cli_issues", shown);
}

#[tokio::test]
async fn what_a_watched_list_cannot_do_is_refused() {
    let server = Server::start().await;
    for line in ["list -w --limit 3", "list -w --sort-by id", "runs -w --limit 3"] {
        let output = client(line).on(&server).run().await;
        assert_eq!(output.code, 2, "{line}");
        assert!(output.stderr.contains("cannot be used with --watch"), "{}", output.stderr);
    }
}

#[tokio::test]
async fn a_cancel_after_the_end_says_so() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    client("repave machine-1").on(&server).run().await;
    let output = client("cancel machine-1").on(&server).run().await;
    assert_eq!(output.code, 0);
    assert!(output.stderr.contains("Nothing to cancel: the run has ended"), "{output}");
}
