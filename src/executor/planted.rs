//! Bugs that tests plant to prove that the simulation would find them. Only tests can switch one on: no flag, no
//! configuration and no environment variable leads here.

/// A bug to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// The intent of an attempt is not committed before the action is sent (breaks promise 3).
    NoIntent,
    /// An unknown outcome leads to another act, whatever the rule says (breaks promise 6).
    BlindRetry,
    /// A request is acknowledged before its commit is durable (breaks promise 1).
    AckBeforeCommit,
    /// Timers of steps are not armed again on recovery (breaks promise 5).
    TimerLost,
    /// The fencing epoch counts per run instead of per machine (breaks promise 10).
    EpochPerRun,
    /// The fence is raised after the machine was read back (breaks promise 10).
    FenceAfterReadBack,
    /// What a run waits for is lost when its worker leaves, and no sweep looks for it (breaks promise 5).
    LostWorker,
    /// After a restart the queue for slots is in the order of the machines' ids (breaks promise 16).
    QueueByName,
    /// A change is judged only by the record after it, so that nothing ever leaves a filter (breaks promise 9).
    EventMisjudged,
    /// Disks of hardware that is not the registered machine are written (breaks promise 22).
    AnyHardware,
    /// What the audit says of a commit is written after it (breaks the audit).
    AuditOutsideCommit,
    /// After a restart the runs in progress no longer count as what their plans put at risk (breaks the blast radius).
    RiskForgotten,
    /// After a restart nothing is stopped any more (breaks the stop).
    StopForgotten,
    /// A plan is never paused, however often it fails (breaks the pause of plans).
    FailuresUncounted,
}

impl Planted {
    /// Every bug.
    pub const ALL: [Self; 14] = [
        Self::NoIntent,
        Self::BlindRetry,
        Self::AckBeforeCommit,
        Self::TimerLost,
        Self::EpochPerRun,
        Self::FenceAfterReadBack,
        Self::LostWorker,
        Self::QueueByName,
        Self::EventMisjudged,
        Self::AnyHardware,
        Self::AuditOutsideCommit,
        Self::RiskForgotten,
        Self::StopForgotten,
        Self::FailuresUncounted,
    ];
}
