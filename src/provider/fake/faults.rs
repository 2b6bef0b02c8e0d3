//! Selects the fault of a call, from the script and at random.

use super::action::Action;
use super::chaos::draw;
use super::decided::Decided;
use super::errors::{busy_error, error, unreachable_error};
use super::operation::{Failure, Planned};
use super::script::{CallKind, Fault, Step, Subject};
use super::shared::Core;
use super::simulator::FakeProvider;
use super::state::Record;
use crate::ids::{MachineId, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::provider::{Call, ErrorCode};

/// A use of a rule of the script: its name and how often it has been used by then.
type Use = (String, u32);

/// The parts of an operation id, `run/step/attempt`.
struct Parts<'a> {
    run: &'a str,
    step: &'a str,
    attempt: u32,
}

impl<'a> Parts<'a> {
    fn of(operation: &'a OperationId) -> Self {
        let text = operation.as_str();
        let parts = text.split_once('/').and_then(|(run, rest)| {
            let (step, attempt) = rest.rsplit_once('/')?;
            Some(Self { run, step, attempt: attempt.parse().ok()? })
        });
        // An id of another form is its own run, in its first attempt.
        parts.unwrap_or(Self { run: text, step: text, attempt: 1 })
    }
}

impl FakeProvider {
    /// The fault of an *act*. The caller records the use of a rule if an operation starts: a call that is fenced off,
    /// or repeats what the world has, uses up nothing.
    pub(super) fn fault_on_act(
        &self,
        core: &mut Core,
        id: &MachineId,
        call: &Call,
    ) -> (Option<Fault>, Option<Use>) {
        let nth = self.count(core, id, call.operation.as_str(), CallKind::Act);
        match self.scripted(core, id, Some(call), CallKind::Act, nth) {
            // The call does not reach an operation.
            Some((fault @ (Fault::Unreachable | Fault::Busy { .. }), used)) => {
                note(core, used);
                (Some(fault), None)
            }
            Some((fault, used)) => (Some(fault), used),
            None => (self.chaos.on_act(self.seed, call.operation.as_str(), nth), None),
        }
    }

    /// The fault of any other call.
    pub(super) fn fault(
        &self,
        core: &mut Core,
        id: &MachineId,
        call: Option<&Call>,
        kind: CallKind,
    ) -> Option<Fault> {
        let operation = call.map_or("", |call| call.operation.as_str());
        let nth = self.count(core, id, operation, kind);
        if let Some((fault, used)) = self.scripted(core, id, call, kind, nth) {
            note(core, used);
            return Some(fault);
        }
        let by_chance =
            kind == CallKind::Observe && self.chaos.is_unknowable(self.seed, operation, nth);
        by_chance.then_some(Fault::Unknowable)
    }

    /// The first rule of the script that matches and is not used up.
    fn scripted(
        &self,
        core: &mut Core,
        id: &MachineId,
        call: Option<&Call>,
        kind: CallKind,
        nth: u32,
    ) -> Option<(Fault, Option<Use>)> {
        if self.script.is_empty() {
            return None;
        }
        let step = call.map(|call| {
            let parts = Parts::of(&call.operation);
            let run = run_number(core, id, parts.run);
            Step { name: parts.step, action: &call.action, attempt: parts.attempt, run }
        });
        let operation = call.map_or("", |call| call.operation.as_str());
        let subject = Subject { machine: id.as_str(), kind, step };
        for rule in self.script.applying(&subject) {
            let used = core.state.rule_used(&rule.name);
            let flaps = rule.fault == Fault::Flap;
            // A flap is used by every call, and loses every other one.
            let uses_max = rule.times.map(|times| times.saturating_mul(if flaps { 2 } else { 1 }));
            if uses_max.is_some_and(|max| used >= max) {
                continue;
            }
            let parts = [rule.name.as_str(), id.as_str(), kind.as_str(), operation];
            let drawn = draw(self.seed, &parts, nth) % 1_000_000;
            if drawn >= u64::from(rule.p_ppm) {
                continue;
            }
            let counted = rule.times.is_some() || flaps;
            let one_use = counted.then(|| (rule.name.clone(), used + 1));
            if !flaps {
                return Some((rule.fault, one_use));
            }
            if used.is_multiple_of(2) {
                return Some((Fault::Unreachable, one_use));
            }
            note(core, one_use);
        }
        None
    }

    /// Counts the call if random faults may depend on it: returns how many there were before it.
    fn count(&self, core: &mut Core, id: &MachineId, operation: &str, kind: CallKind) -> u32 {
        if self.script.is_empty() && self.chaos.is_calm() {
            return 0;
        }
        core.count(id, operation, kind)
    }
}

fn note(core: &mut Core, one_use: Option<Use>) {
    if let Some((rule, used)) = one_use {
        core.record(Record::Rule { rule, used });
    }
}

/// Which run of the machine this is, from 1.
fn run_number(core: &mut Core, id: &MachineId, run: &str) -> u32 {
    let known = |core: &Core| core.state.machine(id).and_then(|machine| machine.run_number(run));
    if known(core).is_none() {
        core.record(Record::Run { machine: id.to_string(), run: run.to_owned() });
    }
    known(core).unwrap_or(1)
}

/// How an operation with this fault will end.
pub(super) fn plan(fault: Option<Fault>, action: Action, id: &MachineId) -> Planned {
    let class = match fault {
        Some(Fault::Lie) => return Planned::Lie,
        Some(Fault::Fail) => ErrorClass::Transient,
        Some(Fault::FailPermanent | Fault::FailLate) => ErrorClass::Permanent,
        Some(Fault::FailHuman) => ErrorClass::NeedsHuman,
        Some(
            Fault::FailAfter
            | Fault::Hang
            | Fault::Slow { .. }
            | Fault::Unreachable
            | Fault::Flap
            | Fault::Busy { .. }
            | Fault::Unknowable
            | Fault::Degraded
            | Fault::Swapped,
        )
        | None => return Planned::Effect,
    };
    let action = action.as_str();
    let failure = error(class, ErrorCode::Failed, format!("simulated failure of {action} on {id}"))
        .seen(format!("{action} done"), format!("{action} did not take effect"));
    Planned::Failure(Box::new(Failure::of(&failure)))
}

/// The result of a call that fails or hangs by itself, whatever it asks.
pub(super) fn failed<T>(
    core: &mut Core,
    fault: Option<Fault>,
    id: &MachineId,
    what: &str,
) -> Option<Decided<T>> {
    let class = match fault? {
        Fault::Busy { ms } => return Some(Err(busy_error(core, id, ms)).into()),
        Fault::Unreachable | Fault::Flap => return Some(Err(unreachable_error(id)).into()),
        Fault::Hang => return Some(Decided::never()),
        Fault::Fail => ErrorClass::Transient,
        Fault::FailPermanent => ErrorClass::Permanent,
        Fault::FailHuman => ErrorClass::NeedsHuman,
        Fault::FailLate
        | Fault::FailAfter
        | Fault::Lie
        | Fault::Slow { .. }
        | Fault::Unknowable
        | Fault::Degraded
        | Fault::Swapped => return None,
    };
    let message = format!("simulated failure of a call about {what} on {id}");
    Some(Err(error(class, ErrorCode::Failed, message)).into())
}
