//! The data directory: restarts, a second server, damage, backup and check.

use std::path::{Path, PathBuf};

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tempfile::TempDir;

use crate::runs::{info, register, repave, watched};
use crate::support::{Server, run_to_end, text, within};

struct DataDir(TempDir);

impl DataDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Does not exist yet: the server creates it.
    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn flag(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    async fn serve(&self, timing: &str) -> Server {
        Server::start(&["--port", "0", "--data-dir", &self.flag(), "--fake-timing", timing]).await
    }

    /// Exit code, stdout and stderr of a command on it.
    async fn command(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let flag = self.flag();
        let output = run_to_end(&[args, &["--data-dir", &flag]].concat()).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

/// A data directory with one machine and one run that has ended.
async fn used() -> DataDir {
    let dir = DataDir::new();
    let server = dir.serve("zero").await;
    let channel = server.channel().await;
    register(&channel, 1).await;
    let run = repave(&channel, 1).await.unwrap();
    watched(channel, &run.run_id).await.unwrap();
    server.signal("TERM").await;
    assert_eq!(server.ended().await.0.code(), Some(0));
    dir
}

#[tokio::test]
async fn a_killed_server_resumes_where_it_was() {
    let dir = DataDir::new();
    let server = dir.serve("default").await;
    let channel = server.channel().await;
    register(&channel, 12).await;
    let run = repave(&channel, 1).await.unwrap();
    let request =
        pb::WatchRunsRequest { filter: format!("run_id = {}", run.run_id), ..Default::default() };
    let mut events = RunServiceClient::new(channel).watch_runs(request).await.unwrap().into_inner();
    within("the second step starts", async {
        while let Some(event) = events.message().await.unwrap() {
            if event.snapshot.is_some_and(|run| run.steps[1].attempt > 0) {
                break;
            }
        }
    })
    .await;
    server.signal("KILL").await;
    server.ended().await;

    let server = dir.serve("default").await;
    let channel = server.channel().await;
    let ended = watched(channel.clone(), &run.run_id).await.unwrap();
    assert_eq!(ended.phase(), pb::RunPhase::Succeeded, "{ended:?}");
    // The kill may have come before or after the provider received the second step; the first is never repeated.
    assert_eq!(ended.steps[0].attempt, 1, "{ended:?}");
    let again = repave(&channel, 1).await.unwrap();
    assert_eq!(again.run_id, run.run_id, "the request id is known after the restart");
    let request = pb::ListMachinesRequest::default();
    let page =
        MachineServiceClient::new(channel).list_machines(request).await.unwrap().into_inner();
    let ids: Vec<&str> = page.machines.iter().map(|machine| machine.machine_id.as_str()).collect();
    assert_eq!((ids.len(), ids[1], ids[11]), (12, "machine-2", "machine-12"));
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = DataDir::new();
    let server = dir.serve("zero").await;
    let (code, printed, error) = dir.command(&["--port", "0"]).await;
    assert_eq!((code, printed.as_str()), (Some(75), ""), "{error}");
    assert!(error.contains("in use by another live server") && error.contains("Hint: "), "{error}");
    drop(server);
}

#[tokio::test]
async fn backup_and_check_work_beside_a_running_server() {
    let dir = used().await;
    let server = dir.serve("zero").await;
    register(&server.channel().await, 2).await;
    let copy = dir.0.path().join("copy").join("bmdemo.db");
    std::fs::create_dir(copy.parent().unwrap()).unwrap();
    let to = copy.to_str().unwrap();
    let (code, printed, error) = dir.command(&["backup", to]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(printed.starts_with("copied ") && printed.contains(to), "{printed}");
    let (code, printed, _) = dir.command(&["check"]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("ok (revision ") && printed.contains("2 machines, 1 runs"),
        "{printed}"
    );

    let (code, _, error) = dir.command(&["backup", to]).await;
    assert_eq!(code, Some(73), "{error}");
    let info = info(&server.channel().await).await;
    assert_eq!(info.data_dir, dir.flag());
    assert!(info.data_bytes > 4096 && info.data_bytes_free > 0, "{info:?}");
    assert!(info.last_backup_at.is_some(), "{info:?}");
    drop(server);

    // The copy is a database that a server can use.
    let flag = copy.parent().unwrap().to_str().unwrap().to_owned();
    let server = Server::start(&["--port", "0", "--data-dir", &flag]).await;
    let request = pb::ListMachinesRequest::default();
    let mut client = MachineServiceClient::new(server.channel().await);
    assert_eq!(client.list_machines(request).await.unwrap().into_inner().machines.len(), 2);
}

#[tokio::test]
async fn without_a_database_there_is_nothing_to_check() {
    let dir = DataDir::new();
    for args in [&["check"][..], &["backup", "copy.db"]] {
        let (code, printed, error) = dir.command(args).await;
        assert_eq!((code, printed.as_str()), (Some(66), ""), "{error}");
        assert!(error.contains("there is no database"), "{error}");
    }
    assert!(!Path::new("copy.db").exists() && !dir.path().exists());
}

#[tokio::test]
async fn a_damaged_database_is_reported_and_left_alone() {
    let dir = used().await;
    let path = dir.path().join("bmdemo.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..12288].fill(0xA5);
    std::fs::write(&path, &bytes).unwrap();
    let (code, printed, error) = dir.command(&["--port", "0"]).await;
    assert_eq!((code, printed.as_str()), (Some(74), ""), "{error}");
    assert!(error.contains("restore it from a backup"), "{error}");
    let (code, _, error) = dir.command(&["check"]).await;
    assert_eq!(code, Some(74), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was repaired");
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let dir = used().await;
    let path = dir.path().join("bmdemo.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 1_000).unwrap();
    drop(database);
    for args in [&["--port", "0"][..], &["check"]] {
        let (code, _, error) = dir.command(args).await;
        assert_eq!(code, Some(65), "{error}");
        assert!(error.contains("use a newer bmdemo"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let dir = DataDir::new();
    std::fs::write(dir.path(), "a file").unwrap();
    let (code, _, error) = dir.command(&["--port", "0"]).await;
    assert_eq!(code, Some(73), "{error}");
    assert!(error.contains(&dir.flag()) && error.contains("because: "), "{error}");
}

#[tokio::test]
async fn ended_runs_are_forgotten_as_configured() {
    let dir = used().await;
    let config = dir.0.path().join("bmdemo.toml");
    std::fs::write(&config, "[retention]\nended_runs = \"1s\"\ninterval = \"1s\"\n").unwrap();
    let (flag, config) = (dir.flag(), config.to_str().unwrap().to_owned());
    let server = Server::start(&["--port", "0", "--data-dir", &flag, "--config", &config]).await;
    // A round before may delete requests or changes while the run is younger than that.
    server.logged("deleted data older than the retention runs=1").await;
    let channel = server.channel().await;
    let mut runs = RunServiceClient::new(channel.clone());
    let left = runs.list_runs(pb::ListRunsRequest::default()).await.unwrap().into_inner();
    assert_eq!(left.runs, []);
    let mut machines = MachineServiceClient::new(channel);
    let machines = machines.list_machines(pb::ListMachinesRequest::default()).await.unwrap();
    assert_eq!(machines.into_inner().machines.len(), 1);
}
