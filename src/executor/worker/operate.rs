//! Operators' control verbs on a run.

use std::sync::Arc;

use super::checks::{CONFLICTS_MAX, check_etag};
use super::commit::Extra;
use super::state::Worker;
use crate::executor::audit;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::idempotency::request;
use crate::executor::request::{Origin, Verb};
use crate::ids::RunId;
use crate::lifecycle::run::{self, Phase};
use crate::model::Run;
use crate::store::StoreError;

impl Worker {
    /// Performs a verb on a run of this machine.
    pub(super) async fn operate(
        &mut self,
        origin: &Origin,
        run_id: RunId,
        verb: &Verb,
    ) -> Result<Arc<Run>, EngineError> {
        let scope = origin.key(verb.rpc(), &run_id);
        if let Some(run) = self.ports.repeated_run(origin, &scope).await? {
            return Ok(run);
        }
        // A run acts on its machine, which may have left the scope since.
        if origin.scope.is_some() {
            origin.admits(self.load_machine().await?)?;
        }
        for _ in 0..CONFLICTS_MAX {
            if self.active.as_ref().is_none_or(|active| active.run.id != run_id)
                && !self.finds(run_id).await?
            {
                return self.operate_on_ended(origin, run_id, verb).await;
            }
            match self.try_operate(origin, run_id, verb, &scope).await {
                Err(EngineError::Store(StoreError::Conflict { .. })) => {
                    self.reload().await;
                }
                Err(EngineError::Store(StoreError::Fenced { .. })) => {
                    self.relinquish(run_id);
                    return Err(EngineError::ShuttingDown);
                }
                Err(EngineError::Store(StoreError::RequestUsed(record))) => {
                    return self.ports.run_of_request(origin, &record).await;
                }
                other => return other,
            }
        }
        Err(EngineError::Exhausted {
            limit: "CONTENTION",
            message: format!("run {run_id} is being changed by other requests; try again"),
        })
    }

    /// Recovers the run first if it is active and no worker drives it. `false` if another server drives it.
    async fn finds(&mut self, run_id: RunId) -> Result<bool, EngineError> {
        match self.load_machine().await {
            Ok(_) if self.abandoned() == Some(run_id) => self.recover(run_id).await?,
            Ok(_) | Err(EngineError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(self.active.as_ref().is_some_and(|active| active.run.id == run_id))
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
        origin.may_run(&active.plan)?;
        check_etag("run", &run_id.to_string(), origin, active.stored.revision)?;
        let verdict = std::cell::RefCell::new(Ok(()));
        let decided = self.decide(|draft, facts| {
            *verdict.borrow_mut() = draft.operate(verb, &origin.actor, &origin.reason, facts);
        });
        verdict.into_inner()?;
        let Some(decision) = decided else {
            return Err(EngineError::NotFound { kind: "run", id: run_id.to_string() });
        };
        self.ports.in_time(origin)?;
        let request = request(origin, scope, &run_id.to_string(), self.now());
        let objects = vec![format!("machines/{}", self.id), format!("runs/{run_id}")];
        let plan_digest = &decision.draft.run.spec.plan_digest;
        let audit = audit::done(origin, audit::rpc_of(scope), objects, plan_digest);
        self.carry_out(decision, Extra { request, plan: None, audit }).await?;
        self.last_run(run_id).await
    }

    /// A verb on a run that this worker does not drive: it has ended, or another server drives it.
    async fn operate_on_ended(
        &self,
        origin: &Origin,
        run_id: RunId,
        verb: &Verb,
    ) -> Result<Arc<Run>, EngineError> {
        let run = self.ports.run(run_id).await?;
        if run.state.is_active() {
            return Err(EngineError::ShuttingDown);
        }
        self.ports.plans.admits(origin, &run).await?;
        check_etag("run", &run_id.to_string(), origin, run.revision)?;
        let event = match verb {
            Verb::Cancel => run::Event::Cancel,
            Verb::Abort => run::Event::Abort,
            Verb::Pause => run::Event::Pause,
            Verb::Resume | Verb::Skip { .. } | Verb::Resolve { .. } | Verb::Answer { .. } => {
                run::Event::Resume
            }
        };
        match run::apply(run.state, event, run::Facts::default()) {
            Ok(_) => Ok(run),
            Err(_) => Err(EngineError::Refused {
                refusal: Refusal::RunState,
                subject: format!("runs/{run_id}"),
                message: format!("run {run_id} has ended: it is {}", run.ended_as()),
                hint: after_end(&run),
            }),
        }
    }

    /// The run as last stored: an active one from the cache, an ended one from the store.
    pub(super) async fn last_run(&self, id: RunId) -> Result<Arc<Run>, EngineError> {
        match &self.active {
            Some(active) if active.run.id == id => Ok(active.stored.clone()),
            Some(_) | None => self.ports.run(id).await,
        }
    }
}

/// What can be done after a run has ended.
fn after_end(run: &Run) -> String {
    let machine = &run.machine_id;
    let what = if run.is_aborted() {
        format!(
            "once you have looked at {machine} and cleared it, retry the run or start a new one"
        )
    } else {
        match run.phase() {
            Phase::Succeeded => "start a new one".to_owned(),
            Phase::Failed | Phase::Canceled | Phase::Pending | Phase::Running => {
                "retry it, or start a new one".to_owned()
            }
        }
    };
    format!("a run that has ended is immutable: {what}")
}
