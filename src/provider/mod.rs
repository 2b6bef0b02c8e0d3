//! What the engine asks of hardware: a provider per class of machine, described by its capabilities. A class is a driver, or
//! names a driver for each capability ([`routed`]).
//! Machines that are installed fetch their settings and report at the [`boot`] desk.
//!
//! Every action is a contract in four calls: *fence* (raise the machine's epoch at the provider, so that late calls
//! of a former owner are refused), *observe* (is it done already?), *act* (with an operation id and the epoch),
//! *verify* (is it done, and does it stay so?).

pub mod boot;
mod breaker;
mod capabilities;
mod epochs;
mod error;
pub mod exec;
pub mod fake;
pub mod ipmi;
mod message;
mod meter;
pub mod redfish;
mod restart;
pub mod routed;
pub mod webhook;

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
pub use meter::{Meter, Metered};

/// Boxed future of a provider call.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// Future of a provider that ends.
pub type Closing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The machine that a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Id.
    pub machine_id: MachineId,
    /// Its addresses and other fields.
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
    /// Operation id: run/step/attempt.
    pub operation: OperationId,
    /// Epoch under which it is sent.
    pub epoch: Epoch,
    /// Action of the plan, for example "repave".
    pub action: String,
    /// What the action needs: decides which driver of the machine's class is called.
    pub capability: Capability,
    /// Arguments of the action, with defaults filled in.
    pub args: Values,
    /// Outputs of the steps named in `needs`, by step; for a compensation also the output of the step that it undoes.
    pub inputs: BTreeMap<String, Values>,
    /// Handle that the provider gave to the operation, if any.
    pub handle: Option<String>,
}

/// An action that a run would perform.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Name of the action, for example "repave".
    pub name: &'a str,
    /// What it needs.
    pub capability: Capability,
    /// Its arguments, with defaults filled in.
    pub args: &'a Values,
}

/// Result of *observe*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It is done: the operation, or the state that it should bring about.
    Done {
        /// The evidence.
        evidence: String,
        /// Outputs for later steps.
        output: Values,
    },
    /// It is not done, and no operation is in progress.
    NotDone {
        /// What was observed.
        observed: String,
    },
    /// The operation is in progress.
    InProgress {
        /// When to ask again.
        poll_at: Timestamp,
    },
    /// It cannot be determined.
    Unknowable {
        /// Why.
        why: String,
    },
}

/// Result of *act*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// Done.
    Done {
        /// The evidence.
        evidence: String,
        /// Outputs for later steps, for example a handle of join material. Never a secret.
        output: Values,
    },
    /// Accepted; the provider continues by itself.
    Accepted {
        /// Handle that the provider gives to the operation.
        handle: String,
        /// When to ask.
        poll_at: Timestamp,
    },
}

/// Result of *verify*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// It is done, and stays so.
    Holds {
        /// The evidence.
        evidence: String,
    },
    /// It is not done, whatever was reported.
    Broken {
        /// What was expected.
        expected: String,
        /// What was observed.
        observed: String,
    },
}

/// Result of a health probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The machine answers.
    pub reachable: bool,
    /// It answers, with reduced capacity.
    pub degraded: bool,
    /// What was observed, for people.
    pub message: String,
    /// Other observed facts; empty if the machine does not answer.
    pub facts: MachineFacts,
}

/// Receives the output of an operation.
pub trait LogSink: Send + Sync {
    /// One line, without its line feed.
    fn line(&self, stream: LogStream, text: &str);
    /// Whether an action that has waited for its turn may still begin: not while everything is stopped. A driver that lets
    /// calls wait asks when it is their turn, and answers [`ProviderError::put_off`] if not.
    fn may_begin(&self) -> bool {
        true
    }
}

/// Where a call's output goes.
pub type Logs = Arc<dyn LogSink>;

/// Drives the machines of one class.
///
/// Calls may be dropped at any await; what has been sent by then may still happen.
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Name, as in a machine's `spec.provider`.
    fn name(&self) -> &str;
    /// What it supports for this machine. Must not wait: it is called before every run.
    fn capabilities(&self, target: &Target) -> Capabilities;
    /// Name of the driver that has this capability; empty if none has.
    fn driver(&self, capability: Capability) -> &str {
        let _ = capability;
        self.name()
    }
    /// What an operator should know about the way in which this capability is provided; `None` if nothing.
    fn warning(&self, capability: Capability) -> Option<&str> {
        let _ = capability;
        None
    }
    /// Whether the driver of a capability performs this action of it. Only actions that a server declares can be missing.
    fn performs(&self, capability: Capability, action: &str) -> bool {
        let _ = (capability, action);
        true
    }
    /// Why the driver of a capability cannot perform an action with these arguments on this machine, as far as it knows
    /// without asking anything; `None` if nothing speaks against it. Must not wait: it is called before every run.
    fn objection(&self, target: &Target, action: &Asked<'_>) -> Option<String> {
        let _ = (target, action);
        None
    }
    /// Raises the machine's epoch at every driver of the plan's capabilities, `uses`: from now on they refuse calls under
    /// an older one. Idempotent.
    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()>;
    /// Observes; changes nothing.
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
    /// Asks an operation to stop; best effort, idempotent.
    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()>;
    /// Asks for the machine's health; changes nothing.
    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health>;
    /// As [`Provider::probe`], for one who asks now: reads also what probes read only now and then.
    fn inspect<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        self.probe(target)
    }
    /// Number of controllers, or the like, that each driver leaves alone after failures in a row; only drivers that do so.
    fn breakers_open(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Ends what it has open elsewhere, such as sessions: the server ends. Takes a bounded time.
    fn close(&self) -> Closing<'_> {
        Box::pin(std::future::ready(()))
    }
    /// Whether its machines are real: then bulk and destructive commands ask first, probes are on by default and the
    /// loop breaker counts.
    fn is_real(&self) -> bool;
}
