//! What the engine asks of hardware: a provider per class of machine, described by its capabilities. A class is a driver, or
//! names a driver for each capability ([`routed`]).
//!
//! Every action is a contract in four calls (design section 5): *fence* (raise the machine's epoch at the provider,
//! so that late calls of a former owner are refused), *observe* (is it already so?), *act* (with an operation id and
//! the epoch), *verify* (is it so, and does it stay so?).

mod capabilities;
mod error;
pub mod fake;
pub mod routed;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, OperationId};
use crate::model::{LogStream, Machine, MachineFacts, MachineSpec};
use crate::plan::{Capability, Values};

pub use capabilities::Capabilities;
pub use error::{ErrorCode, ProviderError, ProviderErrorKind};

/// Boxed future of a provider call.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// The machine that a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Id.
    pub machine_id: MachineId,
    /// Where it answers.
    pub spec: MachineSpec,
}

impl From<&Machine> for Target {
    fn from(machine: &Machine) -> Self {
        Self { machine_id: machine.id.clone(), spec: machine.spec.clone() }
    }
}

/// One operation: the same id means the same operation, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Name of the operation: run/step/attempt.
    pub operation: OperationId,
    /// Epoch under which it is sent.
    pub epoch: Epoch,
    /// Action of the plan, for example "repave".
    pub action: String,
    /// What the action needs: decides which driver of the machine's class is called.
    pub capability: Capability,
    /// Arguments of the action, defaults filled in.
    pub args: Values,
    /// What the steps named in `needs` have given, by step; for a compensation also what the step that it undoes has given.
    pub inputs: BTreeMap<String, Values>,
    /// Name that the provider gave to the operation, if it did.
    pub handle: Option<String>,
}

/// Answer of *observe*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It is so: the operation, or what it is to bring about, is done.
    Done {
        /// What shows it.
        evidence: String,
        /// What later steps need.
        output: Values,
    },
    /// It is not so, and nothing is under way.
    NotDone {
        /// What was seen.
        observed: String,
    },
    /// The operation is under way.
    InProgress {
        /// When to ask again.
        poll_at: Timestamp,
    },
    /// It cannot be told.
    Unknowable {
        /// Why.
        why: String,
    },
}

/// Answer of *act*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// Done.
    Done {
        /// What shows it.
        evidence: String,
        /// What later steps need, for example a handle of join material. Never a secret.
        output: Values,
    },
    /// Taken; the provider goes on by itself.
    Accepted {
        /// Name that the provider gives to the operation.
        handle: String,
        /// When to ask.
        poll_at: Timestamp,
    },
}

/// Answer of *verify*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// It is so, and stays so.
    Holds {
        /// What shows it.
        evidence: String,
    },
    /// It is not so, whatever was reported.
    Broken {
        /// What should be.
        expected: String,
        /// What is.
        observed: String,
    },
}

/// Answer of a health probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The machine answers.
    pub reachable: bool,
    /// It answers, with reduced capacity.
    pub degraded: bool,
    /// What was seen, for people.
    pub message: String,
    /// What else was seen; nothing, if the machine does not answer.
    pub facts: MachineFacts,
}

/// Takes what an operation prints.
pub trait LogSink: Send + Sync {
    /// One line, without its line feed.
    fn line(&self, stream: LogStream, text: &str);
}

/// Where a call's output goes.
pub type Logs = Arc<dyn LogSink>;

/// Drives the machines of one class.
///
/// Calls may be dropped at any await; what has been sent by then may still happen.
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Name, as in a machine's `spec.provider`.
    fn name(&self) -> &str;
    /// What it can do for this machine. Must not wait: it is asked before every run.
    fn capabilities(&self, target: &Target) -> Capabilities;
    /// Name of the driver that has this capability; empty if none has.
    fn driver(&self, capability: Capability) -> &str {
        let _ = capability;
        self.name()
    }
    /// Raises the machine's epoch wherever the plan's capabilities, `uses`, lead: from now on calls under an older one are
    /// refused there. Idempotent.
    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()>;
    /// Looks; changes nothing.
    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation>;
    /// Acts. The same operation id never acts twice.
    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted>;
    /// Checks the result; changes nothing.
    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification>;
    /// Tells an operation to stop; best effort, idempotent.
    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()>;
    /// Asks how the machine is; changes nothing.
    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health>;
    /// Whether its machines are real: then bulk and destructive commands ask first, probes are on by default and the
    /// loop breaker counts.
    fn is_real(&self) -> bool;
}
