//! What holds runs or callers back until someone lifts it: a stop of everything, locks, and pauses of plans.

use std::collections::BTreeMap;

use super::actor::Actor;
use super::machine::Machine;
use super::run::Run;
use crate::clock::Timestamp;

/// What a lock is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockTarget {
    /// Every run: nothing begins.
    All,
    /// A caller, by the name that the server has verified.
    Principal(String),
    /// Machines that have all of these labels.
    Machines(BTreeMap<String, String>),
    /// A plan with this content: its runs do not begin to destroy data.
    Plan {
        /// Digest of the plan.
        digest: String,
        /// Its id, for people.
        plan_id: String,
    },
}

impl LockTarget {
    /// Name of its kind, as stored and for people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::All => "stop",
            Self::Principal(_) => "principal",
            Self::Machines(_) => "machines",
            Self::Plan { .. } => "plan",
        }
    }
}

/// A lock. It stays after it was lifted, for a while: the time limits of runs leave out how long they were held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Its id, never used again.
    pub id: String,
    /// What it is on.
    pub target: LockTarget,
    /// Why.
    pub reason: String,
    /// Who set it.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// When it was lifted.
    pub lifted_at: Option<Timestamp>,
}

impl Lock {
    /// Whether it is in force.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.lifted_at.is_none() && self.until.is_none_or(|until| now < until)
    }

    /// When it ended; `None` while it is in force.
    #[must_use]
    pub fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.holds(now) { None } else { self.until.into_iter().chain(self.lifted_at).min() }
    }

    /// Whether no effect of a run on this machine may begin.
    #[must_use]
    pub fn is_on_machine(&self, machine: &Machine) -> bool {
        match &self.target {
            LockTarget::All => true,
            LockTarget::Machines(labels) => {
                labels.iter().all(|(key, value)| machine.labels.get(key) == Some(value))
            }
            LockTarget::Principal(_) | LockTarget::Plan { .. } => false,
        }
    }

    /// Whether runs of the plan with this digest may not begin to destroy data.
    #[must_use]
    pub fn is_on_plan(&self, digest: &str) -> bool {
        matches!(&self.target, LockTarget::Plan { digest: of, .. } if of == digest)
    }

    /// Whether it holds back anything of a run.
    #[must_use]
    pub fn is_on_run(&self, machine: &Machine, run: &Run) -> bool {
        self.is_on_machine(machine) || self.is_on_plan(&run.spec.plan_digest)
    }
}
