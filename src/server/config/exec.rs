//! The programs of a class of machines, as the configuration file names them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::bounds::{self, HOUR, SECOND};
use super::span::Span;
use crate::credentials::check_name;
use crate::plan::suggest::nearest;
use crate::plan::{ActionSpec, Capability};
use crate::provider::exec::MaterialBy;
use crate::text::escaped;

/// Longest time of a program: as long as a step may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const PARALLEL_DEFAULT: usize = 16;
const PARALLEL_MAX: u64 = 1_000;
const ARGUMENTS_MAX: usize = 64;
const ARGUMENT_BYTES_MAX: usize = 4_096;

/// `[machine_classes.NAME.exec]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExecClass {
    pub(in crate::server) probe: Option<Vec<String>>,
    pub(in crate::server) fence: Option<Vec<String>>,
    timeout: Option<Span>,
    look_timeout: Option<Span>,
    grace: Option<Span>,
    pub(in crate::server) working_dir: Option<PathBuf>,
    pub(in crate::server) user: Option<String>,
    pub(in crate::server) credentials: Option<Vec<String>>,
    max_parallel: Option<usize>,
    pub(in crate::server) actions: BTreeMap<String, ExecAction>,
}

/// `[machine_classes.NAME.exec.actions.ACTION]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExecAction {
    pub(in crate::server) act: Option<Vec<String>>,
    pub(in crate::server) observe: Option<Vec<String>>,
    pub(in crate::server) verify: Option<Vec<String>>,
    pub(in crate::server) stop: Option<Vec<String>>,
    timeout: Option<Span>,
    pub(in crate::server) material: Option<MaterialBy>,
}

impl ExecAction {
    /// Longest time of its `act`, if it has one of its own.
    pub(in crate::server) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|span| span.0)
    }

    fn programs(&self) -> [(&'static str, &Option<Vec<String>>); 4] {
        let Self { act, observe, verify, stop, timeout: _, material: _ } = self;
        [("act", act), ("observe", observe), ("verify", verify), ("stop", stop)]
    }
}

impl ExecClass {
    /// An action whose secret the machine gets as the answer to a report.
    pub(super) fn reports(&self) -> Option<&str> {
        let by_report = |action: &&ExecAction| action.material == Some(MaterialBy::Report);
        self.actions.iter().find(|(_, action)| by_report(action)).map(|(name, _)| name.as_str())
    }

    /// Longest time of a program that acts.
    pub(in crate::server) fn timeout(&self) -> Duration {
        self.timeout.map_or(HOUR, |span| span.0)
    }

    /// Longest time of any other program.
    pub(in crate::server) fn look_timeout(&self) -> Duration {
        self.look_timeout.map_or(SECOND * 60, |span| span.0)
    }

    /// Time between the two signals that end a program.
    pub(in crate::server) fn grace(&self) -> Duration {
        self.grace.map_or(SECOND * 5, |span| span.0)
    }

    /// Most programs at the same time.
    pub(in crate::server) fn parallel_max(&self) -> usize {
        self.max_parallel.unwrap_or(PARALLEL_DEFAULT)
    }

    /// Refuses what makes no sense, and capabilities that are needed and have an action without a program.
    ///
    /// # Errors
    /// What is wrong, naming the key.
    pub(super) fn check(&self, class: &str, needed: &[Capability]) -> Result<(), String> {
        let key = |name: &str| format!("{class}.exec.{name}");
        for (name, argv) in [("probe", &self.probe), ("fence", &self.fence)] {
            check_argv(&key(name), argv.as_deref())?;
        }
        for (action, programs) in &self.actions {
            let key = key(&format!("actions.{}", escaped(action)));
            known_action(&key, action, needed)?;
            for (name, argv) in programs.programs() {
                check_argv(&format!("{key}.{name}"), argv.as_deref())?;
            }
            if programs.act.is_none() {
                return Err(format!(
                    "{key} has no act; name the program that does it, as in act = [\"/usr/local/bin/{action}\"]"
                ));
            }
            let timeout = programs.timeout().unwrap_or(SECOND);
            bounds::span(&format!("{key}.timeout"), timeout, SECOND, TIMEOUT_MAX)?;
        }
        for capability in needed {
            let actions = ActionSpec::all().iter().filter(|spec| spec.capability == *capability);
            if let Some(missing) =
                actions.map(|spec| &*spec.name).find(|name| !self.actions.contains_key(*name))
            {
                return Err(format!(
                    "{class}.{capability} is \"exec\", and no program does {missing}: add [{class}.exec.actions.{missing}] \
                     with act = [\"/usr/local/bin/{missing}\"]"
                ));
            }
        }
        if needed.contains(&Capability::Probe) && self.probe.is_none() {
            return Err(format!(
                "{class}.probe is \"exec\", and no program says how a machine is: add probe = [\"/a/program\"] to [{class}.exec]"
            ));
        }
        if needed.is_empty() {
            return Err(format!(
                "{class}.exec names programs that nothing uses: name the driver too, as in drain = \"exec\""
            ));
        }
        if self.working_dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(format!("{} must be an absolute path", key("working_dir")));
        }
        for name in self.credentials.iter().flatten() {
            check_name(name).map_err(|why| format!("{} {why}", key("credentials")))?;
        }
        bounds::span(&key("timeout"), self.timeout(), SECOND, TIMEOUT_MAX)?;
        bounds::span(&key("look_timeout"), self.look_timeout(), SECOND, HOUR)?;
        bounds::span(&key("grace"), self.grace(), Duration::ZERO, HOUR)?;
        let none = "no program would ever run";
        bounds::number(&key("max_parallel"), self.parallel_max() as u64, PARALLEL_MAX, none)
    }
}

fn known_action(key: &str, action: &str, needed: &[Capability]) -> Result<(), String> {
    let Some(spec) = ActionSpec::find(action) else {
        // The actions that the server declares are not known yet: they are checked when it starts.
        if needed.contains(&Capability::Custom) {
            return Ok(());
        }
        let meant = match nearest(action, ActionSpec::all().iter().map(|spec| &*spec.name)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "`bmdemo-cli plan explain` lists them".to_owned(),
        };
        return Err(format!("{key} is no action: {meant}"));
    };
    match needed.contains(&spec.capability) {
        true => Ok(()),
        false => Err(format!(
            "{key} is never used: {action} belongs to the capability {0}, so add {0} = \"exec\" to the class",
            spec.capability
        )),
    }
}

fn check_argv(key: &str, argv: Option<&[String]>) -> Result<(), String> {
    let Some(argv) = argv else { return Ok(()) };
    match argv.first() {
        None => {
            return Err(format!(
                "{key} is empty: give a program and its arguments, [\"/a/program\", \"--flag\"]"
            ));
        }
        Some(program) if !program.starts_with('/') => {
            return Err(format!(
                "{key}: {:?} is not an absolute path; programs are not searched for, and no shell reads the line",
                escaped(program)
            ));
        }
        Some(_) => {}
    }
    if argv.len() > ARGUMENTS_MAX {
        return Err(format!("{key} has {} arguments: give at most {ARGUMENTS_MAX}", argv.len()));
    }
    match argv.iter().any(|argument| argument.len() > ARGUMENT_BYTES_MAX || argument.contains('\0'))
    {
        true => Err(format!(
            "{key} has an argument of more than {ARGUMENT_BYTES_MAX} bytes or with a zero byte"
        )),
        false => Ok(()),
    }
}
