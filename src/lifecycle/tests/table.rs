//! The tables of the three machines, locked as snapshots.

use std::fmt::Write as _;

use super::samples::*;
use crate::lifecycle::{run, step};

/// The answer of a machine, in words.
fn refusal(denied: Option<&str>) -> String {
    denied.map_or_else(|| "-".to_owned(), |why| format!("- {why}"))
}

fn step_answer(state: step::State, event: step::Event, setting: Setting) -> String {
    match step::apply(setting.rules, state, event, setting.facts) {
        Err(step::Rejected::Illegal { .. }) => refusal(None),
        Err(step::Rejected::Denied(why)) => refusal(Some(why)),
        Ok((next, effects)) => {
            let next = if next == state { "=".to_owned() } else { step_state(next) };
            let effects: Vec<_> = effects.into_iter().map(step_effect).collect();
            if effects.is_empty() { next } else { format!("{next}  [{}]", effects.join(", ")) }
        }
    }
}

#[test]
fn step_table() {
    let mut table = String::from(
        "A line: state, event, next state [effects]; \"=\" keeps the state, \"-\" refuses. Indented: where another\n\
         rule or fact gives another answer than on_unknown=verify, harmless, attempt 1 of 3, nothing stopping.\n",
    );
    for state in step_states() {
        table.push('\n');
        for event in step_events() {
            let answer = step_answer(state, event, BASE);
            let (state_text, event_text) = (step_state(state), step_event(event));
            let _ = writeln!(table, "{state_text:<34} {event_text:<28} {answer}");
            for setting in settings() {
                let other = step_answer(state, event, setting);
                if other != answer {
                    let _ = writeln!(table, "{:<34}   {:<26} {other}", "", setting.label);
                }
            }
        }
    }
    crate::assert_golden!("lifecycle_step_table", table);
}

fn run_answer(state: run::State, event: run::Event, facts: run::Facts) -> String {
    match run::apply(state, event, facts) {
        Err(run::Rejected::Illegal { .. }) => refusal(None),
        Err(run::Rejected::Denied(why)) => refusal(Some(why)),
        Ok(next) if next == state => "=".to_owned(),
        Ok(next) => format!("{} ({})", run_state_name(next), next.phase()),
    }
}

/// The facts for a run's guards, besides none.
pub(super) const RUN_FACTS: [(&str, run::Facts); 10] = [
    ("compensations", run::Facts { has_compensations: true, ..NO_FACTS }),
    ("on_failure", run::Facts { has_on_failure: true, ..NO_FACTS }),
    ("finally", run::Facts { has_finally: true, ..NO_FACTS }),
    ("undone, finally", run::Facts { has_compensations: true, has_finally: true, ..NO_FACTS }),
    ("outcome unknown", run::Facts { outcome_unknown: true, ..NO_FACTS }),
    ("asks", run::Facts { asks: true, ..NO_FACTS }),
    ("was canceling", run::Facts { suspended: Some(run::Suspended::Canceling), ..NO_FACTS }),
    (
        "was unwinding",
        run::Facts {
            suspended: Some(run::Suspended::Unwinding { ending: run::Ending::Failed }),
            ..NO_FACTS
        },
    ),
    ("was stopping", run::Facts { suspended: Some(run::Suspended::Stopping), ..NO_FACTS }),
    (
        "was closing",
        run::Facts {
            suspended: Some(run::Suspended::Closing { ending: run::Ending::Succeeded }),
            ..NO_FACTS
        },
    ),
];
const NO_FACTS: run::Facts = run::Facts {
    has_compensations: false,
    has_on_failure: false,
    has_finally: false,
    outcome_unknown: false,
    asks: false,
    suspended: None,
};

#[test]
fn run_table() {
    let mut table = String::from(
        "A line: state, event, next state (public phase); \"=\" keeps the state, \"-\" refuses. Indented: where a\n\
         fact gives another answer.\n",
    );
    for state in run_states() {
        table.push('\n');
        for event in run_events() {
            let answer = run_answer(state, event, run::Facts::default());
            let (state_text, event_text) = (run_state_name(state), run_event_name(event));
            let _ = writeln!(table, "{state_text:<20} {event_text:<18} {answer}");
            for (label, facts) in RUN_FACTS {
                let other = run_answer(state, event, facts);
                if other != answer {
                    let _ = writeln!(table, "{:<20}   {label:<16} {other}", "");
                }
            }
        }
    }
    crate::assert_golden!("lifecycle_run_table", table);
}

#[test]
fn machine_table() {
    let mut table =
        String::from("A line: phase, phase asked for, answer; \"=\" keeps it, \"-\" refuses.\n");
    for from in phases() {
        table.push('\n');
        for to in phases() {
            let answer = match from.moved_to(to) {
                Err(_) => refusal(None),
                Ok(next) if next == from => "=".to_owned(),
                Ok(next) => next.to_string(),
            };
            let _ = writeln!(table, "{from:<14} {to:<14} {answer}");
        }
    }
    crate::assert_golden!("lifecycle_machine_table", table);
}
