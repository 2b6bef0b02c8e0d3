//! The timeline of simulated runs: what happened when, on which machine.

use std::io::{self, Write};

use crate::pb;

use super::describe::next_for_hold;
use super::progress::hold;
use super::runbox::write_result;
use super::table::{condition, effective_meaning, run_ms, steps_done, write_plain};
use super::text::{
    Look, Meaning, condition_name, effective_name, padded, phase_name, run_phase_name, sanitized,
    wait_reason_name, wrapped,
};
use super::time::{elapsed_text, instant};

/// Columns for the time since the beginning, right-aligned.
const TIME_COLUMNS: usize = 9;

/// Writes a line for each event, with the time since the first one.
pub(crate) fn write_timeline(
    out: &mut dyn Write,
    look: Look,
    events: &[pb::RunEvent],
) -> io::Result<()> {
    let began = events.first().and_then(|event| instant(event.ts.as_ref())).unwrap_or(0);
    let runs = || events.iter().filter_map(|event| event.snapshot.as_ref());
    let ids = runs().map(|run| run.machine_id.len()).max().unwrap_or(0);
    let several = runs().any(|run| runs().next().is_some_and(|first| first.run_id != run.run_id));
    for event in events {
        let Some(run) = &event.snapshot else { continue };
        let at = elapsed_text(instant(event.ts.as_ref()).unwrap_or(began) - began);
        let at = look.paint(Meaning::Dim, &format!("{at:>TIME_COLUMNS$}"));
        let machine = if several {
            format!("{}  ", padded(&sanitized(&run.machine_id), ids))
        } else {
            String::new()
        };
        for entry in &event.entries {
            let Some((glyph, meaning, text)) = what(look, run, entry) else { continue };
            let line = format!("{at}  {machine}{} {text}", look.paint(meaning, glyph));
            let indent = TIME_COLUMNS + 4 + if several { ids + 2 } else { 0 };
            writeln!(out, "{}", wrapped(look, &line, indent))?;
        }
    }
    Ok(())
}

/// How an entry of a run's history appears in a timeline; `None` for what the other lines imply.
fn what(
    look: Look,
    run: &pb::Run,
    entry: &pb::HistoryEntry,
) -> Option<(&'static str, Meaning, String)> {
    let name = sanitized(&entry.step);
    let step = run.steps.iter().find(|step| step.name == entry.step);
    let attempt = |step: Option<&pb::StepStatus>| match step {
        Some(step) if step.max_attempts > 1 => {
            format!("attempt {} of {}", step.attempt, step.max_attempts)
        }
        Some(_) | None => "the only attempt".to_owned(),
    };
    let message = step.map_or("", |step| step.message.as_str());
    Some(match entry.kind.as_str() {
        "step.started" => {
            let limit = step.and_then(|step| {
                let limit = instant(step.deadline_at.as_ref())? - instant(entry.at.as_ref())?;
                Some(format!(", at most {}", elapsed_text(limit)))
            });
            let limit = look
                .paint(Meaning::Dim, &format!(" ({}{})", attempt(step), limit.unwrap_or_default()));
            (look.arrow(), Meaning::Active, format!("{name}{limit}"))
        }
        "step.succeeded" => {
            let took = step.and_then(|step| {
                Some(instant(step.finished_at.as_ref())? - instant(step.started_at.as_ref())?)
            });
            let took = took.map(|ms| format!(" after {}", elapsed_text(ms))).unwrap_or_default();
            (look.good(), Meaning::Good, format!("{name}{took}"))
        }
        "step.retrying" => {
            let wait = step.and_then(|step| {
                Some(instant(step.next_wake_at.as_ref())? - instant(entry.at.as_ref())?)
            });
            let wait =
                wait.map(|ms| format!("; again in {}", elapsed_text(ms))).unwrap_or_default();
            let text = format!("{name}: {} failed: {}{wait}", attempt(step), sanitized(message));
            (look.again(), Meaning::Attention, text)
        }
        "step.failed" => {
            let class = entry.reason.to_ascii_lowercase().replace('_', " ");
            let class = if class.is_empty() { class } else { format!(" ({})", sanitized(&class)) };
            let text = format!("{name}: {} failed{class}: {}", attempt(step), sanitized(message));
            (look.bad(), Meaning::Bad, text)
        }
        "step.skipped" => {
            let why = if message.is_empty() { "not needed" } else { message };
            ("-", Meaning::Dim, format!("{name} (skipped: {})", sanitized(why)))
        }
        "step.canceled" => (look.canceled(), Meaning::Attention, name.into_owned()),
        // The line of the hold says it better.
        "step.outcome-unknown" if hold(run).is_some() => return None,
        "step.outcome-unknown" => {
            ("?", Meaning::Attention, format!("{name}: whether it took effect is not known"))
        }
        // The result says it.
        "run.created" | "run.started" | "run.succeeded" | "run.failed" | "run.canceled"
        | "step.accepted" => return None,
        "run.held" => (look.held(), Meaning::Attention, sanitized(&entry.message).into_owned()),
        "run.unwinding" | "run.time-up" => {
            (look.again(), Meaning::Attention, sanitized(&entry.message).into_owned())
        }
        _ if entry.message.is_empty() => return None,
        _ => ("-", Meaning::Dim, sanitized(&entry.message).into_owned()),
    })
}

/// Writes how simulated runs ended and in which state they left their machines: in full for one, else as a table and
/// a count.
pub(crate) fn write_simulated(
    out: &mut dyn Write,
    look: Look,
    runs: &[pb::Run],
    machines: &[pb::Machine],
) -> io::Result<()> {
    if let ([run], [machine]) = (runs, machines) {
        match next_for_hold(run) {
            Some(next) => {
                let text = format!("On a server an operator would continue with: {next}");
                writeln!(out, "\n{}", wrapped(look, &sanitized(&text), 2))?;
            }
            None => write_result(out, look, run)?,
        }
        return writeln!(out, "{}", wrapped(look, &machine_text(look, machine), 2));
    }
    writeln!(out)?;
    let rows: Vec<Vec<String>> =
        runs.iter().zip(machines).map(|(run, machine)| row(run, machine)).collect();
    let headers =
        [("MACHINE", 13), ("RUN", 9), ("STEPS", 5), ("DURATION", 8), ("EFFECTIVE", 14), ("WHY", 0)];
    write_plain(out, look, &headers, &rows)?;
    let count = |phase: pb::RunPhase| runs.iter().filter(|run| run.phase() == phase).count();
    let (good, bad) = (count(pb::RunPhase::Succeeded), count(pb::RunPhase::Failed));
    let held = runs.iter().filter(|run| hold(run).is_some()).count();
    writeln!(out, "\n{} runs: {good} succeeded, {bad} failed, {held} held", runs.len())
}

fn row(run: &pb::Run, machine: &pb::Machine) -> Vec<String> {
    let (done, all) = steps_done(run);
    let (phase, why) = match (hold(run), &run.error) {
        (Some(waiting), _) => ("held".to_owned(), wait_reason_name(waiting.reason)),
        (None, Some(error)) => (run_phase_name(run.phase), error.message.clone()),
        (None, None) => (run_phase_name(run.phase), "-".to_owned()),
    };
    let effective = machine.status.as_ref().map_or(0, |status| status.effective_state);
    let took = run_ms(run, None).map_or_else(|| "-".to_owned(), elapsed_text);
    let mut row = vec![run.machine_id.clone(), phase, format!("{done}/{all}"), took];
    row.extend([effective_name(effective), why]);
    row
}

/// `machine-1: phase READY, effective IN_SERVICE, Reachable=✓`.
fn machine_text(look: Look, machine: &pb::Machine) -> String {
    let status = machine.status.clone().unwrap_or_default();
    let effective = look
        .paint(effective_meaning(status.effective_state), &effective_name(status.effective_state));
    let mut text = format!(
        "{}: phase {}, effective {effective}",
        sanitized(&machine.machine_id),
        phase_name(status.phase)
    );
    for kind in [
        pb::ConditionType::Reachable,
        pb::ConditionType::InCustomerCluster,
        pb::ConditionType::NeedsIntervention,
        pb::ConditionType::Degraded,
        pb::ConditionType::HardwareMatches,
    ] {
        if let Some(value) = condition(&status, kind) {
            text += &format!(", {}={}", condition_name(kind.into()), look.mark(Some(value)).0);
        }
    }
    text
}
