//! `plan simulate`: no server, virtual time, the same result every time.

use super::client;

#[tokio::test]
async fn simulations_print_a_timeline() {
    let own = tempfile::tempdir().unwrap();
    let path = own.path().join("burn-in.toml");
    let plan = client("plan new burn-in").run().await.stdout;
    std::fs::write(&path, plan).unwrap();
    let path = path.to_str().unwrap();
    let mut transcript = String::new();
    for line in [
        "plan simulate repave-join",
        "plan simulate repave-join --fail repave,times=1 --fail join,do=hang,times=1",
        "plan simulate upgrade --after repave-join --fail repave,do=fail-permanent",
        "plan simulate repave-join --fail repave,do=fail-after --fail repave,do=unknowable",
        "plan simulate reboot --machines 3 --fail machine=machine-2,do=fail-human",
        "plan simulate rma --machines 12 --fail p=0.3 --seed 7 --quiet",
        "plan simulate reboot -o jsonl",
        "plan simulate FILE",
        "plan simulate repave-jion",
        "plan simulate repave-join --fail verfy",
        "plan simulate repave-join --fail verify,do=explode",
        "plan simulate repave-join --set imag=x",
        "plan simulate repave-join --after repave-join",
        "plan simulate reboot --timing fast",
        "plan simulate reboot --machines 0",
    ] {
        let output = client(&line.replace("FILE", path)).run().await;
        transcript.push_str(&format!("$ bmdemo-cli {line}\n{output}\n\n"));
    }
    crate::assert_golden!("cli_simulate", transcript);
}

/// A plan with everything around its steps.
const AROUND: &str = r#"
id = "plan/around"
allowed_phases = ["READY"]
params.slow = { kind = "boolean", default = false }

[[steps]]
name = "drain"
action = "drain"
on_unknown = "verify"
compensation = { action = "undrain" }

[[steps]]
name = "ask"
action = "approve"
args = { message = "Go on?" }

[[steps]]
name = "pause"
action = "wait"
args = { for = "1m" }
when = { param = { slow = true } }

[[on_failure]]
name = "call"
action = "notify"

[[finally]]
name = "tell"
action = "notify"
"#;

#[tokio::test]
async fn steps_are_counted_and_what_follows_a_failure_is_said_in_its_order() {
    let own = tempfile::tempdir().unwrap();
    let path = own.path().join("around.toml");
    std::fs::write(&path, AROUND).unwrap();
    let simulate = async |options: &str| {
        client(&format!("plan simulate {} {options}", path.to_str().unwrap())).run().await
    };
    let good = simulate("").await;
    assert!(good.stdout.contains("Steps: 3/3 completed"), "{good}");
    let no = simulate("--approve no").await;
    assert!(no.stdout.contains("Steps: 1/3 completed"), "{no}");
    let said = "running the on_failure steps, then undoing completed steps: a step failed";
    let place = |text: &str| no.stdout.find(text).unwrap_or_else(|| panic!("{text}: {no}"));
    assert!(place(said) < place("call") && place("call") < place("undo drain"), "{no}");
    // No rule makes the engine fail at its own steps.
    for (rule, hint) in [
        ("ask,do=fail-permanent", "answer it with --approve no"),
        ("step=approve", "answer it with --approve no"),
        ("pause,times=1", "fails at its timeout"),
    ] {
        let output = simulate(&format!("--fail {rule}")).await;
        assert_eq!(output.code, 2, "{output}");
        assert!(output.stderr.contains("no rule can make it fail"), "{output}");
        assert!(output.stderr.contains(hint), "{output}");
    }
    assert_eq!(simulate("--fail step=*,do=fail-permanent").await.code, 3);
}
