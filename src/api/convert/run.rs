//! Runs.

use super::history::actor;
use super::{duration, etag, timestamp};
use crate::clock::Timestamp;
use crate::executor::request::{HeldBack, WaitReason};
use crate::executor::waiting::{is_overdue, lock_words, waiting};
use crate::lifecycle::run::Phase;
use crate::lifecycle::step::{self, State};
use crate::model::{Lock, Run, RunType, StepRecord};
use crate::pb;
use crate::plan::{Action, Plan, Risk, Step};

/// The message of a run. Without its plan, the fields that come from the plan are empty.
pub(in crate::api) fn run(
    run: &Run,
    plan: Option<&Plan>,
    held_back: Option<&HeldBack>,
    now: Timestamp,
) -> pb::Run {
    // What waits because it is held back is not late for it.
    let is_late = !matches!(held_back, Some(HeldBack::Locked(_)));
    let steps = (0..run.steps.len()).map(|place| step(run, place, plan, now, is_late)).collect();
    let current = run.current_step.and_then(|place| run.steps.get(place));
    pb::Run {
        run_id: run.id.to_string(),
        machine_id: run.machine_id.to_string(),
        request_id: run.spec.request_id.clone(),
        r#type: run_type(run.spec.run_type).into(),
        plan_id: run.spec.plan_id.clone(),
        phase: phase(run.phase()).into(),
        steps,
        current_step: current.map(|step| step.name.clone()).unwrap_or_default(),
        error: run.error.as_ref().map(|error| pb::RunError {
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            retryable: error.retryable,
            step: error.step.clone(),
        }),
        created_at: Some(timestamp(run.created_at)),
        started_at: run.started_at.map(timestamp),
        finished_at: run.finished_at.map(timestamp),
        plan_digest: run.spec.plan_digest.clone(),
        parameters: run.spec.parameters.clone(),
        waiting: waits_for(run, plan, held_back),
        cancel_requested: run.cancel_requested_at.is_some(),
        pause_requested: run.state == crate::lifecycle::run::State::Pausing,
        compensating: matches!(run.state, crate::lifecycle::run::State::Unwinding { .. }),
        retry_of: run.spec.retry_of.map(|id| id.to_string()).unwrap_or_default(),
        requested_by: Some(actor(&run.spec.requested_by)),
        forced: run.spec.forced,
        etag: etag(run.revision),
        revision: run.revision.0,
        reason: run.spec.reason.clone(),
        labels: run.spec.labels.clone().unwrap_or_default(),
    }
}

fn waits_for(run: &Run, plan: Option<&Plan>, held_back: Option<&HeldBack>) -> Option<pb::Waiting> {
    let waiting = waiting(run, held_back)?;
    let step = waiting.step.and_then(|place| Some((place, run.steps.get(place)?)));
    let attempt = step.map_or(0, |(_, step)| step.attempt);
    let attempts_max =
        step.map_or(0, |(place, step)| declared(run, place, plan).attempts_max(step));
    Some(pb::Waiting {
        reason: wait_reason(waiting.reason).into(),
        message: waiting.message,
        since: Some(timestamp(waiting.since)),
        next_wake_at: waiting.next_wake_at.map(timestamp),
        attempt: number(attempt),
        max_attempts: number(attempts_max),
        deadline_at: step.and_then(|(_, step)| step.deadline_at).map(timestamp),
    })
}

/// What a run would wait for that is not started because everything is stopped.
pub(in crate::api) fn stopped(stop: &Lock) -> pb::Waiting {
    pb::Waiting {
        reason: pb::WaitReason::Stopped.into(),
        message: lock_words(stop),
        since: Some(timestamp(stop.at)),
        ..Default::default()
    }
}

/// What the plan declares about a step of a run.
struct Declared<'a> {
    step: Option<&'a Step>,
    action: Option<&'a Action>,
    undoes: Option<&'a StepRecord>,
}

fn declared<'a>(run: &'a Run, place: usize, plan: Option<&'a Plan>) -> Declared<'a> {
    let record = run.steps.get(place);
    let undoes = record.and_then(|record| record.compensates).and_then(|at| run.steps.get(at));
    let name = undoes.or(record).map(|record| record.name.as_str());
    let step = plan.zip(name).and_then(|(plan, name)| plan.step(name));
    let action = match undoes {
        Some(_) => step.and_then(|step| step.compensation.as_ref()).map(|undo| &undo.action),
        None => step.map(|step| &step.action),
    };
    Declared { step, action, undoes }
}

impl Declared<'_> {
    /// Most attempts: those of the plan, plus one for each interrupted attempt that is not counted.
    fn attempts_max(&self, record: &StepRecord) -> u32 {
        self.step.map_or(0, |step| step.retry.max_attempts.saturating_add(record.interrupted))
    }

    fn risk(&self) -> Risk {
        self.action.map_or(Risk::None, |action| action.traits.risk)
    }

    /// When the plan runs it; empty for a compensation.
    fn role(&self) -> &'static str {
        let step = self.step.filter(|_| self.undoes.is_none());
        step.map_or("", |step| step.role.as_str())
    }

    fn expected_ms(&self) -> Option<u64> {
        match self.undoes {
            Some(_) => Some(self.step?.compensation.as_ref()?.expected_ms),
            None => Some(self.step?.expected_ms),
        }
    }
}

fn step(
    run: &Run,
    place: usize,
    plan: Option<&Plan>,
    now: Timestamp,
    is_late: bool,
) -> pb::StepStatus {
    let record = &run.steps[place];
    let declared = declared(run, place, plan);
    let expected_ms = declared.expected_ms();
    let overdue =
        is_late && expected_ms.is_some_and(|expected_ms| is_overdue(run, place, expected_ms, now));
    let running = record.state.phase() == step::Phase::Running;
    pb::StepStatus {
        name: record.name.clone(),
        state: step_state(record.state.phase()).into(),
        attempt: number(record.attempt),
        started_at: record.started_at.map(timestamp),
        finished_at: record.finished_at.map(timestamp),
        message: record.message.clone(),
        max_attempts: number(declared.attempts_max(record)),
        activity: activity(record.state, declared.action).into(),
        deadline_at: record.deadline_at.filter(|_| running).map(timestamp),
        next_wake_at: wakes_at(record.state).map(timestamp),
        expected_duration: expected_ms.map(duration),
        overdue,
        action: declared.action.map_or_else(String::new, |action| action.name.to_string()),
        destructive: declared.risk().is_destructive(),
        expected: record.expected.clone(),
        observed: record.observed.clone(),
        compensates: declared.undoes.map(|undone| undone.name.clone()).unwrap_or_default(),
        operation_id: record.operation.as_ref().map(ToString::to_string).unwrap_or_default(),
        risk: risk(declared.risk()).into(),
        role: declared.role().to_owned(),
    }
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn activity(state: State, action: Option<&Action>) -> pb::StepActivity {
    match state {
        State::Polling { .. } if action.is_some_and(Action::asks) => pb::StepActivity::Asking,
        State::Polling { .. } if action.is_some_and(Action::is_own) => pb::StepActivity::Waiting,
        State::Observing { .. } => pb::StepActivity::Observing,
        State::Acting { .. } => pb::StepActivity::Acting,
        State::Polling { .. } => pb::StepActivity::Polling,
        State::Verifying { .. } => pb::StepActivity::Verifying,
        State::BackingOff { .. } => pb::StepActivity::BackingOff,
        State::Unknown { .. } => pb::StepActivity::Unknown,
        State::Waiting | State::Succeeded | State::Failed | State::Skipped | State::Canceled => {
            pb::StepActivity::Unspecified
        }
    }
}

fn wakes_at(state: State) -> Option<Timestamp> {
    match state {
        State::Polling { until, .. } | State::BackingOff { until, .. } => Some(until),
        State::Waiting
        | State::Observing { .. }
        | State::Acting { .. }
        | State::Verifying { .. }
        | State::Unknown { .. }
        | State::Succeeded
        | State::Failed
        | State::Skipped
        | State::Canceled => None,
    }
}

fn phase(phase: Phase) -> pb::RunPhase {
    match phase {
        Phase::Pending => pb::RunPhase::Pending,
        Phase::Running => pb::RunPhase::Running,
        Phase::Succeeded => pb::RunPhase::Succeeded,
        Phase::Failed => pb::RunPhase::Failed,
        Phase::Canceled => pb::RunPhase::Canceled,
    }
}

fn step_state(phase: step::Phase) -> pb::StepState {
    match phase {
        step::Phase::Waiting => pb::StepState::Waiting,
        step::Phase::Running => pb::StepState::Running,
        step::Phase::Succeeded => pb::StepState::Succeeded,
        step::Phase::Failed => pb::StepState::Failed,
        step::Phase::Skipped => pb::StepState::Skipped,
        step::Phase::Canceled => pb::StepState::Canceled,
    }
}

fn wait_reason(reason: WaitReason) -> pb::WaitReason {
    match reason {
        WaitReason::Capacity => pb::WaitReason::Capacity,
        WaitReason::Backoff => pb::WaitReason::Backoff,
        WaitReason::Provider => pb::WaitReason::Provider,
        WaitReason::Paused => pb::WaitReason::Paused,
        WaitReason::OutcomeUnknown => pb::WaitReason::OutcomeUnknown,
        WaitReason::LoopBreaker => pb::WaitReason::LoopBreaker,
        WaitReason::Restored => pb::WaitReason::Restored,
        WaitReason::EngineFault => pb::WaitReason::EngineFault,
        WaitReason::Recovery => pb::WaitReason::Recovery,
        WaitReason::Approval => pb::WaitReason::Approval,
        WaitReason::WrongHardware => pb::WaitReason::WrongHardware,
        WaitReason::Step => pb::WaitReason::Step,
        WaitReason::Stopped => pb::WaitReason::Stopped,
        WaitReason::Locked => pb::WaitReason::Locked,
        WaitReason::PlanPaused => pb::WaitReason::PlanPaused,
    }
}

/// The message value of a risk.
pub(in crate::api) fn risk(risk: Risk) -> pb::Risk {
    match risk {
        Risk::None => pb::Risk::None,
        Risk::Disruptive => pb::Risk::Disruptive,
        Risk::DataDestroying => pb::Risk::DataDestroying,
    }
}

/// The message value of a run type.
pub(in crate::api) fn run_type(kind: RunType) -> pb::RunType {
    match kind {
        RunType::Repave => pb::RunType::Repave,
        RunType::Rma => pb::RunType::Rma,
        RunType::Reboot => pb::RunType::Reboot,
        RunType::Upgrade => pb::RunType::Upgrade,
        RunType::NetReconfig => pb::RunType::NetReconfig,
        RunType::Custom => pb::RunType::Custom,
    }
}

/// The run type of a message value; `None` for the unspecified one.
pub(in crate::api) fn run_type_given(kind: pb::RunType) -> Option<RunType> {
    match kind {
        pb::RunType::Unspecified => None,
        pb::RunType::Repave => Some(RunType::Repave),
        pb::RunType::Rma => Some(RunType::Rma),
        pb::RunType::Reboot => Some(RunType::Reboot),
        pb::RunType::Upgrade => Some(RunType::Upgrade),
        pb::RunType::NetReconfig => Some(RunType::NetReconfig),
        pb::RunType::Custom => Some(RunType::Custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_names_are_the_names_behind_a_prefix() {
        for value in RunType::ALL {
            let message = run_type(value);
            assert_eq!(message.as_str_name(), format!("RUN_TYPE_{}", value.as_str()));
            assert_eq!(run_type_given(message), Some(value));
        }
        for value in Phase::ALL {
            assert_eq!(phase(value).as_str_name(), format!("RUN_PHASE_{value}"));
        }
        for value in step::Phase::ALL {
            let name = step_state(value).as_str_name();
            assert_eq!(name, format!("STEP_STATE_{}", value.as_str()));
        }
    }
}
