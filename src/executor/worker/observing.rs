//! What hardware was seen to be: updates Reachable, Degraded and HardwareMatches.

use std::sync::Arc;

use super::state::Worker;
use crate::clock::Timestamp;
use crate::executor::error::EngineError;
use crate::executor::request::Origin;
use crate::model::identity::{self, REASON_AS_REGISTERED, Verdict};
use crate::model::machine::Condition;
use crate::model::{Actor, ActorKind, CallFacts, ConditionKind, Entry, EntryKind, Machine};
use crate::provider::Health;

/// Reason of conditions that a probe has set.
const REASON_PROBE: &str = "PROBE";

impl Worker {
    /// A probe has returned.
    pub(super) async fn probed(&mut self, health: &Health) {
        let origin = Origin {
            request_id: String::new(),
            body_digest: String::new(),
            actor: Actor { kind: ActorKind::Probe, ..Actor::engine() },
            reason: String::new(),
            expected: None,
            deadline: None,
            scope: None,
            call: CallFacts::default(),
        };
        if let Err(error) = self.learn(&origin, "", health).await {
            tracing::debug!(machine = %self.id, %error, "a probe's answer was not stored");
        }
    }

    /// An operator has had the hardware looked at.
    pub(super) async fn inspected(
        &mut self,
        origin: &Origin,
        health: &Health,
    ) -> Result<Arc<Machine>, EngineError> {
        let scope = origin.key("InspectMachine", &self.id);
        self.learn(origin, &scope, health).await
    }

    async fn learn(
        &mut self,
        origin: &Origin,
        scope: &str,
        health: &Health,
    ) -> Result<Arc<Machine>, EngineError> {
        let now = self.now();
        self.write_machine(origin, scope, |machine, entries| {
            // While a run is active its steps know better: a machine that restarts does not answer.
            if machine.active_run.is_none() {
                let signals = [
                    (ConditionKind::Reachable, health.reachable),
                    (ConditionKind::Degraded, health.degraded),
                ];
                for (kind, status) in signals {
                    let before = machine.conditions.get(kind).map(|before| before.status);
                    // What was never degraded and is not is nothing new.
                    let is_new = kind == ConditionKind::Reachable || before.is_some() || status;
                    if before != Some(status) && is_new {
                        let seen = seen(status, REASON_PROBE, &health.message, now);
                        set(machine, kind, seen, &origin.actor, entries);
                    }
                }
            }
            compare(machine, health, &origin.actor, now, entries);
            Ok(())
        })
        .await
    }
}

/// Compares what the hardware says with what is registered.
fn compare(
    machine: &mut Machine,
    health: &Health,
    actor: &Actor,
    now: Timestamp,
    entries: &mut Vec<Entry>,
) {
    let kind = ConditionKind::HardwareMatches;
    let before = machine.conditions.get(kind);
    let verdict = identity::judge(&machine.spec, &health.facts, before);
    if !identity::is_news(&verdict, before) {
        return;
    }
    match verdict {
        Verdict::Keep => {}
        Verdict::Matches { message } => {
            set(machine, kind, seen(true, REASON_AS_REGISTERED, &message, now), actor, entries);
        }
        Verdict::Differs { reason, message } => {
            set(machine, kind, seen(false, reason, &message, now), actor, entries);
        }
        Verdict::Unknown => {
            let entry = Entry::new(EntryKind::ConditionChanged, actor.clone());
            let why = "what differed is no longer registered";
            let message = format!("{} is unknown: {why}", kind.as_str());
            entries.push(entry.moved("false", "unknown").reason(REASON_PROBE).message(message));
            machine.conditions.unset(kind);
        }
    }
}

fn seen(status: bool, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_at: now,
        observed_by: "probe".to_owned(),
        plan_id: String::new(),
    }
}

fn set(
    machine: &mut Machine,
    kind: ConditionKind,
    condition: Condition,
    actor: &Actor,
    entries: &mut Vec<Entry>,
) {
    let name = |status| if status { "true" } else { "false" };
    let from = machine.conditions.get(kind).map_or("unknown", |before| name(before.status));
    let status = condition.status;
    let entry = Entry::new(EntryKind::ConditionChanged, actor.clone());
    let message = format!("{} is {status}: {}", kind.as_str(), condition.message);
    entries.push(entry.moved(from, name(status)).reason(&condition.reason).message(message));
    machine.conditions.set(kind, condition);
}
