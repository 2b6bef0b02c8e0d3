//! Runs that a stop, a lock or a pause of their plan holds back.

use std::sync::Arc;

use super::message::Message;
use super::state::Worker;
use crate::executor::decide::has_destroyed;
use crate::executor::planted::Planted;
use crate::lifecycle::run;
use crate::lifecycle::step::{Basis, State};
use crate::model::{Actor, Lock, LockTarget, Run};
use crate::plan::Risk;
use crate::store::LockMove;

impl Worker {
    /// Has the run woken when nothing holds it back any more; at once, if that has changed since it was decided.
    pub(super) fn hold_back(&self, run: &Run, as_of: u64) {
        let Some(machine) = &self.machine else { return };
        if !self.ports.brakes.hold(run, machine, as_of, self.now()) {
            drop(self.own.send(Message::Released { run_id: run.id }));
        }
    }

    /// Nothing may hold the run back any more.
    pub(super) async fn released(&mut self, run_id: crate::ids::RunId) {
        let Some(active) = self.active.as_ref().filter(|active| active.run.id == run_id) else {
            return;
        };
        let idle = active.call.is_none();
        self.drive(move |draft, facts| draft.go_on(idle, facts)).await;
    }

    /// Whether an action that was decided before must not be sent now, since everything was stopped meanwhile. Then
    /// its step only looks again when it may continue.
    pub(super) fn comes_too_late(&mut self, place: usize) -> bool {
        let Some(machine) = &self.machine else { return false };
        if !self.ports.brakes.is_on(machine, self.now()) {
            return false;
        }
        self.put_off(place);
        true
    }

    /// An action was not begun: its step only looks again when it may continue.
    pub(super) fn put_off(&mut self, place: usize) {
        let now = self.now();
        let (Some(active), Some(machine)) = (&mut self.active, &self.machine) else { return };
        let (_, as_of) = self.ports.brakes.braking(machine, &active.run, now);
        if let Some(step) = active.run.steps.get(place)
            && let State::Acting { attempt } = step.state
        {
            active.run.steps[place].state = State::Observing { attempt, basis: Basis::Fresh };
        }
        let run = active.run.clone();
        self.hold_back(&run, as_of);
    }

    /// What the end of a run that destroys data says of its plan; `None` if it says nothing.
    pub(super) fn tally(&self, run: &Run) -> Option<LockMove> {
        let active = self.active.as_ref()?;
        let most = self.ports.limits.pause_plan_after;
        let uncounted = self.ports.planted == Some(Planted::FailuresUncounted);
        // As the loop breaker does.
        let is_real = active.provider.as_ref().is_some_and(|provider| provider.is_real());
        let counts = self.ports.limits.destructive_on_simulated || is_real;
        if most == 0
            || uncounted
            || !counts
            || run.state.is_active()
            || active.plan.risk() != Risk::DataDestroying
        {
            return None;
        }
        let failed = match run.phase() {
            run::Phase::Succeeded => false,
            run::Phase::Failed if has_destroyed(&active.plan, run) => true,
            run::Phase::Failed
            | run::Phase::Canceled
            | run::Phase::Pending
            | run::Phase::Running => return None,
        };
        let (digest, plan_id) = (run.spec.plan_digest.clone(), run.spec.plan_id.clone());
        let target = LockTarget::Plan { digest: digest.clone(), plan_id };
        let pause = Lock {
            // Drawn only when it may be needed.
            id: if failed { self.ports.lock_id(&target) } else { String::new() },
            target,
            reason: format!(
                "{most} of its runs in a row have failed after they had begun to destroy data, the last one on {}: \
                 run {}",
                self.id, run.id
            ),
            by: Actor::engine(),
            at: self.now(),
            until: None,
            lifted_at: None,
        };
        Some(LockMove::Tally { digest, failed, most, pause: Arc::new(pause) })
    }
}
