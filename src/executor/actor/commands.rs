//! What clients ask of a machine and its run.

use std::sync::Arc;

use tracing::Span;

use super::drive::Extra;
use super::spans::Spans;
use super::{Active, Actor, LogBuffer};
use crate::executor::actor::timers::Timers;
use crate::executor::admission;
use crate::executor::decide::Draft;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::planted::Planted;
use crate::executor::request::{MachineChanges, NewRun, Origin, Verb};
use crate::ids::{Epoch, Revision, RunId};
use crate::lifecycle::run;
use crate::model::machine::{Condition, REASON_ABORTED};
use crate::model::{ActorKind, ConditionKind, Entry, EntryKind, Machine, Run};
use crate::provider::Health;
use crate::store::{Batch, MachineWrite, PinnedPlan, RequestRecord, StoreError};

/// How often a command is decided again after somebody else wrote first.
const CONFLICTS_MAX: usize = 5;

impl Actor {
    /// Accepts a run, or says why not.
    pub(super) async fn start(
        &mut self,
        origin: &Origin,
        new: NewRun,
        retry_of: Option<RunId>,
        caller: &Span,
    ) -> Result<Arc<Run>, EngineError> {
        let scope = match retry_of {
            None => format!("StartRun/{}", self.id),
            Some(run) => format!("RetryRun/{run}"),
        };
        let refused = match self.start_once(origin, &new, retry_of, &scope, caller).await {
            Ok(run) => return Ok(run),
            // What the store says is no refusal, and while it is in doubt nothing can be looked up.
            Err(error @ EngineError::Store(_)) => return Err(error),
            Err(refused) => refused,
        };
        // The commit itself finds a request id that was used before. What was refused without a commit may have been
        // accepted the first time.
        match self.core.repeated_run(origin, &scope).await? {
            Some(run) => Ok(run),
            None => Err(refused),
        }
    }

    async fn start_once(
        &mut self,
        origin: &Origin,
        new: &NewRun,
        retry_of: Option<RunId>,
        scope: &str,
        caller: &Span,
    ) -> Result<Arc<Run>, EngineError> {
        if self.core.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        for _ in 0..CONFLICTS_MAX {
            match self.try_start(origin, new, retry_of, scope, caller).await {
                Err(EngineError::Store(StoreError::Conflict { .. })) => self.forget(),
                Err(EngineError::Store(StoreError::RequestUsed(record))) => {
                    return self.core.run_of_request(origin, &record).await;
                }
                Err(EngineError::Store(StoreError::ActiveRun { run_id, .. })) => {
                    self.forget();
                    return Err(self.run_active(run_id));
                }
                other => return other,
            }
        }
        Err(EngineError::Exhausted {
            limit: "CONTENTION",
            message: format!("machine {} is being changed by others; try again", self.id),
        })
    }

    async fn try_start(
        &mut self,
        origin: &Origin,
        new: &NewRun,
        retry_of: Option<RunId>,
        scope: &str,
        caller: &Span,
    ) -> Result<Arc<Run>, EngineError> {
        let machine = self.load_machine().await?;
        if let Some(active) = machine.active_run {
            return Err(self.run_active(active));
        }
        check_etag("machine", self.id.as_str(), origin, machine.revision)?;
        let before = match retry_of {
            None => None,
            Some(id) => Some(self.core.run(id).await?),
        };
        let registered = match &before {
            None => self.core.registered(new)?,
            // A retry repeats the plan as it was, not as it is now.
            Some(before) => self.core.pinned_registered(before).await?,
        };
        let params = admission::bind(&registered.plan, &new.parameters)?;
        let provider = self.core.provider(&machine.spec.provider);
        let capabilities = provider.as_ref().map(|provider| provider.capabilities());
        let blockers = admission::blockers(&registered.plan, &machine, capabilities, new.force);
        if let Some(first) = blockers.into_iter().next() {
            return Err(first);
        }
        let now = self.now();
        let id = self.core.next_run_id(now);
        let mut accepted =
            admission::accepted(id, &machine, &registered, &params, new, origin, now);
        if let Some(before) = &before {
            accepted.retry_of = Some(before.id);
            admission::skip_what_was_done(&mut accepted, before, &registered.plan);
        }
        let stored = Arc::new(accepted);
        self.active = Some(Active {
            run: Run::clone(&stored),
            spans: Spans::begin(&stored, Some(caller)),
            stored,
            plan: registered.plan.clone(),
            params: Arc::new(params),
            provider,
            fenced: false,
            call: None,
            timers: Timers::default(),
            logs: Arc::new(LogBuffer::default()),
        });
        let has_slot = self.core.request_slot(id, &machine);
        let epoch_per_run = self.core.planted == Some(Planted::EpochPerRun);
        let decided = self.decide(|draft, facts| {
            draft.accept(origin, epoch_per_run);
            if has_slot {
                draft.admit(facts);
            }
        });
        let Some(decision) = decided else {
            return Err(EngineError::Internal("a run without records".to_owned()));
        };
        let extra = Extra {
            request: request(origin, scope, &id.to_string(), now),
            plan: Some(PinnedPlan {
                digest: registered.digest().to_owned(),
                text: registered.canonical().to_string(),
            }),
        };
        if let Some(reply) = self.early_reply.take() {
            drop(reply.send(Ok(Arc::new(decision.draft.run.clone()))));
        }
        if let Err(error) = self.carry_out(decision, extra).await {
            if self.doubt.is_none() {
                self.active = None;
                self.core.release_slot(id);
            }
            return Err(error.into());
        }
        self.core.remember_plan(&registered);
        self.last_run(id).await
    }

    /// The run as it was last stored: of the active one from the cache, of an ended one from the store.
    async fn last_run(&self, id: RunId) -> Result<Arc<Run>, EngineError> {
        match &self.active {
            Some(active) if active.run.id == id => Ok(active.stored.clone()),
            Some(_) | None => self.core.run(id).await,
        }
    }

    fn run_active(&self, run_id: RunId) -> EngineError {
        EngineError::Refused {
            refusal: Refusal::RunActive,
            subject: format!("runs/{run_id}"),
            message: format!("machine {} has an active run {run_id}", self.id),
            hint: format!("watch it, or cancel it first: run {run_id}"),
        }
    }

    /// Carries out a verb on a run of this machine.
    pub(super) async fn operate(
        &mut self,
        origin: &Origin,
        run_id: RunId,
        verb: &Verb,
    ) -> Result<Arc<Run>, EngineError> {
        let scope = format!("{}/{run_id}", verb.rpc());
        if let Some(run) = self.core.repeated_run(origin, &scope).await? {
            return Ok(run);
        }
        for _ in 0..CONFLICTS_MAX {
            if self.active.as_ref().is_none_or(|active| active.run.id != run_id) {
                return self.operate_on_ended(origin, run_id, verb).await;
            }
            match self.try_operate(origin, run_id, verb, &scope).await {
                Err(EngineError::Store(StoreError::Conflict { .. })) => {
                    self.reload().await;
                }
                Err(EngineError::Store(StoreError::Fenced { .. })) => {
                    self.forget();
                    return Err(EngineError::ShuttingDown);
                }
                Err(EngineError::Store(StoreError::RequestUsed(record))) => {
                    return self.core.run_of_request(origin, &record).await;
                }
                other => return other,
            }
        }
        Err(EngineError::Exhausted {
            limit: "CONTENTION",
            message: format!("run {run_id} is being changed by others; try again"),
        })
    }

    async fn try_operate(
        &mut self,
        origin: &Origin,
        run_id: RunId,
        verb: &Verb,
        scope: &str,
    ) -> Result<Arc<Run>, EngineError> {
        let Some(active) = &self.active else {
            return Err(EngineError::NotFound { kind: "run", id: run_id.to_string() });
        };
        check_etag("run", &run_id.to_string(), origin, active.stored.revision)?;
        let verdict = std::cell::RefCell::new(Ok(()));
        let decided = self.decide(|draft, facts| {
            *verdict.borrow_mut() = draft.operate(verb, &origin.actor, &origin.reason, facts);
        });
        verdict.into_inner()?;
        let Some(decision) = decided else {
            return Err(EngineError::NotFound { kind: "run", id: run_id.to_string() });
        };
        let request = request(origin, scope, &run_id.to_string(), self.now());
        self.carry_out(decision, Extra { request, plan: None }).await?;
        self.last_run(run_id).await
    }

    /// A verb on a run that this actor does not drive: it has ended, or somebody else drives it.
    async fn operate_on_ended(
        &self,
        origin: &Origin,
        run_id: RunId,
        verb: &Verb,
    ) -> Result<Arc<Run>, EngineError> {
        let run = self.core.run(run_id).await?;
        if run.state.is_active() {
            return Err(EngineError::ShuttingDown);
        }
        check_etag("run", &run_id.to_string(), origin, run.revision)?;
        let event = match verb {
            Verb::Cancel => run::Event::Cancel,
            Verb::Abort => run::Event::Abort,
            Verb::Pause => run::Event::Pause,
            Verb::Resume | Verb::Skip { .. } | Verb::Resolve { .. } => run::Event::Resume,
        };
        match run::apply(run.state, event, run::Facts::default()) {
            Ok(_) => Ok(run),
            Err(_) => Err(EngineError::Refused {
                refusal: Refusal::RunState,
                subject: format!("runs/{run_id}"),
                message: format!("run {run_id} has ended: it is {}", run.phase()),
                hint: "a run that has ended is immutable; start a new one, or retry it".to_owned(),
            }),
        }
    }

    /// Changes labels, spec or phase.
    pub(super) async fn update(
        &mut self,
        origin: &Origin,
        changes: &MachineChanges,
    ) -> Result<Arc<Machine>, EngineError> {
        let scope = format!("UpdateMachine/{}", self.id);
        self.write_machine(origin, &scope, |machine, entries| {
            apply_changes(machine, changes, origin, entries)
        })
        .await
    }

    /// Clears NeedsIntervention.
    pub(super) async fn clear_intervention(
        &mut self,
        origin: &Origin,
    ) -> Result<Arc<Machine>, EngineError> {
        let scope = format!("ClearIntervention/{}", self.id);
        let now = self.now();
        self.write_machine(origin, &scope, |machine, entries| {
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

    /// A probe was answered: Reachable and Degraded follow it.
    pub(super) async fn probed(&mut self, health: &Health) {
        let now = self.now();
        let origin = Origin {
            request_id: String::new(),
            body_digest: String::new(),
            actor: crate::model::Actor { kind: ActorKind::Probe, name: "".into() },
            reason: String::new(),
            expected: None,
        };
        let written = self
            .write_machine(&origin, "", |machine, entries| {
                let signals = [
                    (ConditionKind::Reachable, health.reachable, "PROBE"),
                    (ConditionKind::Degraded, health.degraded, "PROBE"),
                ];
                for (kind, status, reason) in signals {
                    let before = machine.conditions.get(kind);
                    // An observation that confirms what is known costs no write.
                    if before.is_some_and(|c| c.status == status)
                        || (before.is_none() && kind == ConditionKind::Degraded && !status)
                    {
                        continue;
                    }
                    let from =
                        before.map_or("unknown", |c| if c.status { "true" } else { "false" });
                    entries.push(
                        Entry::new(EntryKind::ConditionChanged, origin.actor.clone())
                            .moved(from, if status { "true" } else { "false" })
                            .reason(reason)
                            .message(format!("{} is {status}: {}", kind.as_str(), health.message)),
                    );
                    machine.conditions.set(
                        kind,
                        Condition {
                            status,
                            reason: reason.to_owned(),
                            message: health.message.clone(),
                            last_transition_at: now,
                            observed_by: "probe".to_owned(),
                            plan_id: String::new(),
                        },
                    );
                }
                Ok(())
            })
            .await;
        if let Err(error) = written {
            tracing::debug!(machine = %self.id, %error, "a probe's answer was not stored");
        }
    }

    /// Whether a record of the machine is the one that is stored.
    async fn is_current(&self, machine: &Machine) -> Result<bool, EngineError> {
        let stored = self.core.store.machine(&self.id).await?;
        Ok(stored.is_some_and(|stored| stored.revision == machine.revision))
    }

    /// Somebody else wrote first: what is in the cache is not so any more.
    async fn read_again(&mut self) {
        self.machine = None;
        if self.active.is_some() {
            self.reload().await;
        }
    }

    /// Changes the machine's record by itself, again if somebody else wrote first.
    async fn write_machine(
        &mut self,
        origin: &Origin,
        scope: &str,
        change: impl Fn(&mut Machine, &mut Vec<Entry>) -> Result<(), EngineError>,
    ) -> Result<Arc<Machine>, EngineError> {
        if let Some(machine) = self.core.repeated_machine(origin, scope).await? {
            return Ok(machine);
        }
        for _ in 0..CONFLICTS_MAX {
            let machine = self.load_machine().await?;
            check_etag("machine", self.id.as_str(), origin, machine.revision)?;
            let mut after = Machine::clone(&machine);
            let mut entries = Vec::new();
            change(&mut after, &mut entries)?;
            let request = request(origin, scope, self.id.as_str(), self.now());
            let changed = after != *machine;
            // What changes nothing is conditional on no revision: whoever says so has to look that it is still so.
            if !changed && !self.is_current(&machine).await? {
                self.read_again().await;
                continue;
            }
            if !changed && request.is_none() {
                return Ok(machine);
            }
            after.updated_at = self.now();
            let batch = Batch {
                at: self.now(),
                holds: self.active.as_ref().map(|_| (self.id.clone(), machine.epoch)),
                machines: if changed {
                    vec![MachineWrite { machine: after, entries }]
                } else {
                    Vec::new()
                },
                request,
                ..Batch::default()
            };
            match self.core.commit(batch).await {
                Ok(committed) => {
                    let machine = match committed.machines.into_iter().next() {
                        Some(machine) => machine,
                        // As a repetition of the request is going to be answered.
                        None => {
                            let then = self.core.store.machine_at(&self.id, committed.revision);
                            then.await?.unwrap_or(machine)
                        }
                    };
                    self.machine = Some(machine.clone());
                    return Ok(machine);
                }
                Err(StoreError::Conflict { .. }) => self.read_again().await,
                Err(StoreError::RequestUsed(record)) => {
                    return self.core.machine_of_request(origin, &record).await;
                }
                Err(error) => {
                    // It may have been written: what is in the cache must not be told as the truth.
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
            message: format!("machine {} is being changed by others; try again", self.id),
        })
    }
}

impl Draft {
    /// Accepts the run: claims the machine under a new epoch.
    pub(super) fn accept(&mut self, origin: &Origin, epoch_per_run: bool) {
        self.machine_mut().active_run = Some(self.run.id);
        let epoch = if epoch_per_run { Epoch(1) } else { self.machine.epoch.next() };
        self.machine_mut().epoch = epoch;
        self.machine_changed = true;
        let message = format!(
            "{} accepted from {}{}",
            self.run.plan_id,
            origin.actor.name,
            if self.run.forced { ", forced" } else { "" }
        );
        self.run_entries.push(
            Entry::new(EntryKind::RunCreated, origin.actor.clone())
                .reason(&origin.reason)
                .message(message),
        );
    }
}

fn apply_changes(
    machine: &mut Machine,
    changes: &MachineChanges,
    origin: &Origin,
    entries: &mut Vec<Entry>,
) -> Result<(), EngineError> {
    let before = machine.clone();
    if let Some(labels) = &changes.labels {
        machine.labels.clone_from(labels);
    }
    for (key, value) in &changes.label_edits {
        match value {
            Some(value) => machine.labels.insert(key.clone(), value.clone()),
            None => machine.labels.remove(key),
        };
    }
    let spec = &mut machine.spec;
    let texts = [
        (&mut spec.ssh_endpoint, &changes.ssh_endpoint),
        (&mut spec.bmc_endpoint, &changes.bmc_endpoint),
        (&mut spec.target_cluster, &changes.target_cluster),
        (&mut spec.serial, &changes.serial),
    ];
    for (field, change) in texts {
        if let Some(value) = change {
            field.clone_from(value);
        }
    }
    if let Some(addresses) = &changes.mac_addresses {
        machine.spec.mac_addresses.clone_from(addresses);
    }
    if machine.labels != before.labels || machine.spec != before.spec {
        let entry = Entry::new(EntryKind::MachineUpdated, origin.actor.clone());
        entries.push(entry.reason(&origin.reason).message("labels or spec changed"));
    }
    let Some(to) = changes.phase else { return Ok(()) };
    if let Some(run_id) = machine.active_run {
        return Err(EngineError::Refused {
            refusal: Refusal::RunActive,
            subject: format!("runs/{run_id}"),
            message: format!(
                "the phase of machine {} cannot be set while run {run_id} is active",
                machine.id
            ),
            hint: format!("wait for run {run_id}, or cancel it"),
        });
    }
    let from = machine.phase;
    machine.phase = from.moved_to(to).map_err(|illegal| EngineError::Refused {
        refusal: Refusal::IllegalPhase,
        subject: format!("machines/{}", machine.id),
        message: illegal.to_string(),
        hint: String::new(),
    })?;
    if from != to {
        entries.push(
            Entry::new(EntryKind::PhaseChanged, origin.actor.clone())
                .moved(from.as_str(), to.as_str())
                .reason(&origin.reason)
                .message(format!("phase {from} -> {to} by {}", origin.actor.name)),
        );
    }
    Ok(())
}

pub(super) fn request(
    origin: &Origin,
    scope: &str,
    object_id: &str,
    at: crate::clock::Timestamp,
) -> Option<RequestRecord> {
    (!origin.request_id.is_empty()).then(|| RequestRecord {
        scope: scope.to_owned(),
        request_id: origin.request_id.clone(),
        body_digest: origin.body_digest.clone(),
        object_id: object_id.to_owned(),
        at,
        revision: Revision(0),
    })
}

pub(super) fn check_etag(
    kind: &'static str,
    id: &str,
    origin: &Origin,
    current: Revision,
) -> Result<(), EngineError> {
    match origin.expected {
        Some(given) if given != current => Err(EngineError::EtagMismatch {
            kind,
            id: id.to_owned(),
            given: format!("\"{given}\""),
            current: format!("\"{current}\""),
        }),
        Some(_) | None => Ok(()),
    }
}
