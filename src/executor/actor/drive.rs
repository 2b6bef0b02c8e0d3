//! How an actor drives its run: events in, decisions committed, effects performed.

use std::sync::Arc;

use super::call::{Called, Kind, Outcome};
use super::doubt::Doubt;
use super::logs::chunks;
use super::spans::Spans;
use super::timers::{Timer, Timers};
use super::{Active, Actor, Decision, LogBuffer, Moment};
use crate::clock::Timestamp;
use crate::executor::decide::{Draft, Effect, Facts, StepInput};
use crate::executor::error::EngineError;
use crate::executor::planted::Planted;
use crate::ids::{Epoch, RunId};
use crate::lifecycle::run;
use crate::lifecycle::step::{Event, State};
use crate::model::{EntryKind, Machine, Run, RunDelta};
use crate::store::{Batch, MachineWrite, PinnedPlan, RequestRecord, RunWrite, StoreError};

/// What a commit carries besides the decision.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) request: Option<RequestRecord>,
    pub(super) plan: Option<PinnedPlan>,
}

impl Actor {
    /// Decides about the active run and carries the decision out, until the store has taken it.
    pub(super) async fn drive(&mut self, decide: impl Fn(&mut Draft, Facts<'_>)) {
        loop {
            let Some(decision) = self.decide(&decide) else { return };
            match self.carry_out(decision, Extra::default()).await {
                Ok(()) => return,
                Err(StoreError::Unknown(_)) => {
                    if self.settle_doubt().await {
                        return;
                    }
                }
                Err(StoreError::Fenced { current, .. }) => return self.step_down(current),
                Err(StoreError::Conflict { .. }) => {
                    if !self.reload().await {
                        return;
                    }
                }
                Err(error) => self.wait_for_store(&error).await,
            }
        }
    }

    /// A decision about the active run; nothing is changed by it yet.
    pub(super) fn decide(&self, decide: impl Fn(&mut Draft, Facts<'_>)) -> Option<Decision> {
        let active = self.active.as_ref()?;
        let machine = self.machine.as_ref()?;
        let mut draft = Draft::new(active.run.clone(), machine.clone());
        let provider = active.provider.as_ref();
        let moment = self.moment();
        let plan = (&*active.plan, &*active.params);
        let facts = Self::facts(&self.core, moment.wall, plan, provider);
        decide(&mut draft, facts);
        Some(Decision { draft, moment })
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { wall: self.core.clock.now(), monotonic: self.core.clock.monotonic() }
    }

    /// Commits a decision if it must be, then performs its effects. After [`StoreError::Unknown`] the decision is kept
    /// in doubt.
    pub(super) async fn carry_out(
        &mut self,
        decision: Decision,
        extra: Extra,
    ) -> Result<(), StoreError> {
        let Decision { draft, moment } = decision;
        let waits = draft
            .run
            .steps
            .iter()
            .any(|step| matches!(step.state, State::Polling { .. } | State::BackingOff { .. }));
        let (Some(active), Some(machine)) = (&mut self.active, &self.machine) else {
            return Ok(());
        };
        let commit =
            draft.is_durable() || extra.request.is_some() || (waits && !active.logs.is_empty());
        let skip_intent = self.core.planted == Some(Planted::NoIntent)
            && !draft.machine_changed
            && extra.request.is_none()
            && draft.run_entries.iter().all(|e| e.kind == EntryKind::StepStarted);
        if !commit || skip_intent {
            active.run = draft.run;
            self.perform(&draft.effects, moment);
            return Ok(());
        }
        let held = machine.epoch;
        let logs = active.logs.clone();
        let lines = logs.take();
        let Draft { mut run, machine: mut machine_after, machine_changed, .. } = draft;
        let log_chunks = chunks(&mut run, &lines, self.core.limits.step_log_bytes_max);
        let epoch = machine_after.epoch;
        let doubt = Doubt { run: run.clone(), epoch, effects: draft.effects, moment, lines };
        let before = (active.stored.revision.0 > 0).then_some(&*active.stored);
        let delta = RunDelta::between(before, &run);
        let batch = Batch {
            at: self.core.clock.now(),
            holds: Some((self.id.clone(), held)),
            machines: if machine_changed {
                Arc::make_mut(&mut machine_after).updated_at = self.core.clock.now();
                vec![MachineWrite {
                    machine: Arc::unwrap_or_clone(machine_after),
                    entries: draft.machine_entries,
                }]
            } else {
                Vec::new()
            },
            deleted: Vec::new(),
            runs: vec![RunWrite { run, delta, entries: draft.run_entries }],
            plan: extra.plan,
            request: extra.request,
            logs: log_chunks,
        };
        match self.core.commit(batch).await {
            Ok(committed) => {
                self.committed(
                    committed.machines.into_iter().next(),
                    committed.runs.into_iter().next(),
                );
                self.perform(&doubt.effects, doubt.moment);
                self.finish_if_ended();
                Ok(())
            }
            Err(error @ StoreError::Unknown(_)) => {
                self.doubt = Some(doubt);
                Err(error)
            }
            Err(error) => {
                logs.put_back(doubt.lines);
                Err(error)
            }
        }
    }

    /// Takes over what the store made durable.
    pub(super) fn committed(&mut self, machine: Option<Arc<Machine>>, run: Option<Arc<Run>>) {
        if let Some(machine) = machine {
            if self.machine.as_ref().is_some_and(|before| before.epoch != machine.epoch)
                && let Some(active) = &mut self.active
            {
                active.fenced = false;
            }
            self.machine = Some(machine);
        }
        if let (Some(run), Some(active)) = (run, &mut self.active) {
            active.run = Run::clone(&run);
            active.stored = run;
        }
        self.settle_slot();
    }

    /// Asks for, keeps or gives back the run's slot, as its state says.
    fn settle_slot(&mut self) {
        let (Some(active), Some(machine)) = (&self.active, &self.machine) else { return };
        match active.run.state {
            run::State::Pending | run::State::Resuming => {
                if self.core.request_slot(active.run.id, machine) {
                    self.core.send(&self.id, super::Message::Admitted { run_id: active.run.id });
                }
            }
            run::State::Held
            | run::State::Succeeded
            | run::State::Failed
            | run::State::Canceled => {
                self.core.release_slot(active.run.id);
            }
            // A held run that is ended is not made to wait, and counts while it lasts.
            run::State::Canceling | run::State::Unwinding { .. } => {
                self.core.restore_slot(active.run.id, machine);
            }
            run::State::Running | run::State::Pausing => {}
        }
    }

    pub(super) fn finish_if_ended(&mut self) {
        let ended = self.active.as_ref().is_some_and(|active| !active.run.state.is_active());
        if ended {
            self.fence_former_owner();
            self.forget_call();
            self.active = None;
        }
    }

    /// Performs effects whose decision is durable.
    pub(super) fn perform(&mut self, effects: &[Effect], moment: Moment) {
        if let Some(active) = &mut self.active {
            active.spans.follow(&active.run);
        }
        for effect in effects {
            match *effect {
                Effect::Observe { step } => self.start_call(Kind::Observe, step),
                Effect::Act { step } => self.start_call(Kind::Act, step),
                Effect::Verify { step } => self.start_call(Kind::Verify, step),
                Effect::Stop { step } => self.stop_call(step),
                Effect::Forget => self.forget_call(),
                Effect::Wake { step, at } => self.arm(Timer::Wake { step }, at, moment),
                Effect::Deadline { step, at } => self.arm(Timer::Deadline { step, at }, at, moment),
                Effect::RaiseFence { epoch } => self.raise_fence(epoch),
            }
        }
    }

    /// Arms a timer for a wall-clock time that was computed at `moment`.
    fn arm(&mut self, timer: Timer, at: Timestamp, moment: Moment) {
        if let Some(active) = &mut self.active {
            active.timers.arm(timer, moment.monotonic + at.since(moment.wall));
        }
    }

    /// The scheduler has a slot for the run.
    pub(super) async fn admitted(&mut self, run_id: RunId) {
        if self.active.as_ref().is_some_and(|active| active.run.id == run_id) {
            // A pause that was handled first has given the slot back, and somebody else may have it. If the run waits
            // again, it is told again.
            if self.core.has_slot(run_id) {
                self.drive(|draft, facts| {
                    draft.admit(facts);
                })
                .await;
            }
        } else {
            // It has ended meanwhile.
            self.core.release_slot(run_id);
        }
    }

    /// A provider call was answered.
    pub(super) async fn called(&mut self, called: Called) {
        let Some(active) = &mut self.active else { return };
        if active.call.as_ref().is_none_or(|call| call.serial != called.serial)
            && !(active.call.is_none() && active.provider.is_none())
        {
            return;
        }
        active.call = None;
        match called.outcome {
            Outcome::Step(input) => {
                active.fenced = true;
                self.drive(|draft, facts| draft.step(&input, facts)).await;
            }
            Outcome::NotSent(input) => {
                self.drive(|draft, facts| draft.not_sent(&input, facts)).await;
            }
            Outcome::Fenced { current } => self.fenced_out(current).await,
        }
    }

    /// The provider says that a newer epoch owns the machine. The store decides: if it still names us, the provider
    /// remembers work that the store does not (a restored backup, an ephemeral store), and a higher epoch is claimed.
    async fn fenced_out(&mut self, current: Epoch) {
        let Some(run_id) = self.active.as_ref().map(|active| active.run.id) else { return };
        let held = self.machine.as_ref().map(|machine| machine.epoch);
        match self.core.store.machine(&self.id).await {
            Ok(Some(stored)) if Some(stored.epoch) == held && stored.active_run == Some(run_id) => {
                tracing::warn!(machine = %self.id, %current, "the provider knows a newer epoch than the store; claiming a higher one");
                self.drive(move |draft, facts| {
                    draft.machine_mut().epoch = draft.machine.epoch.max(current).next();
                    draft.machine_changed = true;
                    draft.recover(facts);
                })
                .await;
            }
            Ok(_) => self.step_down(current),
            Err(error) => {
                self.wait_for_store(&error).await;
                self.step_down(current);
            }
        }
    }

    /// Somebody else owns the machine's work: stop, and touch nothing.
    pub(super) fn step_down(&mut self, current: Epoch) {
        tracing::warn!(machine = %self.id, %current, "fenced: somebody else owns the machine's work");
        self.forget();
    }

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
                let machine = self.core.store.machine(&self.id).await?;
                let run = self.core.store.run(run_id).await?;
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

    /// Timers that are due.
    pub(super) async fn fire_timers(&mut self) {
        let Some(active) = &mut self.active else { return };
        for timer in active.timers.take_due(&*self.core.clock) {
            match timer {
                Timer::Wake { step } => {
                    let input = StepInput::bare(step, Event::Woken);
                    self.drive(|draft, facts| draft.step(&input, facts)).await;
                }
                Timer::Deadline { step, at } => {
                    let stale = self.active.as_ref().is_none_or(|active| {
                        active.run.steps.get(step).is_none_or(|s| s.deadline_at != Some(at))
                    });
                    if !stale {
                        self.forget_call();
                        let input = StepInput::bare(step, Event::TimedOut);
                        self.drive(|draft, facts| draft.step(&input, facts)).await;
                    }
                }
                Timer::FlushLogs => self.flush_logs().await,
            }
        }
    }

    /// Makes a run the active one of this actor.
    pub(super) async fn activate(&mut self, stored: Arc<Run>) -> Result<(), EngineError> {
        let plan = self.core.pinned_plan(&stored).await?;
        let params = plan.bind(&stored.spec.parameters).map_err(|_| {
            EngineError::Internal(format!(
                "stored parameters of run {} do not fit its plan",
                stored.id
            ))
        })?;
        self.active = Some(Active {
            run: Run::clone(&stored),
            provider: self.core.provider(&stored.spec.provider),
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
            .core
            .store
            .run(run_id)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "run", id: run_id.to_string() })?;
        if run.state.has_slot() {
            self.core.restore_slot(run_id, &machine);
        }
        self.activate(run).await?;
        let lose_timers = self.core.planted == Some(Planted::TimerLost);
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
