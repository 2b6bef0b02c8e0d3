//! The judge: receives every commit, call, effect and answer, in one order, and checks every invariant.

use std::hash::Hasher as _;
use std::sync::{Arc, Weak};

use bmdemo::executor::Limits;
use bmdemo::ids::{Epoch, MachineId, Revision, RunId};
use bmdemo::lifecycle::run::State;
use bmdemo::model::{Change, Images, Lock, Object, Run};
use bmdemo::provider::fake::LedgerEntry;
use bmdemo::provider::{
    Acted, Call, Health, Observation, ProviderError, ProviderErrorKind, Verification,
};
use bmdemo::store::{Committed, Listener};

use crate::book::{Begun, Book, Looked, parts};
use crate::gate::Incarnation;
use crate::invariants::{self, Verdict};
use crate::sim::{CallKind, Sim};

/// An invariant's name and verdict.
macro_rules! judged {
    ($invariant:ident($($argument:expr),* $(,)?)) => {
        (stringify!($invariant), invariants::$invariant($($argument),*))
    };
}

/// An invariant that does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) message: String,
}

/// A call of a provider.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) by: Incarnation,
    pub(crate) kind: CallKind,
    pub(crate) machine: MachineId,
    pub(crate) call: Option<Call>,
    pub(crate) epoch: Epoch,
}

/// What a provider's result says about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Done,
    NotDone,
    InProgress,
    Unknowable,
    Holds,
    Broken,
    /// A result that says nothing about an operation.
    Nothing,
}

/// A result of a provider.
pub(crate) trait Answered {
    fn look(&self) -> Look;
}

impl Answered for () {
    fn look(&self) -> Look {
        Look::Nothing
    }
}

impl Answered for Health {
    fn look(&self) -> Look {
        Look::Nothing
    }
}

impl Answered for Acted {
    fn look(&self) -> Look {
        match self {
            Self::Done { .. } => Look::Done,
            Self::Accepted { .. } => Look::InProgress,
        }
    }
}

impl Answered for Observation {
    fn look(&self) -> Look {
        match self {
            Self::Done { .. } => Look::Done,
            Self::NotDone { .. } => Look::NotDone,
            Self::InProgress { .. } => Look::InProgress,
            Self::Unknowable { .. } => Look::Unknowable,
        }
    }
}

impl Answered for Verification {
    fn look(&self) -> Look {
        match self {
            Self::Holds { .. } => Look::Holds,
            Self::Broken { .. } => Look::Broken,
        }
    }
}

/// The judge of one simulation.
pub(crate) struct Oracle {
    pub(crate) now_ms: u64,
    /// The incarnation whose commit is being applied.
    pub(crate) committing: Incarnation,
    pub(crate) book: Book,
    pub(crate) violations: Vec<Violation>,
    /// Whether two incarnations have been alive at once: then limits count for each of them.
    pub(crate) overlapped: bool,
    pub(crate) trace: Vec<String>,
    hash: std::hash::DefaultHasher,
    limits: Limits,
}

impl Oracle {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            now_ms: 0,
            committing: 0,
            book: Book::default(),
            violations: Vec::new(),
            overlapped: false,
            trace: Vec::new(),
            hash: std::hash::DefaultHasher::new(),
            limits,
        }
    }

    pub(crate) fn note(&mut self, text: String) {
        let line = format!("{:>9} {text}", self.now_ms);
        self.hash.write(line.as_bytes());
        self.trace.push(line);
    }

    /// Hash of everything that happened.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn judge(&mut self, invariant: &'static str, verdict: Verdict) {
        if let Err(message) = verdict {
            self.note(format!("VIOLATION of {invariant}: {message}"));
            self.violations.push(Violation { invariant, message });
        }
    }

    fn commit(&mut self, revision: Revision, changes: &[Change], locks: &[Arc<Lock>]) {
        let by = self.committing;
        for change in changes {
            self.note_change(by, revision, change);
        }
        for change in changes {
            let book = &self.book;
            let verdicts = [
                judged!(legal_transitions(book, change)),
                judged!(promise_08_terminal_is_immutable(book, change)),
                judged!(promise_10_claims_raise_the_epoch(book, change, changes)),
                judged!(promise_10_fenced_executor_cannot_write(book, by, change)),
                judged!(promise_21_nothing_continues_without_approval(book, change)),
                judged!(promise_21_what_comes_last_is_done_once(book, change)),
                judged!(promise_21_the_time_limit_holds(book, change)),
                judged!(promise_22_only_the_registered_hardware_is_written(
                    book,
                    change,
                    self.overlapped
                )),
            ];
            for (invariant, verdict) in verdicts {
                self.judge(invariant, verdict);
            }
        }
        let verdict = invariants::a_plan_that_keeps_failing_is_paused(
            &mut self.book,
            &self.limits,
            changes,
            locks,
        );
        self.judge("a_plan_that_keeps_failing_is_paused", verdict);
        let started: Vec<_> = changes.iter().filter_map(|change| self.started(change)).collect();
        self.book.fold(by, revision, changes);
        for started in started {
            let (book, overlapped) = (&self.book, self.overlapped);
            let (invariant, verdict) = judged!(promise_16_first_come_first_served(
                book,
                started,
                self.limits.runs_max,
                overlapped
            ));
            self.judge(invariant, verdict);
        }
        let book = &self.book;
        let verdicts = [
            judged!(promise_02_one_active_run(book)),
            judged!(effective_state_follows_its_rules(book)),
            judged!(limits_are_exact(book, &self.limits, self.overlapped)),
            judged!(blast_radius_is_kept(book, &self.limits, self.overlapped)),
        ];
        for (invariant, verdict) in verdicts {
            self.judge(invariant, verdict);
        }
    }

    /// A run that proceeds now, and since when it has waited for that.
    fn started(&self, change: &Change) -> Option<(RunId, Revision)> {
        let run = change.after::<Run>()?;
        let forward = matches!(run.state, State::Running | State::Pausing);
        let since = self.book.queued.get(&run.id).filter(|_| forward)?;
        Some((run.id, *since))
    }

    fn note_change(&mut self, by: Incarnation, revision: Revision, change: &Change) {
        let entries = change.entries.iter();
        let text = match &change.object {
            Object::Machine(Images { after: Some(machine), .. }) => {
                let kinds: Vec<_> = entries.map(|entry| entry.kind.as_str()).collect();
                format!(
                    "r{revision} by {by}: {} {} epoch {} {}",
                    machine.id,
                    machine.phase,
                    machine.epoch,
                    kinds.join(" ")
                )
            }
            Object::Run(Images { after: Some(run), .. }) => {
                let kinds: Vec<_> = entries
                    .map(|entry| format!("{}({})", entry.kind.as_str(), entry.step))
                    .collect();
                let step = run.current_step.and_then(|place| run.steps.get(place));
                format!(
                    "r{revision} by {by}: {} run {} {:?} {:?} {}",
                    run.machine_id,
                    run.id,
                    run.state,
                    step.map(|step| step.state),
                    kinds.join(" ")
                )
            }
            gone @ (Object::Machine(_) | Object::Run(_)) => {
                format!("r{revision} by {by}: {:?} deleted", gone.kind())
            }
        };
        self.note(text);
    }

    /// A call leaves an incarnation.
    pub(crate) fn sent(&mut self, asked: &Asked) {
        let operation = asked.call.as_ref().map(|call| call.operation.to_string());
        self.note(format!(
            "{} sends {:?} {} of {} under epoch {}",
            asked.by,
            asked.kind,
            operation.as_deref().unwrap_or(""),
            asked.machine,
            asked.epoch
        ));
        let (Some(operation), CallKind::Act) = (operation, asked.kind) else { return };
        let verdict = invariants::nothing_begins_while_everything_is_stopped(
            &self.book,
            &operation,
            self.overlapped,
        );
        self.judge("nothing_begins_while_everything_is_stopped", verdict);
        *self.book.acts_sent.entry(operation.clone()).or_default() += 1;
        let (invariant, verdict) =
            judged!(promise_06_unknown_outcomes_are_not_acted_on_blindly(&self.book, &operation));
        self.judge(invariant, verdict);
    }

    /// An operation started in the world.
    pub(crate) fn began(&mut self, asked: &Asked, entry: &LedgerEntry, ledger: &[LedgerEntry]) {
        let operation = entry.operation.to_string();
        self.note(format!(
            "world: {operation} ({}) begins on {} under epoch {}, fence {}",
            entry.action, entry.machine, entry.epoch, entry.fence
        ));
        let book = &self.book;
        let verdicts = [
            judged!(promise_03_intent_is_durable_before_an_effect(book, asked, &operation)),
            judged!(promise_04_succeeded_is_never_executed_again(book, &operation)),
            judged!(promise_06_no_second_effect_without_evidence(book, entry, ledger)),
            judged!(promise_10_no_effect_behind_a_newer_reader(book, entry)),
            judged!(promise_11_no_new_step_after_a_cancel(book, entry)),
        ];
        for (invariant, verdict) in verdicts {
            self.judge(invariant, verdict);
        }
        let sequence = self.book.next();
        let (run, step, _) = parts(&operation);
        self.book.begun.entry((run, step)).or_default().push(Begun { sequence, operation });
    }

    /// The world has decided the result of a call.
    pub(crate) fn answered(&mut self, asked: &Asked, answer: Result<Look, &ProviderError>) {
        let operation = asked.call.as_ref().map(|call| call.operation.to_string());
        let name = operation.clone().unwrap_or_default();
        self.note(format!("{:?} {name} of {}: {answer:?}", asked.kind, asked.machine));
        let sequence = self.book.next();
        let fenced =
            matches!(answer, Err(error) if matches!(error.kind, ProviderErrorKind::Fenced { .. }));
        if asked.kind == CallKind::Observe && !fenced {
            let newest = self.book.read_under.entry(asked.machine.clone()).or_default();
            *newest = asked.epoch.max(*newest);
        }
        let looks = matches!(asked.kind, CallKind::Observe | CallKind::Verify);
        if let (Some(operation), Ok(look), true) = (operation, answer, looks) {
            self.book.looks.entry(operation).or_default().push(Looked { sequence, look });
        }
    }
}

/// Receives every commit.
pub(crate) struct Feed(pub(crate) Weak<Sim>);

impl Listener for Feed {
    fn committed(&self, committed: &Arc<Committed>) {
        if let Some(sim) = self.0.upgrade() {
            sim.oracle().commit(committed.revision, &committed.changes, &committed.locks);
        }
    }
}
