//! One actor per machine with work: load, decide, commit, perform.
//!
//! Everything that concerns a machine and its run goes through the mailbox of its actor, so nothing about a machine
//! is ever decided twice at once. An actor is made when something concerns its machine and ends when nothing does:
//! an idle machine costs nothing. The actor is the cache of the records that it owns; the store is the truth.

mod call;
mod caught;
mod commands;
mod delete;
mod doubt;
mod drive;
mod logs;
mod machine;
mod spans;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use self::call::{CallInFlight, Called};
use self::doubt::Doubt;
use self::logs::LogBuffer;
use self::spans::Spans;
use self::timers::Timers;
use super::core::Core;
use super::decide::{Draft, Facts};
use super::error::EngineError;
use super::planted::Planted;
use super::request::{MachineChanges, NewRun, Origin, Verb};
use crate::clock::Timestamp;
use crate::ids::{MachineId, RunId};
use crate::model::{Machine, Run};
use crate::plan::{Plan, Value};
use crate::provider::{Health, Provider};
use crate::store::StoreError;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// What an actor is told. Small, since a mailbox is made of blocks of 32.
pub(super) enum Message {
    /// Start a run, or repeat an ended one.
    Start {
        origin: Box<Origin>,
        new: Box<NewRun>,
        retry_of: Option<RunId>,
        /// The span of the request, for the run's to name.
        caller: Box<Span>,
        reply: Reply<Arc<Run>>,
    },
    /// An operator's verb on a run.
    Operate { origin: Box<Origin>, run_id: RunId, verb: Box<Verb>, reply: Reply<Arc<Run>> },
    /// Change the machine.
    Update { origin: Box<Origin>, changes: Box<MachineChanges>, reply: Reply<Arc<Machine>> },
    /// Clear NeedsIntervention.
    ClearIntervention { origin: Box<Origin>, reply: Reply<Arc<Machine>> },
    /// Delete the machine.
    Delete { origin: Box<Origin>, reply: Reply<()> },
    /// The scheduler has a slot for the run.
    Admitted { run_id: RunId },
    /// A provider call was answered.
    Called(Box<Called>),
    /// A step has printed lines that no commit has taken yet.
    Printed,
    /// Take the machine's active run up after a restart.
    Recover { run_id: RunId, done: oneshot::Sender<Result<(), EngineError>> },
    /// A probe was answered.
    Probed { health: Health },
    /// Everything sent before this has been handled.
    Barrier { done: oneshot::Sender<()> },
}

/// An instant on both clocks: a wall-clock time that was computed then means a span from then, however the wall clock
/// jumps in between.
#[derive(Debug, Clone, Copy)]
struct Moment {
    wall: Timestamp,
    monotonic: Duration,
}

/// What was decided, and when.
struct Decision {
    draft: Draft,
    moment: Moment,
}

/// The run that an actor drives.
struct Active {
    /// As the store has it.
    stored: Arc<Run>,
    /// As it is: stages of an open attempt may be ahead of the store.
    run: Run,
    plan: Arc<Plan>,
    params: Arc<BTreeMap<String, Value>>,
    provider: Option<Arc<dyn Provider>>,
    /// Whether the provider has confirmed the machine's present epoch.
    fenced: bool,
    call: Option<CallInFlight>,
    timers: Timers,
    logs: Arc<LogBuffer>,
    spans: Spans,
}

pub(super) struct Actor {
    core: Arc<Core>,
    id: MachineId,
    mailbox: mpsc::UnboundedReceiver<Message>,
    /// Messages put aside while the store was away.
    stash: VecDeque<Message>,
    machine: Option<Arc<Machine>>,
    active: Option<Active>,
    next_serial: u64,
    /// A commit that may or may not have happened; found out about before anything else is done.
    doubt: Option<Doubt>,
    /// Only with a planted bug: the answer to give before anything is durable.
    early_reply: Option<Reply<Arc<Run>>>,
}

/// Delay before a commit of the engine is tried again, in milliseconds.
const STORE_RETRY_MS: u64 = 250;

impl Actor {
    pub(super) fn new(
        core: Arc<Core>,
        id: MachineId,
        mailbox: mpsc::UnboundedReceiver<Message>,
    ) -> Self {
        Self {
            core,
            id,
            mailbox,
            stash: VecDeque::new(),
            machine: None,
            active: None,
            next_serial: 0,
            doubt: None,
            early_reply: None,
        }
    }

    /// Runs until nothing concerns the machine any more.
    pub(super) async fn run(mut self) {
        let mut guard = PanicGuard { core: self.core.clone(), id: self.id.clone(), done: false };
        loop {
            self.settle_doubt().await;
            if self.active.is_none() && self.stash.is_empty() && self.retire() {
                guard.done = true;
                return;
            }
            if let Some(message) = self.stash.pop_front() {
                self.handle(message).await;
                continue;
            }
            let due = self.active.as_ref().and_then(|active| active.timers.next_due());
            let nap = due
                .map(|due| self.core.clock.sleep(due.saturating_sub(self.core.clock.monotonic())));
            let nap = async {
                match nap {
                    Some(nap) => nap.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.mailbox.recv() => {
                    let Some(message) = message else { return };
                    self.handle(message).await;
                }
                called = call::answered(&mut self.active) => self.called(called).await,
                () = nap => self.fire_timers().await,
            }
        }
    }

    /// Leaves the table of actors if nothing has been sent meanwhile.
    fn retire(&mut self) -> bool {
        self.core.retire(&self.id, || self.mailbox.is_empty())
    }

    // What clients ask is boxed: it is rare beside the answers of providers, and its futures are large.
    async fn handle(&mut self, message: Message) {
        match message {
            Message::Start { origin, new, retry_of, caller, reply } => {
                if self.core.planted == Some(Planted::AckBeforeCommit) {
                    self.early_reply = Some(reply);
                    let answer = Box::pin(self.start(&origin, *new, retry_of, &caller)).await;
                    if let Some(reply) = self.early_reply.take() {
                        drop(reply.send(answer));
                    }
                    return;
                }
                let answer = Box::pin(self.start(&origin, *new, retry_of, &caller)).await;
                // The client may have gone; what was committed stays committed.
                drop(reply.send(answer));
            }
            Message::Operate { origin, run_id, verb, reply } => {
                drop(reply.send(Box::pin(self.operate(&origin, run_id, &verb)).await));
            }
            Message::Update { origin, changes, reply } => {
                drop(reply.send(Box::pin(self.update(&origin, &changes)).await));
            }
            Message::ClearIntervention { origin, reply } => {
                drop(reply.send(Box::pin(self.clear_intervention(&origin)).await));
            }
            Message::Delete { origin, reply } => {
                drop(reply.send(Box::pin(self.delete(&origin)).await));
            }
            Message::Admitted { run_id } => self.admitted(run_id).await,
            Message::Called(called) => self.called(*called).await,
            Message::Printed => self.printed(),
            Message::Recover { run_id, done } => {
                drop(done.send(Box::pin(self.recover(run_id)).await));
            }
            Message::Probed { health } => self.probed(&health).await,
            // Whoever waited may have given up waiting.
            Message::Barrier { done } => drop(done.send(())),
        }
    }

    /// The machine, from the cache or the store.
    async fn load_machine(&mut self) -> Result<Arc<Machine>, EngineError> {
        if let Some(machine) = &self.machine {
            return Ok(machine.clone());
        }
        let machine =
            self.core.store.machine(&self.id).await?.ok_or_else(|| EngineError::NotFound {
                kind: "machine",
                id: self.id.to_string(),
            })?;
        self.machine = Some(machine.clone());
        Ok(machine)
    }

    /// Facts for a decision about the active run.
    fn facts<'a>(
        core: &Core,
        now: Timestamp,
        active: (&'a Plan, &'a BTreeMap<String, Value>),
        provider: Option<&Arc<dyn Provider>>,
    ) -> Facts<'a> {
        let counts = core.limits.destructive_on_simulated
            || provider.is_some_and(|provider| provider.is_real());
        Facts {
            now,
            random: core.jitter(),
            plan: active.0,
            params: active.1,
            loop_breaker: counts
                .then_some((core.limits.destructive_max, core.limits.destructive_window_ms)),
            draining: core.is_draining(),
        }
    }

    fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    /// Waits for a store that is away, refusing commands meanwhile and keeping everything else for later.
    async fn wait_for_store(&mut self, error: &StoreError) {
        tracing::warn!(machine = %self.id, %error, "the store did not take a commit; trying again");
        let nap = self.core.clock.sleep(Duration::from_millis(STORE_RETRY_MS));
        tokio::pin!(nap);
        loop {
            tokio::select! {
                biased;
                () = &mut nap => return,
                message = self.mailbox.recv() => {
                    let Some(message) = message else { return };
                    self.refuse_or_stash(message, error);
                }
            }
        }
    }

    fn refuse_or_stash(&mut self, message: Message, error: &StoreError) {
        let refusal = || EngineError::Store(error.clone());
        match message {
            Message::Start { reply, .. } | Message::Operate { reply, .. } => {
                drop(reply.send(Err(refusal())));
            }
            Message::Update { reply, .. } | Message::ClearIntervention { reply, .. } => {
                drop(reply.send(Err(refusal())));
            }
            Message::Delete { reply, .. } => drop(reply.send(Err(refusal()))),
            kept @ (Message::Admitted { .. }
            | Message::Called(_)
            | Message::Printed
            | Message::Recover { .. }
            | Message::Probed { .. }
            | Message::Barrier { .. }) => self.stash.push_back(kept),
        }
    }

    /// Forgets what the cache says: somebody else has written.
    fn forget(&mut self) {
        self.machine = None;
        if let Some(active) = self.active.take() {
            self.core.release_slot(active.run.id);
        }
    }
}

/// A panic in one actor must not take its machine out of service for good: the run is taken up again as after a
/// restart.
struct PanicGuard {
    core: Arc<Core>,
    id: MachineId,
    done: bool,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !self.done && std::thread::panicking() {
            tracing::error!(machine = %self.id, "an actor panicked; its run is taken up again");
            self.core.revive(&self.id);
        }
    }
}
