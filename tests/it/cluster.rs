//! A private PostgreSQL: in a directory of its own, on loopback and a Unix socket, ended with the process that made it.
//!
//! Shared with the tests of the store. Where there is no PostgreSQL, tests skip loudly, unless
//! `BMDEMO_POSTGRES_REQUIRED=1` makes that a failure.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The user that runs it where the tests run as root, as which PostgreSQL does not run.
const NOBODY: u32 = 65_534;
/// The superuser of the cluster.
pub const USER: &str = "bmdemo";
/// Its password, which connections over TCP need.
pub const PASSWORD: &str = "correct horse: battery";

/// A running PostgreSQL.
pub struct Cluster {
    dir: PathBuf,
    port: u16,
    bin: PathBuf,
    /// Ends it when this process ends, however that happens: its input is closed then.
    guard: Child,
}

impl Cluster {
    /// Starts one; `None` if PostgreSQL is not installed, which is said.
    pub fn start(settings: &[&str]) -> Option<Self> {
        Self::with_files(settings, &[])
    }

    /// The same, with files in its directory that only it may read. In settings, `DIR` is that directory.
    pub fn with_files(settings: &[&str], files: &[(&str, &str)]) -> Option<Self> {
        let Some(bin) = programs() else {
            let required =
                std::env::var_os("BMDEMO_POSTGRES_REQUIRED").is_some_and(|one| one == "1");
            assert!(!required, "there is no PostgreSQL, and BMDEMO_POSTGRES_REQUIRED=1");
            let mut stderr = std::io::stderr().lock();
            drop(writeln!(stderr, "SKIPPED postgres: no initdb; apt-get install postgresql"));
            return None;
        };
        let dir = tempfile::Builder::new().prefix("bmdemo-pg-").tempdir().unwrap().keep();
        if is_root() {
            std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // The kernel has just chosen it; no other process is likely to get it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = dir.join("data");
        let mut stop = unprivileged(&bin.join("pg_ctl"));
        stop.arg("-D").arg(&data).args(["-m", "immediate", "stop"]);
        let mut guard = Command::new("sh");
        guard
            .args(["-c", "trap '' INT TERM HUP; read -r _; \"$@\" >/dev/null 2>&1; rm -rf \"$0\""])
            .arg(&dir)
            .arg(stop.get_program())
            .args(stop.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let cluster = Self { guard: guard.spawn().unwrap(), dir, port, bin };
        let password = cluster.dir.join("password");
        for (name, text) in files.iter().chain(&[("password", PASSWORD)]) {
            let path = cluster.dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut initdb = unprivileged(&cluster.bin.join("initdb"));
        initdb
            .arg("-D")
            .arg(&data)
            .args(["-U", USER, "-E", "UTF8", "--locale=C", "--no-sync", "--auth-local=trust"])
            .args(["--auth-host=scram-sha-256", "--pwfile"])
            .arg(&password);
        run(initdb);
        let mut conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n",
            cluster.dir.display()
        );
        for setting in settings {
            conf += &setting.replace("DIR", &cluster.dir.display().to_string());
            conf += "\n";
        }
        let file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"));
        file.unwrap().write_all(conf.as_bytes()).unwrap();
        cluster.go();
        Some(cluster)
    }

    /// The directory of its socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, after it was stopped.
    pub fn go(&self) {
        let mut start = self.ctl();
        start.arg("-l").arg(self.dir.join("log")).args(["-w", "start"]);
        run(start);
    }

    /// Stops it, in a mode of `pg_ctl`.
    pub fn stop(&self, mode: &str) {
        let mut stop = self.ctl();
        stop.args(["-w", "-m", mode, "stop"]);
        run(stop);
    }

    fn ctl(&self) -> Command {
        let mut ctl = unprivileged(&self.bin.join("pg_ctl"));
        ctl.arg("-D").arg(self.dir.join("data"));
        ctl
    }

    /// Makes an empty database.
    pub fn create(&self, database: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {database}"));
    }

    /// The output of a statement: a row a line, with `|` between columns.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.arg("-h").arg(&self.dir).args(["-p", &self.port.to_string(), "-U", USER]);
        psql.args(["-d", database, "-v", "ON_ERROR_STOP=1", "-X", "-q", "-A", "-t", "-c", sql]);
        run(psql)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        drop(self.guard.wait());
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The directory of PostgreSQL's programs.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.sort();
    let has_all = |dir: &PathBuf| {
        ["initdb", "pg_ctl", "postgres", "psql"].iter().all(|name| dir.join(name).exists())
    };
    std::env::split_paths(&path).chain(versions.into_iter().rev()).find(has_all)
}

/// A command that does not run as root.
fn unprivileged(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> String {
    // A server that it leaves behind would keep a pipe open.
    let (out, log) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(out.try_clone().unwrap()).stderr(log.try_clone().unwrap());
    let status = command.status().unwrap();
    let read = |mut file: std::fs::File| {
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        text
    };
    assert!(status.success(), "{command:?}: {}", read(log));
    read(out).trim_end().to_owned()
}
