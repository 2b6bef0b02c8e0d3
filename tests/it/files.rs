//! Paths that are not regular files: nothing waits for them, and nothing is written through a link.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::configuration::a_plan;
use crate::support::{Server, run_to_end, text};

fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "mkfifo {}", path.display());
}

#[tokio::test]
async fn pipes_devices_and_huge_files_are_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    pipe(Path::new(&at("pipe")));
    std::fs::File::create(at("huge")).unwrap().set_len(200 << 20).unwrap();
    for (name, file) in
        [("pipes", at("pipe")), ("devices", "/dev/zero".to_owned()), ("directories", at(""))]
    {
        std::fs::create_dir(at(name)).unwrap();
        symlink(file, Path::new(&at(name)).join("a.toml")).unwrap();
    }
    let script = format!("@{}", at("pipe"));
    let (pipe, huge) = (at("pipe"), at("huge"));
    let (pipes, devices, directories) = (at("pipes"), at("devices"), at("directories"));
    let cases: [(&[&str], &str); 8] = [
        (&["--config", &pipe], "it is a named pipe"),
        (&["--config", "/dev/zero"], "it is a device"),
        (&["--config", &huge], "it has 209715200 bytes, at most 1048576 are read"),
        (&["--config", &pipes], "it is a directory"),
        (&["--plans-dir", &pipes], "it is a named pipe"),
        (&["--plans-dir", &devices], "it is a device"),
        (&["--plans-dir", &directories], "it is a directory"),
        (&["--fake-script", &script], "it is a named pipe"),
    ];
    for (flags, expected) in cases {
        let output = run_to_end(&[&["--ephemeral", "--port", "0"], flags].concat()).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{flags:?}: {error}");
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_ends_during_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::ephemeral(&["--plans-dir", dir.path().to_str().unwrap()]).await;
    pipe(&dir.path().join("pipe.toml"));
    server.signal("HUP").await;
    let log = server.logged("were not reloaded").await;
    assert!(log.contains("pipe.toml") && log.contains("it is a named pipe"), "{log}");
    std::fs::remove_file(dir.path().join("pipe.toml")).unwrap();
    std::fs::write(dir.path().join("OWN.TOML"), a_plan("plan/own")).unwrap();
    server.signal("HUP").await;
    server.logged("plans=6").await;
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn nothing_is_written_through_a_link() {
    for name in ["bmdemo.lock", "bmdemo.db", "bmdemo.db-wal", "bmdemo.db-shm", "fake-world.journal"]
    {
        let dir = tempfile::tempdir().unwrap();
        let (data, victim) = (dir.path().join("data"), dir.path().join("victim"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(&victim, "").unwrap();
        symlink(&victim, data.join(name)).unwrap();
        let output = run_to_end(&["--port", "0", "--data-dir", data.to_str().unwrap()]).await;
        let error = text(&output.stderr);
        assert!(!output.status.success(), "{name}: {error}");
        assert!(error.contains("it is a symbolic link"), "{name}: {error}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"", "{name}");
    }
}
