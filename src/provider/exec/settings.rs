//! What the configuration says about the programs of a class of machines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The programs of a class, each an absolute path with its arguments: never a line for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The class.
    pub class: String,
    /// What carries out an action, by its name.
    pub actions: BTreeMap<String, Programs>,
    /// Says how a machine is.
    pub probe: Vec<String>,
    /// Raises the machine's epoch where the programs act; empty if there is no such place.
    pub fence: Vec<String>,
    /// Longest time of a program that acts, if its action gives none.
    pub timeout: Duration,
    /// Longest time of every other program.
    pub look_timeout: Duration,
    /// Time between the signal that asks a program to end and the one that ends it.
    pub grace: Duration,
    /// Where programs start.
    pub working_dir: PathBuf,
    /// The account they run under; `None` for that of the server.
    pub user: Option<String>,
    /// Credentials of the server that programs get as files, by name.
    pub credentials: Vec<String>,
    /// Most programs that act at the same time, and most others.
    pub parallel_max: usize,
}

/// How the secret that an earlier step has minted gets to where it is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaterialBy {
    /// In the input of the program, on standard input.
    #[default]
    Input,
    /// As the answer to a report of the machine, while the program runs, which does not get it.
    Report,
}

/// The programs of an action. Only `act` must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    /// Acts.
    pub act: Vec<String>,
    /// Looks whether it is done; empty if nothing can tell.
    pub observe: Vec<String>,
    /// Checks that it is done and stays so; empty: `observe` does it.
    pub verify: Vec<String>,
    /// Asks what `act` has started elsewhere to stop; empty: ending `act` stops it.
    pub stop: Vec<String>,
    /// Longest time of `act`.
    pub timeout: Option<Duration>,
    /// How it gets a secret that it needs.
    pub material: MaterialBy,
}

impl Settings {
    /// Every program with the key that names it, for messages: `exec.actions.drain.act`.
    pub fn programs(&self) -> impl Iterator<Item = (String, &[String])> {
        let of_class = [("probe", &self.probe), ("fence", &self.fence)];
        let of_class = of_class.map(|(name, argv)| (format!("exec.{name}"), argv.as_slice()));
        let of_actions = self.actions.iter().flat_map(|(action, programs)| {
            let Programs { act, observe, verify, stop, timeout: _, material: _ } = programs;
            [("act", act), ("observe", observe), ("verify", verify), ("stop", stop)]
                .map(|(name, argv)| (format!("exec.actions.{action}.{name}"), argv.as_slice()))
        });
        of_class.into_iter().chain(of_actions).filter(|(_, argv)| !argv.is_empty())
    }
}
