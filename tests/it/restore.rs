//! A backup restored elsewhere, while the provider has seen more than the backup.

use std::path::{Path, PathBuf};

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::provider::fake::{JOURNAL_FILE, KEY_FILE};
use tonic::transport::Channel;

use crate::runs::{register, repave, watched};
use crate::support::{Server, run_to_end, text, within};

async fn serve(dir: &Path) -> Server {
    let dir = dir.to_str().unwrap();
    Server::start(&["--port", "0", "--data-dir", dir, "--fake-timing", "default"]).await
}

async fn kill(server: Server) {
    server.signal("KILL").await;
    server.ended().await;
}

/// Exit code, stdout and stderr of a command on a data directory.
async fn command(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = run_to_end(&[args, &["--data-dir", dir.to_str().unwrap()]].concat()).await;
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn run(channel: &Channel, run: &str) -> pb::Run {
    let request = pb::GetRunRequest { run_id: run.to_owned(), ..Default::default() };
    RunServiceClient::new(channel.clone()).get_run(request).await.unwrap().into_inner()
}

async fn machine(channel: &Channel, number: usize) -> pb::Machine {
    let machine_id = format!("machine-{number}");
    let request = pb::GetMachineRequest { machine_id, ..Default::default() };
    MachineServiceClient::new(channel.clone()).get_machine(request).await.unwrap().into_inner()
}

async fn until(what: &str, channel: &Channel, id: &str, ready: impl Fn(&pb::Run) -> bool) {
    let request = pb::WatchRunsRequest { filter: format!("run_id = {id}"), ..Default::default() };
    let mut client = RunServiceClient::new(channel.clone());
    let mut events = client.watch_runs(request).await.unwrap().into_inner();
    within(what, async {
        while let Some(event) = events.message().await.unwrap() {
            if event.snapshot.is_some_and(|run| ready(&run)) {
                break;
            }
        }
    })
    .await;
}

struct Places {
    _all: tempfile::TempDir,
    first: PathBuf,
    second: PathBuf,
    backup: PathBuf,
}

impl Places {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        let [first, second, backup] =
            ["first", "second", "copy.db"].map(|name| all.path().join(name));
        Self { _all: all, first, second, backup }
    }
}

/// The provider keeps its state: the restored server finds it as it is now.
fn keep_the_provider(places: &Places) {
    std::fs::create_dir_all(&places.second).unwrap();
    for name in [JOURNAL_FILE, KEY_FILE] {
        std::fs::copy(places.first.join(name), places.second.join(name)).unwrap();
    }
}

fn world(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join(JOURNAL_FILE)).unwrap()
}

#[tokio::test]
async fn a_restored_run_is_held_and_then_finds_what_the_provider_has_done_since() {
    let places = Places::new();
    let server = serve(&places.first).await;
    let channel = server.channel().await;
    register(&channel, 1).await;
    let started = repave(&channel, 1).await.unwrap();
    until("the second step starts", &channel, &started.run_id, |run| run.steps[1].attempt > 0)
        .await;
    let backup = places.backup.to_str().unwrap();
    let (code, _, error) = command(&places.first, &["backup", backup]).await;
    assert_eq!(code, Some(0), "{error}");
    // The run continues beyond the backup, each start claims the machine once more, and another machine is used too.
    kill(server).await;
    let server = serve(&places.first).await;
    kill(server).await;
    let server = serve(&places.first).await;
    let channel = server.channel().await;
    watched(channel.clone(), &started.run_id).await.unwrap();
    register(&channel, 2).await;
    let later = repave(&channel, 2).await.unwrap();
    watched(channel.clone(), &later.run_id).await.unwrap();
    kill(server).await;

    keep_the_provider(&places);
    let (code, printed, error) = command(&places.second, &["restore", backup]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(printed.contains("1 machine, epochs from ") && printed.contains("1 active run held"));
    assert!(printed.contains(&started.run_id) && printed.contains("resume or abort"), "{printed}");
    let (code, printed, error) = command(&places.second, &["check"]).await;
    assert_eq!(code, Some(0), "{printed}{error}");
    assert!(!places.second.join("restoring").exists());

    let before = world(&places.second);
    let server = serve(&places.second).await;
    let channel = server.channel().await;
    let held = run(&channel, &started.run_id).await;
    let waiting = held.waiting.clone().unwrap();
    assert!(
        matches!(waiting.reason(), pb::WaitReason::Restored | pb::WaitReason::Recovery),
        "{held:?}"
    );
    until("it is held", &channel, &started.run_id, |run| {
        run.waiting.as_ref().is_some_and(|waiting| waiting.reason() == pb::WaitReason::Restored)
    })
    .await;
    // A start raises the epochs that it must raise; nothing acts. The same after another start.
    kill(server).await;
    let server = serve(&places.second).await;
    let channel = server.channel().await;
    until("it is held again", &channel, &started.run_id, |run| {
        run.waiting.as_ref().is_some_and(|waiting| waiting.reason() == pb::WaitReason::Restored)
    })
    .await;
    assert_eq!(world(&places.second), before, "nothing reached the provider");

    let request = pb::ResumeRunRequest { run_id: started.run_id.clone(), ..Default::default() };
    RunServiceClient::new(channel.clone()).resume_run(request).await.unwrap();
    let ended = watched(channel.clone(), &started.run_id).await.unwrap();
    assert_eq!(ended.phase(), pb::RunPhase::Succeeded, "{ended:?}");
    assert!(ended.steps.iter().all(|step| step.attempt <= 1), "{ended:?}");

    // A machine registered after the backup is known to the provider, but not here: it is not fenced off either.
    register(&channel, 2).await;
    let again = repave(&channel, 2).await.unwrap();
    let ended = watched(channel.clone(), &again.run_id).await.unwrap();
    assert_eq!(ended.phase(), pb::RunPhase::Succeeded, "{ended:?}");
    assert_eq!(machine(&channel, 2).await.status.unwrap().phase(), pb::Phase::Ready);
}

#[tokio::test]
async fn a_restore_overwrites_nothing_and_verifies_first() {
    let places = Places::new();
    let server = serve(&places.first).await;
    register(&server.channel().await, 3).await;
    let backup = places.backup.to_str().unwrap();
    let (code, _, error) = command(&places.first, &["backup", backup]).await;
    assert_eq!(code, Some(0), "{error}");
    // In use, and used later.
    let (code, _, error) = command(&places.first, &["restore", backup]).await;
    assert_eq!(code, Some(73), "{error}");
    kill(server).await;
    let (code, _, error) = command(&places.first, &["restore", backup]).await;
    assert_eq!(code, Some(73), "{error}");
    assert!(error.contains("has been used") && error.contains("--data-dir DIR"), "{error}");

    let nothing = places.first.join("nothing.db");
    let (code, _, error) = command(&places.second, &["restore", nothing.to_str().unwrap()]).await;
    assert_eq!(code, Some(66), "{error}");
    assert!(error.contains("there is no backup") && !places.second.exists(), "{error}");

    let mut bytes = std::fs::read(&places.backup).unwrap();
    let from = bytes.len() - 2 * 4096;
    bytes[from..from + 4096].fill(0xA5);
    let damaged = places.first.join("damaged.db");
    std::fs::write(&damaged, &bytes).unwrap();
    let (code, _, error) = command(&places.second, &["restore", damaged.to_str().unwrap()]).await;
    assert_eq!(code, Some(74), "{error}");
    assert!(error.contains("damaged.db"), "{error}");
    assert!(!places.second.join("bmdemo.db").exists() && !places.second.join("restoring").exists());

    // A failed restore leaves the directory unused.
    let (code, printed, error) = command(&places.second, &["restore", backup]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(printed.contains("3 machines") && printed.contains("0 active runs held"), "{printed}");
    let (code, _, error) = command(&places.second, &["restore", backup]).await;
    assert_eq!(code, Some(73), "{error}");
}
