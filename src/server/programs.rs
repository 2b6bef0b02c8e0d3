//! The programs of the operator's own that a server runs: the driver `exec` of each class, and their common end.

use std::sync::Arc;

use super::config::{Config, ExecClass, MachineClass, Storage};
use crate::clock::{Clock, Random};
use crate::credentials::Credentials;
use crate::provider::Provider;
use crate::provider::boot::Desk;
use crate::provider::exec::{self, Exec, Host, Settings, Supervisors};

/// Folder of their inputs, below the data directory.
const FOLDER: &str = "exec";
/// Environment of programs where that of the server does not say otherwise.
const VARIABLES: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];

/// The programs of a server.
#[derive(Debug)]
pub(super) struct Programs {
    host: Host,
}

impl Programs {
    /// Nothing runs yet.
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>, random: &dyn Random) -> Self {
        let folder = match &config.storage {
            Storage::Dir(dir) => dir.join(FOLDER),
            // A name that no one can foresee; the folder is created for this server alone.
            Storage::Ephemeral => {
                std::env::temp_dir().join(format!("bmdemo-{FOLDER}-{:016x}", random.next_u64()))
            }
        };
        let variables = VARIABLES.map(|(name, default)| {
            (name, std::env::var_os(name).unwrap_or_else(|| default.into()))
        });
        let supervisors = Supervisors::default();
        let credentials = Credentials::new(config.credentials_dir.clone());
        let variables = variables.into();
        Self { host: Host { folder, clock, supervisors, desk: None, credentials, variables } }
    }

    /// The driver of a class, if it has programs.
    ///
    /// # Errors
    /// What is wrong with them, beginning with the key below the class.
    pub(super) fn driver(
        &self,
        name: &str,
        class: &MachineClass,
        desk: Option<&Arc<Desk>>,
    ) -> Result<Option<Arc<dyn Provider>>, String> {
        let Some(named) = &class.exec else { return Ok(None) };
        let settings = settings(name, named);
        let account = exec::judge(&settings)?;
        let folder = self.host.folder.display().to_string();
        let host = Host { desk: desk.cloned(), ..self.host.clone() };
        let driver = Exec::new(settings, account, host)
            .map_err(|error| format!("exec: the folder {folder} cannot be used: {error}"))?;
        Ok(Some(Arc::new(driver)))
    }

    /// Ends every program, and resolves when none is left.
    pub(super) async fn end(&self, config: &Config) {
        self.host.supervisors.end().await;
        if config.storage == Storage::Ephemeral && self.host.folder.exists() {
            drop(std::fs::remove_dir_all(&self.host.folder));
        }
    }
}

fn settings(name: &str, named: &ExecClass) -> Settings {
    let argv = |argv: &Option<Vec<String>>| argv.clone().unwrap_or_default();
    let actions = named.actions.iter().map(|(action, programs)| {
        let programs = exec::Programs {
            act: argv(&programs.act),
            observe: argv(&programs.observe),
            verify: argv(&programs.verify),
            stop: argv(&programs.stop),
            timeout: programs.timeout(),
            material: programs.material.unwrap_or_default(),
        };
        (action.clone(), programs)
    });
    Settings {
        class: name.to_owned(),
        actions: actions.collect(),
        probe: argv(&named.probe),
        fence: argv(&named.fence),
        timeout: named.timeout(),
        look_timeout: named.look_timeout(),
        grace: named.grace(),
        working_dir: named.working_dir.clone().unwrap_or_else(|| "/".into()),
        user: named.user.clone(),
        credentials: named.credentials.clone().unwrap_or_default(),
        parallel_max: named.parallel_max(),
    }
}
