mod accusations;
mod actions;
mod journaled;
mod scripted;
mod timed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::clock::{Clock, Timestamp, TokioClock};
use crate::ids::{Epoch, MachineId, OperationId, RunId};
use crate::lifecycle::step::ErrorClass;
use crate::model::{LogStream, MachineSpec};
use crate::plan::{ActionSpec, Capability, Value, Values};
use crate::provider::Target;
use crate::provider::{
    Acted, Call, Capabilities, Fut, LogSink, Logs, Observation, Provider, ProviderError,
    ProviderErrorKind, Verification,
};

/// World time at which the tests begin.
pub(super) const START_MS: u64 = 1_700_000_000_000;

/// A provider, one machine, and its output.
pub(super) struct Fixture {
    pub(super) provider: FakeProvider,
    pub(super) clock: Arc<TokioClock>,
    pub(super) target: Target,
    pub(super) lines: Arc<Lines>,
}

#[derive(Default)]
pub(super) struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, _stream: LogStream, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Lines {
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub(super) fn target(id: &str) -> Target {
    let spec = MachineSpec {
        provider: NAME.to_owned(),
        target_cluster: "prod-1".to_owned(),
        ..MachineSpec::default()
    };
    Target { machine_id: MachineId::parse(id).unwrap(), spec }
}

pub(super) fn run(number: u64) -> RunId {
    RunId::new(Timestamp(START_MS), [number, 0])
}

pub(super) fn call(run_number: u64, action: &str, attempt: u32) -> Call {
    let mut args = Values::new();
    if action == "repave" {
        args.insert("image".to_owned(), Value::Str("ubuntu-24.04".into()));
    }
    Call {
        operation: OperationId::new(run(run_number), action, attempt),
        epoch: Epoch(1),
        action: action.to_owned(),
        capability: ActionSpec::find(action).map_or(Capability::Engine, |spec| spec.capability),
        args,
        inputs: BTreeMap::new(),
        handle: None,
    }
}

/// The output of mint-join for join.
pub(super) fn minted(handle: &str) -> Values {
    Values::from([("handle".to_owned(), Value::Str(handle.to_owned().into()))])
}

impl Fixture {
    pub(super) fn new(options: FakeOptions) -> Self {
        let clock = Arc::new(TokioClock::new(Timestamp(START_MS)));
        Self {
            provider: FakeProvider::new(options, clock.clone()),
            clock,
            target: target("machine-1"),
            lines: Arc::new(Lines::default()),
        }
    }

    pub(super) fn zero(script: &str) -> Self {
        let script = Script::parse(script).unwrap();
        Self::new(FakeOptions { timing: Timing::Zero, script, ..FakeOptions::default() })
    }

    pub(super) fn timed(script: &str) -> Self {
        let script = Script::parse(script).unwrap();
        Self::new(FakeOptions { script, ..FakeOptions::default() })
    }

    pub(super) fn logs(&self) -> Logs {
        self.lines.clone()
    }

    pub(super) async fn act(&self, call: &Call) -> Result<Acted, ProviderError> {
        self.provider.act(&self.target, call, self.logs()).await
    }

    pub(super) async fn observe(&self, call: &Call) -> Result<Observation, ProviderError> {
        self.provider.observe(&self.target, call, self.logs()).await
    }

    pub(super) async fn verify(&self, call: &Call) -> Result<Verification, ProviderError> {
        self.provider.verify(&self.target, call, self.logs()).await
    }

    pub(super) fn machine(&self) -> MachineView {
        self.provider.world().machine(&self.target.machine_id).unwrap()
    }

    pub(super) async fn pass(&self, ms: u64) {
        self.clock.sleep(std::time::Duration::from_millis(ms)).await;
    }

    /// Runs an action to its end; returns the output.
    pub(super) async fn carry_out(&self, call: &Call) -> Option<String> {
        let output = match self.act(call).await.unwrap() {
            Acted::Done { output, .. } => output,
            Acted::Accepted { poll_at, .. } => {
                self.pass(poll_at.0 - self.clock.now().0).await;
                let seen = self.observe(call).await.unwrap();
                let Observation::Done { output, .. } = seen else { panic!("{seen:?}") };
                output
            }
        };
        assert!(matches!(self.verify(call).await.unwrap(), Verification::Holds { .. }));
        output.get("handle").map(ToString::to_string)
    }

    /// The five steps of a repave-join, as run number `run`.
    pub(super) async fn repave_join(&self, run: u64) {
        self.carry_out(&call(run, "set-netboot", 1)).await;
        self.carry_out(&call(run, "repave", 1)).await;
        let handle = self.carry_out(&call(run, "mint-join", 1)).await.unwrap();
        let mut join = call(run, "join", 1);
        join.inputs.insert("mint-join".to_owned(), minted(&handle));
        self.carry_out(&join).await;
        self.carry_out(&call(run, "verify", 1)).await;
    }
}

/// Whether a future is pending when polled once.
pub(super) fn is_pending<T>(future: &mut Fut<'_, T>) -> bool {
    matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

pub(super) fn class(error: &ProviderError) -> ErrorClass {
    match error.kind {
        ProviderErrorKind::Class(class) => class,
        ProviderErrorKind::Fenced { current } => panic!("fenced by {current}"),
    }
}
