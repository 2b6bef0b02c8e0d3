//! The boxes around a watched run.

use std::io::{self, Write};

use crate::pb;

use super::table::{ended_name, run_meaning, run_ms, steps_done};
use super::text::{Look, Meaning, run_type_name, sanitized, wrapped};
use super::time::elapsed_text;

/// Length of the horizontal line, after its corner.
const LINE_COLUMNS: usize = 61;

fn write_edge(out: &mut dyn Write, look: Look, corner: &'static str) -> io::Result<()> {
    let columns =
        look.columns.map_or(LINE_COLUMNS, |columns| LINE_COLUMNS.min(columns.saturating_sub(1)));
    let line = look.glyph("─", "-").repeat(columns);
    writeln!(out, "{}", look.paint(Meaning::Dim, &format!("{corner}{line}")))
}

fn write_inside(out: &mut dyn Write, look: Look, text: &str) -> io::Result<()> {
    let edge = look.paint(Meaning::Dim, look.glyph("│", "|"));
    let inside = Look { columns: look.columns.map(|columns| columns.saturating_sub(2)), ..look };
    wrapped(inside, text, 2).split('\n').try_for_each(|line| writeln!(out, "{edge} {line}"))
}

/// Writes the box that opens a watched run, and the empty line after it.
pub(crate) fn write_header(out: &mut dyn Write, look: Look, run: &pb::Run) -> io::Result<()> {
    write_edge(out, look, look.glyph("┌", "+"))?;
    write_inside(out, look, &format!("Run: {}", sanitized(&run.run_id)))?;
    write_inside(out, look, &format!("Machine: {}", sanitized(&run.machine_id)))?;
    let kind = run_type_name(run.r#type);
    write_inside(out, look, &format!("Type: {kind} | Plan: {}", sanitized(&run.plan_id)))?;
    write_edge(out, look, look.glyph("└", "+"))?;
    writeln!(out)
}

/// Writes the box that closes a watched run, after an empty line.
pub(crate) fn write_result(out: &mut dyn Write, look: Look, run: &pb::Run) -> io::Result<()> {
    let glyph = match run.phase() {
        pb::RunPhase::Succeeded => look.good(),
        pb::RunPhase::Failed => look.bad(),
        pb::RunPhase::Canceled => look.canceled(),
        pb::RunPhase::Unspecified | pb::RunPhase::Pending | pb::RunPhase::Running => look.arrow(),
    };
    writeln!(out)?;
    write_edge(out, look, look.glyph("┌", "+"))?;
    let verdict = format!("{glyph} {}", ended_name(run));
    write_inside(out, look, &look.paint(run_meaning(run.phase), &verdict))?;
    if let Some(error) = &run.error {
        let text = format!("Error: {}: {}", sanitized(&error.code), sanitized(&error.message));
        write_inside(out, look, &text)?;
    }
    for step in also_failed(run) {
        write_inside(out, look, &also_failed_text(step))?;
    }
    let duration = run_ms(run, None).map_or_else(|| "-".to_owned(), elapsed_text);
    write_inside(out, look, &format!("Duration: {duration}"))?;
    let (done, all) = steps_done(run);
    write_inside(out, look, &format!("Steps: {done}/{all} completed"))?;
    write_edge(out, look, look.glyph("└", "+"))
}

/// Steps that failed besides the one that the error of the run is about: compensations, so that something was not
/// undone, and steps around the others.
pub(crate) fn also_failed(run: &pb::Run) -> impl Iterator<Item = &pb::StepStatus> {
    let of_error = run.error.as_ref().map_or("", |error| error.step.as_str());
    // An error that names no step may be about any of them.
    let is_other = move |step: &pb::StepStatus| {
        !step.compensates.is_empty()
            || (step.name != of_error && !(of_error.is_empty() && run.error.is_some()))
    };
    run.steps.iter().filter(move |step| {
        step.state() == pb::StepState::Failed && is_other(step) && run.finished_at.is_some()
    })
}

/// `Not undone: drain: why` of a compensation, `Also failed: tell: why` of another step.
pub(crate) fn also_failed_text(step: &pb::StepStatus) -> String {
    let is_undo = !step.compensates.is_empty();
    let (what, name) =
        if is_undo { ("Not undone", &step.compensates) } else { ("Also failed", &step.name) };
    format!("{what}: {}: {}", sanitized(name), sanitized(&step.message))
}
