//! Confirmation before a command that affects many targets or destroys data.

use std::collections::BTreeMap;

use crate::pb;

use super::super::error::Error;
use super::super::output::sanitized;
use super::super::session::Session;

/// Provider whose machines are only simulated: nothing on them can be lost.
const FAKE: &str = "fake";
/// Most targets named in a question.
const NAMED_MAX: usize = 10;

/// What is about to be done, and to which targets.
#[derive(Debug)]
pub(crate) struct Question {
    /// The operation, without the number: `Run plan/rma on`, `Cancel`.
    pub(crate) what: String,
    /// Singular noun for the targets.
    pub(crate) noun: &'static str,
    /// The targets, each with a short description.
    pub(crate) targets: Vec<String>,
    /// How many of them the server would refuse, and why the first of them.
    pub(crate) refused: Option<(usize, String)>,
    /// What is lost, in a sentence.
    pub(crate) loss: Option<String>,
    /// Whether to ask even for a single target.
    pub(crate) always: bool,
}

impl Question {
    /// The question before running a plan on machines.
    pub(crate) fn of_plan(plan: &pb::Plan, machines: &[pb::Machine]) -> Self {
        let real = machines.iter().any(is_real);
        let mut losses = Vec::new();
        // A server that does not know risk classes only says that something is lost.
        for (risk, will, would) in [
            (pb::Risk::DataDestroying, "Data on them will be lost", "data would be lost"),
            (pb::Risk::Disruptive, "Service on them will stop", "service would stop"),
            (
                pb::Risk::Unspecified,
                "Data or service on them will be lost",
                "data or service would be lost",
            ),
        ] {
            let steps = plan.steps.iter();
            let names: Vec<_> = steps
                .filter(|step| step.destructive && step.risk() == risk)
                .map(|step| sanitized(&step.name))
                .collect();
            let names = names.join(", ");
            if real && !names.is_empty() {
                losses.push(format!("{will}: {names}."));
            } else if !names.is_empty() {
                losses.push(format!("They are simulated; on real machines {would}: {names}."));
            }
        }
        let loss = (!losses.is_empty()).then(|| losses.join("\n"));
        Self {
            what: format!("Run {} on", sanitized(&plan.plan_id)),
            noun: "machine",
            targets: machines.iter().map(described).collect(),
            refused: None,
            loss,
            always: plan.destructive && real,
        }
    }

    /// The same, and what --force overrides, by machine: that is asked for a single one too.
    pub(crate) fn overriding(mut self, overrides: &BTreeMap<String, String>) -> Self {
        let Some(first) = overrides.values().next() else { return self };
        let more = match overrides.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more refusals"),
        };
        let text = format!("--force overrides: {}{more}.", sanitized(first));
        self.loss = Some(match self.loss.take() {
            Some(loss) => format!("{text}\n{loss}"),
            None => text,
        });
        self.always = true;
        self
    }

    /// Whether to ask at all.
    pub(crate) fn is_due(&self) -> bool {
        self.targets.len() > 1 || self.always
    }

    /// What is about to happen, to be read before answering.
    fn text(&self) -> String {
        let count = self.targets.len();
        let plural = if count == 1 { "" } else { "s" };
        let mut text = format!("{} {count} {}{plural}:\n", self.what, self.noun);
        for target in self.targets.iter().take(NAMED_MAX) {
            text.push_str(&format!("  {target}\n"));
        }
        if count > NAMED_MAX {
            text.push_str(&format!("  and {} more\n", count - NAMED_MAX));
        }
        if let Some((count, why)) = &self.refused {
            text.push_str(&format!(
                "{count} would be refused, the first because: {}\n",
                sanitized(why)
            ));
        }
        if let Some(loss) = &self.loss {
            text.push_str(&format!("{loss}\n"));
        }
        text
    }

    /// How to do it without the question.
    fn way_ahead(&self, session: &Session) -> String {
        match &self.refused {
            Some((count, _)) if *count == self.targets.len() => {
                "the server would refuse all of it: see why above".to_owned()
            }
            Some(_) | None => format!("to go ahead: {} --yes", session.command_line()),
        }
    }

    /// Asks, if a confirmation is needed and `yes` was not given.
    ///
    /// # Errors
    /// Usage, with the command that skips the question, if there is no terminal to ask on or the answer is no.
    pub(crate) fn settle(&self, session: &mut Session, yes: bool) -> Result<(), Error> {
        if is_answered(session, yes) || !self.is_due() {
            return Ok(());
        }
        session.ui.note(self.text().trim_end());
        if !session.ui.can_ask() {
            return Err(Error::usage(
                "this needs a confirmation, and there is no terminal to ask on",
                self.way_ahead(session),
            ));
        }
        let _ = write!(session.ui.err(), "Go ahead? [y/N] ").and_then(|()| session.ui.flush());
        match session.ui.read_line()?.as_deref() {
            Some("y" | "Y" | "yes" | "Yes") => Ok(()),
            _ => Err(Error::usage("nothing was done", self.way_ahead(session))),
        }
    }
}

/// Whether the confirmation was given in advance.
pub(crate) fn is_answered(session: &Session, yes: bool) -> bool {
    yes || session.ui.io().var("BMDEMO_YES").is_some_and(|value| value == "1")
}

/// A machine in a question.
pub(crate) fn described(machine: &pb::Machine) -> String {
    let provider = machine.spec.as_ref().map_or("", |spec| spec.provider.as_str());
    format!("{} ({})", sanitized(&machine.machine_id), sanitized(provider))
}

fn is_real(machine: &pb::Machine) -> bool {
    machine.spec.as_ref().is_none_or(|spec| spec.provider != FAKE)
}
