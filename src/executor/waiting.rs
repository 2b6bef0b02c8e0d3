//! Why a run is not moving: computed from its record, for people and for programs. Pure.

use super::request::{HeldBack, WaitReason, Waiting};
use crate::lifecycle::run;
use crate::lifecycle::step::{Basis, State};
use crate::model::{ActorKind, HoldReason, Lock, LockTarget, Run};

/// What the run waits for; `None` while it moves or has ended. `held_back` is the scheduler's state.
#[must_use]
pub fn waiting(run: &Run, held_back: Option<&HeldBack>) -> Option<Waiting> {
    let plain = |reason, message: String, since| Waiting {
        reason,
        message,
        since,
        next_wake_at: None,
        step: run.current_step,
    };
    let capacity = match held_back {
        Some(HeldBack::Recovery) if run.state.is_active() => {
            let message = "the server was restarted and has not recovered the run yet".to_owned();
            return Some(plain(WaitReason::Recovery, message, run.created_at));
        }
        Some(HeldBack::Capacity(limit)) => Some(limit.as_str()),
        Some(HeldBack::Recovery | HeldBack::Locked(_)) | None => None,
    };
    if let Some(HeldBack::Locked(lock)) = held_back
        && may_be_held(run)
    {
        let since = lock.at.max(run.created_at);
        return Some(plain(locked(lock), lock_words(lock), since));
    }
    match run.state {
        run::State::Pending | run::State::Resuming => Some(plain(
            WaitReason::Capacity,
            capacity.unwrap_or("waiting for a slot").to_owned(),
            run.queued_at.unwrap_or(run.created_at),
        )),
        run::State::Held => {
            let hold = run.hold.as_ref()?;
            let reason = match hold.reason {
                HoldReason::Paused => WaitReason::Paused,
                HoldReason::OutcomeUnknown => WaitReason::OutcomeUnknown,
                HoldReason::LoopBreaker => WaitReason::LoopBreaker,
                HoldReason::Restored => WaitReason::Restored,
                HoldReason::EngineFault => WaitReason::EngineFault,
                HoldReason::Approval => WaitReason::Approval,
                HoldReason::WrongHardware => WaitReason::WrongHardware,
            };
            let asks = run.steps.iter().filter(|_| run.asks()).find_map(|step| step.deadline_at);
            Some(Waiting { next_wake_at: asks, ..plain(reason, hold.message.clone(), hold.since) })
        }
        run::State::Running
        | run::State::Deferred
        | run::State::Pausing
        | run::State::Canceling
        | run::State::Stopping
        | run::State::Unwinding { .. }
        | run::State::Closing { .. } => in_step(run),
        run::State::Succeeded | run::State::Failed | run::State::Canceled => None,
    }
}

/// Whether it is a lock that the run waits for: not if an operator holds it, or its provider is working.
fn may_be_held(run: &Run) -> bool {
    let works = |state| matches!(state, State::Polling { .. });
    run.state.is_active()
        && run.state != run::State::Held
        && !run.steps.iter().any(|step| works(step.state))
}

/// The reason to wait that a lock is.
#[must_use]
pub fn locked(lock: &Lock) -> WaitReason {
    match lock.target {
        LockTarget::All => WaitReason::Stopped,
        LockTarget::Machines(_) | LockTarget::Principal(_) => WaitReason::Locked,
        LockTarget::Plan { .. } => WaitReason::PlanPaused,
    }
}

/// What holds something back, who set it and why, for people.
#[must_use]
pub fn lock_words(lock: &Lock) -> String {
    let what = match &lock.target {
        LockTarget::All => "everything is stopped".to_owned(),
        LockTarget::Principal(name) => format!("{name} is locked"),
        LockTarget::Machines(labels) => {
            let all: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("machines with {} are locked", all.join(","))
        }
        LockTarget::Plan { plan_id, .. } => format!("{plan_id} is paused"),
    };
    let by = match lock.by.kind {
        ActorKind::Operator => format!(" by {}", lock.by.name),
        ActorKind::Engine | ActorKind::Probe => String::new(),
    };
    let until = lock.until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!("{what}{by}{until}: {}", lock.reason)
}

fn in_step(run: &Run) -> Option<Waiting> {
    let place = run
        .steps
        .iter()
        .position(|step| step.state != State::Waiting && !step.state.is_settled())?;
    let step = &run.steps[place];
    let since = step.attempt_at.or(step.started_at).unwrap_or(run.created_at);
    let (reason, message, until) = match step.state {
        State::BackingOff { until, basis: Basis::Fresh, .. } => (
            WaitReason::Backoff,
            format!("attempt {} of {} failed: {}", step.attempt, step.name, step.message),
            Some(until),
        ),
        State::BackingOff { until, .. } => (
            WaitReason::Backoff,
            format!("the outcome of {} cannot be determined yet: {}", step.name, step.message),
            Some(until),
        ),
        // No provider has been called.
        State::Polling { until, .. } if step.unsent => {
            // Older versions did not record what a step waits for.
            let waits = if step.message.is_empty() { "waits" } else { &step.message };
            (WaitReason::Step, format!("step {} {waits}", step.name), Some(until))
        }
        State::Polling { until, .. } => {
            (WaitReason::Provider, format!("the provider is working on {}", step.name), Some(until))
        }
        State::Waiting
        | State::Observing { .. }
        | State::Acting { .. }
        | State::Verifying { .. }
        | State::Unknown { .. }
        | State::Succeeded
        | State::Failed
        | State::Skipped
        | State::Canceled => return None,
    };
    Some(Waiting { reason, message, since, next_wake_at: until, step: Some(place) })
}

/// Whether the attempt in progress takes longer than expected, given the plan's expected duration in milliseconds.
#[must_use]
pub fn is_overdue(run: &Run, place: usize, expected_ms: u64, now: crate::clock::Timestamp) -> bool {
    let Some(step) = run.steps.get(place) else { return false };
    let open = step.state != State::Waiting && !step.state.is_settled();
    // A held run waits for an operator, not for its step.
    let moves = !matches!(run.state, run::State::Held | run::State::Resuming);
    open && moves && step.attempt_at.is_some_and(|at| at.plus_ms(expected_ms) < now)
}
