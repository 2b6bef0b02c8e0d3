//! The demo, played by the real binary, as a transcript.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::{text, within};
use crate::terminal::Terminal;

async fn played(args: &[&str]) -> String {
    let demo = Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
        .arg("demo")
        .args(args)
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("the demo ends", demo).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Nothing is masked: ids, instants and durations are the same at every run.
#[tokio::test]
async fn the_demo_prints_the_same_at_every_run() {
    let transcript = played(&[]).await;
    assert_eq!(transcript, played(&[]).await);
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("demo_transcript", transcript) });
}

/// A rack is repaved: attempts that fail are repeated, runs that fail are retried, and in the end all machines are in
/// service.
#[tokio::test]
async fn the_fleet_of_the_demo_serves_in_the_end() {
    let transcript = played(&["--fleet", "20"]).await;
    assert_eq!(transcript, played(&["--fleet", "20"]).await);
    assert!(transcript.contains("NEEDS A PERSON 2\n"), "{transcript}");
    let end = transcript.rsplit("$ bmdemo-cli").next().unwrap();
    assert!(end.contains("effective  IN_SERVICE 20\n"), "{end}");
    assert!(end.contains("NEEDS A PERSON 0\n"), "{end}");
}

/// On a terminal the rack is shown on the live screen.
#[tokio::test]
async fn the_fleet_of_the_demo_is_watched_on_a_terminal() {
    let mut demo = Terminal::start("127.0.0.1:1", 80, &[], "demo --fleet 1");
    demo.until("RUNS IN PROGRESS 1").await;
    let screen = demo.ended().await;
    assert!(screen.contains("effective  IN_SERVICE 1\n"), "{screen}");
    assert!(!screen.contains("--- exit"), "{screen}");
}

/// On a terminal it takes its time, and Ctrl-C ends it.
#[tokio::test]
async fn the_demo_on_a_terminal_ends_at_ctrl_c() {
    let mut demo = Terminal::start("127.0.0.1:1", 80, &[], "demo");
    demo.until("$ bmdemo-cli repave machine-1").await;
    let screen = demo.press_until_ended("\u{3}").await;
    assert!(screen.ends_with("--- exit 130\n\n"), "{screen}");
    assert!(!screen.contains("bmdemo-cli plans"), "{screen}");
}
