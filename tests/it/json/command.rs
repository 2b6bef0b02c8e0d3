//! `bmdemo-cli api`

use std::process::Output;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Server, text, within};

async fn typed(server: &Server, args: &[&str], input: &str) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"));
    command.args(["--server", &server.address.to_string(), "api"]).args(args).env_clear();
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    within("the client ends", child.wait_with_output()).await.unwrap()
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn any_method_is_called_by_its_name() {
    let server = Server::ephemeral(&[]).await;
    let machine = r#"{"machine":{"machineId":"machine-1","spec":{"provider":"fake"}}}"#;
    let registered = json(&typed(&server, &["RegisterMachine", "-"], machine).await);
    assert_eq!(registered["machineId"], "machine-1");
    let listed =
        typed(&server, &["baremetal.v1.MachineService/ListMachines", r#"{"pageSize":3}"#], "");
    assert_eq!(json(&listed.await)["machines"][0]["machineId"], "machine-1");
    let start = r#"{"machineId":"machine-1","planId":"plan/reboot"}"#;
    let run = json(&typed(&server, &["StartRun", start], "").await);
    let run_id = run["runId"].as_str().unwrap().to_owned();
    // A call that changes something has a request id, which the audit keeps.
    let audit = json(&typed(&server, &["ListAudit"], "").await);
    let entries = audit["entries"].as_array().unwrap();
    let started = entries.iter().find(|entry| entry["rpc"] == "StartRun").unwrap();
    assert_eq!(started["requestId"].as_str().unwrap().len(), 36, "{started}");
    let wait = format!(r#"{{"runId":"{run_id}"}}"#);
    assert_eq!(
        json(&typed(&server, &["WaitRun", &wait], "").await)["phase"],
        "RUN_PHASE_SUCCEEDED"
    );
    let logs = typed(&server, &["StreamRunLogs", &wait], "").await;
    assert_eq!(logs.status.code(), Some(0), "{}", text(&logs.stderr));
    let lines = text(&logs.stdout);
    assert!(lines.lines().count() > 0);
    for line in lines.lines() {
        let chunk: Value = serde_json::from_str(line).unwrap();
        assert_eq!(chunk["runId"], run_id.as_str());
    }
    let health = typed(&server, &["grpc.health.v1.Health/Check"], "").await;
    assert_eq!(json(&health)["status"], "SERVING");
    let methods = text(&typed(&server, &[], "").await.stdout);
    assert!(methods.lines().any(|line| line.starts_with("ListMachines ")), "{methods}");
}

#[tokio::test]
async fn mistakes_are_said_as_by_every_command() {
    let server = Server::ephemeral(&[]).await;
    for (args, code, said) in [
        (&["ListMachine"][..], 2, "did you mean ListMachines?"),
        (
            &["ListMachines", r#"{"pageSiz":3}"#],
            2,
            "pageSiz: ListMachinesRequest has no such field; did you mean pageSize?",
        ),
        (&["ListMachines", r#"{"pageSize":"x"}"#], 2, "pageSize: "),
        (&["ListMachines", "{"], 2, "docs/api.md has the fields of ListMachinesRequest"),
        (&["GetMachine", r#"{"machineId":"nowhere"}"#], 69, "nowhere"),
        (
            &["StreamRunLogs", r#"{"runId":"00000000-0000-7000-8000-000000000000"}"#],
            69,
            "not found",
        ),
    ] {
        let output = typed(&server, args, "").await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}
