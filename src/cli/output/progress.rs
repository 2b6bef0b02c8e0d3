//! What changed between two snapshots of a run, as lines.
//!
//! A watch may skip snapshots (several changes in one event, a reconnect), so the lines come from comparing whole
//! snapshots, never from the events: nothing is lost or shown twice.

use std::io::{self, Write};

use crate::pb;
use crate::pb::StepState;

use super::text::{Look, Meaning, sanitized, wait_reason_name, wrapped};

/// One line of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// A step began.
    Started(String),
    /// A step continues with another attempt.
    Again {
        /// Step.
        step: String,
        /// Number of the attempt.
        attempt: i32,
        /// Most attempts, 0 if unknown.
        of: i32,
        /// How the previous attempt ended.
        after: String,
    },
    /// A step is done.
    Succeeded(String),
    /// A step gave up.
    Failed(String, String),
    /// A step was not needed.
    Skipped(String, String),
    /// A step was ended by a cancel.
    Canceled(String),
    /// The run ended before the step was reached.
    NotReached(String),
    /// What a step of the engine waits for.
    Waits(String),
}

/// The last snapshot that was shown of one run.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    seen: Vec<pb::StepStatus>,
    held: i32,
    waits: String,
}

impl Progress {
    /// The lines that lead from the previous snapshot to this one: first for the steps that were in progress, then
    /// for the others, both in the order of the plan.
    pub(crate) fn advance(&mut self, run: &pb::Run) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut others = Vec::new();
        for (index, now) in run.steps.iter().enumerate() {
            let before = self.seen.get(index).cloned().unwrap_or_default();
            let was_running = rank(before.state) == 1;
            step_lines(&before, now, if was_running { &mut lines } else { &mut others });
        }
        lines.append(&mut others);
        let waits = waits_for(run).unwrap_or_default();
        if !waits.is_empty() && waits != self.waits {
            lines.push(Line::Waits(waits.to_owned()));
        }
        waits.clone_into(&mut self.waits);
        self.seen.clone_from(&run.steps);
        lines
    }

    /// The hold that began with this snapshot, if one did.
    pub(crate) fn new_hold<'a>(&mut self, run: &'a pb::Run) -> Option<&'a pb::Waiting> {
        let hold = hold(run);
        let reason = hold.map_or(0, |waiting| waiting.reason);
        let began = reason != 0 && reason != self.held;
        self.held = reason;
        if began { hold } else { None }
    }
}

/// What holds a run until an operator acts, if anything does.
pub(crate) fn hold(run: &pb::Run) -> Option<&pb::Waiting> {
    run.waiting.as_ref().filter(|waiting| {
        run.finished_at.is_none()
            && matches!(
                waiting.reason(),
                pb::WaitReason::Paused
                    | pb::WaitReason::OutcomeUnknown
                    | pb::WaitReason::LoopBreaker
                    | pb::WaitReason::Restored
                    | pb::WaitReason::EngineFault
                    | pb::WaitReason::Approval
                    | pb::WaitReason::WrongHardware
            )
    })
}

/// What the step in progress waits for, if it is a step that waits: `waits until …`.
pub(crate) fn waits_for(run: &pb::Run) -> Option<&str> {
    let waiting = run.waiting.as_ref().filter(|_| run.finished_at.is_none())?;
    let is_of_step = waiting.reason() == pb::WaitReason::Step;
    let text = is_of_step.then_some(waiting.message.as_str())?;
    // Other lines name the step.
    let of_step = text.strip_prefix("step ").and_then(|text| text.strip_prefix(&run.current_step));
    Some(of_step.map_or(text, str::trim_start))
}

fn rank(state: i32) -> u8 {
    match StepState::try_from(state) {
        Ok(StepState::Unspecified | StepState::Waiting) | Err(_) => 0,
        Ok(StepState::Running) => 1,
        Ok(StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Canceled) => {
            2
        }
    }
}

fn step_lines(before: &pb::StepStatus, now: &pb::StepStatus, lines: &mut Vec<Line>) {
    let (was, is) = (rank(before.state), rank(now.state));
    if is == 0 || (was == 2 && is == 2) {
        return;
    }
    let step = now.name.clone();
    if was == 0 && (is == 1 || now.attempt > 0) {
        lines.push(Line::Started(step.clone()));
    }
    for attempt in before.attempt.max(1) + 1..=now.attempt {
        // The message of the failed attempt may have been replaced by now: use the last one known.
        let after = if is == 1 && !now.message.is_empty() { &now.message } else { &before.message };
        lines.push(Line::Again {
            step: step.clone(),
            attempt,
            of: now.max_attempts,
            after: after.clone(),
        });
    }
    match now.state() {
        StepState::Succeeded => lines.push(Line::Succeeded(step)),
        StepState::Failed => lines.push(Line::Failed(step, now.message.clone())),
        StepState::Skipped => lines.push(Line::Skipped(step, now.message.clone())),
        StepState::Canceled if is_not_reached(now) => lines.push(Line::NotReached(step)),
        StepState::Canceled => lines.push(Line::Canceled(step)),
        StepState::Unspecified | StepState::Waiting | StepState::Running => {}
    }
}

/// Whether the run ended before the step was reached: it has the state of a canceled step.
pub(crate) fn is_not_reached(step: &pb::StepStatus) -> bool {
    step.state() == StepState::Canceled && step.attempt == 0 && step.started_at.is_none()
}

/// Writes one line of progress.
pub(crate) fn write_line(out: &mut dyn Write, look: Look, line: &Line) -> io::Result<()> {
    match line {
        Line::Started(step) => {
            writeln!(out, "{} {}...", look.paint(Meaning::Active, look.arrow()), sanitized(step))
        }
        Line::Again { step, attempt, of, after } => {
            let glyph = look.paint(Meaning::Attention, look.again());
            let of = if *of > 0 { format!(" of {of}") } else { String::new() };
            let after = if after.is_empty() {
                String::new()
            } else {
                format!(" after: {}", sanitized(after))
            };
            let line = format!("  {glyph} {}: attempt {attempt}{of}{after}", sanitized(step));
            writeln!(out, "{}", wrapped(look, &line, 4))
        }
        Line::Succeeded(step) => {
            writeln!(out, "  {} {}", look.paint(Meaning::Good, look.good()), sanitized(step))
        }
        Line::Failed(step, message) => {
            let glyph = look.paint(Meaning::Bad, look.bad());
            let message = if message.is_empty() { "failed" } else { message };
            let line = format!("  {glyph} {}: {}", sanitized(step), sanitized(message));
            writeln!(out, "{}", wrapped(look, &line, 4))
        }
        Line::Skipped(step, why) => {
            let why = if why.is_empty() { String::new() } else { format!(": {}", sanitized(why)) };
            let glyph = look.paint(Meaning::Dim, "-");
            let line = format!("  {glyph} {} (skipped{why})", sanitized(step));
            writeln!(out, "{}", wrapped(look, &line, 4))
        }
        Line::NotReached(step) => {
            writeln!(out, "  {} {} (not reached)", look.paint(Meaning::Dim, "-"), sanitized(step))
        }
        Line::Waits(what) => {
            let glyph = look.paint(Meaning::Dim, look.glyph("…", "..."));
            writeln!(out, "{}", wrapped(look, &format!("  {glyph} {}", sanitized(what)), 4))
        }
        Line::Canceled(step) => {
            writeln!(
                out,
                "  {} {}",
                look.paint(Meaning::Attention, look.canceled()),
                sanitized(step)
            )
        }
    }
}

/// Writes why a run is held.
pub(crate) fn write_hold(out: &mut dyn Write, look: Look, waiting: &pb::Waiting) -> io::Result<()> {
    let glyph = look.paint(Meaning::Attention, look.held());
    let (reason, message) = (wait_reason_name(waiting.reason), sanitized(&waiting.message));
    writeln!(out, "{}", wrapped(look, &format!("  {glyph} held: {reason} {message}"), 4))
}
