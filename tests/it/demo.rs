//! The demo, played by the real binaries over real gRPC, as a transcript.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::{text, within};

#[tokio::test]
async fn the_demo_plays_the_session_of_the_seed() {
    let demo = Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
        .arg("demo")
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("the demo ends", demo).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
        filters => vec![
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[run]"),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "[time]"),
            (r"\(\d+\.\ds ago\)", "([ago])"),
            (r"\d+\.\ds", "[t]s"),
            (r#"Etag: +"\d+""#, "Etag: [etag]"),
        ],
    }, { insta::assert_snapshot!("demo_transcript", text(&output.stdout)) });
}
