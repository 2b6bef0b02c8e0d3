//! Bulk commands, confirmations, dry runs.

use super::client;
use super::server::{Behaviour, Server};

async fn fleet(count: u32) -> Server {
    let server = Server::start().await;
    client(&format!("import {count}")).on(&server).run().await;
    server
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| (line.split(' ').next().unwrap().len(), *line));
    // Times and ids depend on the order in which the runs were carried out.
    let shown = |line: &&str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ") + "\n";
    lines.iter().map(shown).collect()
}

#[tokio::test]
async fn several_machines_need_a_confirmation() {
    let server = fleet(3).await;
    let refused = client("repave -l role=worker --reason two'words").on(&server).run().await;
    assert_eq!(refused.code, 2);
    assert!(server.world().runs.is_empty());
    let no = client("repave machine-1 machine-2").on(&server).terminal().answer("n\n").run().await;
    assert_eq!(no.code, 2);
    let end = client("repave machine-1 machine-2").on(&server).terminal().run().await;
    assert_eq!(end.code, 2);
    assert!(server.world().runs.is_empty());
    let yes = client("repave machine-1 machine-2").on(&server).terminal().answer("y\n").run().await;
    assert_eq!(yes.code, 0, "{}", yes.stderr);
    assert_eq!(server.world().runs.len(), 2);
    let text = [refused, no].map(|output| output.to_string()).join("\n\n");
    crate::assert_golden!("cli_confirm", text);
}

#[tokio::test]
async fn a_real_machine_needs_a_confirmation_for_what_destroys() {
    let server = Server::start().await;
    client("machine register node-1 --provider redfish").on(&server).run().await;
    let refused = client("repave node-1").on(&server).run().await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("Data on them will be lost: repave."), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("Hint: to go ahead: bmdemo-cli repave node-1 --yes"),
        "{}",
        refused.stderr
    );
    assert!(server.world().runs.is_empty());
    let yes = client("repave node-1").on(&server).env("BMDEMO_YES", "1").run().await;
    assert_eq!(yes.code, 0, "{}", yes.stderr);
}

#[tokio::test]
async fn every_machine_gets_a_line_and_the_whole_a_summary() {
    let server = fleet(5).await;
    server.behave("machine-4", Behaviour::Fail("repave"));
    let output = client("repave -l role=worker --yes --max-parallel 2 --max-failures 2")
        .on(&server)
        .run()
        .await;
    assert_eq!(output.code, 3);
    assert_eq!(output.stderr, "5 machines: 4 succeeded, 1 failed\n");
    crate::assert_golden!("cli_bulk", sorted(&output.stdout));
}

/// For the client a detached run is over as soon as it is reported: either event may come first.
#[tokio::test]
async fn a_machine_that_came_out_takes_no_place() {
    let server = fleet(12).await;
    let output = client("repave -l role=worker -y --detach").on(&server).run().await;
    assert_eq!((output.code, output.stderr.as_str()), (0, "12 machines: 12 started\n"));
    assert_eq!(server.world().runs.len(), 12);
    // All are started, so there is no limit that could hold.
    for limit in ["--max-parallel 1", "--max-failures 2"] {
        let output =
            client(&format!("repave -l role=worker -y --detach {limit}")).on(&server).run().await;
        assert_eq!(output.code, 2, "{output}");
    }
}

#[tokio::test]
async fn enough_failures_stop_it() {
    let server = fleet(6).await;
    server.behave("machine-1", Behaviour::Fail("set-netboot"));
    let output = client("repave -l role=worker -y --max-parallel 1").on(&server).run().await;
    assert_eq!(output.code, 3);
    assert_eq!(
        output.stderr,
        "Stopped after 1 failed; allow more with --max-failures.\n6 machines: 1 failed, 5 not started\n"
    );
    assert_eq!(server.world().runs.len(), 1);
}

#[tokio::test]
async fn ctrl_c_starts_no_more_and_lists_what_is_in_progress() {
    let server = fleet(3).await;
    server.behave("machine-1", Behaviour::Hang("repave"));
    let running = client("repave -l role=worker -y --max-parallel 1").on(&server);
    let interrupt = running.interrupt.clone();
    let stop = async {
        server.until_running("repave").await;
        interrupt.cancel();
    };
    let (output, ()) = tokio::join!(running.run(), stop);
    assert_eq!(output.code, 130);
    assert_eq!(server.world().runs.len(), 1);
    let id = "000000000001";
    assert!(
        output.stderr.contains(&format!("  machine-1  bmdemo-cli watch {id}\n")),
        "{}",
        output.stderr
    );
    assert!(output.stderr.ends_with("3 machines: 1 in progress, 2 not started\n"));
}

#[tokio::test]
async fn a_dry_run_starts_nothing_and_names_what_is_in_the_way() {
    let server = fleet(3).await;
    server.behave("machine-2", Behaviour::Hang("repave"));
    client("repave machine-2 --detach").on(&server).run().await;
    server.until_running("repave").await;
    let free = client("rma machine-1 --dry-run").on(&server).run().await;
    let blocked = client("rma -l role=worker --dry-run").on(&server).run().await;
    assert_eq!((free.code, blocked.code), (0, 73));
    let busy = client("rma machine-2 --dry-run").on(&server).run().await;
    assert_eq!(server.world().runs.len(), 1);
    crate::assert_golden!(
        "cli_dry_run",
        [free, busy, blocked].map(|output| output.to_string()).join("\n\n")
    );
}

#[tokio::test]
async fn nothing_to_do_is_said() {
    let server = fleet(1).await;
    let unnamed = client("repave").on(&server).run().await;
    assert_eq!(unnamed.code, 2);
    assert!(unnamed.stderr.contains("no machine was named"));
    let none = client("repave -l rack=none").on(&server).run().await;
    assert!(none.stderr.contains("no machine matches"), "{}", none.stderr);
    assert_eq!(none.code, 2);
}

#[tokio::test]
async fn verbs_take_several_machines_selectors_and_machines_for_runs() {
    let server = fleet(4).await;
    let run = async |line: &str| client(line).on(&server).run().await;
    let labelled = run("machine label machine-1 machine-2 rack=r1 --yes --reason moved").await;
    assert_eq!(
        (labelled.code, labelled.stderr.as_str()),
        (0, "2 machines: 2 done\n"),
        "{labelled}"
    );
    assert_eq!(run("list -l rack=r1 -o name").await.stdout, "machine-1\nmachine-2\n");
    let asks = run("machine set-phase -l rack=r1 MAINTENANCE").await;
    assert_eq!(asks.code, 2);
    assert!(
        asks.stderr.starts_with("Set phase MAINTENANCE of 2 machines:\n  machine-1 (fake)\n"),
        "{asks}"
    );
    let both = run("machine set-phase machine-3 -l rack=r1 MAINTENANCE --yes").await;
    assert_eq!(both.code, 2, "{both}");
    assert!(both.stderr.contains("machines were both named and selected"), "{both}");
    let unlabelled = run("machine unlabel rack -l rack=r1 --yes").await;
    assert_eq!(unlabelled.code, 0, "{unlabelled}");
    assert_eq!(run("list -l rack=r1 -o name").await.stdout, "");

    server.behave("machine-3", Behaviour::Hang("repave"));
    run("repave machine-3 --detach").await;
    server.until_running("repave").await;
    // By its machine, and by the end of its id.
    assert!(run("run get machine-3 -o name").await.stdout.ends_with("000000000001\n"));
    assert!(run("run get 8000-000000000001 -o name").await.stdout.ends_with("000000000001\n"));
    let canceled = run("cancel --filter machine_id=machine-3 --yes").await;
    assert_eq!(canceled.code, 0, "{canceled}");
    assert!(canceled.stderr.ends_with("1 run: 1 done\n"), "{canceled}");
    assert_eq!(run("cancel").await.code, 2);
}

#[tokio::test]
async fn a_run_is_printed_as_data_once_it_has_ended() {
    let server = fleet(2).await;
    let one = client("repave machine-1 -o json").on(&server).run().await;
    assert_eq!(one.code, 0, "{one}");
    let run: serde_json::Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(run["phase"], "RUN_PHASE_SUCCEEDED");
    let both = client("reboot machine-1 machine-2 --yes -o name --detach").on(&server).run().await;
    assert_eq!(both.stdout.lines().count(), 2, "{both}");
    assert!(both.stdout.lines().all(|line| line.len() == 36), "{both}");
}
