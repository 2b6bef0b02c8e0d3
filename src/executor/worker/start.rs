//! Starts a run: it is accepted, or refused with the reason.

use std::sync::Arc;

use tracing::Span;

use super::checks::{CONFLICTS_MAX, check_etag};
use super::commit::Extra;
use super::logs::LogBuffer;
use super::spans::Spans;
use super::state::{Active, Worker};
use super::timers::Timers;
use crate::executor::admission;
use crate::executor::audit;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::idempotency::request;
use crate::executor::planted::Planted;
use crate::executor::request::{NewRun, Origin};
use crate::ids::RunId;
use crate::model::Run;
use crate::store::{LogHead, PinnedPlan, StoreError};

impl Worker {
    /// Accepts a run, or says why not.
    pub(super) async fn start(
        &mut self,
        origin: &Origin,
        new: NewRun,
        retry_of: Option<RunId>,
        caller: &Span,
    ) -> Result<Arc<Run>, EngineError> {
        let scope = match retry_of {
            None => origin.key("StartRun", &self.id),
            Some(run) => origin.key("RetryRun", &run),
        };
        let refused = match self.start_once(origin, &new, retry_of, &scope, caller).await {
            Ok(run) => return Ok(run),
            // An error of the store is no refusal, and while the store is in doubt nothing can be looked up.
            Err(error @ EngineError::Store(_)) => return Err(error),
            Err(refused) => refused,
        };
        // The commit itself detects a request id that was used before. A request that is refused now may have been
        // accepted the first time.
        match self.ports.repeated_run(origin, &scope).await? {
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
        if self.ports.tasks.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        for _ in 0..CONFLICTS_MAX {
            match self.try_start(origin, new, retry_of, scope, caller).await {
                Err(EngineError::Store(StoreError::Conflict { .. })) => self.forget(),
                Err(EngineError::Store(StoreError::RequestUsed(record))) => {
                    return self.ports.run_of_request(origin, &record).await;
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
            message: format!("machine {} is being changed by other requests; try again", self.id),
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
        let machine = origin.admits(self.load_machine().await?)?;
        if let Some(active) = machine.active_run {
            return Err(self.run_active(active));
        }
        check_etag("machine", self.id.as_str(), origin, machine.revision)?;
        let before = match retry_of {
            None => None,
            Some(id) => Some(self.ports.run(id).await?),
        };
        let registered = match &before {
            None => self.ports.plans.chosen(new)?,
            // A retry repeats the plan as pinned, not the present one.
            Some(before) => self.ports.plans.pinned(before).await?,
        };
        origin.may_run(&registered.plan)?;
        let params = admission::bind(&registered.plan, &new.parameters)?;
        let provider = self.ports.provider(&machine.spec.provider);
        let force = new.force
            || before.as_ref().is_some_and(|before| {
                admission::repeats_nothing_destructive(before, &registered.plan)
            });
        let terms = admission::Terms { force, is_retry: before.is_some() };
        let refusals =
            admission::refusals(&registered.plan, &params, &machine, provider.as_deref(), terms);
        if let Some(first) = refusals.into_iter().next() {
            return Err(first);
        }
        let wrong = admission::wrong_hardware(&registered.plan, &machine, before.as_deref());
        if let Some(wrong) = wrong.filter(|_| self.ports.planted != Some(Planted::AnyHardware)) {
            return Err(wrong);
        }
        let now = self.now();
        if let Some(lock) = self.ports.brakes.refuses(&machine, registered.digest(), now) {
            return Err(admission::locked(&lock, &self.id));
        }
        self.ports.in_time(origin)?;
        let id = self.ports.next_run_id(now);
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
            prepared: None,
            timers: Timers::default(),
            logs: Arc::new(LogBuffer::default()),
            log_head: Some(LogHead::default()),
        });
        let has_slot = self.scheduler.take_slot(id, registered.plan.risk(), &machine);
        let epoch_per_run = self.ports.planted == Some(Planted::EpochPerRun);
        let decide = |worker: &Self, has_slot| {
            let decided = worker.decide(|draft, facts| {
                draft.accept(origin, epoch_per_run);
                if has_slot {
                    draft.admit(facts);
                }
            });
            decided.ok_or_else(|| EngineError::Internal("a run without records".to_owned()))
        };
        let decision = decide(self, has_slot)?;
        let extra = Extra {
            request: request(origin, scope, &id.to_string(), now),
            plan: Some(PinnedPlan {
                digest: registered.digest().to_owned(),
                text: registered.canonical().clone(),
            }),
            audit: {
                let objects = vec![format!("machines/{}", self.id), format!("runs/{id}")];
                audit::done(origin, audit::rpc_of(scope), objects, registered.digest())
            },
        };
        if let Some(reply) = self.early_reply.take() {
            drop(reply.send(Ok(Arc::new(decision.draft.run.clone()))));
        }
        let mut committed = self.carry_out(decision, extra.clone()).await;
        let is_late = matches!(committed, Err(StoreError::NoSlot { .. }));
        if is_late {
            committed = self.carry_out(decide(self, false)?, extra).await;
        }
        if let Err(error) = committed {
            if self.in_doubt.is_none() {
                self.active = None;
                self.scheduler.release_slot(id);
            }
            return Err(error.into());
        }
        if is_late {
            self.ask_for_slot_again();
        }
        self.ports.plans.remember(&registered);
        self.last_run(id).await
    }

    fn run_active(&self, run_id: RunId) -> EngineError {
        EngineError::Refused {
            refusal: Refusal::RunActive,
            subject: format!("runs/{run_id}"),
            message: format!("machine {} has an active run {run_id}", self.id),
            hint: format!("watch it, or cancel it first: run {run_id}"),
        }
    }
}
