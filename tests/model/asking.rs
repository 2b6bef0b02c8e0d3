//! Requests, and the answers that the model expects.

use bmdemo::pb::{Phase, StepResolution};

use crate::rules::Plan;

/// An etag in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Etag {
    None,
    /// The one that the object has.
    Current,
    /// One that it never had.
    Stale,
}

/// A verb on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Cancel,
    Abort,
    Pause,
    Resume,
    /// Resolves a step whose outcome is unknown.
    Resolve(StepResolution),
}

/// A request, machines and runs by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// With `serves`, as one that is in service already.
    Register {
        machine: usize,
        serves: bool,
    },
    Label {
        machine: usize,
        value: u8,
        etag: Etag,
    },
    SetPhase {
        machine: usize,
        phase: Phase,
        etag: Etag,
    },
    Clear {
        machine: usize,
        etag: Etag,
    },
    Delete {
        machine: usize,
        etag: Etag,
    },
    Start {
        machine: usize,
        plan: Plan,
        force: bool,
        dry: bool,
        etag: Etag,
    },
    Verb {
        run: usize,
        verb: Verb,
        etag: Etag,
    },
    Retry {
        run: usize,
    },
}

impl Ask {
    pub(crate) fn etag(self) -> Etag {
        match self {
            Self::Label { etag, .. }
            | Self::SetPhase { etag, .. }
            | Self::Clear { etag, .. }
            | Self::Delete { etag, .. }
            | Self::Start { etag, .. }
            | Self::Verb { etag, .. } => etag,
            Self::Register { .. } | Self::Retry { .. } => Etag::None,
        }
    }

    /// What a request id is scoped to: the method and its target.
    pub(crate) fn scope(self) -> (&'static str, usize) {
        match self {
            Self::Register { machine, .. } => ("register", machine),
            Self::Label { machine, .. } | Self::SetPhase { machine, .. } => ("update", machine),
            Self::Clear { machine, .. } => ("clear", machine),
            Self::Delete { machine, .. } => ("delete", machine),
            Self::Start { machine, .. } => ("start", machine),
            Self::Retry { run } => ("retry", run),
            Self::Verb { run, verb, .. } => match verb {
                Verb::Cancel => ("cancel", run),
                Verb::Abort => ("abort", run),
                Verb::Pause => ("pause", run),
                Verb::Resume => ("resume", run),
                Verb::Resolve(_) => ("resolve", run),
            },
        }
    }
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A request, with a request id if it has a number.
    Ask(Ask, Option<u8>),
    /// An hour passes.
    Pass,
    /// The server ends and another one starts on the same store and world.
    Restart { orderly: bool },
}

/// The expected answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing was asked.
    Silence,
    /// Yes. With a number, the run of that number is new.
    Yes { new_run: Option<usize> },
    /// The first answer to the same request again.
    Again,
    /// No, for this reason.
    No(&'static str),
}
