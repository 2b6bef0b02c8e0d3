//! How a worker gets its run: after waiting, after a restart, and after a conflict.

use std::sync::Arc;

use super::logs::LogBuffer;
use super::message::Parked;
use super::spans::Spans;
use super::state::{Active, Worker};
use super::timers::{Timer, Timers};
use crate::executor::decide::Effect;
use crate::executor::error::EngineError;
use crate::executor::planted::Planted;
use crate::ids::RunId;
use crate::lifecycle::step::State;
use crate::model::Run;

impl Worker {
    /// Reads the records again after a conflict. `false` if the run is no longer ours to drive.
    pub(super) async fn reload(&mut self) -> bool {
        let Some(active) = &self.active else {
            self.machine = None;
            return false;
        };
        let run_id = active.run.id;
        let held = self.machine.as_ref().map(|machine| machine.epoch);
        loop {
            match self.records(run_id).await {
                Ok((Some(machine), Some(run)))
                    if Some(machine.epoch) == held && run.state.is_active() =>
                {
                    self.machine = Some(machine);
                    if let Some(active) = &mut self.active {
                        active.log_head = None;
                        // The stored record may be stale only in the stages of an open attempt; a stored run that has
                        // moved on wins.
                        if active.stored.revision != run.revision {
                            active.run = Run::clone(&run);
                            active.stored = run;
                        }
                    }
                    return true;
                }
                Ok((Some(machine), _)) if machine.active_run == Some(run_id) => {
                    self.relinquish(run_id);
                    return false;
                }
                Ok(_) => {
                    self.forget();
                    return false;
                }
                Err(error) if !error.may_pass() => {
                    Box::pin(self.quarantine(run_id, &error.into())).await;
                    return false;
                }
                Err(error) => self.wait_for_store(&error).await,
            }
        }
    }

    /// Continues a run that has waited: under the same epoch, from its record.
    pub(super) async fn resume(&mut self, parked: Parked) {
        let run_id = parked.run_id;
        let (machine, run) = loop {
            match self.records(run_id).await {
                Ok(found) => break found,
                Err(error) if error.may_pass() => self.wait_for_store(&error).await,
                Err(error) => return self.quarantine(run_id, &error.into()).await,
            }
        };
        let (Some(machine), Some(run)) = (machine, run) else {
            tracing::error!(machine = %self.id, run = %run_id, "an active run is missing from the store");
            return self.relinquish(run_id);
        };
        if machine.epoch != parked.epoch || machine.active_run != Some(run_id) {
            self.relinquish(run_id);
            if machine.active_run != Some(run_id) {
                self.lost = None;
            }
            return;
        }
        self.machine = Some(machine);
        while let Err(error) = self.activate(run.clone(), parked.spans.is_none()).await {
            let EngineError::Store(passing) = &error else {
                return self.quarantine(run_id, &error).await;
            };
            if !passing.may_pass() {
                return self.quarantine(run_id, &error).await;
            }
            self.wait_for_store(passing).await;
        }
        let Some(active) = &mut self.active else { return };
        active.fenced = parked.fenced;
        if let Some(spans) = parked.spans {
            active.spans = *spans;
        }
        if let Some(due) = parked.limit_at {
            active.timers.arm(Timer::TimeLimit, due);
        }
        let mut steps = run.steps.iter();
        let place = steps.position(|step| step.state != State::Waiting && !step.state.is_settled());
        let Some(step) = place else { return };
        if let Some(due) = parked.wake_at {
            active.timers.arm(Timer::Wake { step }, due);
        }
        if let (Some(due), Some(at)) = (parked.deadline_at, run.steps[step].deadline_at) {
            active.timers.arm(Timer::Deadline { step, at }, due);
        }
    }

    /// An active run of the machine that no worker drives: one that an error has left behind.
    pub(super) fn abandoned(&self) -> Option<RunId> {
        let run_id = self.machine.as_ref()?.active_run?;
        let is_ours = self.lost != Some(run_id) && !self.ports.tasks.is_draining();
        (self.active.is_none() && is_ours).then_some(run_id)
    }

    /// Looks for an active run of the machine that no worker drives, and recovers it.
    pub(super) async fn find_abandoned(&mut self) {
        loop {
            match self.load_machine().await {
                Ok(_) => break,
                Err(EngineError::Store(error)) if error.may_pass() => {
                    self.wait_for_store(&error).await;
                }
                Err(error) => {
                    tracing::debug!(machine = %self.id, %error, "nothing to recover");
                    break;
                }
            }
        }
        while let Some(run_id) = self.abandoned() {
            self.adopt(run_id).await;
        }
    }

    /// Gives up the machine's run, at which workers have panicked: it is recovered without its effects.
    pub(super) async fn hold_faulty(&mut self) {
        let found = loop {
            let found = async {
                let machine = self.load_machine().await?;
                let Some(run_id) = machine.active_run else { return Ok(None) };
                let run = self.ports.run(run_id).await?;
                self.activate(run, true).await.map(|()| Some(run_id))
            };
            match found.await {
                Ok(found) => break found,
                Err(EngineError::Store(error)) if error.may_pass() => {
                    self.wait_for_store(&error).await;
                }
                Err(error) => {
                    tracing::error!(machine = %self.id, %error, "a run cannot be held");
                    break None;
                }
            }
        };
        if found.is_some() {
            self.give_up("a worker panicked").await;
        }
    }

    /// Recovers a run that no worker drives, retrying as long as it takes.
    pub(super) async fn adopt(&mut self, run_id: RunId) {
        match self.recover(run_id).await {
            Ok(()) if self.active.is_some() => {}
            Ok(()) => self.forget(),
            Err(EngineError::Store(error)) if error.may_pass() => self.wait_for_store(&error).await,
            Err(error) => self.quarantine(run_id, &error).await,
        }
    }

    /// Makes a run the active one of this worker.
    async fn activate(&mut self, stored: Arc<Run>, is_new: bool) -> Result<(), EngineError> {
        let plan = self.ports.plans.pinned(&stored).await?.plan.clone();
        let params = plan.bind(&stored.spec.parameters).map_err(|_| {
            EngineError::Internal(format!(
                "stored parameters of run {} do not fit its plan",
                stored.id
            ))
        })?;
        self.active = Some(Active {
            run: Run::clone(&stored),
            provider: self.ports.provider(&stored.spec.provider),
            spans: if is_new { Spans::begin(&stored, None) } else { Spans::none() },
            stored,
            plan,
            params: Arc::new(params),
            fenced: false,
            call: None,
            prepared: None,
            timers: Timers::default(),
            logs: Arc::new(LogBuffer::default()),
            log_head: None,
        });
        Ok(())
    }

    /// Recovers the active run after a restart: claim a new epoch in the store, then fence, then observe, then act.
    pub(super) async fn recover(&mut self, run_id: RunId) -> Result<(), EngineError> {
        if self.active.is_some() {
            return Ok(());
        }
        let machine = self.load_machine().await?;
        if machine.active_run != Some(run_id) {
            return Ok(());
        }
        let run = self
            .ports
            .store
            .run(run_id)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "run", id: run_id.to_string() })?;
        if run.state.has_slot() {
            let risk = self.ports.plans.pinned_risk(&run).await;
            self.scheduler.restore_slot(run_id, risk, &machine);
        }
        self.activate(run, true).await?;
        let lose_timers = self.ports.planted == Some(Planted::TimerLost);
        self.drive(|draft, facts| {
            draft.machine_mut().epoch = draft.machine.epoch.next();
            draft.machine_changed = true;
            draft.readable_again(facts);
            draft.recover(facts);
            if lose_timers {
                draft.effects.retain(|effect| {
                    !matches!(effect, Effect::Wake { .. } | Effect::Deadline { .. })
                });
            }
        })
        .await;
        Ok(())
    }
}
