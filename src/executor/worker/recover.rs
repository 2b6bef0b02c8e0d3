//! How a worker comes to its run: after a restart, and after somebody else has written.

use std::sync::Arc;

use super::logs::LogBuffer;
use super::spans::Spans;
use super::state::{Active, Worker};
use super::timers::Timers;
use crate::executor::decide::Effect;
use crate::executor::error::EngineError;
use crate::executor::planted::Planted;
use crate::ids::RunId;
use crate::model::Run;
use crate::store::StoreError;

impl Worker {
    /// Reads the records again after a conflict. `false` if the run is not ours to drive any more.
    pub(super) async fn reload(&mut self) -> bool {
        let Some(active) = &self.active else {
            self.machine = None;
            return false;
        };
        let run_id = active.run.id;
        let held = self.machine.as_ref().map(|machine| machine.epoch);
        loop {
            let found = async {
                let machine = self.ports.store.machine(&self.id).await?;
                let run = self.ports.store.run(run_id).await?;
                Ok::<_, StoreError>((machine, run))
            };
            match found.await {
                Ok((Some(machine), Some(run)))
                    if Some(machine.epoch) == held && run.state.is_active() =>
                {
                    self.machine = Some(machine);
                    if let Some(active) = &mut self.active {
                        // What is stored lags only in the stages of an open attempt; a stored run that has moved on
                        // wins.
                        if active.stored.revision != run.revision {
                            active.run = Run::clone(&run);
                            active.stored = run;
                        }
                    }
                    return true;
                }
                Ok(_) => {
                    self.forget();
                    return false;
                }
                Err(error) => self.wait_for_store(&error).await,
            }
        }
    }

    /// Makes a run the active one of this actor.
    pub(super) async fn activate(&mut self, stored: Arc<Run>) -> Result<(), EngineError> {
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
            spans: Spans::begin(&stored, None),
            stored,
            plan,
            params: Arc::new(params),
            fenced: false,
            call: None,
            timers: Timers::default(),
            logs: Arc::new(LogBuffer::default()),
        });
        Ok(())
    }

    /// Takes the active run up after a restart: claim a new epoch in the store, then fence, then look, then act.
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
            self.scheduler.restore_slot(run_id, &machine);
        }
        self.activate(run).await?;
        let lose_timers = self.ports.planted == Some(Planted::TimerLost);
        self.drive(|draft, facts| {
            draft.machine_mut().epoch = draft.machine.epoch.next();
            draft.machine_changed = true;
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
