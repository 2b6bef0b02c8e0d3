//! Requests about the machine itself.

use std::sync::Arc;

use super::changes::apply_changes;
use super::checks::{CONFLICTS_MAX, check_etag};
use super::state::Worker;
use crate::executor::audit;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::idempotency::request;
use crate::executor::request::{MachineChanges, Origin};
use crate::model::machine::{Condition, REASON_ABORTED};
use crate::model::{ConditionKind, Entry, EntryKind, Machine};
use crate::store::{Batch, StoreError, Write};

impl Worker {
    /// Changes labels, spec or phase.
    pub(super) async fn update(
        &mut self,
        origin: &Origin,
        changes: &MachineChanges,
    ) -> Result<Arc<Machine>, EngineError> {
        let scope = origin.key("UpdateMachine", &self.id);
        let ports = self.ports.clone();
        self.write_machine(origin, &scope, |machine, entries| {
            let before = machine.clone();
            apply_changes(machine, changes, origin, entries)?;
            ports.keeps_locks(&before, machine)
        })
        .await
    }

    /// Clears NeedsIntervention.
    pub(super) async fn clear_intervention(
        &mut self,
        origin: &Origin,
    ) -> Result<Arc<Machine>, EngineError> {
        let scope = origin.key("ClearIntervention", &self.id);
        let now = self.now();
        self.write_machine(origin, &scope, |machine, entries| {
            trust_disks(machine, origin, entries);
            let Some(before) = machine.conditions.get(ConditionKind::NeedsIntervention) else {
                return Ok(());
            };
            if !before.status {
                return Ok(());
            }
            if machine.active_run.is_some() && before.reason != REASON_ABORTED {
                return Err(EngineError::Refused {
                    refusal: Refusal::RunActive,
                    subject: format!("machines/{}", machine.id),
                    message: format!(
                        "NeedsIntervention of machine {} belongs to its active run",
                        machine.id
                    ),
                    hint: "resolve the step, or cancel or abort the run".to_owned(),
                });
            }
            entries.push(
                Entry::new(EntryKind::InterventionCleared, origin.actor.clone())
                    .moved("true", "false")
                    .reason(&origin.reason)
                    .message(format!(
                        "NeedsIntervention ({}) cleared by {}",
                        before.reason, origin.actor.name
                    )),
            );
            machine.conditions.set(
                ConditionKind::NeedsIntervention,
                Condition {
                    status: false,
                    reason: "CLEARED".to_owned(),
                    message: origin.reason.clone(),
                    last_transition_at: now,
                    observed_by: format!("operator/{}", origin.actor.name),
                    plan_id: String::new(),
                },
            );
            Ok(())
        })
        .await
    }

    /// Whether a record of the machine is the one that is stored.
    async fn is_current(&self, machine: &Machine) -> Result<bool, EngineError> {
        let stored = self.ports.store.machine(&self.id).await?;
        Ok(stored.is_some_and(|stored| stored.revision == machine.revision))
    }

    /// Another writer was first: the cache is stale.
    async fn read_again(&mut self) {
        self.machine = None;
        if self.active.is_some() {
            self.reload().await;
        }
    }

    /// Changes the machine's record on its own, and retries after a conflict with another writer.
    pub(super) async fn write_machine(
        &mut self,
        origin: &Origin,
        scope: &str,
        change: impl Fn(&mut Machine, &mut Vec<Entry>) -> Result<(), EngineError>,
    ) -> Result<Arc<Machine>, EngineError> {
        if let Some(machine) = self.ports.repeated_machine(origin, scope).await? {
            return Ok(machine);
        }
        for _ in 0..CONFLICTS_MAX {
            let machine = origin.admits(self.load_machine().await?)?;
            check_etag("machine", self.id.as_str(), origin, machine.revision)?;
            let mut after = Machine::clone(&machine);
            let mut entries = Vec::new();
            change(&mut after, &mut entries)?;
            let request = request(origin, scope, self.id.as_str(), self.now());
            let changed = after != *machine;
            // A request that changes nothing is conditional on no revision: check that this is still so.
            if !changed && !self.is_current(&machine).await? {
                self.read_again().await;
                continue;
            }
            if !changed && request.is_none() {
                return Ok(machine);
            }
            self.ports.in_time(origin)?;
            after.updated_at = self.now();
            let batch = Batch {
                holds: self.active.iter().map(|_| (self.id.clone(), machine.epoch)).collect(),
                writes: if changed {
                    vec![Write::new(Some(machine.clone()), after, entries)]
                } else {
                    Vec::new()
                },
                request,
                audit: {
                    let objects = vec![format!("machines/{}", self.id)];
                    audit::done(origin, audit::rpc_of(scope), objects, "")
                },
                ..Batch::default()
            };
            match self.ports.commit(batch).await {
                Ok(committed) => {
                    let machine = match committed.machine() {
                        Some(machine) => machine.clone(),
                        // As a repetition of the request will be answered.
                        None => {
                            let then = self.ports.store.machine_at(&self.id, committed.revision);
                            then.await?.unwrap_or(machine)
                        }
                    };
                    self.machine = Some(machine.clone());
                    return Ok(machine);
                }
                Err(StoreError::Conflict { .. }) => self.read_again().await,
                Err(StoreError::RequestUsed(record)) => {
                    return self.ports.machine_of_request(origin, &record).await;
                }
                Err(StoreError::MacTaken { machine_id, .. })
                    if !self.ports.may_name(origin, &machine_id).await =>
                {
                    return Err(origin.may_not_have(&self.id));
                }
                Err(error) => {
                    // It may have been written: the cache must not be trusted.
                    if self.active.is_none() {
                        self.machine = None;
                    } else if matches!(error, StoreError::Unknown(_)) {
                        self.reload().await;
                    }
                    return Err(error.into());
                }
            }
        }
        Err(EngineError::Exhausted {
            limit: "CONTENTION",
            message: format!("machine {} is being changed by other requests; try again", self.id),
        })
    }
}

/// An operator has looked at the machine: its disks are trusted again.
fn trust_disks(machine: &mut Machine, origin: &Origin, entries: &mut Vec<Entry>) {
    if machine.active_run.is_some() {
        return;
    }
    let Some(disks) = machine.untrusted_disks.take() else { return };
    let entry = Entry::new(EntryKind::InterventionCleared, origin.actor.clone());
    entries.push(entry.reason(&origin.reason).message(format!(
        "disks left untrusted by step {} of {} are trusted again, according to {}",
        disks.step, disks.plan_id, origin.actor.name
    )));
}
