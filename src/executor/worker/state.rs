//! State of a worker: the records that it owns, and the run that it drives.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::call::{CallInFlight, Prepared};
use super::logs::{Line, LogBuffer};
use super::message::{Message, Reply, Scheduling};
use super::spans::Spans;
use super::timers::Timers;
use crate::clock::Timestamp;
use crate::executor::decide::{Braking, Draft, Effect, Facts};
use crate::executor::error::EngineError;
use crate::executor::planted::Planted;
use crate::executor::ports::Ports;
use crate::ids::{BatchId, Epoch, MachineId, Revision, RunId};
use crate::lifecycle::run;
use crate::model::{Machine, Run};
use crate::plan::{Plan, Value};
use crate::provider::Provider;
use crate::store::{LogHead, StoreError};

/// An instant on both clocks: a wall-clock time is converted once to a span, so that later jumps of the wall clock do
/// not matter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Duration,
}

/// A decision and its time.
pub(super) struct Decision {
    pub(super) draft: Draft,
    pub(super) moment: Moment,
    /// The change of what holds runs back up to which it is right.
    pub(super) as_of: u64,
}

/// A batch whose outcome can be looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Its id.
    pub(super) id: BatchId,
    /// A revision before its own.
    pub(super) since: Revision,
}

/// A decision whose commit may or may not have happened.
pub(super) struct InDoubt {
    /// The batch.
    pub(super) batch: Asked,
    /// The run as it was to be written, with the revision that the writer saw.
    pub(super) run: Run,
    /// The machine's epoch after the commit.
    pub(super) epoch: Epoch,
    /// Effects to perform once the commit is durable.
    pub(super) effects: Vec<Effect>,
    /// When it was decided.
    pub(super) moment: Moment,
    /// Lines that the commit was to store.
    pub(super) lines: Vec<Line>,
}

impl InDoubt {
    /// Whether `stored` is what the commit was to write.
    pub(super) fn is_stored_as(&self, stored: &Run) -> bool {
        let Run { revision, ordinal, .. } = *stored;
        Run { revision, ordinal, ..self.run.clone() } == *stored
    }
}

/// The run that a worker drives.
pub(super) struct Active {
    /// The run as stored.
    pub(super) stored: Arc<Run>,
    /// The present run: stages of an open attempt may be ahead of the store.
    pub(super) run: Run,
    pub(super) plan: Arc<Plan>,
    pub(super) params: Arc<BTreeMap<String, Value>>,
    pub(super) provider: Option<Arc<dyn Provider>>,
    /// Whether the provider has confirmed the machine's present epoch.
    pub(super) fenced: bool,
    pub(super) call: Option<CallInFlight>,
    /// What the last call was sent with: the next ones of its attempt are sent with the same.
    pub(super) prepared: Option<Prepared>,
    pub(super) timers: Timers,
    pub(super) logs: Arc<LogBuffer>,
    /// How much of its steps' output is stored; `None` until that is looked up.
    pub(super) log_head: Option<LogHead>,
    pub(super) spans: Spans,
}

pub(in crate::executor) struct Worker {
    pub(super) ports: Arc<Ports>,
    pub(super) scheduler: Arc<dyn Scheduling>,
    pub(super) id: MachineId,
    /// For messages from its calls.
    pub(super) own: mpsc::UnboundedSender<Message>,
    pub(super) mailbox: mpsc::UnboundedReceiver<Message>,
    /// Messages put aside while the store was unavailable.
    pub(super) stash: VecDeque<Message>,
    pub(super) machine: Option<Arc<Machine>>,
    pub(super) active: Option<Active>,
    pub(super) next_serial: u64,
    /// An active run of the machine that another engine drives.
    pub(super) lost: Option<RunId>,
    /// A commit that may or may not have happened; resolved before anything else is done.
    pub(super) in_doubt: Option<InDoubt>,
    /// Only with a planted bug: the answer to give before anything is durable.
    pub(super) early_reply: Option<Reply<Arc<Run>>>,
}

impl Worker {
    pub(in crate::executor) fn new(
        ports: Arc<Ports>,
        scheduler: Arc<dyn Scheduling>,
        id: MachineId,
        (own, mailbox): (mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>),
    ) -> Self {
        Self {
            ports,
            scheduler,
            id,
            own,
            mailbox,
            stash: VecDeque::new(),
            machine: None,
            active: None,
            next_serial: 0,
            lost: None,
            in_doubt: None,
            early_reply: None,
        }
    }

    /// The machine, from the cache or the store.
    pub(super) async fn load_machine(&mut self) -> Result<Arc<Machine>, EngineError> {
        if let Some(machine) = &self.machine {
            return Ok(machine.clone());
        }
        let machine =
            self.ports.store.machine(&self.id).await?.ok_or_else(|| EngineError::NotFound {
                kind: "machine",
                id: self.id.to_string(),
            })?;
        self.machine = Some(machine.clone());
        Ok(machine)
    }

    /// Facts for a decision about the active run.
    pub(super) fn facts<'a>(
        ports: &Ports,
        now: Timestamp,
        active: (&'a Plan, &'a BTreeMap<String, Value>),
        provider: Option<&Arc<dyn Provider>>,
        braking: Braking,
    ) -> Facts<'a> {
        let counts = ports.limits.destructive_on_simulated
            || provider.is_some_and(|provider| provider.is_real());
        Facts {
            now,
            random: ports.jitter(),
            plan: active.0,
            params: active.1,
            loop_breaker: counts
                .then_some((ports.limits.destructive_max, ports.limits.destructive_window_ms)),
            draining: ports.tasks.is_draining(),
            braking,
            trusts_hardware: ports.planted == Some(Planted::AnyHardware),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { wall: self.ports.clock.now(), monotonic: self.ports.clock.monotonic() }
    }

    /// The records of the machine and a run as they are stored.
    pub(super) async fn records(
        &self,
        run_id: RunId,
    ) -> Result<(Option<Arc<Machine>>, Option<Arc<Run>>), StoreError> {
        let machine = self.ports.store.machine(&self.id).await?;
        let run = self.ports.store.run(run_id).await?;
        Ok((machine, run))
    }

    /// Gives up an active run that another engine drives.
    pub(super) fn relinquish(&mut self, run_id: RunId) {
        self.lost = Some(run_id);
        self.scheduler.release_slot(run_id);
        self.forget();
    }

    /// Drops the cache: another writer has written. A run that waits for a slot keeps its turn; if it waits no longer, it
    /// leaves when its turn comes.
    pub(super) fn forget(&mut self) {
        self.machine = None;
        let Some(active) = self.active.take() else { return };
        let waits = matches!(active.stored.state, run::State::Pending | run::State::Resuming);
        if active.stored.revision.0 > 0 && waits {
            self.scheduler.put_back_slot(active.run.id);
        } else {
            self.scheduler.release_slot(active.run.id);
        }
    }
}
