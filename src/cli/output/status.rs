//! The status line under the output that says what is in progress; only drawn on terminals.

use crate::pb;

use super::progress::waits_for;
use super::text::{Look, sanitized, width};
use super::time::{duration_text, elapsed_text, instant};

/// Frames of the spinner.
const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const ASCII_FRAMES: [&str; 4] = ["|", "/", "-", "\\"];
/// Columns of the bar of a bulk command.
const BAR_COLUMNS: usize = 24;
/// Columns assumed where the terminal does not report them.
const COLUMNS_DEFAULT: usize = 80;

fn frame(look: Look, tick: usize) -> &'static str {
    if look.ascii { ASCII_FRAMES[tick % ASCII_FRAMES.len()] } else { FRAMES[tick % FRAMES.len()] }
}

/// A text cut to fit one line of the terminal.
fn fitted(look: Look, text: &str) -> String {
    let columns = look.columns.unwrap_or(COLUMNS_DEFAULT).saturating_sub(1);
    let mut fitted = String::new();
    for c in text.chars() {
        if width(&fitted) + width(c.encode_utf8(&mut [0; 4])) > columns {
            break;
        }
        fitted.push(c);
    }
    fitted
}

/// The step in progress: elapsed and expected time, attempt, what it is doing. Empty if there is none.
pub(crate) fn step_status(look: Look, run: &pb::Run, now_ms: i64, tick: usize) -> String {
    let Some(step) = run.steps.iter().find(|step| step.state() == pb::StepState::Running) else {
        return String::new();
    };
    let elapsed = instant(step.started_at.as_ref()).map_or(0, |started| now_ms - started);
    let mut text =
        format!("  {} {} {}", frame(look, tick), sanitized(&step.name), elapsed_text(elapsed));
    if step.expected_duration.is_some() {
        text.push_str(&format!(" (expected {})", duration_text(step.expected_duration.as_ref())));
    }
    if step.attempt > 1 {
        text.push_str(&format!(
            ", attempt {} of {}",
            step.attempt,
            step.max_attempts.max(step.attempt)
        ));
    }
    if step.overdue {
        text.push_str(", overdue");
    }
    // Other lines already say that the provider is working.
    let waiting =
        run.waiting.as_ref().filter(|waiting| waiting.reason() != pb::WaitReason::Provider);
    if let Some(waiting) = waiting.filter(|waiting| waiting.reason() == pb::WaitReason::Backoff) {
        // The name of the step and its attempt are already in the line; what matters is when the next attempt starts.
        let message = if step.message.is_empty() { &waiting.message } else { &step.message };
        if let Some(at) = instant(waiting.next_wake_at.as_ref()) {
            text.push_str(&format!(", again in {}", elapsed_text(at - now_ms)));
        }
        text.push_str(&format!(": {}", sanitized(message)));
    } else if let Some(waiting) = waiting.filter(|waiting| !waiting.message.is_empty()) {
        let message = waits_for(run).unwrap_or(&waiting.message);
        text.push_str(&format!(", {}", sanitized(message)));
    }
    fitted(look, &text)
}

/// Progress of a bulk command.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Plural noun for the targets.
    pub(crate) noun: &'static str,
    /// How many in all.
    pub(crate) all: usize,
    /// In progress.
    pub(crate) running: usize,
    /// Runs that succeeded.
    pub(crate) succeeded: usize,
    /// Runs that were started and are not watched.
    pub(crate) started: usize,
    /// Targets that were changed, for operations without runs.
    pub(crate) changed: usize,
    /// Targets that were as they should be already.
    pub(crate) unchanged: usize,
    /// Runs that failed.
    pub(crate) failed: usize,
    /// Runs that are held.
    pub(crate) held: usize,
    /// Runs that were canceled.
    pub(crate) canceled: usize,
    /// What the server refused.
    pub(crate) refused: usize,
}

impl Tally {
    /// Nothing done yet out of `all`.
    pub(crate) fn of(noun: &'static str, all: usize) -> Self {
        Self { noun, all, ..Self::default() }
    }

    /// How many the command has finished with.
    pub(crate) fn done(self) -> usize {
        self.succeeded
            + self.started
            + self.changed
            + self.unchanged
            + self.failed
            + self.held
            + self.canceled
            + self.refused
    }

    /// What counts against --max-failures: what needs a person. A refusal has changed nothing.
    pub(crate) fn stopping(self) -> usize {
        self.failed + self.held
    }

    /// What stopped the command, in words.
    pub(crate) fn stopped_after(self) -> String {
        match (self.failed, self.held) {
            (failed, 0) => format!("{failed} failed"),
            (0, held) => format!("{held} held"),
            (failed, held) => format!("{failed} failed and {held} held"),
        }
    }

    /// The tally in words, for the summary.
    pub(crate) fn summary(self) -> String {
        let not_started = self.all.saturating_sub(self.done() + self.running);
        let parts: Vec<String> = [
            (self.succeeded, "succeeded"),
            (self.started, "started"),
            (self.changed, "done"),
            (self.unchanged, "unchanged"),
            (self.failed, "failed"),
            (self.held, "held"),
            (self.canceled, "canceled"),
            (self.refused, "refused"),
            (self.running, "in progress"),
            (not_started, "not started"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        let noun = if self.all == 1 { self.noun.trim_end_matches('s') } else { self.noun };
        format!("{} {noun}: {}", self.all, parts.join(", "))
    }
}

/// A bar with the numbers behind it.
pub(crate) fn bar_status(look: Look, tally: Tally, tick: usize) -> String {
    let filled = (tally.done() * BAR_COLUMNS).checked_div(tally.all).unwrap_or(0);
    let bar =
        look.glyph("█", "#").repeat(filled) + &look.glyph("░", ".").repeat(BAR_COLUMNS - filled);
    let mut text = format!(
        "{} {bar} {}/{} done, {} running",
        frame(look, tick),
        tally.done(),
        tally.all,
        tally.running
    );
    for (count, what) in
        [(tally.failed, "failed"), (tally.held, "held"), (tally.refused, "refused")]
    {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    fitted(look, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_in_progress() {
        let mut run = pb::Run {
            steps: vec![pb::StepStatus {
                name: "repave".to_owned(),
                state: pb::StepState::Running.into(),
                attempt: 2,
                max_attempts: 3,
                started_at: Some(prost_types::Timestamp { seconds: 100, nanos: 0 }),
                expected_duration: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
                overdue: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        let look = Look::default();
        assert_eq!(
            step_status(look, &run, 103_200, 1),
            "  ⠙ repave 3.2s (expected 10m), attempt 2 of 3, overdue"
        );
        let narrow = Look { ascii: true, columns: Some(20), ..look };
        assert_eq!(step_status(narrow, &run, 103_200, 1), "  / repave 3.2s (ex");
        run.steps[0].state = pb::StepState::Succeeded.into();
        assert_eq!(step_status(look, &run, 103_200, 1), "");
    }

    #[test]
    fn a_bulk_command_in_numbers() {
        let tally = Tally { running: 5, succeeded: 7, failed: 1, ..Tally::of("machines", 20) };
        assert_eq!(
            bar_status(Look { ascii: true, ..Look::default() }, tally, 0),
            "| #########............... 8/20 done, 5 running, 1 failed"
        );
        assert_eq!(
            tally.summary(),
            "20 machines: 7 succeeded, 1 failed, 5 in progress, 7 not started"
        );
        let mixed = Tally { started: 2, held: 1, refused: 3, ..Tally::of("runs", 6) };
        assert_eq!(mixed.summary(), "6 runs: 2 started, 1 held, 3 refused");
        assert_eq!((mixed.stopping(), mixed.stopped_after()), (1, "1 held".to_owned()));
        assert!(bar_status(Look::default(), Tally::default(), 0).contains("0/0 done"));
    }
}
