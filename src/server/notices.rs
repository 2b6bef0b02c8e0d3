//! One log line for each run that fails, is canceled, is held or takes too long, and for each machine that comes to
//! need an operator. A server whose runs fail must not be silent.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::executor::waiting::is_overdue;
use crate::executor::{Engine, EngineError};
use crate::ids::{MachineId, RunId};
use crate::model::{Change, ConditionKind, EntryKind, Machine, Run};
use crate::store::{Committed, Listener, Query, StoreError};
use crate::text::escaped;

/// Time between two checks for attempts that take too long.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Most active runs that one check reads.
const ACTIVE_RUNS_MAX: usize = 10_000;
const PAGE: usize = 500;

/// Something for the log.
#[derive(Debug)]
enum Notice {
    Run {
        run: Arc<Run>,
        what: &'static str,
        /// What the history says of it, with the reason that was given.
        entry: String,
    },
    Machine(Arc<Machine>),
}

/// Listens to commits and passes on what belongs into the log, so that no commit waits for the log.
pub(super) struct Notices(UnboundedSender<Notice>);

/// Notices that are not logged yet.
pub(super) struct Noticed(UnboundedReceiver<Notice>);

/// The two ends.
pub(super) fn notices() -> (Notices, Noticed) {
    let (sender, receiver) = unbounded_channel();
    (Notices(sender), Noticed(receiver))
}

impl Listener for Notices {
    fn committed(&self, committed: &Arc<Committed>) {
        let mut named: Vec<&MachineId> = Vec::new();
        let runs = committed.changes.iter().filter_map(|change| Some((change, change.after()?)));
        for (change, run) in runs {
            let run: &Arc<Run> = run;
            let troubles =
                change.entries.iter().filter_map(|entry| Some((entry, trouble(entry.kind)?)));
            for (entry, what) in troubles {
                named.push(&run.machine_id);
                // The log has ended with the server: there is nowhere to log to.
                let entry = if entry.reason.is_empty() {
                    entry.message.to_string()
                } else {
                    format!("{}: {}", entry.message, entry.reason)
                };
                drop(self.0.send(Notice::Run { run: run.clone(), what, entry }));
            }
        }
        for machine in committed.changes.iter().filter_map(newly_in_need) {
            if !named.contains(&&machine.id) {
                drop(self.0.send(Notice::Machine(machine.clone())));
            }
        }
    }
}

/// The message for an entry of a run's history; `None` for what goes as it should.
fn trouble(kind: EntryKind) -> Option<&'static str> {
    match kind {
        EntryKind::RunFailed => Some("a run failed"),
        EntryKind::RunCanceled => Some("a run was canceled"),
        EntryKind::RunAborted => Some("a run was aborted"),
        EntryKind::RunHeld => Some("a run is held"),
        EntryKind::RunCancelRequested => Some("a cancel was requested"),
        EntryKind::RunCreated
        | EntryKind::RunStarted
        | EntryKind::RunSucceeded
        | EntryKind::RunPauseRequested
        | EntryKind::RunResumed
        | EntryKind::RunUnwinding
        | EntryKind::RunClosing
        | EntryKind::RunTimeUp
        | EntryKind::RunRecovered
        | EntryKind::StepStarted
        | EntryKind::StepOutcomeUnknown
        | EntryKind::StepSucceeded
        | EntryKind::StepFailed
        | EntryKind::StepSkipped
        | EntryKind::StepCanceled
        | EntryKind::StepRetrying
        | EntryKind::StepAccepted
        | EntryKind::StepResolved
        | EntryKind::StepAnswered
        | EntryKind::MachineRegistered
        | EntryKind::MachineUpdated
        | EntryKind::PhaseChanged
        | EntryKind::ConditionChanged
        | EntryKind::InterventionCleared
        | EntryKind::MachineDeleted => None,
    }
}

/// The machine, if the change made it need an operator.
fn newly_in_need(change: &Change) -> Option<&Arc<Machine>> {
    let images = change.images::<Machine>()?;
    let needs =
        |machine: &Arc<Machine>| machine.conditions.is_true(ConditionKind::NeedsIntervention);
    let after = images.after.as_ref().filter(|machine| needs(machine))?;
    (!images.before.as_ref().is_some_and(needs)).then_some(after)
}

impl Noticed {
    /// Logs the notices, until the store is gone.
    pub(super) async fn log(mut self) {
        while let Some(notice) = self.0.recv().await {
            match notice {
                Notice::Run { run, what, entry } => log_run(&run, what, &entry),
                Notice::Machine(machine) => log_machine(&machine),
            }
        }
    }
}

fn log_run(run: &Run, what: &'static str, entry: &str) {
    let step = run.current_step.and_then(|place| run.steps.get(place));
    let step = step.map_or("", |step| step.name.as_str());
    let (reason, why) = match (&run.error, &run.hold) {
        (_, Some(hold)) => (hold.reason.as_str(), hold.message.as_str()),
        (Some(error), None) => (error.code.as_str(), error.message.as_str()),
        (None, None) => ("", entry),
    };
    tracing::warn!(
        run_id = %run.id,
        machine_id = %run.machine_id,
        plan = %run.spec.plan_id,
        step = %escaped(step),
        reason,
        why = %escaped(why),
        "{what}"
    );
}

fn log_machine(machine: &Machine) {
    let Some(condition) = machine.conditions.get(ConditionKind::NeedsIntervention) else { return };
    tracing::warn!(
        machine_id = %machine.id,
        reason = %escaped(&condition.reason),
        why = %escaped(&condition.message),
        "a machine needs intervention"
    );
}

/// Logs once for each attempt that takes longer than its plan expects, as long as the engine runs.
pub(super) async fn log_overdue(engine: Engine) {
    let mut said = HashSet::new();
    loop {
        engine.clock().sleep(LOOK_EVERY).await;
        match overdue(&engine).await {
            Ok(found) => {
                for attempt in found.iter().filter(|attempt| !said.contains(*attempt)) {
                    tracing::warn!(
                        run_id = %attempt.run_id,
                        machine_id = %attempt.machine_id,
                        step = %escaped(&attempt.step),
                        attempt = attempt.number,
                        "a step takes longer than its plan expects"
                    );
                }
                said = found;
            }
            Err(error) => tracing::debug!(%error, "cannot look for steps that take too long"),
        }
    }
}

/// An attempt of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attempt {
    run_id: RunId,
    machine_id: MachineId,
    step: String,
    number: u32,
}

async fn overdue(engine: &Engine) -> Result<HashSet<Attempt>, EngineError> {
    let now = engine.clock().now();
    let (mut found, mut after, mut seen) = (HashSet::new(), None, 0);
    loop {
        let query = Query { after, limit: PAGE, active_only: true, ..Query::default() };
        let page = engine.store().runs(query).await?;
        for run in &page.items {
            let Some(place) = run.current_step else { continue };
            // The shortest expectation of all: an attempt that has just started needs no look at its plan.
            if !is_overdue(run, place, 0, now) {
                continue;
            }
            let Some(step) = run.steps.get(place) else { continue };
            let plan = match engine.pinned_plan(run).await {
                Ok(plan) => plan,
                // It blocks its machine, and no line about another run.
                Err(EngineError::Store(StoreError::Corrupt { .. })) => continue,
                Err(error) => return Err(error),
            };
            let expected = plan.step(&step.name).map(|step| step.expected_ms);
            if expected.is_some_and(|expected_ms| is_overdue(run, place, expected_ms, now)) {
                found.insert(Attempt {
                    run_id: run.id,
                    machine_id: run.machine_id.clone(),
                    step: step.name.clone(),
                    number: step.attempt,
                });
            }
        }
        seen += page.items.len();
        after = page.next;
        if after.is_none() || seen >= ACTIVE_RUNS_MAX {
            return Ok(found);
        }
    }
}
