//! Traces of a run: a span for as long as this server drives it, in it one for each attempt of a step, and in that
//! one for each call of the provider.
//!
//! All of it is at debug level, and nothing is created unless spans of that level are enabled. A run that outlives
//! the server has a span for each time that it was recovered.

use tracing::{Span, field};

use super::call::Kind;
use crate::lifecycle::run;
use crate::lifecycle::step::{Phase, State};
use crate::model::{Run, StepRecord};

/// The spans of one active run.
#[derive(Debug)]
pub(in crate::executor) struct Spans {
    run: Span,
    open: Option<Open>,
}

/// An attempt that is open.
#[derive(Debug)]
struct Open {
    place: usize,
    attempt: u32,
    span: Span,
}

impl Spans {
    /// Starts the span of a run: one that `caller` requested, or that was recovered after a restart.
    pub(super) fn begin(run: &Run, caller: Option<&Span>) -> Self {
        let span = tracing::debug_span!(
            parent: None,
            "run",
            run_id = %run.id,
            machine_id = %run.machine_id,
            plan = %run.spec.plan_id,
            taken_up = caller.is_none(),
            outcome = field::Empty,
            otel.status_code = field::Empty,
        );
        if let Some(caller) = caller {
            // A link, not a parent: the caller is answered long before the run ends.
            span.follows_from(caller);
        }
        Self { run: span, open: None }
    }

    /// Moves the spans out.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::none())
    }

    /// For a run whose spans are elsewhere.
    pub(super) fn none() -> Self {
        Self { run: Span::none(), open: None }
    }

    /// Whether they are enabled.
    pub(super) fn is_enabled(&self) -> bool {
        !self.run.is_disabled()
    }

    /// Ends and starts spans according to the run's state.
    pub(super) fn follow(&mut self, run: &Run) {
        if self.run.is_disabled() {
            return;
        }
        let mut steps = run.steps.iter().enumerate();
        let open = steps.find(|(_, step)| step.state.is_open());
        let place = open.map(|(place, step)| (place, step.attempt));
        if place != self.open.as_ref().map(|open| (open.place, open.attempt)) {
            if let Some(before) = self.open.take() {
                before.end(run);
            }
            self.open = open.map(|(place, step)| Open {
                place,
                attempt: step.attempt,
                span: self.attempt(run, step),
            });
        }
        if !run.state.is_active() {
            self.run.record("outcome", run.phase().as_str());
            if run.phase() == run::Phase::Failed {
                self.run.record("otel.status_code", "ERROR");
            }
        }
    }

    fn attempt(&self, run: &Run, step: &StepRecord) -> Span {
        tracing::debug_span!(
            parent: &self.run,
            "step",
            run_id = %run.id,
            machine_id = %run.machine_id,
            plan = %run.spec.plan_id,
            step = %step.name,
            attempt = step.attempt,
            outcome = field::Empty,
            otel.status_code = field::Empty,
        )
    }

    /// The span of a call that belongs to the open attempt.
    pub(super) fn call(&self, kind: Kind) -> Span {
        let Some(open) = &self.open else { return Span::none() };
        let kind = kind.as_str();
        tracing::debug_span!(parent: &open.span, "call", kind, outcome = field::Empty)
    }
}

impl Open {
    fn end(self, run: &Run) {
        let Some(step) = run.steps.get(self.place) else { return };
        let outcome = if step.attempt == self.attempt { outcome(step.state) } else { "RETRIED" };
        self.span.record("outcome", outcome);
        if ![Phase::Succeeded.as_str(), Phase::Skipped.as_str()].contains(&outcome) {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

/// How an attempt ended, by the state that it left its step in.
fn outcome(state: State) -> &'static str {
    match state {
        State::BackingOff { .. } | State::Waiting => "RETRIED",
        State::Unknown { .. } => "UNKNOWN",
        State::Observing { .. }
        | State::Acting { .. }
        | State::Polling { .. }
        | State::Verifying { .. }
        | State::Succeeded
        | State::Failed
        | State::Skipped
        | State::Canceled => state.phase().as_str(),
    }
}
