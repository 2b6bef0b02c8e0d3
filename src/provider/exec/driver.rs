//! The driver: which program is run for which call, and what is known about it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::acting::{Acting, Going, Ways, not_started};
use super::answer;
use super::host::Host;
use super::input::{self, Input};
use super::judge::Account;
use super::known::{Machines, Next, is_settled};
use super::leftover::Folder;
use super::material::{Handle, Vault};
use super::settings::{MaterialBy, Programs, Settings};
use super::supervisor::{Ended, Launch, run};
use crate::ids::{Epoch, MachineId};
use crate::lifecycle::step::ErrorClass;
use crate::model::LogStream;
use crate::plan::Capability;
use crate::provider::message::Purpose;
use crate::provider::{
    Acted, Call, Capabilities, ErrorCode, Fut, Health, Logs, Observation, Provider, ProviderError,
    Target, Verification,
};

/// Time that a program of a former server gets after it was ended by force.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// See the module `exec`.
#[derive(Debug)]
pub struct Exec {
    settings: Settings,
    account: Option<Account>,
    host: Host,
    folder: Arc<Folder>,
    vault: Vault,
    machines: Machines,
    acting: Arc<Semaphore>,
    looking: Arc<Semaphore>,
}

impl Exec {
    /// The driver of a class. Ends, in the background, what a former server has left running.
    ///
    /// # Errors
    /// If the folder for inputs cannot be created or read, or programs could not reach their credentials in it.
    pub fn new(settings: Settings, account: Option<Account>, host: Host) -> io::Result<Self> {
        let folder = Arc::new(Folder::open(host.folder.join(&settings.class))?);
        if account.is_some() && !settings.credentials.is_empty() {
            folder.let_pass()?;
        }
        let machines = Machines::default();
        for left in folder.left()? {
            let ended = machines.former(&left.machine);
            let (clock, grace, stop) =
                (host.clock.clone(), settings.grace, host.supervisors.stop());
            host.supervisors.spawn(async move {
                tokio::select! {
                    () = left.end(&*clock, grace) => drop(ended),
                    // The next server ends it.
                    () = stop.cancelled() => {}
                }
            });
        }
        Ok(Self {
            folder,
            vault: Vault::new(host.clock.clone()),
            acting: Arc::new(Semaphore::new(settings.parallel_max)),
            looking: Arc::new(Semaphore::new(settings.parallel_max)),
            machines,
            settings,
            account,
            host,
        })
    }

    fn programs(&self, action: &str) -> Result<&Programs, ProviderError> {
        self.settings.actions.get(action).ok_or_else(|| {
            let class = &self.settings.class;
            ProviderError::new(
                ErrorClass::Permanent,
                ErrorCode::Unsupported,
                format!("class {class} has no program for {action}: name one in [machine_classes.{class}.exec.actions.{action}]"),
            )
        })
    }

    /// What is the same for every program of the class.
    fn ways(&self) -> Ways {
        Ways {
            class: self.settings.class.clone(),
            dir: self.settings.working_dir.clone(),
            grace: self.settings.grace,
            account: self.account,
            credentials: self.settings.credentials.clone(),
            host: self.host.clone(),
            folder: self.folder.clone(),
            vault: self.vault.clone(),
        }
    }

    /// Runs a program that changes nothing, or may be run twice.
    async fn look(
        &self,
        argv: &[String],
        input: Input,
        logs: Option<Logs>,
    ) -> Result<Ended, ProviderError> {
        // It outlives a dropped call, like its program.
        let permit = permit(&self.looking).await?;
        let program = argv.first().cloned().unwrap_or_default();
        let file = self
            .folder
            .input(&input.json)
            .map_err(|error| not_started(&program, &error, ErrorClass::Transient))?;
        let stop = self.host.supervisors.stop();
        let ways = self.ways();
        let handed = ways.hand_over()?;
        let launch = Launch {
            argv: argv.to_vec(),
            variables: ways.variables(input.variables, handed.as_ref()),
            dir: self.settings.working_dir.clone(),
            account: self.account,
            input: file,
            source: None,
            slot: None,
            handed,
            limit: self.settings.look_timeout,
            grace: self.settings.grace,
            logs,
            stop: stop.clone(),
        };
        let _dropped = stop.drop_guard();
        let (sender, ended) = oneshot::channel();
        let clock = self.host.clock.clone();
        self.host.supervisors.spawn(async move {
            let ended = run(launch, clock).await;
            drop(permit);
            // No one may wait for it any more.
            drop(sender.send(ended));
        });
        match ended.await {
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => Err(not_started(&program, &error, ErrorClass::Transient)),
            Err(_) => Err(ending()),
        }
    }

    async fn act_once(
        &self,
        target: &Target,
        call: &Call,
        logs: Logs,
    ) -> Result<Acted, ProviderError> {
        let programs = self.programs(&call.action)?;
        let permit = permit(&self.acting).await?;
        if !logs.may_begin() {
            return Err(ProviderError::put_off());
        }
        let stop = self.host.supervisors.stop();
        let ended = loop {
            self.machines.admit(&target.machine_id, call.epoch)?;
            match self.machines.next(&target.machine_id, call, &stop) {
                Next::Known(result) => {
                    logs.line(
                        LogStream::Engine,
                        "[this operation has ended before: it is not run again]",
                    );
                    return result;
                }
                Next::Wait(running) => running.over().await,
                Next::Run(ended) => break ended,
            }
        };
        let limit = |programs: &Programs| programs.timeout.unwrap_or(self.settings.timeout);
        let of = |programs: &Programs, call, material| Acting {
            argv: programs.act.clone(),
            limit: limit(programs),
            call,
            material,
        };
        let acting = of(programs, call.clone(), programs.material);
        // A secret that an earlier step has minted; if it is lost by now, it is minted again.
        let needed = Handle::needed_by(call);
        let minting = needed.as_ref().and_then(|handle| {
            let programs = self.settings.actions.get(&handle.action)?;
            Some(of(programs, handle.mint(call), MaterialBy::Input))
        });
        let (ways, target) = (self.ways(), target.clone());
        let going = Going { target: target.clone(), logs, stop: stop.clone() };
        // From here on the program ends when this call is dropped.
        let _dropped = stop.drop_guard();
        let (sender, result) = oneshot::channel();
        let (machines, operation) = (self.machines.clone(), call.operation.clone());
        self.host.supervisors.spawn(async move {
            let result = ways.act_with(acting, needed, minting, going).await;
            machines.ended(target.machine_id, operation, result.clone());
            drop((permit, ended));
            // The call may have been dropped.
            drop(sender.send(result));
        });
        result.await.unwrap_or_else(|_| Err(ending()))
    }

    /// What is known without a program that looks.
    fn remembered(&self, target: &Target, call: &Call) -> Result<Observation, ProviderError> {
        match self.machines.last(&target.machine_id, &call.operation) {
            Some(Ok(Acted::Done { evidence, output })) => {
                Ok(Observation::Done { evidence, output })
            }
            Some(Err(error)) if is_settled(&error) => {
                Ok(Observation::NotDone { observed: error.message })
            }
            Some(Err(error)) => Ok(Observation::Unknowable { why: error.message }),
            Some(Ok(Acted::Accepted { .. })) | None => Ok(Observation::Unknowable {
                why: format!(
                    "class {} has no program that looks whether {} is done",
                    self.settings.class, call.action
                ),
            }),
        }
    }

    async fn observe_now(
        &self,
        target: &Target,
        call: &Call,
        logs: Logs,
    ) -> Result<Observation, ProviderError> {
        let programs = self.programs(&call.action)?;
        self.machines.admit(&target.machine_id, call.epoch)?;
        if let Some(running) = self.machines.running(&target.machine_id) {
            // Its call was dropped: what it leaves behind is only seen once it has ended.
            running.over().await;
        }
        if programs.observe.is_empty() {
            return self.remembered(target, call);
        }
        let input = input::of_call(Purpose::Observe, &self.settings.class, target, call);
        let ended = self.look(&programs.observe, input, Some(logs)).await?;
        answer::observed(&call.action, &ended, self.host.clock.now())
    }

    async fn verify_now(
        &self,
        target: &Target,
        call: &Call,
        logs: Logs,
    ) -> Result<Verification, ProviderError> {
        let programs = self.programs(&call.action)?;
        self.machines.admit(&target.machine_id, call.epoch)?;
        if !programs.verify.is_empty() {
            let input = input::of_call(Purpose::Verify, &self.settings.class, target, call);
            let ended = self.look(&programs.verify, input, Some(logs)).await?;
            return answer::verified(&call.action, &ended, self.host.clock.now());
        }
        let expected = format!("{} done", call.action);
        match self.observe_now(target, call, logs).await? {
            Observation::Done { evidence, .. } => Ok(Verification::Holds { evidence }),
            Observation::NotDone { observed } => Ok(Verification::Broken { expected, observed }),
            Observation::InProgress { .. } => {
                let observed = format!("{} is still in progress", call.action);
                Ok(Verification::Broken { expected, observed })
            }
            // Nothing looks: what the program said is all there is.
            Observation::Unknowable { why } if programs.observe.is_empty() => {
                Ok(Verification::Holds { evidence: format!("not checked: {why}") })
            }
            Observation::Unknowable { why } => {
                Err(ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, why))
            }
        }
    }

    async fn stop_now(&self, target: &Target, call: &Call) -> Result<(), ProviderError> {
        self.machines.admit(&target.machine_id, call.epoch)?;
        let running = self.machines.running(&target.machine_id);
        if let Some(running) = running.filter(|running| running.operation == call.operation) {
            running.end().await;
        }
        let programs = self.programs(&call.action)?;
        if programs.stop.is_empty() {
            return Ok(());
        }
        let input = input::of_call(Purpose::Stop, &self.settings.class, target, call);
        let ended = self.look(&programs.stop, input, None).await?;
        answer::done(Purpose::Stop, &call.action, &ended, self.host.clock.now())
    }

    async fn fence_now(&self, target: &Target, epoch: Epoch) -> Result<(), ProviderError> {
        self.machines.admit(&target.machine_id, epoch)?;
        match self.machines.raise(&target.machine_id, epoch) {
            Some((running, true)) => running.end().await,
            // It belongs to this epoch.
            Some((_, false)) => {}
            None => self.without_former(&target.machine_id).await?,
        }
        if self.settings.fence.is_empty() {
            return Ok(());
        }
        let input = input::of_fence(&self.settings.class, target, epoch);
        let ended = self.look(&self.settings.fence, input, None).await?;
        answer::done(Purpose::Fence, "", &ended, self.host.clock.now())
    }

    /// Waits for the end of what a killed server has left running for a machine.
    async fn without_former(&self, machine: &MachineId) -> Result<(), ProviderError> {
        let patience = self.settings.grace + LAST_WAIT;
        tokio::select! {
            biased;
            () = self.machines.without_former(machine) => Ok(()),
            () = self.host.clock.sleep(patience) => Err(ProviderError::new(
                ErrorClass::Transient,
                ErrorCode::Busy,
                format!("a program that a former server has started still acts on {machine}"),
            )),
        }
    }

    async fn probe_now(&self, target: &Target) -> Result<Health, ProviderError> {
        if self.settings.probe.is_empty() {
            let class = &self.settings.class;
            return Err(ProviderError::new(
                ErrorClass::Permanent,
                ErrorCode::Unsupported,
                format!(
                    "class {class} has no program for probes: name one in [machine_classes.{class}.exec], probe"
                ),
            ));
        }
        let input = input::of_probe(&self.settings.class, target);
        let ended = self.look(&self.settings.probe, input, None).await?;
        answer::probed(&ended, self.host.clock.now())
    }
}

async fn permit(from: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ProviderError> {
    from.clone().acquire_owned().await.map_err(|_| ending())
}

fn ending() -> ProviderError {
    let message = "the server is ending";
    ProviderError::new(ErrorClass::OutcomeUnknown, ErrorCode::Stopped, message)
}

impl Provider for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    /// Whatever its class names it for: the configuration is only accepted with a program for each built-in action; of
    /// `custom`, see [`Provider::performs`].
    fn capabilities(&self, _target: &Target) -> Capabilities {
        Capabilities::all()
    }

    fn performs(&self, _capability: Capability, action: &str) -> bool {
        self.settings.actions.contains_key(action)
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, _uses: Capabilities) -> Fut<'a, ()> {
        Box::pin(self.fence_now(target, epoch))
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        Box::pin(self.observe_now(target, call, logs))
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(self.act_once(target, call, logs))
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(self.verify_now(target, call, logs))
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        Box::pin(self.stop_now(target, call))
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(self.probe_now(target))
    }

    fn is_real(&self) -> bool {
        true
    }
}
