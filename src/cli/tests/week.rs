//! What an operator types in the first week: empty names, force, deletions, forms of output.

use super::client;
use super::server::{Behaviour, Server};

#[tokio::test]
async fn an_empty_name_is_no_run_and_no_machine() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    server.behave("machine-1", Behaviour::Hang("repave"));
    client("repave machine-1 --detach").on(&server).run().await;
    server.until_running("repave").await;
    for (words, noun) in [
        (&["abort", "", "--reason", "x"][..], "run"),
        (&["abort", " ", "--reason", "x"], "run"),
        (&["cancel", "\u{200b}"], "run"),
        (&["cancel", "machine-1", ""], "run"),
        (&["pause", ""], "run"),
        (&["resume", ""], "run"),
        (&["retry", ""], "run"),
        (&["run", "skip", "", "repave", "--reason", "x"], "run"),
        (&["run", "resolve", "", "repave", "done", "--reason", "x"], "run"),
        (&["approve", "", "--yes", "--reason", "x"], "run"),
        (&["watch", ""], "run"),
        (&["logs", ""], "run"),
        (&["run", "wait", ""], "run"),
        (&["run", "describe", ""], "run"),
        (&["run", "history", ""], "run"),
        (&["runs", "--machine", ""], "machine"),
        (&["wait", "", "--for", "phase=READY"], "machine"),
        (&["repave", ""], "machine"),
        (&["machine", "set-phase", "", "RMA"], "machine"),
        (&["machine", "clear-intervention", "", "--reason", "x"], "machine"),
        (&["machine", "label", "", "a=b"], "machine"),
        (&["machine", "describe", ""], "machine"),
        (&["machine", "delete", "", "--yes"], "machine"),
    ] {
        let mut run = client("").on(&server);
        run.args = words.iter().map(|word| (*word).to_owned()).collect();
        let output = run.run().await;
        assert_eq!(output.code, 2, "{words:?}: {output}");
        let why = format!("Error: the name of the {noun} is empty\n");
        assert!(output.stderr.starts_with(&why), "{words:?}: {output}");
    }
    // Nor does a character stand for a run that happens to be the only one with it.
    for short in ["0", "001", "-"] {
        let output = client(&format!("cancel {short}")).on(&server).run().await;
        assert_ne!(output.code, 0, "{short}: {output}");
        assert!(!output.stderr.contains("run ids have"), "{short}: {output}");
    }
    let world = server.world();
    assert!(world.runs[0].finished_at.is_none() && !world.runs[0].cancel_requested);
}

#[tokio::test]
async fn force_needs_a_reason_and_a_yes_and_says_what_it_overrides() {
    let server = Server::start().await;
    client("import 2").on(&server).run().await;
    let run = async |line: &str| client(line).on(&server).run().await;
    assert_eq!(run("repave machine-1").await.code, 0);
    for line in [
        "repave machine-1 --force --yes",
        "repave machine-1 --force --dry-run",
        "machine set-phase machine-2 READY --force --yes",
    ] {
        let output = run(line).await;
        assert_eq!(output.code, 2, "{output}");
        assert!(output.stderr.starts_with("Error: --force needs --reason\n"), "{output}");
    }
    let refused = run("repave machine-1 --dry-run").await;
    assert_eq!(refused.code, 73, "{refused}");
    assert!(refused.stdout.contains("Hint: use plan/upgrade, or --force\n"), "{refused}");
    let dry = run("repave machine-1 machine-2 --force --reason why --dry-run").await;
    assert_eq!(dry.code, 0, "{dry}");
    let overrides =
        "  overrides: plan/repave-join is refused while machine-1 is effectively IN_SERVICE\n";
    assert_eq!(dry.stdout.matches("overrides:").count(), 1, "{dry}");
    assert!(dry.stdout.contains(overrides), "{dry}");
    let asked = run("repave machine-1 --force --reason why").await;
    assert_eq!(asked.code, 2, "{asked}");
    let question = "--force overrides: plan/repave-join is refused while machine-1";
    assert!(asked.stderr.contains(question), "{asked}");
    assert!(asked.stderr.contains("Hint: to go ahead: bmdemo-cli repave machine-1"), "{asked}");
    assert_eq!(server.world().runs.len(), 1);
    assert_eq!(run("repave machine-1 --force --reason why --yes").await.code, 0);
    // Nothing is overridden, nothing is asked.
    assert_eq!(run("repave machine-2 --force --reason why").await.code, 0);
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_asked_for() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    let run = async |line: &str| client(line).on(&server).run().await;
    let asked = run("machine set-phase machine-1 RETIRED").await;
    assert_eq!(asked.code, 2, "{asked}");
    assert!(asked.stderr.contains("There is no way back from RETIRED."), "{asked}");
    assert_eq!(run("machine set-phase machine-1 RETIRED --yes").await.code, 0);
    let again = run("machine set-phase machine-1 RETIRED").await;
    assert_eq!(again.stderr, "Unchanged: the phase of machine-1 was RETIRED before.\n");
    let asked = run("machine delete machine-1 --reason sold").await;
    assert_eq!(asked.code, 2, "{asked}");
    assert!(asked.stderr.starts_with("Delete 1 machine:\n  machine-1 (fake)\n"), "{asked}");
    let no = client("machine delete machine-1").on(&server).terminal().answer("n\n").run().await;
    assert!(no.stderr.contains("nothing was done"), "{no}");
    // The server of the tests deletes nothing: it was asked to.
    for yes in [
        client("machine delete machine-1 --yes"),
        client("machine delete machine-1").terminal().answer("y\n"),
    ] {
        let output = yes.on(&server).run().await;
        assert!(!output.stderr.contains("to go ahead"), "{output}");
        assert_ne!(output.code, 2, "{output}");
    }
    assert!(run("machine delete machine-9").await.stderr.contains("machine-9"));
}

#[tokio::test]
async fn a_phase_that_is_so_already_changes_nothing_and_says_so() {
    let server = Server::start().await;
    client("import 1").on(&server).run().await;
    client("machine set-phase machine-1 READY").on(&server).run().await;
    server.world().machines[0].status.as_mut().unwrap().untrusted_disks =
        Some(crate::pb::UntrustedDisks { step: "wipe".to_owned(), ..Default::default() });
    let words = ["machine", "set-phase", "machine-1", "READY", "--force", "--reason", "it is fine"];
    let mut again = client("").on(&server);
    again.args = words.map(str::to_owned).to_vec();
    let output = again.run().await;
    assert_eq!(output.code, 0, "{output}");
    assert!(output.stderr.contains("Unchanged: the phase of machine-1 was READY"), "{output}");
    let clear = "bmdemo-cli machine clear-intervention machine-1 --reason \"what you found\"";
    assert!(output.stderr.contains(clear), "{output}");
}

#[tokio::test]
async fn every_table_has_csv_and_columns_and_a_dry_run_is_data_too() {
    let server = Server::start().await;
    client("import 2").on(&server).run().await;
    let run = async |line: &str| client(line).on(&server).run().await;
    for (line, first) in [
        ("plans -o csv", "plan_id,name,type,default,risk,"),
        (
            "plan describe rma --columns plan,steps -o csv",
            "plan,steps\nplan/rma,drain wipe notify\n",
        ),
        ("machine history machine-1 -o csv", "at,machine_id,run_id,kind,"),
        ("machine history machine-1 --columns kind", "KIND\nmachine.registered\n"),
        (
            "repave -l role=worker --dry-run --columns id,accepted,phase -o csv",
            "id,accepted,phase\nmachine-1,true,FACTORY_READY\nmachine-2,true,FACTORY_READY\n",
        ),
        ("repave machine-1 --dry-run -o name", "machine-1\n"),
        ("repave machine-1 --dry-run -o jsonpath={.verdicts[*].accepted}", "true"),
    ] {
        let output = run(line).await;
        assert_eq!(output.code, 0, "{line}: {output}");
        assert!(output.stdout.starts_with(first), "{line}: {output}");
    }
    let wrong = run("plans --columns colour -o json").await;
    assert_eq!(wrong.code, 2, "{wrong}");
    let wrong = run("repave machine-1 --dry-run --columns steps").await;
    assert!(wrong.stderr.contains("there is no column \"steps\""), "{wrong}");
    for (line, given) in [
        ("plan simulate reboot -o csv", "-o csv"),
        ("plan simulate reboot --columns a", "--columns"),
    ] {
        let output = run(line).await;
        let why = format!("Error: {given} does not work here");
        assert!(output.code == 2 && output.stderr.starts_with(&why), "{output}");
    }

    server.behave("machine-2", Behaviour::Hang("repave"));
    run("repave machine-2 --detach").await;
    server.until_running("repave").await;
    let output = run("repave -l role=worker --dry-run -o json").await;
    assert_eq!(output.code, 73, "{output}");
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let verdicts = json["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(
        (&verdicts[0]["accepted"], &verdicts[0]["planId"]),
        (&true.into(), &"plan/repave-join".into())
    );
    assert_eq!(
        (&verdicts[1]["accepted"], &verdicts[1]["reason"]),
        (&false.into(), &"RUN_ACTIVE".into())
    );
    assert_eq!(verdicts[0]["phase"], "PHASE_FACTORY_READY");
    assert_eq!(server.world().runs.len(), 1);
}

#[tokio::test]
async fn a_list_is_of_what_there_is_in_the_order_of_any_column() {
    let server = Server::start().await;
    client("import 2").on(&server).run().await;
    let run = async |line: &str| client(line).on(&server).run().await;
    let unknown = run("runs -m nope").await;
    assert_ne!(unknown.code, 0, "{unknown}");
    assert!(unknown.stderr.contains("nope") && unknown.stdout.is_empty(), "{unknown}");
    let none = run("runs -m machine-1 -o name").await;
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert_eq!(
        run("list --sort-by MACHINE_ID:desc -o name").await.stdout,
        "machine-2\nmachine-1\n"
    );
    assert_eq!(run("list --sort-by updated -o name").await.code, 0);
    let wrong = run("list --sort-by colour").await;
    assert!(wrong.stderr.contains("the columns are machine_id, phase, effective"), "{wrong}");
}
