//! Events: history entries, the change feed, log chunks.

use std::sync::Arc;

use super::actor::Actor;
use super::record::{Images, Object, Record};
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};

macro_rules! entry_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Kind of a history entry: a closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EntryKind { $($(#[$doc])* $variant,)* }

        impl EntryKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The kind of a name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

entry_kinds! {
    /// A machine was registered.
    MachineRegistered = "machine.registered",
    /// Labels or spec of a machine were changed.
    MachineUpdated = "machine.updated",
    /// The phase of a machine changed.
    PhaseChanged = "phase.changed",
    /// The status or the reason of a condition changed.
    ConditionChanged = "condition.changed",
    /// An operator cleared NeedsIntervention.
    InterventionCleared = "intervention.cleared",
    /// A machine was deleted.
    MachineDeleted = "machine.deleted",
    /// A run was accepted.
    RunCreated = "run.created",
    /// A run got a slot and started.
    RunStarted = "run.started",
    /// A pause was requested.
    RunPauseRequested = "run.pause-requested",
    /// A run is held.
    RunHeld = "run.held",
    /// A held run was released.
    RunResumed = "run.resumed",
    /// A cancel was requested.
    RunCancelRequested = "run.cancel-requested",
    /// On_failure steps and compensations run.
    RunUnwinding = "run.unwinding",
    /// The finally steps run.
    RunClosing = "run.closing",
    /// The time limit of the run has passed.
    RunTimeUp = "run.time-up",
    /// The server recovered the run after a restart, under a new epoch.
    RunRecovered = "run.recovered",
    /// A run succeeded.
    RunSucceeded = "run.succeeded",
    /// A run failed.
    RunFailed = "run.failed",
    /// A run ended by a cancel.
    RunCanceled = "run.canceled",
    /// An operator ended a run at once.
    RunAborted = "run.aborted",
    /// An attempt of a step was opened.
    StepStarted = "step.started",
    /// An attempt failed; another follows.
    StepRetrying = "step.retrying",
    /// The provider accepted the operation and is working on it.
    StepAccepted = "step.accepted",
    /// The outcome of an attempt became unknown.
    StepOutcomeUnknown = "step.outcome-unknown",
    /// An operator answered a step that asks for approval.
    StepAnswered = "step.answered",
    /// An operator resolved an unknown outcome.
    StepResolved = "step.resolved",
    /// A step succeeded.
    StepSucceeded = "step.succeeded",
    /// A step failed for good.
    StepFailed = "step.failed",
    /// A step was skipped.
    StepSkipped = "step.skipped",
    /// A step was ended by a cancel.
    StepCanceled = "step.canceled",
}

/// One history entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What.
    pub kind: EntryKind,
    /// Step it concerns, empty if none.
    pub step: String,
    /// Previous state, empty if it does not apply.
    pub from: String,
    /// New state, empty if it does not apply.
    pub to: String,
    /// Reason in UPPER_SNAKE_CASE, or an operator's words.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// Who.
    pub actor: Actor,
}

impl Entry {
    /// An entry with only its kind and actor.
    #[must_use]
    pub fn new(kind: EntryKind, actor: Actor) -> Self {
        Self {
            kind,
            step: String::new(),
            from: String::new(),
            to: String::new(),
            reason: String::new(),
            message: String::new(),
            actor,
        }
    }

    /// Sets the step.
    #[must_use]
    pub fn step(mut self, step: &str) -> Self {
        step.clone_into(&mut self.step);
        self
    }

    /// Sets the previous and the new state.
    #[must_use]
    pub fn moved(mut self, from: &str, to: &str) -> Self {
        from.clone_into(&mut self.from);
        to.clone_into(&mut self.to);
        self
    }

    /// Sets the reason.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.reason);
        self
    }

    /// Sets the text for people.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

/// One entry with its position in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// Revision of the commit.
    pub revision: Revision,
    /// Index among the entries of the commit, from 0.
    pub index: u32,
    /// When.
    pub at: Timestamp,
    /// Machine it concerns.
    pub machine_id: MachineId,
    /// Run it concerns.
    pub run_id: Option<RunId>,
    /// What happened.
    pub entry: Entry,
}

/// One record changed by a commit: the input of watches. One commit changes a record at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Revision of the commit.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// The record before and after it.
    pub object: Object,
    /// The record existed before, but its previous state is no longer kept. Only in stores written by an older
    /// version: a reader that needs it must list again.
    pub before_is_gone: bool,
    /// What happened.
    pub entries: Arc<[Entry]>,
}

impl Change {
    /// The change of a record of the kind `T`; `None` if this is the change of another kind.
    #[must_use]
    pub fn images<T: Record>(&self) -> Option<&Images<T>> {
        T::images(&self.object)
    }

    /// The record of the kind `T` after the change; `None` if it was deleted, or is of another kind.
    #[must_use]
    pub fn after<T: Record>(&self) -> Option<&Arc<T>> {
        self.images::<T>()?.after.as_ref()
    }

    /// The machine concerned: the one that changed, or the one that the run belongs to.
    #[must_use]
    pub fn machine_id(&self) -> Option<&MachineId> {
        match &self.object {
            Object::Machine(images) => images.last().map(|machine| &machine.id),
            Object::Run(images) => images.last().map(|run| &run.machine_id),
        }
    }
}

/// Output stream of a log chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogStream {
    /// The step's ordinary output.
    Stdout,
    /// The step's error output.
    Stderr,
    /// Notes of the engine.
    Engine,
}

impl LogStream {
    /// Every stream.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Engine];

    /// Name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Engine => "engine",
        }
    }

    /// The stream of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == name)
    }
}

/// Whole lines that a step printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Run they belong to.
    pub run_id: RunId,
    /// Position in the log of the run: dense, from 0.
    pub offset: u64,
    /// When.
    pub at: Timestamp,
    /// Step that printed them.
    pub step: String,
    /// Attempt of the step.
    pub attempt: u32,
    /// Which output.
    pub stream: LogStream,
    /// Text, ending with a line feed.
    pub text: String,
    /// Whether lines after this chunk were dropped because the step exceeded its limit.
    pub truncated: bool,
}
