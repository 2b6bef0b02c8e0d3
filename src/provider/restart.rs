//! A restart by power off and on, whatever switches the power.
//!
//! A controller's own restart cannot be distinguished from none: the state is on before and after. So the power is switched off
//! first. Once the machine is off the operation is *accepted*, under a handle that the engine stores: from then on a machine
//! that is on again has been restarted, whichever server looks. The rest runs beside the engine's calls, in this process; after a
//! crash a machine that is off was not switched on again, and the next attempt does that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Acted, ErrorCode, LogSink, Logs, Observation, ProviderError, ProviderErrorKind};
use crate::clock::Clock;
use crate::ids::{MachineId, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::model::{LogStream, Power};
use crate::plan::Values;

/// Handle of a restart whose machine was seen to be off.
const SEEN_OFF: &str = "seen-off";

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

/// Says that the machine was seen to be off.
#[derive(Debug, Clone)]
pub(super) struct SeenOff(Arc<watch::Sender<Progress>>);

impl SeenOff {
    /// It is off now.
    pub(super) fn now(&self) {
        self.0.send_replace(Progress::Off);
    }
}

/// How often a restart is looked at.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// Time.
    pub(super) clock: Arc<dyn Clock>,
    /// Time between two looks.
    pub(super) poll: Duration,
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
        lines.iter().for_each(|line| logs.line(LogStream::Stdout, line));
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
    fn start<F>(
        &self,
        machine: &MachineId,
        id: &OperationId,
        restart: impl FnOnce(Logs, SeenOff) -> F,
    ) -> Operation
    where
        F: Future<Output = Result<String, ProviderError>> + Send + 'static,
    {
        let mut operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = operations.get(machine).filter(|known| known.is(id)) {
            return known.clone();
        }
        let (send, progress) = watch::channel(Progress::Stopping);
        let seen_off = SeenOff(Arc::new(send));
        let lines = Arc::new(Lines::default());
        let work = restart(lines.clone(), seen_off.clone());
        let task = tokio::spawn(async move {
            let end = match work.await {
                Ok(evidence) => Progress::Done(evidence),
                Err(error) => Progress::Failed(error),
            };
            seen_off.0.send_replace(end);
        });
        let operation = Operation { id: id.clone(), progress, lines, task: task.abort_handle() };
        if let Some(before) = operations.insert(machine.clone(), operation.clone()) {
            before.task.abort();
        }
        operation
    }

    /// Restarts the machine by the work that `restart` makes.
    pub(super) async fn act<F>(
        &self,
        machine: &MachineId,
        id: &OperationId,
        pace: &Pace,
        logs: &Logs,
        restart: impl FnOnce(Logs, SeenOff) -> F,
    ) -> Result<Acted, ProviderError>
    where
        F: Future<Output = Result<String, ProviderError>> + Send + 'static,
    {
        let Operation { mut progress, lines, .. } = self.start(machine, id, restart);
        let come = loop {
            let come = tokio::select! {
                biased;
                come = progress.wait_for(|now| !matches!(now, Progress::Stopping)) => {
                    // Its task has ended without a word: another operation has taken its place.
                    Some(come.map_or_else(|_| Progress::Failed(superseded()), |now| now.clone()))
                }
                () = pace.clock.sleep(pace.poll) => None,
            };
            lines.pass_on(logs);
            if let Some(come) = come {
                break come;
            }
        };
        match come {
            Progress::Stopping | Progress::Off => Ok(Acted::Accepted {
                handle: SEEN_OFF.to_owned(),
                poll_at: pace.clock.now().plus(pace.poll),
            }),
            Progress::Done(evidence) => Ok(Acted::Done { evidence, output: Values::new() }),
            Progress::Failed(error) => Err(error),
        }
    }

    /// Whether it was carried out. `look` reads the power state, with words for it.
    pub(super) async fn observe(
        &self,
        machine: &MachineId,
        id: &OperationId,
        handle: Option<&str>,
        pace: &Pace,
        logs: &Logs,
        look: impl Future<Output = Result<(Power, String), ProviderError>>,
    ) -> Result<Observation, ProviderError> {
        let poll_at = pace.clock.now().plus(pace.poll);
        if let Some(Operation { progress, lines, .. }) = self.known(machine, id) {
            let is_lost = progress.has_changed().is_err();
            let now = progress.borrow().clone();
            lines.pass_on(logs);
            return match now {
                Progress::Stopping | Progress::Off if is_lost => {
                    look.await.map(|it| seen(it, handle))
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
        look.await.map(|it| seen(it, handle))
    }
}

/// What the machine itself shows.
fn seen((power, text): (Power, String), handle: Option<&str>) -> Observation {
    match (power, handle == Some(SEEN_OFF)) {
        (Power::On, true) => Observation::Done {
            evidence: format!("{text}, and it was off during this operation"),
            output: Values::new(),
        },
        (Power::Off, true) => Observation::NotDone {
            observed: format!("{text}: it was switched off and not on again"),
        },
        (Power::Off, false) => Observation::NotDone { observed: text },
        (Power::On | Power::Unknown, _) => Observation::Unknowable {
            why: format!("{text}; whether it was restarted cannot be seen"),
        },
    }
}

fn superseded() -> ProviderError {
    let message = "a later operation on the machine has taken the place of this one";
    ProviderError::new(ErrorClass::OutcomeUnknown, ErrorCode::Stopped, message)
}
