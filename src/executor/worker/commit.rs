//! Decide, then commit: a decision is durable before anything follows from it.

use std::sync::Arc;
use std::time::Duration;

use super::checks::FAULTS_MAX;
use super::logs::chunks;
use super::rest::{is_waiting, waits_as};
use super::state::{Decision, InDoubt, Worker};
use super::timers::Timer;
use crate::executor::decide::{Draft, Facts};
use crate::executor::planted::Planted;
use crate::lifecycle::run;
use crate::model::{AuditEntry, EntryKind, Machine, Run};
use crate::store::{Batch, PinnedPlan, RequestRecord, SlotMove, StoreError, Write};

/// Delay before a slot that the store has refused is requested again, in milliseconds.
const SLOT_RETRY_MS: u64 = 250;

/// What a commit carries besides the decision.
#[derive(Debug, Clone, Default)]
pub(super) struct Extra {
    pub(super) request: Option<RequestRecord>,
    pub(super) plan: Option<PinnedPlan>,
    pub(super) audit: Vec<AuditEntry>,
}

const fn is_queued(state: run::State) -> bool {
    matches!(state, run::State::Pending | run::State::Resuming)
}

impl Worker {
    /// Decides about the active run and carries the decision out, until the store has accepted it.
    pub(super) async fn drive(&mut self, decide: impl Fn(&mut Draft, Facts<'_>)) {
        let mut faults = 0;
        loop {
            let Some(decision) = self.decide(&decide) else { return };
            match self.conclude(decision).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(StoreError::NoSlot { .. }) => return self.ask_for_slot_again(),
                Err(error) if error.may_pass() => self.wait_for_store(&error).await,
                Err(error) => {
                    faults += 1;
                    if faults >= FAULTS_MAX {
                        return Box::pin(self.give_up(&error.to_string())).await;
                    }
                    self.wait_for_store(&error).await;
                }
            }
        }
    }

    /// Carries a decision out and handles the errors that have a single remedy. Returns whether everything is done;
    /// if not, the decision must be made again.
    ///
    /// # Errors
    /// Other errors of the store: the caller knows whether to retry.
    pub(super) async fn conclude(&mut self, decision: Decision) -> Result<bool, StoreError> {
        match self.carry_out(decision, Extra::default()).await {
            Ok(()) => Ok(true),
            Err(StoreError::Unknown(_)) => Ok(self.settle_in_doubt().await),
            Err(StoreError::Fenced { current, .. }) => {
                self.relinquish_fenced(current);
                Ok(true)
            }
            Err(StoreError::Conflict { .. }) => Ok(!self.reload().await),
            Err(error) => Err(error),
        }
    }

    /// A decision about the active run; nothing has changed yet.
    pub(super) fn decide(&self, decide: impl Fn(&mut Draft, Facts<'_>)) -> Option<Decision> {
        let active = self.active.as_ref()?;
        let machine = self.machine.as_ref()?;
        let mut draft = Draft::new(active.run.clone(), machine.clone());
        let provider = active.provider.as_ref();
        let moment = self.moment();
        let plan = (&*active.plan, &*active.params);
        let (braking, as_of) = self.ports.brakes.braking(machine, &active.run, moment.wall);
        let facts = Self::facts(&self.ports, moment.wall, plan, provider, braking);
        decide(&mut draft, facts);
        Some(Decision { draft, moment, as_of })
    }

    /// Commits a decision if it must be, then performs its effects. After [`StoreError::Unknown`] the decision is
    /// kept in doubt.
    pub(super) async fn carry_out(
        &mut self,
        decision: Decision,
        extra: Extra,
    ) -> Result<(), StoreError> {
        let Decision { draft, moment, as_of } = decision;
        if draft.braked {
            self.hold_back(&draft.run, as_of);
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        // If the worker may leave, the record must say what the run waits for.
        let waits = draft.in_progress().is_some_and(|place| is_waiting(&draft.run, place));
        let unstored = waits && !waits_as(&active.stored, &draft.run);
        let commit = draft.is_durable() || extra.request.is_some() || unstored;
        let skip_intent = self.ports.planted == Some(Planted::NoIntent)
            && !draft.machine_changed
            && extra.request.is_none()
            && draft.run_entries.iter().all(|e| e.kind == EntryKind::StepStarted);
        if !commit || skip_intent {
            active.run = draft.run;
            self.perform(&draft.effects, moment);
            if waits {
                // Output that is not stored yet keeps the worker from leaving.
                self.flush_logs().await;
            }
            return Ok(());
        }
        let log_head = self.take_log_head_if_printed().await?;
        let asked = self.name_batch();
        let (Some(active), Some(machine)) = (&mut self.active, &self.machine) else {
            return Ok(());
        };
        let held = machine.epoch;
        let logs = active.logs.clone();
        let Draft { run, machine: mut machine_after, machine_changed, .. } = draft;
        let step_bytes_max = self.ports.limits.step_log_bytes_max;
        let (lines, log_chunks, log_head) = match log_head {
            Some(head) => {
                let lines = logs.take();
                let (chunks, head) = chunks(&run, &lines, head, step_bytes_max);
                (lines, chunks, Some(head))
            }
            None => (Vec::new(), Vec::new(), None),
        };
        let epoch = machine_after.epoch;
        let effects = draft.effects;
        let in_doubt = InDoubt { batch: asked, run: run.clone(), epoch, effects, moment, lines };
        let slots = self.slot_moves(&run);
        let locks = self.tally(&run).into_iter().collect();
        let (Some(active), Some(machine)) = (&self.active, &self.machine) else { return Ok(()) };
        if is_queued(run.state) && active.stored.revision.0 > 0 && !is_queued(active.stored.state) {
            self.scheduler.announce(run.id, active.plan.risk(), machine);
        }
        let mut writes = Vec::with_capacity(2);
        if machine_changed {
            Arc::make_mut(&mut machine_after).updated_at = self.ports.clock.now();
            writes.push(Write::new(Some(machine.clone()), machine_after, draft.machine_entries));
        }
        let before = (active.stored.revision.0 > 0).then(|| active.stored.clone());
        writes.push(Write::new(before, run, draft.run_entries));
        let batch = Batch {
            id: asked.id,
            holds: vec![(self.id.clone(), held)],
            writes,
            slots,
            plan: extra.plan,
            request: extra.request,
            logs: log_chunks,
            audit: extra.audit,
            locks,
            ..Batch::default()
        };
        match self.await_store(self.ports.clone().commit_owned(batch)).await {
            Ok(committed) => {
                if let Some(head) = log_head {
                    self.set_log_head(head);
                }
                self.committed(committed.machine().cloned(), committed.run().cloned());
                self.perform(&in_doubt.effects, in_doubt.moment);
                self.finish_if_ended();
                Ok(())
            }
            Err(error @ StoreError::Unknown(_)) => {
                self.in_doubt = Some(in_doubt);
                Err(error)
            }
            Err(error) => {
                self.withdraw();
                logs.put_back(in_doubt.lines);
                Err(error)
            }
        }
    }

    /// The changes of slots in a commit that leaves the run in this state. An ended run releases its own.
    fn slot_moves(&self, run: &Run) -> Vec<SlotMove> {
        let (Some(active), Some(machine)) = (&self.active, &self.machine) else {
            return Vec::new();
        };
        let had_one = active.stored.revision.0 > 0 && active.stored.state.has_slot();
        // A claim repeats what the run holds: a store from before slots were stored does not know it.
        let is_claim = had_one && !active.fenced && active.call.is_none();
        match (had_one, run.state.has_slot()) {
            (true, true) if !is_claim => Vec::new(),
            (_, true) => {
                let keys = self.scheduler.slot_keys(run.id, active.plan.risk(), machine, had_one);
                vec![SlotMove::Take { run: run.id, keys }]
            }
            (true, false) if run.state.is_active() => vec![SlotMove::Give { run: run.id }],
            (_, false) => Vec::new(),
        }
    }

    /// All slots that the run would take are taken in the store, whatever the scheduler thinks: the run keeps its
    /// turn, and asks again a little later.
    pub(super) fn ask_for_slot_again(&mut self) {
        let due = self.ports.clock.monotonic() + Duration::from_millis(SLOT_RETRY_MS);
        if let Some(active) = &mut self.active {
            active.timers.arm(Timer::TakeSlot, due);
        }
    }

    /// A run that was about to wait for a slot does not: its commit has failed.
    pub(super) fn withdraw(&self) {
        let Some(active) = &self.active else { return };
        let (run, stored) = (active.run.id, active.stored.state);
        if active.stored.revision.0 > 0 && !is_queued(stored) && !stored.has_slot() {
            self.scheduler.release_slot(run);
        }
    }

    /// Takes over the records that the store made durable.
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

    /// Requests, keeps or releases the run's slot, depending on its state.
    fn settle_slot(&mut self) {
        let (Some(active), Some(machine)) = (&self.active, &self.machine) else { return };
        let risk = active.plan.risk();
        match active.run.state {
            run::State::Pending | run::State::Resuming => {
                let revision = active.stored.revision;
                self.scheduler.request_slot(active.run.id, risk, machine, revision);
            }
            run::State::Held
            | run::State::Deferred
            | run::State::Succeeded
            | run::State::Failed
            | run::State::Canceled => {
                self.scheduler.release_slot(active.run.id);
            }
            // Ending a held run does not make it wait, and it counts while it takes.
            run::State::Canceling
            | run::State::Stopping
            | run::State::Unwinding { .. }
            | run::State::Closing { .. } => {
                self.scheduler.restore_slot(active.run.id, risk, machine);
            }
            run::State::Running | run::State::Pausing => {}
        }
    }
}
