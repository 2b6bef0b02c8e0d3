//! What happens to a step, and what follows for its run.

use super::draft::{Draft, Effect, Facts};
use crate::clock::Timestamp;
use crate::executor::names;
use crate::ids::OperationId;
use crate::lifecycle::backoff::Backoff;
use crate::lifecycle::run;
use crate::lifecycle::step::{self, ErrorClass, Event, Rules, Seen, State};
use crate::model::machine::REASON_OUTCOME_UNKNOWN;
use crate::model::{Actor, ConditionKind, Entry, EntryKind, Hold, HoldReason, StepRecord};
use crate::plan::{Action, Plan, Values};

/// What comes back from the provider, besides the event it means for the step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// What happened, for people.
    pub message: String,
    /// What was expected.
    pub expected: String,
    /// What was seen instead; for a success the evidence.
    pub observed: String,
    /// What later steps need.
    pub output: Values,
    /// Name that the provider gave to the operation.
    pub handle: Option<String>,
    /// Earliest time at which trying again makes sense, of a failure whose provider says one.
    pub retry_at: Option<Timestamp>,
}

/// An event of a step, with what came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInput {
    /// Place of the step.
    pub place: usize,
    /// What happened.
    pub event: Event,
    /// What came with it.
    pub answer: Answer,
}

impl StepInput {
    /// An event that nothing came with.
    #[must_use]
    pub fn bare(place: usize, event: Event) -> Self {
        Self { place, event, answer: Answer::default() }
    }
}

/// Rules of one step of a run: of the plan's step, or of the action that compensates it.
pub(super) fn rules(plan: &Plan, record: &StepRecord, place: usize) -> Option<Rules> {
    let step = plan.steps.get(record.compensates.unwrap_or(place))?;
    let retried =
        |class| names::plan_error_class(class).is_some_and(|class| step.retry.on.contains(&class));
    let traits = action(plan, record, place)?.traits;
    let on_unknown = match record.compensates {
        None => names::on_unknown(step.on_unknown),
        Some(_) if traits.idempotent => step::OnUnknown::Retry,
        Some(_) => step::OnUnknown::Verify,
    };
    Some(Rules {
        attempts_max: step.retry.max_attempts,
        retry_transient: retried(ErrorClass::Transient),
        retry_permanent: retried(ErrorClass::Permanent),
        retry_needs_human: retried(ErrorClass::NeedsHuman),
        backoff: Backoff { first_ms: step.retry.backoff_ms, ms_max: step.retry.backoff_max_ms },
        on_unknown,
        must_settle: traits.must_settle(),
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
    /// Whether the action of a step must come to its end once it has been sent.
    pub(super) fn must_settle(&self, plan: &Plan, place: usize) -> bool {
        action(plan, &self.run.steps[place], place)
            .is_some_and(|action| action.traits.must_settle())
    }

    /// Applies an event to a step and draws the consequences for the run.
    ///
    /// An event that the step does not take is dropped: it is the late echo of something that has been settled.
    pub fn step(&mut self, input: &StepInput, facts: Facts<'_>) {
        let place = input.place;
        let Some(record) = self.run.steps.get(place) else { return };
        let Some(rules) = rules(facts.plan, record, place) else { return };
        let before = record.state;
        if input.event == Event::Woken
            && matches!(before, State::BackingOff { basis: step::Basis::Fresh, .. })
            && !self.may_open(place, facts)
        {
            return;
        }
        let stopping = matches!(self.run.state, run::State::Canceling);
        let step_facts = step::Facts {
            now: facts.now,
            random: facts.random,
            stopping,
            unknowns: self.run.steps[place].unknowns,
            forgiven: self.run.steps[place].forgiven,
            retry_at: input.answer.retry_at,
        };
        let Ok((after, effects)) = step::apply(rules, before, input.event, step_facts) else {
            return;
        };
        self.run.steps[place].state = after;
        // What leads through these states may have been sent. After a restart the stored one may lag behind.
        if matches!(
            after,
            State::Acting { .. }
                | State::Polling { .. }
                | State::Verifying { .. }
                | State::Unknown { .. }
                | State::Observing { basis: step::Basis::Poll | step::Basis::Unknown { .. }, .. }
        ) {
            self.run.steps[place].unsent = false;
        }
        self.record(place, before, input, facts);
        self.translate(place, &effects, facts);
        self.follow(place, before, input, facts);
    }

    /// A call of a step could not be sent. Where the attempt has been sent before, that says nothing about it: it is no
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

    /// Keeps what came with the event in the step's record.
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

    /// Turns the step machine's effects into the engine's.
    fn translate(&mut self, place: usize, effects: &[step::Effect], facts: Facts<'_>) {
        for effect in effects {
            match *effect {
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
                step::Effect::Forgive => {
                    let record = &mut self.run.steps[place];
                    record.forgiven += 1;
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
        let deadline_at = facts.now.plus_ms(timeout_ms);
        let record = &mut self.run.steps[place];
        record.unsent |= record.attempt == 0;
        record.attempt = attempt;
        record.unknowns = 0;
        record.operation = Some(OperationId::new(run_id, &record.name.replace(' ', "-"), attempt));
        record.handle = None;
        record.started_at = record.started_at.or(Some(facts.now));
        record.attempt_at = Some(facts.now);
        record.deadline_at = Some(deadline_at);
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
        self.effects.push(Effect::Deadline { step: place, at: deadline_at });
    }

    fn extend(&mut self, place: usize, facts: Facts<'_>) {
        let at = facts.now.plus_ms(timeout_ms(facts.plan, &self.run.steps[place], place));
        self.run.steps[place].deadline_at = Some(at);
        self.effects.push(Effect::Deadline { step: place, at });
    }

    pub(super) fn step_entry(&self, kind: EntryKind, place: usize) -> Entry {
        Entry::new(kind, Actor::engine()).step(&self.run.steps[place].name)
    }

    /// What the step's new state means for the run.
    fn follow(&mut self, place: usize, before: State, input: &StepInput, facts: Facts<'_>) {
        let after = self.run.steps[place].state;
        if before == after {
            return;
        }
        match after {
            State::Polling { .. } => {
                if !matches!(before, State::Observing { basis: step::Basis::Poll, .. }) {
                    let message =
                        format!("step {}: the provider works on it", self.run.steps[place].name);
                    let entry = self.step_entry(EntryKind::StepAccepted, place).message(message);
                    self.note(entry);
                }
            }
            State::BackingOff { until, basis: step::Basis::Fresh, .. } => {
                self.retrying(place, until, input);
                self.safe_point(facts);
            }
            State::Unknown { .. } => self.hold_unknown(place, facts),
            State::Succeeded | State::Skipped | State::Failed | State::Canceled => {
                self.settled(place, before, input, facts);
            }
            State::Waiting
            | State::Observing { .. }
            | State::Acting { .. }
            | State::Verifying { .. }
            | State::BackingOff { .. } => {}
        }
    }

    fn retrying(&mut self, place: usize, until: Timestamp, input: &StepInput) {
        let record = &mut self.run.steps[place];
        if record.message.is_empty() || input.event == Event::TimedOut {
            record.message = why(input.event).to_owned();
        }
        record.deadline_at = None;
        let message = format!(
            "step {} attempt {} failed: {}; next attempt at {until}",
            record.name, record.attempt, record.message
        );
        let entry = self
            .step_entry(EntryKind::StepRetrying, place)
            .reason(class_name(input.event))
            .message(message);
        self.note(entry);
        self.effects.push(Effect::Forget);
    }

    /// Nobody can say what happened: only an operator can release the run, and the machine says so.
    fn hold_unknown(&mut self, place: usize, facts: Facts<'_>) {
        let name = self.run.steps[place].name.clone();
        let message = format!(
            "outcome of step {name} is unknown (operation {}); resolve it as done, retry, skip or abort",
            self.run.steps[place].operation.as_ref().map_or("none", OperationId::as_str),
        );
        let entry = self
            .step_entry(EntryKind::StepOutcomeUnknown, place)
            .reason(REASON_OUTCOME_UNKNOWN)
            .message(format!("outcome of {name} is unknown"));
        self.note(entry);
        self.run.steps[place].deadline_at = None;
        self.effects.push(Effect::Forget);
        let condition = self.observed(facts.now, true, REASON_OUTCOME_UNKNOWN, message.clone());
        self.set_condition(ConditionKind::NeedsIntervention, condition, &Actor::engine());
        if self.run_event(run::Event::Hold, facts).is_ok() {
            self.held(HoldReason::OutcomeUnknown, message, Actor::engine(), facts);
        } else {
            // A run that is ending cannot be held: the step ends with it, the machine stays blocked.
            self.step(&StepInput::bare(place, Event::Cancel), facts);
        }
    }

    pub(super) fn held(
        &mut self,
        reason: HoldReason,
        message: String,
        actor: Actor,
        facts: Facts<'_>,
    ) {
        let entry = Entry::new(EntryKind::RunHeld, actor).reason(reason.as_str());
        self.note(entry.message(format!("run held: {message}")));
        self.run.hold = Some(Hold { reason, message, since: facts.now });
    }

    fn settled(&mut self, place: usize, before: State, input: &StepInput, facts: Facts<'_>) {
        let record = &mut self.run.steps[place];
        let name = record.name.clone();
        let (kind, message) = match record.state {
            State::Succeeded => {
                // What earlier attempts said is over; what the success said is kept already.
                if input.answer.message.is_empty() {
                    record.message.clear();
                }
                (EntryKind::StepSucceeded, format!("step {name} succeeded"))
            }
            State::Skipped => (EntryKind::StepSkipped, format!("step {name} skipped")),
            State::Canceled => (EntryKind::StepCanceled, format!("step {name} canceled")),
            State::Failed
            | State::Waiting
            | State::Observing { .. }
            | State::Acting { .. }
            | State::Polling { .. }
            | State::Verifying { .. }
            | State::BackingOff { .. }
            | State::Unknown { .. } => {
                if record.message.is_empty() || input.event == Event::TimedOut {
                    record.message = why(input.event).to_owned();
                }
                (EntryKind::StepFailed, format!("step {name} failed: {}", record.message))
            }
        };
        // What an operator skipped was noted in the operator's name.
        if input.event != Event::Skip {
            let entry =
                self.step_entry(kind, place).reason(class_name(input.event)).message(message);
            self.note(entry);
        }
        // The call in flight, if there is one, belongs to another step while this one waits for its turn.
        if before != State::Waiting {
            self.effects.push(Effect::Forget);
        }
        if self.run.steps[place].state == State::Succeeded {
            match self.run.steps[place].compensates {
                None => self.learn(place, facts),
                Some(undone) => self.take_back(undone, facts),
            }
        }
        self.go_on_after(place, input, facts);
    }
}

/// What is said of an attempt that does not count.
const CUT_OFF: &str = "cut off by the end of the server and not done; it does not count";

fn class_name(event: Event) -> &'static str {
    match event {
        Event::CallFailed(class) => match class {
            ErrorClass::Transient => "TRANSIENT",
            ErrorClass::Permanent => "PERMANENT",
            ErrorClass::NeedsHuman => "NEEDS_HUMAN",
            ErrorClass::OutcomeUnknown => "OUTCOME_UNKNOWN",
        },
        Event::TimedOut => "TIMED_OUT",
        Event::NotVerified => "NOT_VERIFIED",
        Event::Observed(_) => "OBSERVED",
        Event::GuardedOut => "GUARD",
        Event::Resolve(_) | Event::Skip => "OPERATOR",
        Event::Start
        | Event::Acted
        | Event::Accepted { .. }
        | Event::Verified
        | Event::Woken
        | Event::Recovered
        | Event::Cancel
        | Event::Detach => "",
    }
}

fn why(event: Event) -> &'static str {
    if event == Event::TimedOut {
        "timed out"
    } else if event == Event::NotVerified {
        "reported done, but it is not so"
    } else if event == Event::Observed(Seen::NotDone) {
        "the provider no longer knows of the operation"
    } else {
        "failed"
    }
}
