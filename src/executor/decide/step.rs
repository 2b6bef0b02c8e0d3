//! Events of a step.

use super::draft::{Asked, Draft, Effect, Facts};
use crate::clock::Timestamp;
use crate::executor::names;
use crate::ids::OperationId;
use crate::lifecycle::backoff::Backoff;
use crate::lifecycle::run;
use crate::lifecycle::step::{self, ErrorClass, Event, Rules, State};
use crate::model::{Actor, Entry, EntryKind, StepRecord};
use crate::plan::{Action, Plan, Values};

/// Message of an attempt that is not counted.
const CUT_OFF: &str = "interrupted by a crash of the server and not done; not counted";

/// Result of a provider call, besides its event for the step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// What happened, for people.
    pub message: String,
    /// What was expected.
    pub expected: String,
    /// What was observed instead; for a success the evidence.
    pub observed: String,
    /// Outputs for later steps.
    pub output: Values,
    /// Handle that the provider gave to the operation.
    pub handle: Option<String>,
    /// Earliest time for a retry, from a failure whose provider gives one.
    pub retry_at: Option<Timestamp>,
}

/// An event of a step, with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInput {
    /// Index of the step.
    pub place: usize,
    /// The event.
    pub event: Event,
    /// Its data.
    pub answer: Answer,
}

impl StepInput {
    /// An event without data.
    #[must_use]
    pub fn bare(place: usize, event: Event) -> Self {
        Self { place, event, answer: Answer::default() }
    }
}

/// Rules of one step of a run: of the plan's step, or of the action that compensates it.
pub(super) fn rules(plan: &Plan, record: &StepRecord, place: usize) -> Option<Rules> {
    let step = plan.steps.get(record.compensates.unwrap_or(place))?;
    let retry = match record.compensates {
        None => &step.retry,
        Some(_) => {
            step.compensation.as_ref().and_then(|undo| undo.retry.as_ref()).unwrap_or(&step.retry)
        }
    };
    let retried =
        |class| names::plan_error_class(class).is_some_and(|class| retry.on.contains(&class));
    let traits = action(plan, record, place)?.traits;
    let on_unknown = match record.compensates {
        None => names::on_unknown(step.on_unknown),
        Some(_) if traits.idempotent => step::OnUnknown::Retry,
        Some(_) => step::OnUnknown::Verify,
    };
    Some(Rules {
        attempts_max: retry.max_attempts,
        retry_transient: retried(ErrorClass::Transient),
        retry_permanent: retried(ErrorClass::Permanent),
        retry_needs_human: retried(ErrorClass::NeedsHuman),
        backoff: Backoff { first_ms: retry.backoff_ms, ms_max: retry.backoff_max_ms },
        on_unknown,
        must_settle: traits.must_settle(),
        is_own: record.compensates.is_none() && plan.own(place).is_some(),
    })
}

/// Action of one step of a run.
pub(in crate::executor) fn action<'a>(
    plan: &'a Plan,
    record: &StepRecord,
    place: usize,
) -> Option<&'a Action> {
    match record.compensates {
        None => plan.steps.get(place).map(|step| &step.action),
        Some(undone) => plan.steps.get(undone)?.compensation.as_ref().map(|undo| &undo.action),
    }
}

/// Timeout of one attempt, in milliseconds.
pub(super) fn timeout_ms(plan: &Plan, record: &StepRecord, place: usize) -> u64 {
    let step = plan.steps.get(record.compensates.unwrap_or(place));
    match record.compensates {
        None => step.map_or(0, |step| step.timeout_ms),
        Some(_) => step
            .and_then(|step| step.compensation.as_ref())
            .map_or(0, |compensation| compensation.timeout_ms),
    }
}

impl Draft {
    /// Whether the action of a step must finish once it has been sent.
    pub(super) fn must_settle(&self, plan: &Plan, place: usize) -> bool {
        action(plan, &self.run.steps[place], place)
            .is_some_and(|action| action.traits.must_settle())
    }

    /// Applies an event to a step and its consequences to the run.
    ///
    /// An event that the step does not handle is dropped: it is a late result for something that has ended.
    pub fn step(&mut self, input: &StepInput, facts: Facts<'_>) {
        let place = input.place;
        let Some(record) = self.run.steps.get(place) else { return };
        let Some(rules) = rules(facts.plan, record, place) else { return };
        let before = record.state;
        let is_retried = input.event == Event::Woken
            && matches!(before, State::BackingOff { basis: step::Basis::Fresh, .. });
        if is_retried && self.run.state == run::State::Deferred {
            return self.due(facts);
        }
        if is_retried && !self.may_open(place, facts) {
            return;
        }
        if is_retried && let Some(why) = self.wrong_hardware(place, facts) {
            // The run is ending, and cannot be held.
            let mut input = StepInput::bare(place, Event::Cancel);
            input.answer.message = why;
            return self.step(&input, facts);
        }
        let is_own = facts.plan.own(place).is_some();
        let timed_out = input.event == Event::TimedOut;
        // The timer of a step of the engine has fired: it is checked once more, and its outcome is known.
        let event = if is_own && timed_out { Event::Woken } else { input.event };
        let stopping = self.run.state.is_stopping();
        let step_facts = step::Facts {
            now: facts.now,
            random: facts.random,
            stopping,
            unknowns: self.run.steps[place].unknowns,
            interrupted: self.run.steps[place].interrupted,
            retry_at: input.answer.retry_at,
        };
        let Ok((after, effects)) = step::apply(rules, before, event, step_facts) else {
            return;
        };
        if self.puts_off(place, event, &effects, facts) {
            return;
        }
        self.run.steps[place].state = after;
        // An action that passes through these states may have been sent. After a restart the stored state may be
        // stale.
        if !is_own
            && matches!(
                after,
                State::Acting { .. }
                    | State::Polling { .. }
                    | State::Verifying { .. }
                    | State::Unknown { .. }
                    | State::Observing {
                        basis: step::Basis::Poll | step::Basis::Unknown { .. },
                        ..
                    }
            )
        {
            self.run.steps[place].unsent = false;
        }
        self.record(place, before, input, facts);
        self.translate(place, &effects, facts);
        self.follow(place, before, input, facts);
        if let Some(asked) = self.asked.take() {
            let mut answer = self.own_answer(place, asked, timed_out, facts);
            if answer.answer.message.is_empty() {
                answer.answer.message.clone_from(&input.answer.message);
            }
            self.step(&answer, facts);
        }
        // An operator has skipped what it waited for.
        if self.run.state == run::State::Deferred && !self.backs_off() {
            self.due(facts);
        }
    }

    /// A call of a step could not be sent. If the attempt has been sent before, that says nothing about it: it is no
    /// failure of the operation, whose outcome stays unknown.
    pub fn not_sent(&mut self, input: &StepInput, facts: Facts<'_>) {
        let fresh = self.run.steps.get(input.place).is_some_and(|step| {
            matches!(step.state, State::Observing { basis: step::Basis::Fresh, .. })
        });
        let for_good = matches!(
            input.event,
            Event::CallFailed(ErrorClass::Permanent | ErrorClass::NeedsHuman)
        );
        let mut input = input.clone();
        if for_good && !fresh {
            input.event = Event::CallFailed(ErrorClass::OutcomeUnknown);
        }
        self.step(&input, facts);
    }

    /// Records the event's data in the step.
    fn record(&mut self, place: usize, before: State, input: &StepInput, facts: Facts<'_>) {
        let answer = &input.answer;
        let record = &mut self.run.steps[place];
        if !answer.message.is_empty() {
            record.message.clone_from(&answer.message);
        }
        if !answer.observed.is_empty() || !answer.expected.is_empty() {
            record.expected.clone_from(&answer.expected);
            record.observed.clone_from(&answer.observed);
        }
        if !answer.output.is_empty() {
            record.output.clone_from(&answer.output);
        }
        match input.event {
            Event::CallFailed(_) => record.retry_at = answer.retry_at,
            Event::Woken => record.retry_at = None,
            Event::Start
            | Event::GuardedOut
            | Event::Observed(_)
            | Event::Acted
            | Event::Accepted { .. }
            | Event::Verified
            | Event::NotVerified
            | Event::TimedOut
            | Event::Recovered
            | Event::Skip
            | Event::Cancel
            | Event::Detach
            | Event::Resolve(_) => {}
        }
        if let Some(handle) = &answer.handle {
            record.handle = Some(handle.clone());
        }
        if record.state.is_settled() && !before.is_settled() {
            record.finished_at = Some(facts.now);
            record.deadline_at = None;
        }
    }

    /// Translates the step machine's effects into the engine's.
    fn translate(&mut self, place: usize, effects: &[step::Effect], facts: Facts<'_>) {
        let is_own = facts.plan.own(place).is_some();
        for effect in effects {
            match *effect {
                step::Effect::Observe if is_own => self.asked = Some(Asked::Observe),
                step::Effect::Act if is_own => self.asked = Some(Asked::Act),
                step::Effect::Verify if is_own => self.asked = Some(Asked::Verify),
                step::Effect::Open { attempt } => self.open(place, attempt, facts),
                step::Effect::Extend => self.extend(place, facts),
                step::Effect::Unknown => {
                    self.extend(place, facts);
                    self.run.steps[place].unknowns += 1;
                    let entry = self
                        .step_entry(EntryKind::StepOutcomeUnknown, place)
                        .reason("OUTCOME_UNKNOWN");
                    let message = format!("outcome of {} is unknown", self.run.steps[place].name);
                    self.note(entry.message(message));
                }
                step::Effect::Interrupted => {
                    let record = &mut self.run.steps[place];
                    record.interrupted += 1;
                    CUT_OFF.clone_into(&mut record.message);
                }
                step::Effect::Observe => self.effects.push(Effect::Observe { step: place }),
                step::Effect::Act => self.effects.push(Effect::Act { step: place }),
                step::Effect::Verify => self.effects.push(Effect::Verify { step: place }),
                step::Effect::WakeAt(at) => self.effects.push(Effect::Wake { step: place, at }),
                step::Effect::Stop => self.effects.push(Effect::Stop { step: place }),
                step::Effect::Hold => {}
            }
        }
    }

    fn open(&mut self, place: usize, attempt: u32, facts: Facts<'_>) {
        let timeout_ms = timeout_ms(facts.plan, &self.run.steps[place], place);
        let run_id = self.run.id;
        // A step that waits for a time ends with it.
        let deadline_at =
            self.waits_ms(place, facts).is_none().then(|| facts.now.plus_ms(timeout_ms));
        let record = &mut self.run.steps[place];
        record.unsent |= record.attempt == 0;
        record.attempt = attempt;
        record.unknowns = 0;
        record.operation = Some(OperationId::new(run_id, &record.name.replace(' ', "-"), attempt));
        record.handle = None;
        record.started_at = record.started_at.or(Some(facts.now));
        record.attempt_at = Some(facts.now);
        record.deadline_at = deadline_at;
        self.run.current_step = Some(place);
        if facts.loop_breaker.is_some() && self.must_settle(facts.plan, place) {
            self.machine_mut().destructive_at.push(facts.now);
            self.machine_changed = true;
        }
        let name = &self.run.steps[place].name;
        let message = if attempt == 1 {
            format!("step {name} started")
        } else {
            format!("step {name} started, attempt {attempt}")
        };
        let entry = self.step_entry(EntryKind::StepStarted, place).message(message);
        self.note(entry);
        if let Some(at) = deadline_at {
            self.effects.push(Effect::Deadline { step: place, at });
        }
    }

    fn extend(&mut self, place: usize, facts: Facts<'_>) {
        let at = facts.now.plus_ms(timeout_ms(facts.plan, &self.run.steps[place], place));
        self.run.steps[place].deadline_at = Some(at);
        self.effects.push(Effect::Deadline { step: place, at });
    }

    pub(super) fn step_entry(&self, kind: EntryKind, place: usize) -> Entry {
        Entry::new(kind, Actor::engine()).step(&self.run.steps[place].name)
    }
}
