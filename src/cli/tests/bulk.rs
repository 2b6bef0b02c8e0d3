//! Many machines at once, questions, dry runs.

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

/// Detached, a run is over for the client at the moment it is told of: either news may come first.
#[tokio::test]
async fn a_machine_that_came_out_takes_no_place() {
    let server = fleet(12).await;
    let output =
        client("repave -l role=worker -y --detach --max-parallel 1").on(&server).run().await;
    assert_eq!((output.code, output.stderr.as_str()), (0, "12 machines: 12 succeeded\n"));
    assert_eq!(server.world().runs.len(), 12);
}

#[tokio::test]
async fn enough_failures_stop_it() {
    let server = fleet(6).await;
    server.behave("machine-1", Behaviour::Fail("set-netboot"));
    let output = client("repave -l role=worker -y --max-parallel 1").on(&server).run().await;
    assert_eq!(output.code, 3);
    assert_eq!(
        output.stderr,
        "Stopped after 1 failed; go further with --max-failures.\n6 machines: 0 succeeded, 1 failed, 5 not started\n"
    );
    assert_eq!(server.world().runs.len(), 1);
}

#[tokio::test]
async fn ctrl_c_starts_no_more_and_says_what_goes_on() {
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
    let id = "00000000-0000-7000-8000-000000000001";
    assert!(
        output.stderr.contains(&format!("  machine-1  bmdemo-cli watch {id}\n")),
        "{}",
        output.stderr
    );
    assert!(output.stderr.ends_with("3 machines: 0 succeeded, 1 still running, 2 not started\n"));
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
