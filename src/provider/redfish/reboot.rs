//! A restart: off, seen to be off, on again, seen to be on.
//!
//! A controller's own restart cannot be distinguished from none: the state is On before and after. So the power is switched off
//! first. Once the machine is off the operation is *accepted*, under a handle that the engine stores: from then on a machine
//! that is on again has been restarted, whichever server looks. The rest runs beside the engine's calls, in this process; after a
//! crash a machine that is off was not switched on again, and the next attempt does that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::power::{Waited, say};
use super::system::{Remote, System};
use super::ticket::Ticket;
use crate::ids::{MachineId, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::model::LogStream;
use crate::plan::Values;
use crate::provider::{
    Acted, ErrorCode, LogSink, Logs, Observation, ProviderError, ProviderErrorKind,
};

/// Handle of a restart whose machine was seen to be off.
pub(super) const SEEN_OFF: &str = "seen-off";

/// How far a restart has come.
#[derive(Debug, Clone)]
enum Progress {
    /// The machine is being switched off.
    Stopping,
    /// It is off, and being switched on.
    Off,
    /// It is on again.
    Done(String),
    Failed(ProviderError),
}

/// What a restart has printed and no call has passed on yet: calls end while it continues.
#[derive(Debug, Default)]
struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, _: LogStream, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }
}

impl Lines {
    fn pass_on(&self, logs: &Logs) {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        lines.iter().for_each(|line| say(logs, line));
    }
}

#[derive(Debug, Clone)]
struct Operation {
    id: OperationId,
    progress: watch::Receiver<Progress>,
    lines: Arc<Lines>,
    task: AbortHandle,
}

impl Operation {
    /// Whether it is this one. One that a new owner has ended says nothing any more: the state decides.
    fn is(&self, id: &OperationId) -> bool {
        let is_fenced = matches!(
            &*self.progress.borrow(),
            Progress::Failed(error) if matches!(error.kind, ProviderErrorKind::Fenced { .. })
        );
        self.id == *id && !is_fenced
    }
}

/// The restarts of this process: of each machine the latest.
#[derive(Debug, Default)]
pub(super) struct Restarts(Mutex<HashMap<MachineId, Operation>>);

impl Drop for Restarts {
    fn drop(&mut self) {
        let operations = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        operations.values().for_each(|operation| operation.task.abort());
    }
}

impl Restarts {
    /// This operation, if it is known here.
    fn known(&self, machine: &MachineId, id: &OperationId) -> Option<Operation> {
        let operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        operations.get(machine).filter(|known| known.is(id)).cloned()
    }

    /// Starts it, unless it was started before: the same operation never acts twice. An earlier one of the machine ends.
    fn start(
        &self,
        ticket: Ticket,
        id: &OperationId,
        remote: Remote,
        is_graceful: bool,
    ) -> Operation {
        let mut operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = operations.get(&ticket.machine).filter(|known| known.is(id)) {
            return known.clone();
        }
        let (send, progress) = watch::channel(Progress::Stopping);
        let machine = ticket.machine.clone();
        let lines = Arc::new(Lines::default());
        let logs: Logs = lines.clone();
        let task = tokio::spawn(async move {
            let end = match restart(&remote, &ticket, is_graceful, &logs, &send).await {
                Ok(evidence) => Progress::Done(evidence),
                Err(error) => Progress::Failed(error),
            };
            send.send_replace(end);
        });
        let operation = Operation { id: id.clone(), progress, lines, task: task.abort_handle() };
        if let Some(before) = operations.insert(machine, operation.clone()) {
            before.task.abort();
        }
        operation
    }

    /// Restarts the machine.
    pub(super) async fn act(
        &self,
        ticket: Ticket,
        id: &OperationId,
        remote: Remote,
        is_graceful: bool,
        logs: &Logs,
    ) -> Result<Acted, ProviderError> {
        let (clock, poll) = (remote.bmc.clock.clone(), remote.bmc.settings.poll);
        let Operation { mut progress, lines, .. } = self.start(ticket, id, remote, is_graceful);
        let come = loop {
            let come = tokio::select! {
                biased;
                come = progress.wait_for(|now| !matches!(now, Progress::Stopping)) => {
                    // Its task has ended without a word: another operation has taken its place.
                    Some(come.map_or_else(|_| Progress::Failed(superseded()), |now| now.clone()))
                }
                () = clock.sleep(poll) => None,
            };
            lines.pass_on(logs);
            if let Some(come) = come {
                break come;
            }
        };
        match come {
            Progress::Stopping | Progress::Off => {
                Ok(Acted::Accepted { handle: SEEN_OFF.to_owned(), poll_at: clock.now().plus(poll) })
            }
            Progress::Done(evidence) => Ok(Acted::Done { evidence, output: Values::new() }),
            Progress::Failed(error) => Err(error),
        }
    }

    /// Whether it was carried out.
    pub(super) async fn observe(
        &self,
        machine: &MachineId,
        id: &OperationId,
        handle: Option<&str>,
        remote: &Remote,
        logs: &Logs,
    ) -> Result<Observation, ProviderError> {
        let poll_at = remote.bmc.clock.now().plus(remote.bmc.settings.poll);
        if let Some(Operation { progress, lines, .. }) = self.known(machine, id) {
            let is_lost = progress.has_changed().is_err();
            let now = progress.borrow().clone();
            lines.pass_on(logs);
            return match now {
                Progress::Stopping | Progress::Off if is_lost => {
                    self.look(id, handle, remote).await
                }
                Progress::Stopping | Progress::Off => Ok(Observation::InProgress { poll_at }),
                Progress::Done(evidence) => {
                    Ok(Observation::Done { evidence, output: Values::new() })
                }
                Progress::Failed(error) => match error.kind {
                    ProviderErrorKind::Class(ErrorClass::Transient) => {
                        Ok(Observation::NotDone { observed: error.message })
                    }
                    ProviderErrorKind::Class(ErrorClass::OutcomeUnknown) => {
                        Ok(Observation::Unknowable { why: error.message })
                    }
                    ProviderErrorKind::Class(ErrorClass::Permanent | ErrorClass::NeedsHuman)
                    | ProviderErrorKind::Fenced { .. } => Err(error),
                },
            };
        }
        self.look(id, handle, remote).await
    }

    /// What the machine itself shows.
    async fn look(
        &self,
        id: &OperationId,
        handle: Option<&str>,
        remote: &Remote,
    ) -> Result<Observation, ProviderError> {
        let system = remote.system(remote.looking(Some(id.as_str()))).await?;
        let seen_off = handle == Some(SEEN_OFF);
        let power = system.power_text();
        Ok(match system.power() {
            "On" if seen_off => Observation::Done {
                evidence: format!("{power}, and it was off during this operation"),
                output: Values::new(),
            },
            "Off" if seen_off => Observation::NotDone {
                observed: format!("{power}: it was switched off and not on again"),
            },
            "Off" => Observation::NotDone { observed: power },
            _ => Observation::Unknowable {
                why: format!("{power}; whether it was restarted cannot be seen"),
            },
        })
    }
}

fn superseded() -> ProviderError {
    let message = "a later operation on the machine has taken the place of this one";
    ProviderError::new(ErrorClass::OutcomeUnknown, ErrorCode::Stopped, message)
}

async fn restart(
    remote: &Remote,
    ticket: &Ticket,
    is_graceful: bool,
    logs: &Logs,
    progress: &watch::Sender<Progress>,
) -> Result<String, ProviderError> {
    let settings = remote.bmc.settings.clone();
    let asking = ticket.asking();
    let system = remote.system(asking).await?;
    if system.power() == "Off" {
        say(logs, "the machine is off already");
    } else {
        let is_down = is_graceful && shut_down(remote, ticket, &system, logs).await?;
        if !is_down {
            let sent = remote.reset(ticket, &system, &["ForceOff"], logs).await?;
            let waited =
                remote.until_power(asking, "Off", settings.power, Duration::ZERO, logs).await?;
            if let Waited::Missed { seen } = waited {
                return Err(remote.missed(asking, sent, "power Off", &seen).await);
            }
        }
    }
    say(logs, "the machine is off");
    // It may come on by itself, from a restart that someone asked for before: then it has been restarted.
    let stays = remote.until_power(asking, "Off", Duration::ZERO, settings.settle, logs).await?;
    progress.send_replace(Progress::Off);
    let system = remote.system(asking).await?;
    match stays {
        Waited::Missed { .. } if system.power() == "On" => {
            say(logs, "the machine came on by itself");
        }
        Waited::Held | Waited::Missed { .. } => {
            let sent = remote.reset(ticket, &system, &["On", "ForceOn"], logs).await?;
            let waited =
                remote.until_power(asking, "On", settings.power, Duration::ZERO, logs).await?;
            if let Waited::Missed { seen } = waited {
                return Err(remote.missed(asking, sent, "power On", &seen).await);
            }
        }
    }
    say(logs, "the machine is on");
    Ok("power On, after it was seen Off".to_owned())
}

/// Asks the operating system to shut down. `false` if it did not in time, or cannot be asked.
async fn shut_down(
    remote: &Remote,
    ticket: &Ticket,
    system: &System,
    logs: &Logs,
) -> Result<bool, ProviderError> {
    let asking = ticket.asking();
    let asked = remote.reset(ticket, system, &["GracefulShutdown"], logs).await;
    match asked {
        Ok(_) => {}
        Err(error) if error.code == ErrorCode::Unsupported => {
            say(logs, &format!("no graceful shutdown: {error}"));
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let graceful = remote.bmc.settings.graceful;
    let waited = remote.until_power(asking, "Off", graceful, Duration::ZERO, logs).await?;
    if let Waited::Missed { seen } = waited {
        let seconds = graceful.as_secs();
        say(logs, &format!("no shutdown within {seconds} s ({seen}): the power is cut"));
        return Ok(false);
    }
    Ok(true)
}
