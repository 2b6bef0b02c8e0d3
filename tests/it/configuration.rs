//! What the server refuses to start with, and what it reloads while running.

use std::io::Write as _;
use std::path::Path;

use bmdemo::pb;
use bmdemo::pb::run_service_client::RunServiceClient;

use crate::runs::{register, repave};
use crate::support::{Server, run_to_end, text, within};

#[tokio::test]
async fn refused_configurations_say_why_and_exit_with_78() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"[server]\nprot = 1\n").unwrap();
    let config = config.path().to_str().unwrap();
    let place = format!("{config}:2:1: unknown field `prot`");
    let cases: [(&[&str], &str); 7] = [
        (&["--listen", "0.0.0.0"], "--insecure-no-auth"),
        (&["--listen", "::"], "--insecure-no-auth"),
        (&["--config", config], &place),
        (&["--config", "/nowhere/bmdemo.toml"], "cannot read /nowhere/bmdemo.toml"),
        (&["--plans-dir", "/nowhere"], "--plans-dir is /nowhere, which cannot be read"),
        (&["--fake-timing", "fast"], "--fake-timing"),
        (&["--fake-script", "machine=x do=nonsense"], "--fake-script"),
    ];
    for (flags, expected) in cases {
        let args = [&["--ephemeral", "--port", "0"], flags].concat();
        let output = run_to_end(&args).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{flags:?}: {error}");
        assert!(error.starts_with("Error: ") && error.contains(expected), "{flags:?}: {error}");
        assert_eq!(text(&output.stdout), "", "{flags:?}");
    }
}

/// A service often runs as root without HOME: root's home directory must not be used without being asked for.
#[tokio::test]
async fn without_a_home_the_data_needs_a_place() {
    let refused = tokio::process::Command::new(env!("CARGO_BIN_EXE_bmdemo-server"))
        .args(["--port", "0"])
        .env_remove("HOME")
        .kill_on_drop(true)
        .output();
    let refused = within("the server refuses", refused).await.unwrap();
    let error = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{error}");
    assert!(error.contains("HOME is not set") && error.contains("--data-dir DIR"), "{error}");
}

#[tokio::test]
async fn wrong_flags_are_usage_errors_and_help_is_not_an_error() {
    for flags in [&["--port", "70000"][..], &["--nonsense"], &["--slow", "--fake-timing", "zero"]] {
        let output = run_to_end(flags).await;
        assert_eq!(
            (output.status.code(), text(&output.stdout).as_str()),
            (Some(2), ""),
            "{flags:?}"
        );
        // One spelling for every error.
        assert!(text(&output.stderr).starts_with("Error: "), "{}", text(&output.stderr));
    }
    let help = run_to_end(&["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("--insecure-no-auth"));
}

#[tokio::test]
async fn a_port_in_use_is_named_with_a_way_out() {
    let server = Server::ephemeral(&[]).await;
    let port = server.address.port().to_string();
    let output = run_to_end(&["--ephemeral", "--port", &port]).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{error}");
    assert!(error.contains(&format!("Error: cannot listen on 127.0.0.1:{port}")), "{error}");
    assert!(error.contains("Hint: ") && error.contains("--port"), "{error}");
}

#[tokio::test]
async fn an_exposed_server_says_so() {
    let server = Server::ephemeral(&["--listen", "0.0.0.0", "--insecure-no-auth"]).await;
    server.logged("WITHOUT encryption and authentication").await;
}

#[tokio::test]
async fn the_log_can_be_json() {
    let server = Server::ephemeral(&["--log-format", "json", "--log-level", "debug"]).await;
    let log = server.logged("\"message\":\"serving\"").await;
    for line in log.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
    }
}

/// The plan `plan/reboot` under another id, and not the default of any type.
pub(crate) fn a_plan(id: &str) -> String {
    let reboot =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/reboot.toml"));
    reboot.unwrap().replace("plan/reboot", id).replace("default_for", "# default_for")
}

#[tokio::test]
async fn a_hang_up_reads_plans_again_and_bad_ones_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::ephemeral(&["--plans-dir", dir.path().to_str().unwrap()]).await;
    std::fs::write(dir.path().join("own.toml"), a_plan("plan/own")).unwrap();
    server.signal("HUP").await;
    let log = server.logged("plans=6").await;
    assert!(log.contains("a plan was reloaded: plan/own was added"), "{log}");
    assert!(log.contains("puts more at risk than before: plan/own now stops service"), "{log}");
    std::fs::write(dir.path().join("bad.toml"), "id = 1").unwrap();
    server.signal("HUP").await;
    let log = server.logged("were not reloaded").await;
    assert!(log.contains("bad.toml:1:6"), "{log}");
}

/// Who can write a plan decides what is done to machines.
#[tokio::test]
async fn plans_and_actions_that_others_can_write_keep_the_server_from_starting() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    std::fs::write(dir.path().join("own.toml"), a_plan("plan/own")).unwrap();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = async |flag: &str| {
        let output = run_to_end(&["--ephemeral", "--port", "0", flag, path]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{flag}: {said}");
        assert!(said.contains(path) && said.contains("chmod go-w"), "{flag}: {said}");
    };
    set(dir.path(), 0o777);
    refused("--plans-dir").await;
    refused("--actions-dir").await;
    set(dir.path(), 0o755);
    set(&dir.path().join("own.toml"), 0o666);
    refused("--plans-dir").await;
    refused("--actions-dir").await;
}

#[tokio::test]
async fn a_raised_limit_lets_runs_begin() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"[limits]\nruns_max = 1\n").unwrap();
    let path = config.path().to_str().unwrap();
    let args = ["--ephemeral", "--port", "0", "--slow", "--config", path];
    let server = Server::start(&args).await;
    let channel = server.channel().await;
    register(&channel, 2).await;
    repave(&channel, 1).await.unwrap();
    let second = repave(&channel, 2).await.unwrap();
    assert_eq!(second.phase(), pb::RunPhase::Pending);
    let filter = format!("run_id={}", second.run_id);
    let request = pb::WatchRunsRequest { filter, ..Default::default() };
    let mut events = RunServiceClient::new(channel).watch_runs(request).await.unwrap().into_inner();
    let mut next = async || within("an event", events.message()).await.unwrap().unwrap();
    assert_eq!(next().await.snapshot.unwrap().phase(), pb::RunPhase::Pending);
    assert_eq!(next().await.r#type(), pb::RunEventType::Synced);
    std::fs::write(path, "[limits]\nruns_max = 2\n").unwrap();
    server.signal("HUP").await;
    assert_eq!(next().await.snapshot.unwrap().phase(), pb::RunPhase::Running);
    let log = server.logged("reloaded configuration, plans and certificates").await;
    assert!(!log.contains("at the next start"), "{log}");
}

#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn a_server_that_cannot_export_spans_says_so() {
    let args = ["--ephemeral", "--otlp-endpoint", "http://127.0.0.1:4317"];
    let ended = run_to_end(&args).await;
    let log = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(78), "{log}");
    assert!(log.contains("--features otlp"), "{log}");
}
