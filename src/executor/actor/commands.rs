//! What clients ask of the runs of a machine.

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
use crate::executor::request::{NewRun, Origin, Verb};
use crate::ids::{Epoch, Revision, RunId};
use crate::lifecycle::run;
use crate::model::{Entry, EntryKind, Run};
use crate::store::{PinnedPlan, RequestRecord, StoreError};

/// How often a command is decided again after somebody else wrote first.
pub(super) const CONFLICTS_MAX: usize = 5;

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
            Arc::make_mut(&mut accepted.spec).retry_of = Some(before.id);
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
            self.run.spec.plan_id,
            origin.actor.name,
            if self.run.spec.forced { ", forced" } else { "" }
        );
        self.run_entries.push(
            Entry::new(EntryKind::RunCreated, origin.actor.clone())
                .reason(&origin.reason)
                .message(message),
        );
    }
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
