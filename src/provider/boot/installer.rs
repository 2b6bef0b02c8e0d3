//! Installs and erases machines: boots an installer, and believes what the machine reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::control::{Control, Grant};
use super::desk::Desk;
use super::job::{End, Job, Patience, Progress};
use super::settings::{Settings, Task};
use crate::clock::Clock;
use crate::ids::{Epoch, MachineId, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::model::{InstallStage, Installation, LogStream};
use crate::plan::{Value, Values};
use crate::provider::{
    Acted, Asked, Call, ErrorCode, Logs, Observation, ProviderError, ProviderErrorKind, Target,
    Verification,
};

/// Longest wait for the report of a system that was restarted.
const REPORT_WAIT: Duration = Duration::from_secs(180);

/// How the machines of a class are installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallerOptions {
    /// Where to install: a path such as `/dev/sda`, `serial:NUMBER`, or `smallest`.
    pub disk: String,
    /// SSH keys that may log in as root on the installed system.
    pub ssh_keys: Vec<String>,
    /// How long the stages may take.
    pub patience: Patience,
}

impl Default for InstallerOptions {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            disk: "smallest".to_owned(),
            ssh_keys: Vec::new(),
            patience: Patience {
                boot: minutes(15),
                write: minutes(60),
                up: minutes(15),
                look: Duration::from_secs(2),
            },
        }
    }
}

/// Installs and erases the machines of a class: the actions `repave` and `wipe`.
#[derive(Debug)]
pub struct Installer {
    desk: Arc<Desk>,
    control: Arc<dyn Control>,
    options: InstallerOptions,
    clock: Arc<dyn Clock>,
    running: Mutex<BTreeMap<MachineId, Running>>,
}

/// A job in the background.
#[derive(Debug)]
struct Running {
    operation: OperationId,
    epoch: Epoch,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Installer {
    /// An installer for the machines that `control` controls.
    #[must_use]
    pub fn new(
        desk: Arc<Desk>,
        control: Arc<dyn Control>,
        options: InstallerOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { desk, control, options, clock, running: Mutex::default() }
    }

    /// Ends what a former owner of the machine has in progress.
    pub fn fence(&self, machine: &MachineId, epoch: Epoch) {
        let mut running = self.running();
        if running.get(machine).is_some_and(|job| job.epoch < epoch) {
            running.remove(machine);
        }
    }

    /// Why it cannot install or erase this machine in this way; `None` if nothing speaks against it.
    #[must_use]
    pub fn objection(&self, target: &Target, action: &Asked<'_>) -> Option<String> {
        self.settings(target, action.name, action.args).err().map(|error| error.message)
    }

    /// Whether it is done, from what the machine has reported about this step; carries an accepted operation on.
    ///
    /// # Errors
    /// [`ProviderError`] if the installation failed for good, or nothing can be read.
    pub async fn observe(
        &self,
        target: &Target,
        call: &Call,
        logs: &Logs,
    ) -> Result<Observation, ProviderError> {
        let known = self.of_step(target, call).await?;
        let has_begun = call.handle.is_some() || self.progress(target, call).is_some();
        let operation = match &known {
            Some(known) if known.operation == call.operation => call.operation.clone(),
            Some(_) | None if has_begun => call.operation.clone(),
            // What an earlier attempt of the step has on the disk is not written again.
            Some(known) if matches!(known.stage, InstallStage::Written | InstallStage::Up) => {
                known.operation.clone()
            }
            Some(known) => {
                let stage = known.stage.as_str();
                let observed = format!("the attempt before ended with the machine at {stage}");
                return Ok(Observation::NotDone { observed });
            }
            None => {
                let observed = "the machine has not fetched the settings of this step".to_owned();
                return Ok(Observation::NotDone { observed });
            }
        };
        let progress = self.carry_on(target, call, operation, false)?;
        for line in progress.take_lines() {
            logs.line(LogStream::Stdout, &line);
        }
        match progress.end() {
            None => Ok(Observation::InProgress {
                poll_at: self.clock.now().plus(self.options.patience.look),
            }),
            Some(End::Done(done)) => {
                self.forget(target, call);
                Ok(Observation::Done { evidence: evidence(call, &done), output: output(&done) })
            }
            Some(End::Failed(error)) => {
                self.forget(target, call);
                match error.kind {
                    ProviderErrorKind::Class(
                        ErrorClass::Transient | ErrorClass::OutcomeUnknown,
                    ) => Ok(Observation::NotDone { observed: error.message }),
                    ProviderErrorKind::Class(ErrorClass::Permanent | ErrorClass::NeedsHuman)
                    | ProviderErrorKind::Fenced { .. } => Err(error),
                }
            }
        }
    }

    /// Begins to install or erase; the machine and a job in the background do the rest.
    ///
    /// # Errors
    /// [`ProviderError`] if an argument or the machine does not allow it.
    pub fn act(&self, target: &Target, call: &Call) -> Result<Acted, ProviderError> {
        self.carry_on(target, call, call.operation.clone(), true)?;
        Ok(Acted::Accepted {
            handle: call.operation.as_str().to_owned(),
            poll_at: self.clock.now().plus(self.options.patience.look),
        })
    }

    /// Whether what the machine reported about this step still is its latest word.
    ///
    /// # Errors
    /// [`ProviderError`] if nothing can be read.
    pub async fn verify(
        &self,
        target: &Target,
        call: &Call,
    ) -> Result<Verification, ProviderError> {
        let expected = if call.action == "wipe" { InstallStage::Written } else { InstallStage::Up };
        let known = self.of_step(target, call).await?;
        Ok(match known {
            Some(known) if known.stage == expected => {
                Verification::Holds { evidence: evidence(call, &known) }
            }
            other => Verification::Broken {
                expected: expected.as_str().to_owned(),
                observed: other.map_or("no report", |known| known.stage.as_str()).to_owned(),
            },
        })
    }

    /// What the installed system says of a restart: its boot id, another one since the run began. `None` if no system here
    /// has ever reported; one that reports at its first start only is not waited for very long.
    ///
    /// # Errors
    /// [`ProviderError`] if nothing can be read.
    pub async fn rebooted(
        &self,
        target: &Target,
        call: &Call,
    ) -> Result<Option<String>, ProviderError> {
        let wait = self.options.patience.up.min(REPORT_WAIT);
        let deadline = self.clock.monotonic() + wait;
        loop {
            let known = self.latest(target).await?;
            let Some(known) = known.filter(|known| known.stage == InstallStage::Up) else {
                return Ok(None);
            };
            if call.operation.began_at().is_some_and(|began| known.at >= began) {
                return Ok(Some(format!("the system reports another boot id, {}", known.boot_id)));
            }
            if self.clock.monotonic() >= deadline {
                let seconds = wait.as_secs();
                return Ok(Some(format!("the system has not reported its start for {seconds} s")));
            }
            self.clock.sleep(self.options.patience.look).await;
        }
    }

    /// Takes the offer back, and switches a machine off that has not begun; one that writes is left alone.
    ///
    /// # Errors
    /// [`ProviderError`] if the machine cannot be switched off.
    pub async fn stop(&self, target: &Target, call: &Call) -> Result<(), ProviderError> {
        self.desk.withdraw(&target.machine_id, &call.operation);
        if self.of_step(target, call).await?.is_some() {
            return Ok(());
        }
        self.forget(target, call);
        self.control.switch_off(target, &grant(call)).await
    }

    /// The job of an operation: the one that runs, or a new one.
    fn carry_on(
        &self,
        target: &Target,
        call: &Call,
        operation: OperationId,
        fresh: bool,
    ) -> Result<Arc<Progress>, ProviderError> {
        let settings = self.settings(target, &call.action, &call.args)?;
        let mut running = self.running();
        if let Some(job) = running.get(&target.machine_id)
            && job.operation == operation
            && job.epoch == call.epoch
        {
            return Ok(job.progress.clone());
        }
        let (progress, stop) = (Arc::<Progress>::default(), CancellationToken::new());
        let job = Job {
            desk: self.desk.clone(),
            control: self.control.clone(),
            clock: self.clock.clone(),
            patience: self.options.patience,
            target: target.clone(),
            settings,
            operation: operation.clone(),
            by: grant(call),
            progress: progress.clone(),
        };
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = job.run(fresh) => {}
            }
        });
        let job = Running { operation, epoch: call.epoch, progress: progress.clone(), stop };
        running.insert(target.machine_id.clone(), job);
        Ok(progress)
    }

    fn settings(
        &self,
        target: &Target,
        action: &str,
        args: &Values,
    ) -> Result<Settings, ProviderError> {
        if target.spec.mac_addresses.is_empty() {
            let message = format!(
                "{} has no MAC address, by which it would get its settings: register one",
                target.machine_id
            );
            return Err(ProviderError::new(
                ErrorClass::Permanent,
                ErrorCode::Precondition,
                message,
            ));
        }
        let argument = |name: &str| args.get(name).and_then(Value::as_str).unwrap_or_default();
        let task = match action {
            "repave" => {
                let name = argument("image");
                let image = self.desk.image(name).ok_or_else(|| {
                    let known: Vec<&str> = self.desk.image_names().collect();
                    let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    let message = format!(
                        "there is no image {name:?} in the configuration; there is {there}"
                    );
                    ProviderError::new(ErrorClass::Permanent, ErrorCode::Invalid, message)
                })?;
                Task::Install(image.clone())
            }
            "wipe" => Task::Erase { method: argument("method").to_owned() },
            other => {
                let message = format!("an installer does not do {other:?}");
                return Err(ProviderError::new(
                    ErrorClass::Permanent,
                    ErrorCode::Unsupported,
                    message,
                ));
            }
        };
        // A run may say it; what it leaves open is as the class has it.
        let said = |name: &str, otherwise: &str| match argument(name) {
            "" => otherwise.to_owned(),
            text => text.to_owned(),
        };
        let mut ssh_keys = self.options.ssh_keys.clone();
        ssh_keys.extend(Some(argument("ssh-key").to_owned()).filter(|key| !key.is_empty()));
        Ok(Settings {
            machine_id: target.machine_id.clone(),
            task,
            hostname: said("hostname", target.machine_id.as_str()),
            disk: said("disk", &self.options.disk),
            ssh_keys,
            user_data: argument("user-data").to_owned(),
        })
    }

    /// What the machine has reported about this step, in whichever attempt.
    async fn of_step(
        &self,
        target: &Target,
        call: &Call,
    ) -> Result<Option<Installation>, ProviderError> {
        let latest = self.latest(target).await?;
        Ok(latest.filter(|known| step_of(&known.operation) == step_of(&call.operation)))
    }

    /// What the machine has reported last, about whichever installation.
    async fn latest(&self, target: &Target) -> Result<Option<Installation>, ProviderError> {
        self.desk.latest(&target.machine_id).await.map_err(|error| {
            ProviderError::new(ErrorClass::Transient, ErrorCode::Unavailable, error.to_string())
        })
    }

    fn progress(&self, target: &Target, call: &Call) -> Option<Arc<Progress>> {
        let running = self.running();
        let job = running.get(&target.machine_id)?;
        (job.operation == call.operation).then(|| job.progress.clone())
    }

    fn forget(&self, target: &Target, call: &Call) {
        let mut running = self.running();
        let of_step = |job: &Running| step_of(&job.operation) == step_of(&call.operation);
        if running.get(&target.machine_id).is_some_and(of_step) {
            running.remove(&target.machine_id);
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<MachineId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn grant(call: &Call) -> Grant {
    Grant { epoch: call.epoch, operation: call.operation.clone() }
}

/// Run and step of an operation, without the attempt.
fn step_of(operation: &OperationId) -> &str {
    operation.as_str().rsplit_once('/').map_or(operation.as_str(), |(step, _)| step)
}

fn evidence(call: &Call, done: &Installation) -> String {
    if call.action == "wipe" {
        return format!("the machine reports that its disks are erased: {}", done.message);
    }
    format!("the machine reports image SHA-256 {} and boot id {}", done.image_sha256, done.boot_id)
}

fn output(done: &Installation) -> Values {
    let mut output = Values::new();
    if !done.boot_id.is_empty() {
        output.insert("boot_id".to_owned(), Value::Str(done.boot_id.clone().into()));
    }
    output
}

#[cfg(test)]
mod tests;
