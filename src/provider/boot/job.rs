//! One installation, carried on in the background from wherever the machine's reports say that it is.
//!
//! Everything that a job does can be done again: what may happen only once, the writing, the machine does, and it gets
//! its settings once. So a job that ended with its server begins again with the next look at the operation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::control::{Control, Grant};
use super::desk::Desk;
use super::settings::{Settings, Task};
use crate::clock::Clock;
use crate::ids::OperationId;
use crate::lifecycle::step::ErrorClass;
use crate::model::{InstallStage, Installation, Power, identity};
use crate::provider::{ErrorCode, ProviderError, Target};

/// Offers last this many times the pause between two looks.
const OFFER_LOOKS: u32 = 6;
/// The power state is asked for at every so many looks.
const LOOKS_PER_POWER: u32 = 5;

/// How long the stages of an installation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From power on until the installer fetches its settings.
    pub boot: Duration,
    /// From then on until the disk is written.
    pub write: Duration,
    /// From the boot from the disk until the system reports.
    pub up: Duration,
    /// Between two looks.
    pub look: Duration,
}

/// How a job ended, and what it has said.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    end: Option<End>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It is done.
    Done(Installation),
    /// It failed, and nothing is in progress any more.
    Failed(ProviderError),
}

impl Progress {
    fn say(&self, line: String) {
        self.lock().lines.push(line);
    }

    /// What was said since the last call.
    pub(super) fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().lines)
    }

    /// How it ended, once it has.
    pub(super) fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    pub(super) fn finish(&self, end: End) {
        self.lock().end = Some(end);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a job works on.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) desk: Arc<Desk>,
    pub(super) control: Arc<dyn Control>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) patience: Patience,
    pub(super) target: Target,
    pub(super) settings: Settings,
    /// The attempt that the installation is of; an earlier one than the present, if that has written the disk.
    pub(super) operation: OperationId,
    pub(super) by: Grant,
    pub(super) progress: Arc<Progress>,
}

impl Job {
    /// Carries the installation on until it has ended.
    pub(super) async fn run(self, fresh: bool) {
        let end = match self.converge(fresh).await {
            Ok(installation) => End::Done(installation),
            Err(error) => {
                self.desk.withdraw(&self.target.machine_id, &self.operation);
                End::Failed(error)
            }
        };
        self.progress.finish(end);
    }

    async fn converge(&self, fresh: bool) -> Result<Installation, ProviderError> {
        let written = match self.look().await? {
            Some(known) if known.stage >= InstallStage::Written => self.succeeded(known)?,
            Some(_) => self.wait_written().await?,
            None => {
                self.boot_installer(fresh).await?;
                self.wait_taken().await?;
                self.wait_written().await?
            }
        };
        self.desk.withdraw(&self.target.machine_id, &self.operation);
        if written.stage == InstallStage::Up {
            return Ok(written);
        }
        self.say(match &self.settings.task {
            Task::Install(_) => {
                format!("image written, SHA-256 {}: booting it", written.image_sha256)
            }
            Task::Erase { .. } => "disks erased".to_owned(),
        });
        if !written.message.is_empty() {
            self.say(format!("the installer says: {}", written.message));
        }
        self.control.switch_off(&self.target, &self.by).await?;
        self.control.boot_disk(&self.target, &self.by).await?;
        if matches!(self.settings.task, Task::Erase { .. }) {
            return Ok(written);
        }
        self.control.switch_on(&self.target, &self.by).await?;
        self.wait_up().await
    }

    /// Off, settings offered, on. A job that begins again leaves a machine that is on as it is: it may be about to
    /// fetch its settings.
    async fn boot_installer(&self, fresh: bool) -> Result<(), ProviderError> {
        let is_off = !fresh && self.control.power(&self.target).await? == Power::Off;
        if fresh || is_off {
            self.check_identity().await?;
            self.control.switch_off(&self.target, &self.by).await?;
            if matches!(self.settings.task, Task::Erase { .. }) {
                self.control.boot_installer(&self.target, &self.by).await?;
            }
        }
        self.offer();
        self.say("settings offered: booting the installer".to_owned());
        self.control.switch_on(&self.target, &self.by).await
    }

    /// Refuses to write the disks of hardware that is not the registered one.
    async fn check_identity(&self) -> Result<(), ProviderError> {
        let facts = self.control.facts(&self.target).await?;
        let Some((reason, expected, observed)) = identity::difference(&self.target.spec, &facts)
        else {
            return Ok(());
        };
        let message = format!(
            "the hardware is not the registered machine, and nothing was done to it: {}",
            identity::words(reason, &expected, &observed)
        );
        let class = ErrorClass::NeedsHuman;
        Err(ProviderError::new(class, ErrorCode::Precondition, message).seen(expected, observed))
    }

    async fn wait_taken(&self) -> Result<(), ProviderError> {
        let deadline = self.clock.monotonic() + self.patience.boot;
        loop {
            self.offer();
            if self.look().await?.is_some() {
                self.say("the installer fetched its settings".to_owned());
                return Ok(());
            }
            if self.clock.monotonic() >= deadline {
                return Err(
                    self.late("the installer did not fetch its settings", self.patience.boot)
                );
            }
            self.pause().await;
        }
    }

    async fn wait_written(&self) -> Result<Installation, ProviderError> {
        let deadline = self.clock.monotonic() + self.patience.write;
        let (mut stage, mut looks) = (InstallStage::SettingsTaken, 0_u32);
        loop {
            looks += 1;
            let Some(known) = self.look().await? else {
                // A newer attempt has replaced it.
                return Err(self.lost("another installation has begun on the machine"));
            };
            if known.stage >= InstallStage::Written {
                return self.succeeded(known);
            }
            if known.stage != stage {
                stage = known.stage;
                self.say(format!("the machine reports: {}", stage.as_str()));
            }
            // A machine that is off writes nothing any more; its last report may be on its way.
            if looks.is_multiple_of(LOOKS_PER_POWER)
                && self.control.power(&self.target).await.ok() == Some(Power::Off)
            {
                self.pause().await;
                match self.look().await? {
                    Some(known) if known.stage >= InstallStage::Written => {
                        return self.succeeded(known);
                    }
                    Some(_) | None => {
                        return Err(self.lost("the machine went off before the disk was written"));
                    }
                }
            }
            if self.clock.monotonic() >= deadline {
                // What is still writing must not continue beside the next attempt.
                self.control.switch_off(&self.target, &self.by).await?;
                return Err(self.late("the disk was not written", self.patience.write));
            }
            self.pause().await;
        }
    }

    async fn wait_up(&self) -> Result<Installation, ProviderError> {
        let deadline = self.clock.monotonic() + self.patience.up;
        loop {
            match self.look().await? {
                Some(known) if known.stage == InstallStage::Up => {
                    self.say(format!("the installed system is up, boot id {}", known.boot_id));
                    return Ok(known);
                }
                Some(_) => {}
                None => return Err(self.lost("another installation has begun on the machine")),
            }
            if self.clock.monotonic() >= deadline {
                return Err(self.late("the installed system did not report", self.patience.up));
            }
            self.pause().await;
        }
    }

    async fn look(&self) -> Result<Option<Installation>, ProviderError> {
        let found = self.desk.installation(&self.target.machine_id, &self.operation).await;
        found.map_err(|error| {
            ProviderError::new(ErrorClass::Transient, ErrorCode::Unavailable, error.to_string())
        })
    }

    /// An installation that has ended: the disk is written, with what was asked for, or it failed.
    fn succeeded(&self, ended: Installation) -> Result<Installation, ProviderError> {
        if ended.stage == InstallStage::Failed {
            let message = format!("the installer gave up: {}", ended.message);
            return Err(ProviderError::new(ErrorClass::Permanent, ErrorCode::Failed, message));
        }
        match &self.settings.task {
            Task::Install(image) if !ended.image_sha256.eq_ignore_ascii_case(&image.sha256) => {
                let message = "the installer reports another image than the one that it was given";
                Err(ProviderError::new(ErrorClass::Permanent, ErrorCode::Failed, message)
                    .seen(image.sha256.clone(), ended.image_sha256))
            }
            Task::Install(_) | Task::Erase { .. } => Ok(ended),
        }
    }

    fn offer(&self) {
        let until = self.clock.now().plus(self.patience.look * OFFER_LOOKS);
        let macs = &self.target.spec.mac_addresses;
        self.desk.offer(self.operation.clone(), macs, self.settings.clone(), until);
    }

    async fn pause(&self) {
        self.clock.sleep(self.patience.look).await;
    }

    fn say(&self, line: String) {
        self.progress.say(line);
    }

    fn late(&self, what: &str, within: Duration) -> ProviderError {
        let message = format!("{what} within {} s", within.as_secs());
        ProviderError::new(ErrorClass::Transient, ErrorCode::Timeout, message)
    }

    fn lost(&self, what: &str) -> ProviderError {
        ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, what)
    }
}
