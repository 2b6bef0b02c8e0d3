//! Registration of machines: idempotent by itself, and independent of workers, since a new machine has no work.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::engine::Engine;
use crate::clock::Timestamp;
use crate::executor::audit;
use crate::executor::error::EngineError;
use crate::executor::idempotency::request;
use crate::executor::request::{NewMachine, Origin};
use crate::ids::{Epoch, MachineId};
use crate::model::{Entry, EntryKind, Machine};
use crate::store::{Batch, StoreError, Write};

/// Most machines registered by one commit.
const BATCH_MAX: usize = 500;

impl Engine {
    /// Registers one machine. An existing id with the same provider and MAC addresses is returned unchanged.
    ///
    /// # Errors
    /// [`EngineError::AlreadyExists`] if the existing machine differs.
    pub async fn register_machine(
        &self,
        origin: &Origin,
        new: NewMachine,
    ) -> Result<Arc<Machine>, EngineError> {
        if self.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        // Judged first, by the request alone.
        if !origin.may_touch(&new.labels) {
            return Err(origin.may_not_register(&new.id));
        }
        let scope = origin.key("RegisterMachine", &new.id);
        if let Some(machine) = self.ports.repeated_machine(origin, &scope).await? {
            return Ok(machine);
        }
        if let Some(existing) = self.ports.store.machine(&new.id).await? {
            return same_machine(origin, existing, &new);
        }
        let request = request(origin, &scope, new.id.as_str(), self.ports.clock.now());
        // Zero, unless a machine with the same id was deleted: the store knows its last epoch.
        let mut epoch = Epoch(0);
        loop {
            self.ports.in_time(origin)?;
            let batch = Batch {
                writes: vec![self.registration(origin, &new, epoch)],
                request: request.clone(),
                audit: audit::done(
                    origin,
                    "RegisterMachine",
                    vec![format!("machines/{}", new.id)],
                    "",
                ),
                ..Batch::default()
            };
            return match self.detached_commit(batch).await {
                Ok(mut machines) => machines.pop().ok_or_else(|| {
                    EngineError::Internal("a commit without its machine".to_owned())
                }),
                Err(StoreError::Fenced { current, .. }) if current > epoch => {
                    epoch = current;
                    continue;
                }
                Err(StoreError::Conflict { .. }) => {
                    let existing = self.machine(&new.id).await?;
                    same_machine(origin, existing, &new)
                }
                Err(StoreError::MacTaken { machine_id, .. })
                    if !self.ports.may_name(origin, &machine_id).await =>
                {
                    Err(origin.may_not_register(&new.id))
                }
                Err(StoreError::RequestUsed(record)) => {
                    self.ports.machine_of_request(origin, &record).await
                }
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Registers many machines, a few hundred per commit; each has its own result, in the order given. The request id
    /// of `origin` is not used: registration is idempotent by itself.
    ///
    /// # Errors
    /// [`EngineError::ShuttingDown`]; all other errors are in the results.
    pub async fn register_machines(
        &self,
        origin: &Origin,
        new: Vec<NewMachine>,
    ) -> Result<Vec<Result<Arc<Machine>, EngineError>>, EngineError> {
        if self.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        let mut results = Vec::with_capacity(new.len());
        for part in new.chunks(BATCH_MAX) {
            if let Err(late) = self.ports.in_time(origin) {
                results.extend(part.iter().map(|_| Err(late.clone())));
                continue;
            }
            // Those that the caller may not register are refused one by one.
            if part.iter().any(|new| !origin.may_touch(&new.labels)) {
                self.register_each(origin, part, &mut results).await;
                continue;
            }
            let batch = Batch {
                writes: part
                    .iter()
                    .map(|machine| self.registration(origin, machine, Epoch(0)))
                    .collect(),
                audit: {
                    let objects = part.iter().map(|new| format!("machines/{}", new.id));
                    audit::done(origin, "BatchRegisterMachines", objects.collect(), "")
                },
                ..Batch::default()
            };
            match self.detached_commit(batch).await {
                Ok(machines) => results.extend(machines.into_iter().map(Ok)),
                // Some exist or existed, are twice in the request, or have a MAC address of another: register them
                // one by one.
                Err(
                    StoreError::Conflict { .. }
                    | StoreError::Fenced { .. }
                    | StoreError::MacTaken { .. },
                ) => self.register_each(origin, part, &mut results).await,
                Err(error) => {
                    results.extend(part.iter().map(|_| Err(EngineError::Store(error.clone()))));
                }
            }
        }
        Ok(results)
    }

    async fn register_each(
        &self,
        origin: &Origin,
        new: &[NewMachine],
        results: &mut Vec<Result<Arc<Machine>, EngineError>>,
    ) {
        let each = Origin { request_id: String::new(), ..origin.clone() };
        for machine in new {
            results.push(self.register_machine(&each, machine.clone()).await);
        }
    }

    /// What registering these machines would answer, one result each in the order given. Nothing is registered.
    pub async fn would_register(
        &self,
        origin: &Origin,
        new: Vec<NewMachine>,
    ) -> Vec<Result<Arc<Machine>, EngineError>> {
        let mut results: Vec<Result<Arc<Machine>, EngineError>> = Vec::with_capacity(new.len());
        let mut seen: BTreeMap<MachineId, Arc<Machine>> = BTreeMap::new();
        let mut macs: BTreeMap<String, MachineId> = BTreeMap::new();
        for new in new {
            if !origin.may_touch(&new.labels) {
                results.push(Err(origin.may_not_register(&new.id)));
                continue;
            }
            let known = match seen.get(&new.id) {
                Some(machine) => Ok(Some(machine.clone())),
                None => self.ports.store.machine(&new.id).await,
            };
            results.push(match known {
                Ok(Some(existing)) => same_machine(origin, existing, &new),
                Ok(None) => match self.check_macs(&new.id, &new.spec.mac_addresses, &macs).await {
                    Ok(()) => {
                        let now = self.ports.clock.now();
                        let machine = Arc::new(registered(origin, &new, now));
                        let own = new.spec.mac_addresses.iter().cloned();
                        macs.extend(own.map(|mac| (mac, new.id.clone())));
                        seen.insert(new.id, machine.clone());
                        Ok(machine)
                    }
                    Err(StoreError::MacTaken { machine_id, .. })
                        if !seen.contains_key(&machine_id)
                            && !self.ports.may_name(origin, &machine_id).await =>
                    {
                        Err(origin.may_not_register(&new.id))
                    }
                    Err(error) => Err(error.into()),
                },
                Err(error) => Err(error.into()),
            });
        }
        results
    }

    /// Refuses MAC addresses for a machine that another one has: a stored one, or one of `taken`.
    pub(super) async fn check_macs(
        &self,
        of: &MachineId,
        macs: &[String],
        taken: &BTreeMap<String, MachineId>,
    ) -> Result<(), StoreError> {
        for mac in macs {
            let owner = match taken.get(mac) {
                Some(owner) => Some(owner.clone()),
                None => self.ports.store.mac_owner(mac).await?,
            };
            if let Some(machine_id) = owner.filter(|owner| owner != of) {
                return Err(StoreError::MacTaken { mac: mac.clone(), machine_id });
            }
        }
        Ok(())
    }

    fn registration(&self, origin: &Origin, new: &NewMachine, epoch: Epoch) -> Write {
        let now = self.ports.clock.now();
        let machine = registered(origin, new, now);
        let entry = Entry::new(EntryKind::MachineRegistered, origin.actor.clone());
        let what =
            if new.in_service { "machine registered in service" } else { "machine registered" };
        let mut entries = vec![entry.reason(&origin.reason).message(what)];
        for (kind, condition) in machine.conditions.iter() {
            let entry = Entry::new(EntryKind::ConditionChanged, origin.actor.clone())
                .moved("unknown", "true")
                .reason(&condition.reason)
                .message(format!("{} is true: {}", kind.as_str(), condition.message));
            entries.push(entry);
        }
        Write::new(None, Machine { epoch, ..machine }, entries)
    }

    async fn detached_commit(&self, batch: Batch) -> Result<Vec<Arc<Machine>>, StoreError> {
        let ports = self.ports.clone();
        let (reply, answer) = oneshot::channel();
        self.ports.tasks.spawn(async move {
            let committed = ports.commit(batch).await;
            let machines = committed.map(|committed| committed.written().cloned().collect());
            drop(reply.send(machines));
        });
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(Arc::new(std::io::Error::other("shutting down"))))
        })
    }
}

fn registered(origin: &Origin, new: &NewMachine, now: Timestamp) -> Machine {
    let mut machine =
        Machine::registered(new.id.clone(), new.labels.clone(), new.spec.clone(), now);
    if new.in_service {
        machine.adopt(&origin.actor.name, &origin.reason);
    }
    machine
}

fn same_machine(
    origin: &Origin,
    existing: Arc<Machine>,
    new: &NewMachine,
) -> Result<Arc<Machine>, EngineError> {
    if !origin.may_touch(&existing.labels) {
        return Err(origin.may_not_register(&new.id));
    }
    let mut differences = Vec::new();
    if existing.spec.provider != new.spec.provider {
        differences.push(format!(
            "its provider is {:?}, not {:?}",
            existing.spec.provider, new.spec.provider
        ));
    }
    if existing.spec.mac_addresses != new.spec.mac_addresses {
        differences.push(format!(
            "its mac_addresses are {:?}, not {:?}",
            existing.spec.mac_addresses, new.spec.mac_addresses
        ));
    }
    if new.in_service && !existing.serves() {
        // Otherwise its caller would believe that it is protected.
        differences.push(format!(
            "it is not in service, but {}: set its phase to IN_SERVICE instead",
            existing.phase
        ));
    }
    if differences.is_empty() {
        return Ok(existing);
    }
    Err(EngineError::AlreadyExists {
        kind: "machine",
        id: existing.id.to_string(),
        difference: differences.join("; "),
    })
}
