//! A folder with shell scripts, and a driver for them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::simulated::SimulatedClock;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::credentials::Credentials;
use crate::ids::{Epoch, MachineId, OperationId, RunId};
use crate::lifecycle::step::ErrorClass;
use crate::model::{LogStream, MachineSpec};
use crate::plan::{Capability, Value};
use crate::provider::boot::Desk;
use crate::provider::exec::{Exec, Host, Programs, Settings, Supervisors, judge};
use crate::provider::{Call, LogSink, Logs, ProviderError, ProviderErrorKind, Target};

/// Lines of a step, for the test to wait for.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) lines: Mutex<Vec<String>>,
    came: Notify,
}

impl LogSink for Sink {
    fn line(&self, stream: LogStream, text: &str) {
        self.lines.lock().unwrap().push(format!("{}: {text}", stream.as_str()));
        self.came.notify_one();
    }
}

impl Sink {
    pub(super) async fn until(&self, wanted: &str) {
        while !self.lines.lock().unwrap().iter().any(|line| line.contains(wanted)) {
            self.came.notified().await;
        }
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// A folder with programs, and a driver for them.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
    pub(super) logs: Arc<Sink>,
    pub(super) desk: Option<Arc<Desk>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Arc::new(SystemClock::new()))
    }

    pub(super) fn with(clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            class: "rack".to_owned(),
            actions: [("drain".to_owned(), Programs::default())].into(),
            probe: Vec::new(),
            fence: Vec::new(),
            timeout: Duration::from_secs(300),
            look_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            working_dir: dir.path().to_owned(),
            user: None,
            credentials: Vec::new(),
            parallel_max: 8,
        };
        Self { dir, clock, settings, logs: Arc::default(), desk: None }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// A program of this name: a script whose working folder is that of the test.
    pub(super) fn program(&self, name: &str, script: &str) -> Vec<String> {
        let path = self.at(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        vec![path.display().to_string()]
    }

    pub(super) fn drain(&mut self) -> &mut Programs {
        self.settings.actions.get_mut("drain").unwrap()
    }

    pub(super) fn acts(mut self, script: &str) -> Self {
        self.drain().act = self.program("act", script);
        self
    }

    pub(super) fn looks(mut self, script: &str) -> Self {
        self.drain().observe = self.program("observe", script);
        self
    }

    pub(super) fn driver(&self) -> Arc<Exec> {
        Arc::new(self.opened().unwrap())
    }

    pub(super) fn opened(&self) -> std::io::Result<Exec> {
        let account = judge(&self.settings).unwrap();
        let host = Host {
            folder: self.at("inputs"),
            clock: self.clock.clone(),
            supervisors: Supervisors::default(),
            desk: self.desk.clone(),
            credentials: Credentials::new(Some(self.at("credentials"))),
            variables: vec![("PATH", "/usr/bin:/bin".into()), ("LANG", "C.UTF-8".into())],
        };
        Exec::new(self.settings.clone(), account, host)
    }

    pub(super) fn logs(&self) -> Logs {
        self.logs.clone()
    }
}

pub(super) fn target(name: &str) -> Target {
    let spec = MachineSpec {
        ssh_endpoint: "192.0.2.7:22".to_owned(),
        mac_addresses: vec!["02:00:00:00:00:01".to_owned()],
        ..MachineSpec::default()
    };
    Target { machine_id: MachineId::parse(name).unwrap(), spec }
}

pub(super) fn call(attempt: u32, epoch: u64) -> Call {
    let run = RunId::new(Timestamp(1), [1, 0]);
    let handle = ("handle".to_owned(), Value::Str("h-1".into()));
    Call {
        operation: OperationId::new(run, "drain", attempt),
        epoch: Epoch(epoch),
        action: "drain".to_owned(),
        capability: Capability::Drain,
        args: [("grace".to_owned(), Value::DurationMs(300_000))].into(),
        inputs: [("mint-join".to_owned(), [handle].into())].into(),
        handle: None,
    }
}

pub(super) fn class_of(error: &ProviderError) -> ErrorClass {
    match error.kind {
        ProviderErrorKind::Class(class) => class,
        ProviderErrorKind::Fenced { .. } => panic!("{error:?}"),
    }
}

/// Whether a process exists and is no zombie.
pub(super) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Moves a clock as long as a future is not ready.
pub(super) async fn hurried<T>(clock: &SimulatedClock, future: impl Future<Output = T>) -> T {
    let hurry = async {
        loop {
            clock.advance();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        value = future => value,
        () = hurry => unreachable!("it never ends"),
    }
}
