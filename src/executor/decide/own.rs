//! Steps that the engine performs itself: wait steps and approvals. They are steps like any other; the result that a
//! provider would return is computed here, in the same decision, so nothing is ever in flight.

use super::draft::{Asked, Draft, Facts};
use super::step::StepInput;
use crate::clock::Timestamp;
use crate::lifecycle::run;
use crate::lifecycle::step::{Basis, ErrorClass, Event, Seen, State};
use crate::model::{Actor, HoldReason};
use crate::plan::{Action, Guard, Value, duration};

/// Interval between two checks of what a step waits for, in milliseconds.
const LOOK_MS: u64 = 10_000;

impl Draft {
    /// How long the step at `place` waits, in milliseconds, if it waits for a time.
    pub(super) fn waits_ms(&self, place: usize, facts: Facts<'_>) -> Option<u64> {
        let action = facts.plan.own(place).filter(|action| !action.asks())?;
        if self.until(place, facts).is_some() {
            return None;
        }
        action.resolve(facts.params).get("for").and_then(Value::as_duration_ms)
    }

    fn until<'a>(&self, place: usize, facts: Facts<'a>) -> Option<&'a Guard> {
        facts.plan.steps.get(place)?.until.as_ref()
    }

    fn is_so(&self, place: usize, facts: Facts<'_>) -> bool {
        self.until(place, facts).is_some_and(|until| until.holds(&self.surroundings(facts)))
    }

    /// The result that a provider would return. `timed_out` says that the step's timer fired, whatever the wall clock
    /// says.
    pub(super) fn own_answer(
        &self,
        place: usize,
        asked: Asked,
        timed_out: bool,
        facts: Facts<'_>,
    ) -> StepInput {
        let fresh =
            matches!(self.run.steps[place].state, State::Observing { basis: Basis::Fresh, .. });
        let event = match asked {
            Asked::Act => Event::Accepted { until: self.next_look(place, facts) },
            Asked::Verify => Event::Verified,
            Asked::Observe if fresh && self.is_so(place, facts) => {
                let mut input = StepInput::bare(place, Event::Observed(Seen::Done));
                input.answer.message = self.came_true(place, facts);
                return input;
            }
            Asked::Observe if fresh => Event::Observed(Seen::NotDone),
            Asked::Observe => return self.own_look(place, timed_out, facts),
        };
        StepInput::bare(place, event)
    }

    fn own_look(&self, place: usize, timed_out: bool, facts: Facts<'_>) -> StepInput {
        let asks = facts.plan.own(place).is_some_and(Action::asks);
        let record = &self.run.steps[place];
        let is_over = timed_out || record.deadline_at.is_some_and(|at| at <= facts.now);
        let mut input = StepInput::bare(place, Event::Observed(Seen::Done));
        let given_ms = facts.plan.steps.get(place).map_or(0, |step| step.timeout_ms);
        match (self.verdict, asks) {
            (Some(true), true) => {}
            (Some(false), true) => {
                input.event = Event::CallFailed(ErrorClass::Permanent);
            }
            (None, true) if is_over => {
                input.event = Event::CallFailed(ErrorClass::Permanent);
                let given = duration::format(given_ms);
                input.answer.message =
                    format!("no answer within {given}, which counts as a rejection");
            }
            (_, false) if self.is_so(place, facts) || self.waits_ms(place, facts).is_some() => {
                input.answer.message = self.came_true(place, facts);
            }
            (_, false) if is_over => {
                input.event = Event::CallFailed(ErrorClass::Permanent);
                let given = duration::format(given_ms);
                let until = self.until(place, facts).map(ToString::to_string).unwrap_or_default();
                input.answer.message =
                    format!("it waited {given}, and still it is not so: {until}");
            }
            (None, true) | (_, false) => {
                input.event =
                    Event::Observed(Seen::InProgress { until: self.next_look(place, facts) });
            }
        }
        input
    }

    /// Message of a step whose wait is over.
    fn came_true(&self, place: usize, facts: Facts<'_>) -> String {
        match (self.until(place, facts), self.waits_ms(place, facts)) {
            (Some(until), _) => format!("it is so: {until}"),
            (None, Some(ms)) => format!("waited {}", duration::format(ms)),
            (None, None) => String::new(),
        }
    }

    /// When the step is checked next.
    fn next_look(&self, place: usize, facts: Facts<'_>) -> Timestamp {
        if let Some(ms) = self.waits_ms(place, facts) {
            return facts.now.plus_ms(ms);
        }
        let deadline_at = self.run.steps[place].deadline_at;
        let asks = facts.plan.own(place).is_some_and(Action::asks);
        let look_at = facts.now.plus_ms(LOOK_MS);
        match deadline_at {
            Some(deadline_at) if asks => deadline_at,
            Some(deadline_at) => deadline_at.min(look_at),
            None => look_at,
        }
    }

    /// Message and hold of a step that has started to wait or to ask for approval; one that asks holds the run. What a
    /// step waits for is kept in its record, which says why the run does not move.
    pub(super) fn own_begun(&mut self, place: usize, until: Timestamp, facts: Facts<'_>) -> String {
        let name = self.run.steps[place].name.clone();
        let Some(action) = facts.plan.own(place).filter(|action| action.asks()) else {
            let deadline_at = self.run.steps[place].deadline_at;
            let waits = match (self.until(place, facts), deadline_at) {
                (Some(wanted), Some(deadline_at)) => {
                    format!("waits until {wanted}, at most until {deadline_at}")
                }
                (Some(wanted), None) => format!("waits until {wanted}"),
                (None, _) => format!("waits until {until}"),
            };
            self.run.steps[place].message.clone_from(&waits);
            return format!("step {name} {waits}");
        };
        let question =
            action.resolve(facts.params).get("message").map_or_else(String::new, Value::to_string);
        if self.run_event(run::Event::Hold, facts).is_ok() {
            let message = format!("step {name} asks for approval: {question}");
            self.held(HoldReason::Approval, message, Actor::engine(), facts);
        }
        format!("step {name} asks: {question}")
    }
}
