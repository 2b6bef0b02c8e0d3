//! Lifecycle of a step: attempts, their stages, and what happens when an outcome is unknown.
//!
//! An attempt is *open* from the moment its intent is durable until it has ended. Inside an open attempt the stages
//! observing, acting and verifying follow each other without commits: after a crash every stage means the same, "the
//! action may or may not have happened".

#![expect(missing_docs, reason = "statig generates undocumented items")]
#![allow(unused_qualifications, reason = "in statig's expansion")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an event that a state does not name goes up to its superstate; the table snapshot shows every pair"
)]

mod event;
mod state;

use statig::blocking::*;

pub use self::event::{
    Effect, ErrorClass, Event, Facts, OnUnknown, Rejected, Resolution, Rules, Seen,
};
pub use self::state::{Basis, Phase, State};
use super::hsm::{self, Verdict};
use crate::clock::Timestamp;

/// Most times that an unknown outcome is observed, or acted on again, before the run is held.
pub const UNKNOWN_CHECKS_MAX: u32 = 5;

/// Most attempts of a step that are not counted because a crash of the server interrupted them. Bounded, since the
/// step itself may be what crashes the server.
pub const INTERRUPTED_MAX: u32 = 5;

/// Longest time that a provider can postpone the next attempt, in milliseconds.
pub const RETRY_AT_MS_MAX: u64 = 60 * 60 * 1_000;

/// Facts in, effects and refusals out.
#[derive(Debug)]
pub struct Context {
    facts: Facts,
    effects: Vec<Effect>,
    denied: Option<&'static str>,
}

/// Applies `event` to `state`: the state after it, and what the engine must do once that state is durable.
///
/// # Errors
/// [`Rejected`] if the state does not handle the event; then there is nothing to do.
pub fn apply(
    rules: Rules,
    state: State,
    event: Event,
    facts: Facts,
) -> Result<(State, Vec<Effect>), Rejected> {
    let mut next = state;
    let mut machine = StepMachine(rules);
    let mut context = Context { facts, effects: Vec::new(), denied: None };
    let verdict = hsm::dispatch(&mut next, &mut machine, &event, &mut context);
    match (context.denied, verdict) {
        (Some(why), _) => Err(Rejected::Denied(why)),
        (None, Verdict::Unhandled) => Err(Rejected::Illegal { state, event }),
        (None, Verdict::Moved | Verdict::Kept) => Ok((next, context.effects)),
    }
}

#[derive(Debug, Clone, Copy)]
pub struct StepMachine(Rules);

#[state_machine(
    initial = "State::Waiting",
    state(custom, name = "State"),
    superstate(name = "Group", derive(Debug))
)]
impl StepMachine {
    #[state(superstate = "unsettled")]
    fn waiting(context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::Start => context.observe(1, Basis::Fresh, true),
            Event::GuardedOut | Event::Skip => Transition(State::Skipped),
            Event::Cancel => Transition(State::Canceled),
            Event::Recovered => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "in_flight")]
    fn observing(
        &mut self,
        attempt: &u32,
        basis: &Basis,
        context: &mut Context,
        event: &Event,
    ) -> Outcome<State> {
        let rules = self.0;
        match (event, *basis) {
            (Event::Observed(Seen::Done), Basis::Fresh) => Transition(State::Succeeded),
            // Anything reported as done is verified, whatever the source.
            (Event::Observed(Seen::Done), Basis::Poll | Basis::Unknown { .. }) => {
                context.verify(*attempt, 0)
            }
            // However we got here: once the run is ending, nothing is sent.
            (Event::Observed(Seen::NotDone | Seen::Unknowable), Basis::Fresh)
                if context.facts.stopping =>
            {
                Transition(State::Canceled)
            }
            (Event::Observed(Seen::NotDone | Seen::Unknowable), Basis::Fresh) => {
                context.effects.push(Effect::Act);
                Transition(State::Acting { attempt: *attempt })
            }
            (Event::Observed(Seen::NotDone), Basis::Poll) => {
                context.failed(rules, *attempt, ErrorClass::Transient)
            }
            (Event::Observed(Seen::NotDone), Basis::Unknown { cut_off, .. }) => {
                context.not_done(rules, *attempt, cut_off)
            }
            (Event::Observed(Seen::InProgress { until }), _) => context.poll(*attempt, *until),
            (Event::Observed(Seen::Unknowable), Basis::Poll) => {
                context.unknown(rules, *attempt, *event)
            }
            (Event::Observed(Seen::Unknowable), Basis::Unknown { .. }) => context.hold(*attempt),
            (Event::CallFailed(class), Basis::Fresh) => {
                // An observation changes nothing, so even a lost answer is a plain failure.
                let class = match class {
                    ErrorClass::OutcomeUnknown => ErrorClass::Transient,
                    ErrorClass::Transient | ErrorClass::Permanent | ErrorClass::NeedsHuman => {
                        *class
                    }
                };
                context.failed(rules, *attempt, class)
            }
            // The provider reports that the operation itself has failed: nothing took effect.
            (
                Event::CallFailed(class @ (ErrorClass::Permanent | ErrorClass::NeedsHuman)),
                Basis::Poll | Basis::Unknown { .. },
            ) => context.failed(rules, *attempt, *class),
            (Event::CallFailed(_), Basis::Poll) => {
                let until = context.later(rules, 1);
                context.poll(*attempt, until)
            }
            (Event::CallFailed(_), Basis::Unknown { checks, cut_off }) => {
                context.look_again(rules, *attempt, checks, cut_off)
            }
            (Event::TimedOut, Basis::Fresh) => {
                context.failed(rules, *attempt, ErrorClass::Transient)
            }
            (Event::TimedOut, Basis::Poll) => context.unknown(rules, *attempt, *event),
            (Event::TimedOut, Basis::Unknown { .. }) => context.hold(*attempt),
            // Nothing has been sent, destructive or not, and after a cancel nothing will be.
            (Event::Cancel, Basis::Fresh) => Transition(State::Canceled),
            // The stored stage may be stale: the action may have been sent.
            (Event::Recovered, Basis::Fresh) => context.unknown(rules, *attempt, *event),
            (Event::Recovered, Basis::Poll | Basis::Unknown { .. }) => {
                context.effects.push(Effect::Extend);
                context.observe(*attempt, *basis, false)
            }
            _ => Super,
        }
    }

    #[state(superstate = "in_flight")]
    fn acting(&mut self, attempt: &u32, context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::Acted => context.verify(*attempt, 0),
            Event::Accepted { until } => context.poll(*attempt, *until),
            Event::CallFailed(ErrorClass::OutcomeUnknown) | Event::TimedOut | Event::Recovered => {
                context.unknown(self.0, *attempt, *event)
            }
            Event::CallFailed(class) => context.failed(self.0, *attempt, *class),
            _ => Super,
        }
    }

    #[state(superstate = "in_flight")]
    fn polling(
        &mut self,
        attempt: &u32,
        until: &Timestamp,
        context: &mut Context,
        event: &Event,
    ) -> Outcome<State> {
        match event {
            Event::Woken => context.observe(*attempt, Basis::Poll, false),
            Event::TimedOut => context.unknown(self.0, *attempt, *event),
            // The provider is known to have the operation: asking repeats nothing.
            Event::Recovered => {
                context.effects.push(Effect::WakeAt(*until));
                Handled
            }
            _ => Super,
        }
    }

    #[state(superstate = "in_flight")]
    fn verifying(
        &mut self,
        attempt: &u32,
        checks: &u32,
        context: &mut Context,
        event: &Event,
    ) -> Outcome<State> {
        match event {
            Event::Verified => Transition(State::Succeeded),
            Event::NotVerified => context.failed(self.0, *attempt, ErrorClass::Transient),
            // The action is reported done; only the check could not be made.
            Event::CallFailed(_) if *checks < UNKNOWN_CHECKS_MAX => {
                context.verify(*attempt, *checks + 1)
            }
            Event::CallFailed(_) | Event::TimedOut | Event::Recovered => {
                context.unknown(self.0, *attempt, *event)
            }
            _ => Super,
        }
    }

    #[state(superstate = "running")]
    fn backing_off(
        &mut self,
        attempt: &u32,
        until: &Timestamp,
        basis: &Basis,
        context: &mut Context,
        event: &Event,
    ) -> Outcome<State> {
        match (event, *basis) {
            (Event::Woken, Basis::Fresh) => context.observe(*attempt + 1, Basis::Fresh, true),
            (Event::Woken, Basis::Poll | Basis::Unknown { .. }) => {
                context.observe(*attempt, *basis, false)
            }
            (Event::Recovered, _) => {
                context.effects.push(Effect::WakeAt(*until));
                Handled
            }
            (Event::TimedOut, Basis::Unknown { .. } | Basis::Poll) => context.hold(*attempt),
            // Nothing is in flight: the attempt has failed and the next one is not open yet.
            (Event::Skip, Basis::Fresh) => Transition(State::Skipped),
            (Event::Cancel, Basis::Fresh) => Transition(State::Canceled),
            (Event::Cancel, Basis::Poll | Basis::Unknown { .. }) if !self.0.must_settle => {
                context.effects.push(Effect::Stop);
                Transition(State::Canceled)
            }
            (Event::Cancel, Basis::Poll | Basis::Unknown { .. }) => Handled,
            _ => Super,
        }
    }

    #[state(superstate = "running")]
    fn unknown(attempt: &u32, context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::Resolve(Resolution::Done) => Transition(State::Succeeded),
            // The operator takes responsibility: the limit on attempts does not apply. The attempt opens when the run
            // has its slot again.
            Event::Resolve(Resolution::Retry) => {
                let until = context.facts.now;
                context.effects.push(Effect::WakeAt(until));
                Transition(State::BackingOff { attempt: *attempt, until, basis: Basis::Fresh })
            }
            Event::Resolve(Resolution::Skip) => Transition(State::Skipped),
            Event::Skip => {
                context.denied = Some(
                    "the outcome of the step is unknown: resolve it (done, retry, skip or abort)",
                );
                Handled
            }
            Event::Recovered => Handled,
            // The machine stays blocked by its condition; the cancel is not lost.
            Event::Cancel => Transition(State::Canceled),
            _ => Super,
        }
    }

    /// A call is in flight, or the provider is working on the operation.
    #[superstate(superstate = "running")]
    fn in_flight(&mut self, context: &mut Context, event: &Event) -> Outcome<State> {
        match event {
            Event::Cancel if self.0.is_own => Transition(State::Canceled),
            Event::Skip if self.0.is_own => Transition(State::Skipped),
            // An action that must finish is waited for first.
            Event::Cancel if self.0.must_settle => Handled,
            Event::Cancel => {
                context.effects.push(Effect::Stop);
                Transition(State::Canceled)
            }
            Event::Skip => {
                context.denied = Some(
                    "a call of the step is in flight; a pause or a cancel waits for its end, an abort does not",
                );
                Handled
            }
            _ => Super,
        }
    }

    /// The public phase RUNNING.
    #[superstate(superstate = "unsettled")]
    fn running(event: &Event) -> Outcome<State> {
        let _ = event;
        Super
    }

    #[superstate]
    fn unsettled(event: &Event) -> Outcome<State> {
        match event {
            Event::Detach => Transition(State::Canceled),
            _ => Super,
        }
    }

    #[state(superstate = "settled")]
    fn succeeded() -> Outcome<State> {
        Super
    }

    #[state(superstate = "settled")]
    fn failed() -> Outcome<State> {
        Super
    }

    #[state(superstate = "settled")]
    fn skipped() -> Outcome<State> {
        Super
    }

    #[state(superstate = "settled")]
    fn canceled() -> Outcome<State> {
        Super
    }

    /// Terminal and immutable; events that end a run change nothing here.
    #[superstate]
    fn settled(event: &Event) -> Outcome<State> {
        match event {
            Event::Cancel | Event::Detach | Event::Recovered => Handled,
            _ => Super,
        }
    }
}

impl Context {
    fn observe(&mut self, attempt: u32, basis: Basis, open: bool) -> Outcome<State> {
        if open {
            self.effects.push(Effect::Open { attempt });
        }
        self.effects.push(Effect::Observe);
        Transition(State::Observing { attempt, basis })
    }

    fn verify(&mut self, attempt: u32, checks: u32) -> Outcome<State> {
        self.effects.push(Effect::Verify);
        Transition(State::Verifying { attempt, checks })
    }

    fn poll(&mut self, attempt: u32, until: Timestamp) -> Outcome<State> {
        self.effects.push(Effect::WakeAt(until));
        Transition(State::Polling { attempt, until })
    }

    fn hold(&mut self, attempt: u32) -> Outcome<State> {
        self.effects.push(Effect::Hold);
        Transition(State::Unknown { attempt })
    }

    /// The next attempt: after the backoff delay or when the provider has asked for it, whichever is later.
    fn later(&self, rules: Rules, failures: u32) -> Timestamp {
        let now = self.facts.now;
        let paused = now.plus_ms(rules.backoff.delay_ms(failures, self.facts.random));
        let asked = self.facts.retry_at.map(|at| at.min(now.plus_ms(RETRY_AT_MS_MAX)));
        asked.map_or(paused, |asked| asked.max(paused))
    }

    /// The attempt has failed and nothing is in flight: start the next one, or fail the step.
    fn failed(&mut self, rules: Rules, attempt: u32, class: ErrorClass) -> Outcome<State> {
        let retried = match class {
            ErrorClass::Transient => rules.retry_transient,
            ErrorClass::Permanent => rules.retry_permanent,
            ErrorClass::NeedsHuman => rules.retry_needs_human,
            ErrorClass::OutcomeUnknown => false,
        };
        if self.facts.stopping {
            return Transition(State::Canceled);
        }
        if !retried || attempt >= rules.attempts_max.saturating_add(self.facts.interrupted) {
            return Transition(State::Failed);
        }
        let failures = attempt.saturating_sub(self.facts.interrupted).max(1);
        let until = self.later(rules, failures);
        self.effects.push(Effect::WakeAt(until));
        Transition(State::BackingOff { attempt, until, basis: Basis::Fresh })
    }

    /// An observation after an unknown outcome says that the action did not happen: a new attempt without delay, or
    /// the end. The attempt is opened like any other, when the run may open one. A crash of the server says nothing
    /// about the operation: an attempt that it interrupted is not counted, up to a limit.
    fn not_done(&mut self, rules: Rules, attempt: u32, cut_off: bool) -> Outcome<State> {
        if self.facts.stopping {
            return Transition(State::Canceled);
        }
        if cut_off && self.facts.interrupted < INTERRUPTED_MAX {
            self.effects.push(Effect::Interrupted);
        } else if attempt >= rules.attempts_max.saturating_add(self.facts.interrupted) {
            return Transition(State::Failed);
        }
        let until = self.facts.now;
        self.effects.push(Effect::WakeAt(until));
        Transition(State::BackingOff { attempt, until, basis: Basis::Fresh })
    }

    /// The action may or may not have happened: the declared rule decides, never luck.
    fn unknown(&mut self, rules: Rules, attempt: u32, cause: Event) -> Outcome<State> {
        if self.facts.unknowns >= UNKNOWN_CHECKS_MAX {
            return self.hold(attempt);
        }
        match rules.on_unknown {
            OnUnknown::Retry if self.facts.stopping => self.hold(attempt),
            OnUnknown::Retry => {
                self.effects.push(Effect::Unknown);
                self.effects.push(Effect::Act);
                Transition(State::Acting { attempt })
            }
            OnUnknown::Verify => {
                self.effects.push(Effect::Unknown);
                let cut_off = cause == Event::Recovered;
                self.observe(attempt, Basis::Unknown { checks: 0, cut_off }, false)
            }
            OnUnknown::Hold => self.hold(attempt),
        }
    }

    fn look_again(
        &mut self,
        rules: Rules,
        attempt: u32,
        checks: u32,
        cut_off: bool,
    ) -> Outcome<State> {
        if checks + 1 >= UNKNOWN_CHECKS_MAX {
            return self.hold(attempt);
        }
        let until = self.later(rules, checks + 1);
        self.effects.push(Effect::WakeAt(until));
        let basis = Basis::Unknown { checks: checks + 1, cut_off };
        Transition(State::BackingOff { attempt, until, basis })
    }
}
