//! Runs that the engine cannot continue: they wait for an operator, and their machine reports it.

use super::draft::{Draft, Effect, Facts};
use crate::lifecycle::run;
use crate::model::machine::{REASON_ENGINE_FAULT, REASON_RECORD_UNREADABLE};
use crate::model::{Actor, ConditionKind, HoldReason};

impl Draft {
    /// Holds the run after repeated engine failures, or ends it if it cannot be held.
    pub fn give_up(&mut self, why: &str, facts: Facts<'_>) {
        let message = format!("the engine failed at the run repeatedly: {why}");
        self.effects.push(Effect::Forget);
        if self.run_event(run::Event::Hold, facts).is_err() {
            return self.abort(&Actor::engine(), &message, facts);
        }
        let text = format!("{message}; resume run {} to try again, or abort it", self.run.id);
        let condition = self.observed(facts.now, true, REASON_ENGINE_FAULT, text.clone());
        self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        self.held(HoldReason::EngineFault, text, Actor::engine(), facts);
    }

    /// The run can be driven again, after its record or its plan could not be read.
    pub fn readable_again(&mut self, facts: Facts<'_>) {
        let needed = self.machine.conditions.get(ConditionKind::NeedsIntervention);
        if needed.is_some_and(|c| c.status && c.reason == REASON_RECORD_UNREADABLE) {
            let text = "the record is readable again".to_owned();
            let condition = self.observed(facts.now, false, "READABLE", text);
            self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        }
    }

    /// An operator resumes a run that the engine had given up.
    pub(super) fn try_again(&mut self, actor: &Actor, facts: Facts<'_>) {
        let needed = self.machine.conditions.get(ConditionKind::NeedsIntervention);
        if needed.is_some_and(|c| c.status && c.reason == REASON_ENGINE_FAULT) {
            let text = format!("resumed by {}", actor.name);
            let condition = self.observed(facts.now, false, "RESUMED", text);
            self.set_condition(ConditionKind::NeedsIntervention, condition, actor);
        }
    }
}
