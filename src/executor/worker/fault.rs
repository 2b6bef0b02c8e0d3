//! Runs that cannot be driven: their records cannot be read, or the engine fails at them. They wait for an operator,
//! their machine reports it, and everything else continues.

use super::checks::FAULTS_MAX;
use super::state::Worker;
use crate::executor::decide::Draft;
use crate::executor::error::EngineError;
use crate::executor::request::Origin;
use crate::ids::RunId;
use crate::model::machine::{Condition, REASON_RECORD_UNREADABLE};
use crate::model::{Actor, ConditionKind, Entry, EntryKind};

impl Worker {
    /// Blocks the machine of an active run whose record or plan cannot be read.
    pub(super) async fn quarantine(&mut self, run_id: RunId, why: &EngineError) {
        tracing::error!(machine = %self.id, run = %run_id, error = %describe(why), "an active run cannot be driven; its machine is blocked");
        self.forget();
        let message = format!("run {run_id} cannot be driven: {}", describe(why));
        let now = self.now();
        let origin = Origin::engine();
        let written = self
            .write_machine(&origin, "", |machine, entries| {
                let needed = machine.conditions.get(ConditionKind::NeedsIntervention);
                if needed.is_some_and(|c| c.status && c.reason == REASON_RECORD_UNREADABLE) {
                    return Ok(());
                }
                entries.push(
                    Entry::new(EntryKind::ConditionChanged, Actor::engine())
                        .moved(
                            needed.map_or("unknown", |c| if c.status { "true" } else { "false" }),
                            "true",
                        )
                        .reason(REASON_RECORD_UNREADABLE)
                        .message(format!("NeedsIntervention is true: {message}")),
                );
                machine.conditions.set(
                    ConditionKind::NeedsIntervention,
                    Condition {
                        status: true,
                        reason: REASON_RECORD_UNREADABLE.to_owned(),
                        message: message.clone(),
                        last_transition_at: now,
                        observed_by: "engine".to_owned(),
                        plan_id: String::new(),
                    },
                );
                Ok(())
            })
            .await;
        if let Err(error) = written {
            tracing::error!(machine = %self.id, %error, "the machine could not be marked");
        }
        self.relinquish(run_id);
    }

    /// Gives up the active run: it is held for an operator, or ended if it cannot be held.
    pub(super) async fn give_up(&mut self, why: &str) {
        let Some(run_id) = self.active.as_ref().map(|active| active.run.id) else { return };
        tracing::error!(machine = %self.id, run = %run_id, why, "the engine gives up the run");
        for _ in 0..FAULTS_MAX {
            let Some(decision) = self.decide(|draft: &mut Draft, facts| draft.give_up(why, facts))
            else {
                return;
            };
            match self.conclude(decision).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if error.may_pass() => self.wait_for_store(&error).await,
                Err(error) => {
                    tracing::error!(machine = %self.id, run = %run_id, %error, "the run could not be held");
                }
            }
        }
        self.relinquish(run_id);
    }
}

/// An error with its causes.
fn describe(error: &EngineError) -> String {
    if let EngineError::Store(source) = error { source.to_string() } else { error.to_string() }
}
