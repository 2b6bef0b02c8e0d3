//! Asking before something is destroyed.

use crate::pb;

use super::super::error::Error;
use super::super::output::sanitized;
use super::super::session::Session;

/// Provider whose machines are only simulated: nothing on them can be lost.
const FAKE: &str = "fake";
/// Most machines named in a question.
const NAMED_MAX: usize = 10;

/// What is about to happen to which machines.
pub(crate) struct Question<'a> {
    pub(crate) plan: &'a pb::Plan,
    pub(crate) machines: &'a [pb::Machine],
}

impl Question<'_> {
    /// Whether it must be asked: for several machines, or where a real machine would lose data or service (either class of risk).
    pub(crate) fn is_due(&self) -> bool {
        self.machines.len() > 1 || (self.plan.destructive && self.machines.iter().any(is_real))
    }

    /// What is going to happen, for the user to read before answering.
    fn text(&self) -> String {
        let count = self.machines.len();
        let noun = if count == 1 { "machine" } else { "machines" };
        let mut text = format!("Run {} on {count} {noun}:\n", sanitized(&self.plan.plan_id));
        for machine in self.machines.iter().take(NAMED_MAX) {
            let provider = machine.spec.as_ref().map_or("", |spec| spec.provider.as_str());
            text.push_str(&format!(
                "  {} ({})\n",
                sanitized(&machine.machine_id),
                sanitized(provider)
            ));
        }
        if count > NAMED_MAX {
            text.push_str(&format!("  and {} more\n", count - NAMED_MAX));
        }
        if self.machines.iter().any(is_real) {
            // A server that does not know classes of risk only says that something is lost.
            for (risk, what) in [
                (pb::Risk::DataDestroying, "Data on them will be lost"),
                (pb::Risk::Disruptive, "Service on them will stop"),
                (pb::Risk::Unspecified, "Data or service on them will be lost"),
            ] {
                let steps = self.plan.steps.iter();
                let names: Vec<_> = steps
                    .filter(|step| step.destructive && step.risk() == risk)
                    .map(|step| sanitized(&step.name))
                    .collect();
                if !names.is_empty() {
                    text.push_str(&format!("{what}: {}.\n", names.join(", ")));
                }
            }
        }
        text
    }

    /// Asks, if it must be asked and `yes` was not said already.
    ///
    /// # Errors
    /// Usage, with the command that needs no answer, if nobody is there to answer or the answer is no.
    pub(crate) fn settle(&self, session: &mut Session, yes: bool) -> Result<(), Error> {
        if self.is_due() { ask(session, &self.text(), "nothing was started", yes) } else { Ok(()) }
    }
}

/// Asks whether to go ahead with what `text` says, unless `yes` was said already; `refused` says what a no means.
///
/// # Errors
/// Usage, with the command that needs no answer, if nobody is there to answer or the answer is no.
pub(crate) fn ask(
    session: &mut Session,
    text: &str,
    refused: &str,
    yes: bool,
) -> Result<(), Error> {
    if yes || session.ui.io().var("BMDEMO_YES").is_some_and(|value| value == "1") {
        return Ok(());
    }
    let go_ahead = format!("to go ahead: {} --yes", session.command_line());
    session.ui.note(text.trim_end());
    if !session.ui.can_ask() {
        let message = "this needs a confirmation, and there is no terminal to ask on";
        return Err(Error::usage(message, go_ahead));
    }
    let _ = write!(session.ui.err(), "Go ahead? [y/N] ").and_then(|()| session.ui.flush());
    match session.ui.read_line()?.as_deref() {
        Some("y" | "Y" | "yes" | "Yes") => Ok(()),
        _ => Err(Error::usage(refused, go_ahead)),
    }
}

fn is_real(machine: &pb::Machine) -> bool {
    machine.spec.as_ref().is_none_or(|spec| spec.provider != FAKE)
}
