//! Watching runs: outcomes, lost connections, Ctrl-C.

use super::client;
use super::server::{Behaviour, Server};

#[tokio::test]
async fn every_outcome_has_its_lines_and_its_exit_code() {
    let server = Server::start().await;
    client("import 3").on(&server).run().await;
    server.behave("machine-1", Behaviour::Fail("repave"));
    server.behave("machine-2", Behaviour::Retry("repave"));
    server.behave("machine-3", Behaviour::Hold("wipe"));
    let mut transcript = String::new();
    for line in [
        "repave machine-1",
        "run describe 00000000-0000-7000-8000-000000000001",
        "machine describe machine-1",
        "retry 00000000-0000-7000-8000-000000000001",
        "repave machine-2",
        "rma machine-3",
        "run describe 00000000-0000-7000-8000-000000000004",
        "machine describe machine-3",
        "cancel 00000000-0000-7000-8000-000000000004",
        "watch 00000000-0000-7000-8000-000000000004",
    ] {
        let output = client(line).on(&server).run().await;
        transcript.push_str(&format!("$ bmdemo-cli {line}\n{output}\n\n"));
    }
    crate::assert_golden!("cli_outcomes", transcript);
}

#[tokio::test]
async fn a_watch_survives_a_lost_connection_without_losing_or_doubling_a_line() {
    let server = Server::start().await;
    client("import 2").on(&server).run().await;
    let whole = client("repave machine-1").on(&server).run().await;
    server.world().break_watch_after = Some(3);
    let broken = client("repave machine-2").on(&server).run().await;
    assert_eq!(broken.code, 0);
    assert!(broken.stderr.contains("connection lost, reconnecting…"), "{}", broken.stderr);
    // The duration is that of the server's clock, which other machines move too.
    let lines = |text: &str| -> Vec<String> {
        text.lines().skip(3).filter(|line| !line.contains("Duration")).map(str::to_owned).collect()
    };
    assert_eq!(lines(&whole.stdout), lines(&broken.stdout));
}

#[tokio::test]
async fn ctrl_c_detaches_and_says_how_to_come_back() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    server.behave("machine-1", Behaviour::Hang("repave"));
    let watching = client("repave machine-1").on(&server);
    let interrupt = watching.interrupt.clone();
    let stop = async {
        server.until_running("repave").await;
        interrupt.cancel();
    };
    let (output, ()) = tokio::join!(watching.run(), stop);
    assert_eq!(output.code, 130);
    let id = "000000000001";
    let said = format!("Detached; the run continues. Watch it again with: bmdemo-cli watch {id}\n");
    assert_eq!(output.stderr, said);
    assert!(server.world().runs[0].finished_at.is_none());
}

#[tokio::test]
async fn a_list_of_runs_continues_with_changes_and_repeats_none() {
    let server = Server::start().await;
    client("import 2").on(&server).run().await;
    client("repave machine-1").on(&server).run().await;
    server.world().break_watch_after = Some(4);
    let watching = client("runs --watch -o jsonl").on(&server);
    let (interrupt, stdout) = (watching.interrupt.clone(), watching.stdout.clone());
    let work = async {
        let run = client("repave machine-2").on(&server).run().await;
        assert_eq!(run.code, 0);
        let ended = |text: String| text.matches("RUN_PHASE_SUCCEEDED").count() == 2;
        while !ended(stdout.text()) {
            tokio::task::yield_now().await;
        }
        interrupt.cancel();
    };
    let (output, ()) = tokio::join!(watching.run(), work);
    assert_eq!(output.code, 130);
    let revision = |line: &str| {
        let run: serde_json::Value = serde_json::from_str(line).unwrap();
        (
            run["runId"].as_str().unwrap().to_owned(),
            run["revision"].as_str().unwrap_or("0").to_owned(),
        )
    };
    let seen: Vec<_> = output.stdout.lines().map(revision).collect();
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "{seen:?}");
}
