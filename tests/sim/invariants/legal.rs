use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bmdemo::clock::Timestamp;
use bmdemo::lifecycle::backoff::Backoff;
use bmdemo::lifecycle::run;
use bmdemo::lifecycle::step::{
    self, Basis, ErrorClass, Event, Facts, OnUnknown, Resolution, Rules, Seen, State,
};
use bmdemo::model::{Change, Machine, Run};

use super::{Verdict, ensure};
use crate::book::Book;

/// Most events that one commit stands for: stages of an open attempt are not stored.
const EVENTS_MAX: usize = 5;

/// What is stored follows from what was stored by transitions of the lifecycles, and attempts count one by one.
pub(crate) fn legal_transitions(book: &Book, change: &Change) -> Verdict {
    if let Some(machine) = change.after::<Machine>()
        && let Some(before) = book.machines.get(&machine.id)
    {
        before
            .phase
            .moved_to(machine.phase)
            .map(|_| ())
            .or_else(|illegal| ensure(before.phase == machine.phase, || illegal.to_string()))?;
    }
    if let Some(run) = change.after::<Run>()
        && let Some(before) = book.runs.get(&run.id)
    {
        legal_run(before, run)?;
    }
    Ok(())
}

fn legal_run(before: &Run, after: &Run) -> Verdict {
    ensure(run_reaches(before.state, after.state), || {
        format!("run {} went from {:?} to {:?}", after.id, before.state, after.state)
    })?;
    for (place, step) in after.steps.iter().enumerate() {
        let Some(old) = before.steps.get(place) else { continue };
        ensure(steps().reaches(old.state, step.state), || {
            format!("step {} went from {:?} to {:?}", step.name, old.state, step.state)
        })?;
        ensure(step.attempt == old.attempt || step.attempt == old.attempt + 1, || {
            format!("step {} went from attempt {} to {}", step.name, old.attempt, step.attempt)
        })?;
        ensure(!old.state.is_settled() || old == step, || {
            format!("step {} had settled as {:?}, and was changed", step.name, old.state)
        })?;
    }
    Ok(())
}

fn run_reaches(from: run::State, to: run::State) -> bool {
    let mut reached = vec![from];
    for _ in 0..EVENTS_MAX {
        if reached.contains(&to) {
            return true;
        }
        let mut next = Vec::new();
        for state in &reached {
            // No store is restored here.
            let events = run::Event::ALL.into_iter();
            for event in events.filter(|event| *event != run::Event::Restore) {
                for bits in 0..16_u8 {
                    let facts = run::Facts {
                        has_compensations: bits & 1 != 0,
                        has_on_failure: false,
                        has_finally: bits & 2 != 0,
                        outcome_unknown: bits & 4 != 0,
                        asks: bits & 8 != 0,
                        suspended: None,
                    };
                    next.extend(run::apply(*state, event, facts));
                }
            }
        }
        next.dedup();
        reached.extend(next);
        reached.sort_by_key(|state| format!("{state:?}"));
        reached.dedup();
    }
    reached.contains(&to)
}

/// Kind of a step's state: without attempts and instants.
type Kind = u8;

fn kind(state: State) -> Kind {
    let of = |basis| match basis {
        Basis::Fresh => 0,
        Basis::Poll => 1,
        Basis::Unknown { .. } => 2,
    };
    match state {
        State::Waiting => 0,
        State::Observing { basis, .. } => 1 + of(basis),
        State::Acting { .. } => 4,
        State::Polling { .. } => 5,
        State::Verifying { .. } => 6,
        State::BackingOff { basis, .. } => 7 + of(basis),
        State::Unknown { .. } => 10,
        State::Succeeded => 11,
        State::Failed => 12,
        State::Skipped => 13,
        State::Canceled => 14,
    }
}

/// The step machine's transitions between kinds of states, enumerated.
struct Graph(BTreeMap<Kind, BTreeSet<Kind>>);

impl Graph {
    fn reaches(&self, from: State, to: State) -> bool {
        let (from, to) = (kind(from), kind(to));
        let mut reached = BTreeSet::from([from]);
        for _ in 0..EVENTS_MAX {
            if reached.contains(&to) {
                return true;
            }
            let next: Vec<_> =
                reached.iter().filter_map(|kind| self.0.get(kind)).flatten().copied().collect();
            reached.extend(next);
        }
        reached.contains(&to)
    }
}

fn steps() -> &'static Graph {
    static GRAPH: OnceLock<Graph> = OnceLock::new();
    GRAPH.get_or_init(enumerate)
}

fn events() -> Vec<Event> {
    let until = Timestamp(1);
    let mut events = vec![
        Event::Start,
        Event::GuardedOut,
        Event::Observed(Seen::Done),
        Event::Observed(Seen::NotDone),
        Event::Observed(Seen::InProgress { until }),
        Event::Observed(Seen::Unknowable),
        Event::Acted,
        Event::Accepted { until },
        Event::Verified,
        Event::NotVerified,
        Event::Woken,
        Event::TimedOut,
        Event::Recovered,
        Event::Skip,
        Event::Cancel,
        Event::Detach,
        Event::Resolve(Resolution::Done),
        Event::Resolve(Resolution::Retry),
        Event::Resolve(Resolution::Skip),
    ];
    events.extend(ErrorClass::ALL.map(Event::CallFailed));
    events
}

fn enumerate() -> Graph {
    let mut graph: BTreeMap<Kind, BTreeSet<Kind>> = BTreeMap::new();
    let mut open = vec![State::Waiting];
    let mut met = BTreeSet::from([State::Waiting]);
    let rules =
        [OnUnknown::Retry, OnUnknown::Verify, OnUnknown::Hold].into_iter().flat_map(|on_unknown| {
            [(false, false), (true, false), (false, true)].into_iter().map(
                move |(must_settle, is_own)| Rules {
                    attempts_max: 2,
                    retry_transient: true,
                    retry_permanent: false,
                    retry_needs_human: false,
                    backoff: Backoff { first_ms: 1, ms_max: 1 },
                    on_unknown,
                    must_settle,
                    is_own,
                },
            )
        });
    let rules: Vec<_> = rules.collect();
    while let Some(state) = open.pop() {
        for &rules in &rules {
            for event in events() {
                for (stopping, unknowns) in [(false, 0), (true, 0), (false, 5)] {
                    let now = Timestamp(0);
                    let facts = Facts {
                        now,
                        random: 0,
                        stopping,
                        unknowns,
                        interrupted: 0,
                        retry_at: None,
                    };
                    let Ok((next, _)) = step::apply(rules, state, event, facts) else { continue };
                    graph.entry(kind(state)).or_default().insert(kind(next));
                    if next.attempt().is_none_or(|attempt| attempt <= 3) && met.insert(next) {
                        open.push(next);
                    }
                }
            }
        }
    }
    Graph(graph)
}
