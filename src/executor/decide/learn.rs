//! What a run learns about its machine: the conditions that its steps set, what undoing a step takes back, and what is left behind
//! when a run ends without success.

use super::draft::{Draft, Facts};
use super::step::action;
use crate::executor::names;
use crate::lifecycle::step::State;
use crate::model::machine::{REASON_MAY_SERVE, REASON_STEP_UNDONE, UntrustedDisks};
use crate::model::{Actor, ConditionKind, StepRecord};
use crate::plan::Condition;

/// Reason of a condition that a step has set.
const STEP_SUCCEEDED: &str = "STEP_SUCCEEDED";

impl Draft {
    /// Sets the conditions that the step's success shows (plan, `sets`), and keeps what they were before.
    pub(super) fn learn(&mut self, place: usize, facts: Facts<'_>) {
        let Some(step) = facts.plan.steps.get(place) else { return };
        for &(name, status) in step.sets.iter() {
            let kind = names::condition(name);
            let before = self.machine.conditions.get(kind).map(|condition| condition.status);
            self.run.steps[place].set.push((kind, before));
            let message = format!("step {} of {} succeeded", step.name, self.run.spec.plan_id);
            self.set(kind, status, STEP_SUCCEEDED, message, facts);
        }
    }

    /// A step was undone: what it has set is again as it was before it, unless a later step, which stays, has set it since; then what
    /// the compensation itself says (plan, `compensation.sets`).
    pub(super) fn take_back(&mut self, undone: usize, facts: Facts<'_>) {
        let Some(step) = facts.plan.steps.get(undone) else { return };
        let said = step.compensation.as_ref().map_or(&[][..], |undo| &undo.sets);
        let message = format!("step {} of {} was undone", step.name, self.run.spec.plan_id);
        for (kind, before) in self.run.steps[undone].set.clone() {
            if said.iter().any(|(name, _)| names::condition(*name) == kind)
                || self.is_set_after(undone, kind)
            {
                continue;
            }
            match before {
                Some(status) => {
                    self.set(kind, status, REASON_STEP_UNDONE, message.clone(), facts);
                }
                None => self.unset_condition(kind, REASON_STEP_UNDONE, &message),
            }
        }
        for &(name, status) in said {
            self.set(names::condition(name), status, REASON_STEP_UNDONE, message.clone(), facts);
        }
    }

    /// Whether a step behind `place` has set a condition and was not undone.
    fn is_set_after(&self, place: usize, kind: ConditionKind) -> bool {
        let steps = &self.run.steps;
        steps.iter().enumerate().skip(place + 1).any(|(at, step)| {
            step.set.iter().any(|(set, _)| *set == kind)
                && !steps
                    .iter()
                    .any(|undo| undo.compensates == Some(at) && undo.state == State::Succeeded)
        })
    }

    fn set(
        &mut self,
        kind: ConditionKind,
        status: bool,
        reason: &str,
        message: String,
        facts: Facts<'_>,
    ) {
        let condition = self.observed(facts.now, status, reason, message);
        self.set_condition(kind, condition, &Actor::engine());
    }

    /// The run ends without success: records what is not known any more so that the machine is protected.
    pub(super) fn leave_behind(&mut self, facts: Facts<'_>) {
        self.count_as_serving(facts);
        self.distrust_disks(facts);
    }

    /// A machine that served when the run began, was taken out of service by it, and may serve again since nobody can say what became
    /// of the step that brings it back, counts as serving: it must not be open to a plan that refuses such machines.
    fn count_as_serving(&mut self, facts: Facts<'_>) {
        const KIND: ConditionKind = ConditionKind::InCustomerCluster;
        let is_false = self.machine.conditions.get(KIND).is_some_and(|known| !known.status);
        let served = |step: &StepRecord| step.set.contains(&(KIND, Some(true)));
        if !is_false || !self.run.steps.iter().any(served) {
            return;
        }
        let brings_back = (0..self.run.steps.len()).rev().find(|&place| {
            let record = &self.run.steps[place];
            is_in_doubt(record) && self.would_serve(place, facts)
        });
        let Some(place) = brings_back else { return };
        let message = format!(
            "it is not known whether {} of {} took effect; the machine counts as serving",
            self.run.steps[place].name, self.run.spec.plan_id
        );
        self.set(KIND, true, REASON_MAY_SERVE, message, facts);
    }

    /// Whether the success of a step makes the machine serve.
    fn would_serve(&self, place: usize, facts: Facts<'_>) -> bool {
        const YES: (Condition, bool) = (Condition::InCustomerCluster, true);
        match self.run.steps[place].compensates {
            None => facts.plan.steps.get(place).is_some_and(|step| step.sets.contains(&YES)),
            Some(undone) => {
                let declared =
                    facts.plan.steps.get(undone).and_then(|step| step.compensation.as_ref());
                let restores = |step: &StepRecord| {
                    step.set.contains(&(ConditionKind::InCustomerCluster, Some(true)))
                };
                declared.is_some_and(|undo| undo.sets.contains(&YES))
                    || self.run.steps.get(undone).is_some_and(restores)
            }
        }
    }

    /// A data-destroying step that was sent and did not succeed leaves disks that nobody can trust.
    fn distrust_disks(&mut self, facts: Facts<'_>) {
        let place = (0..self.run.steps.len()).rev().find(|&place| {
            let record = &self.run.steps[place];
            let destroys = action(facts.plan, record, place)
                .is_some_and(|action| action.traits.risk.destroys_data());
            destroys && was_sent(record) && record.state != State::Succeeded
        });
        let Some(place) = place else { return };
        let disks = UntrustedDisks {
            run_id: self.run.id,
            run_type: self.run.spec.run_type,
            plan_id: self.run.spec.plan_id.clone(),
            step: self.run.steps[place].name.clone(),
            at: facts.now,
        };
        self.machine_mut().untrusted_disks = Some(disks);
        self.machine_changed = true;
    }

    /// The run succeeded: disks that an earlier one of its kind has left behind are as they should be.
    pub(super) fn trust_disks(&mut self) {
        let (run_type, plan_id) = (self.run.spec.run_type, &self.run.spec.plan_id);
        let disks = self.machine.untrusted_disks.as_ref();
        if disks.is_some_and(|disks| disks.is_kind(run_type, plan_id)) {
            self.machine_mut().untrusted_disks = None;
            self.machine_changed = true;
        }
    }
}

/// Whether something of a step was sent to the provider, or may have been.
pub(super) fn was_sent(record: &StepRecord) -> bool {
    record.attempt > 0 && !record.unsent
}

/// Whether it is not known if a step took effect. A failure is known: nothing did.
fn is_in_doubt(record: &StepRecord) -> bool {
    was_sent(record) && matches!(record.state, State::Canceled | State::Skipped)
}
