//! Effects of a run on its machine's conditions: what steps set, what undoing a step restores, and what remains when
//! a run ends without success.

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
    /// Sets the conditions of a successful step (plan, `sets`), and keeps their previous values.
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

    /// A step was undone: conditions that it set get their previous values, unless a later step that is not undone
    /// has set them since; then the compensation's own are set (plan, `compensation.sets`).
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

    /// Whether a later step that is not undone has set the condition.
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

    /// The run ends without success: records what is unknown now, so that the machine is protected.
    pub(super) fn leave_behind(&mut self, facts: Facts<'_>) {
        self.count_as_serving(facts);
        self.distrust_disks(facts);
    }

    /// A machine that was in service when the run started, was taken out of service by it, and may be in service
    /// again because the outcome of the step that restores it is unknown, counts as in service: plans that refuse
    /// such machines must not be allowed on it.
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
            "whether {} of {} took effect is unknown; the machine counts as in service",
            self.run.steps[place].name, self.run.spec.plan_id
        );
        self.set(KIND, true, REASON_MAY_SERVE, message, facts);
    }

    /// Whether the success of a step puts the machine in service.
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

    /// A data-destroying step that was sent and did not succeed leaves untrusted disks.
    fn distrust_disks(&mut self, facts: Facts<'_>) {
        self.distrust(facts, |state| state != State::Succeeded);
    }

    /// The run succeeded although an operator skipped a data-destroying step of which no one knows what it did.
    pub(super) fn distrust_skipped(&mut self, facts: Facts<'_>) {
        self.distrust(facts, |state| state == State::Skipped);
    }

    fn distrust(&mut self, facts: Facts<'_>, is_left: impl Fn(State) -> bool) {
        let place = (0..self.run.steps.len()).rev().find(|&place| {
            let record = &self.run.steps[place];
            let destroys = action(facts.plan, record, place)
                .is_some_and(|action| action.traits.risk.destroys_data());
            destroys && was_sent(record) && is_left(record.state)
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

    /// The run succeeded: disks that an earlier run of its kind left untrusted are trusted again.
    pub(super) fn trust_disks(&mut self) {
        let (run_type, plan_id) = (self.run.spec.run_type, &self.run.spec.plan_id);
        let disks = self.machine.untrusted_disks.as_ref();
        if disks.is_some_and(|disks| disks.is_kind(run_type, plan_id)) {
            self.machine_mut().untrusted_disks = None;
            self.machine_changed = true;
        }
    }
}

/// Whether anything of a step was, or may have been, sent to the provider.
pub(super) fn was_sent(record: &StepRecord) -> bool {
    record.attempt > 0 && !record.unsent
}

/// Whether it is unknown if a step took effect. A failure is known: nothing took effect.
pub(super) fn is_in_doubt(record: &StepRecord) -> bool {
    was_sent(record) && matches!(record.state, State::Canceled | State::Skipped)
}
