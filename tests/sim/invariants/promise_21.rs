use bmdemo::lifecycle::run::{self, State as RunState};
use bmdemo::lifecycle::step::State;
use bmdemo::model::{ActorKind, Change, EntryKind, Run};

use super::{Verdict, ensure};
use crate::book::Book;
use crate::plans::{LANGUAGE_ID, TIME_LIMIT_MS};

/// Indices of its steps.
const SOAK: usize = 1;
const ASK: usize = 2;
const ON_FAILURE: usize = 6;
const FINALLY: [usize; 2] = [7, 8];

fn of_language(change: &Change) -> Option<&std::sync::Arc<Run>> {
    change.after::<Run>().filter(|run| run.spec.plan_id == LANGUAGE_ID)
}

/// A step that asks for approval succeeds by an operator's approval, in the same commit, and no later step starts
/// before.
pub(crate) fn promise_21_nothing_continues_without_approval(
    book: &Book,
    change: &Change,
) -> Verdict {
    let Some(run) = of_language(change) else { return Ok(()) };
    let before = book.runs.get(&run.id);
    let asked = |run: &Run| run.steps[ASK].state;
    // Steps that a retried run skips were answered in the run before.
    if asked(run) == State::Succeeded && before.is_none_or(|run| asked(run) != State::Succeeded) {
        let yes = change.entries.iter().any(|entry| {
            entry.kind == EntryKind::StepAnswered && entry.actor.kind == ActorKind::Operator
        });
        ensure(yes, || format!("run {} continues and no operator has said yes", run.id))?;
    }
    let behind = run.steps.iter().skip(ASK + 1).take(ON_FAILURE - ASK - 1);
    let begun = behind.clone().any(|step| step.attempt > 0);
    ensure(!begun || matches!(asked(run), State::Succeeded | State::Skipped), || {
        format!("run {} has begun what comes behind its question: {:?}", run.id, asked(run))
    })
}

/// Finally steps start when everything else is over; once each of them has ended the run has ended, and not before,
/// unless it was aborted or never started.
pub(crate) fn promise_21_what_comes_last_is_done_once(book: &Book, change: &Change) -> Verdict {
    let Some(run) = of_language(change) else { return Ok(()) };
    let is_last = |state| matches!(state, RunState::Closing { .. });
    for place in FINALLY {
        let step = &run.steps[place];
        let over = is_last(run.state) || !run.state.is_active();
        ensure(step.attempt == 0 || over, || {
            format!("{} of run {} began while it is {:?}", step.name, run.id, run.state)
        })?;
        let began = run.steps.iter().take(FINALLY[0]).any(|step| step.attempt > 0);
        let aborted = book.aborted.contains(&run.id)
            || change.entries.iter().any(|entry| entry.kind == EntryKind::RunAborted);
        let must = !run.state.is_active() && began && !aborted;
        // An operator may skip it.
        let done = step.state == State::Skipped || (step.attempt > 0 && step.state.is_settled());
        ensure(!must || done, || {
            format!("run {} ended, and {} is {:?}", run.id, step.name, step.state)
        })?;
    }
    let failed = run.phase() == run::Phase::Failed && !book.aborted.contains(&run.id);
    let reported =
        run.steps[ON_FAILURE].attempt > 0 || run.steps[ON_FAILURE].state == State::Skipped;
    let began = run.steps.iter().take(ON_FAILURE).any(|step| step.attempt > 0);
    let aborted = change.entries.iter().any(|entry| entry.kind == EntryKind::RunAborted);
    ensure(!failed || !began || reported || aborted, || {
        format!("run {} failed and nothing was done", run.id)
    })?;
    let carried_out = run.steps[ON_FAILURE].attempt > 0;
    ensure(!carried_out || run.phase() != run::Phase::Succeeded, || {
        format!("run {} succeeded, and its step for a failure was carried out", run.id)
    })
}

/// No attempt of a step is opened after the time limit of the run; only on_failure, compensation and finally steps
/// may be.
pub(crate) fn promise_21_the_time_limit_holds(book: &Book, change: &Change) -> Verdict {
    let Some(run) = of_language(change) else { return Ok(()) };
    let Some(started_at) = run.started_at else { return Ok(()) };
    let before = book.runs.get(&run.id);
    for (place, step) in run.steps.iter().enumerate().take(ON_FAILURE) {
        let opened = before.is_none_or(|before| before.steps[place].attempt != step.attempt);
        let Some(attempt_at) = step.attempt_at.filter(|_| opened) else { continue };
        let late_ms = attempt_at.since(started_at).as_millis();
        ensure(late_ms <= u128::from(TIME_LIMIT_MS), || {
            format!("{} of run {} was opened {late_ms} ms after its beginning", step.name, run.id)
        })?;
    }
    // A wait takes as long as declared, whatever happens to the server.
    let soak = &run.steps[SOAK];
    let waited =
        soak.finished_at.zip(soak.attempt_at).map(|(end, begin)| end.since(begin).as_millis());
    ensure(soak.state != State::Succeeded || waited.is_none_or(|ms| ms >= 2_000), || {
        format!("soak of run {} took {waited:?} ms", run.id)
    })
}
