//! The calls of the provider, decided under the world's lock and without waiting.

use super::action::Action;
use super::decided::Decided;
use super::effect::Effect;
use super::errors::{busy_error, error, fenced, unreachable_error};
use super::faults::{failed, plan};
use super::operation::{Ending, Failure, Operation, Planned};
use super::script::{CallKind, Fault};
use super::shared::Core;
use super::simulator::FakeProvider;
use super::state::{Machine, Record};
use crate::ids::{Epoch, MachineId};
use crate::lifecycle::step::ErrorClass;
use crate::model::{LogStream, MachineFacts, Power};
use crate::plan::Values;
use crate::provider::{
    Acted, Call, ErrorCode, Health, Observation, ProviderErrorKind, Target, Verification,
};

impl FakeProvider {
    pub(super) fn decide_act(&self, target: &Target, call: &Call) -> Decided<Acted> {
        let core = &mut *self.world.lock();
        let (id, operation_id) = (&target.machine_id, call.operation.as_str());
        if let Err(why) = core.writable() {
            return Err(error(ErrorClass::Transient, ErrorCode::Unavailable, why)).into();
        }
        let (fault, rule) = self.fault_on_act(core, id, call);
        if fault == Some(Fault::Unreachable) {
            return Err(unreachable_error(id)).into();
        }
        if let Err(fenced) = fenced(core, id, call.epoch) {
            return Err(fenced).into();
        }
        let now_ms = core.now_ms();
        core.settle(id, now_ms);
        let machine = core.state.machine(id);
        if let Some(operation) = machine.and_then(|machine| machine.operation(operation_id)) {
            let operation = operation.clone();
            let mut decided = self.known(core, &operation);
            decided.lines.insert(
                0,
                (LogStream::Stdout, format!("{} was already accepted", operation.handle())),
            );
            return decided;
        }
        // It puts off what it has not begun; of the rest it says how it is.
        if let Some(Fault::Busy { ms }) = fault {
            return Err(busy_error(core, id, ms)).into();
        }
        if let Some(other) = machine.and_then(Machine::in_flight) {
            return Err(error(
                ErrorClass::Transient,
                ErrorCode::Busy,
                format!("busy with {}", other.id),
            ))
            .into();
        }
        let Some(action) = Action::of(call) else {
            let message = format!("the fake provider has no action {:?}", call.action);
            return Err(error(ErrorClass::Permanent, ErrorCode::Unsupported, message)).into();
        };
        let effect = match Effect::of(action, target, call, self.key) {
            Ok(effect) => effect,
            Err(bad) => return Err(bad).into(),
        };
        let mut planned = plan(fault, action, id);
        let at_its_end = fault == Some(Fault::FailLate);
        let fresh = Machine::default();
        let machine = core.state.machine(id).unwrap_or(&fresh);
        if planned == Planned::Effect
            && let Err(refused) = effect.admit(&machine.hardware, now_ms, self.key)
        {
            planned = Planned::Failure(Box::new(Failure::of(&refused)));
        }
        let lasts_ms = match (&planned, fault) {
            (Planned::Failure(_), _) if !at_its_end => 0,
            (_, Some(Fault::Slow { ms })) => ms,
            _ => self.timing.of(action),
        };
        let operation = Operation {
            id: operation_id.to_owned(),
            number: machine.operations_started + 1,
            action,
            epoch: call.epoch.0,
            started_at_ms: now_ms,
            until_ms: now_ms.saturating_add(lasts_ms),
            planned,
            effect,
            fence: 0,
            order: 0,
            ended: None,
            recorded: 0,
        };
        let begins = operation.effect.begins();
        if let Some((rule, used)) = rule {
            core.record(Record::Rule { rule, used });
        }
        core.record(Record::Start { machine: id.to_string(), operation: Box::new(operation) });
        let operation = core.state.machine(id).and_then(|machine| machine.operation(operation_id));
        let Some(operation) = operation.cloned() else {
            let message = "the world did not keep the operation".to_owned();
            return Err(error(ErrorClass::OutcomeUnknown, ErrorCode::Internal, message)).into();
        };
        let mut decided = self.known(core, &operation);
        let ends = std::mem::take(&mut decided.lines);
        decided.say(begins);
        decided.lines.extend(ends);
        match fault {
            Some(Fault::Hang) => decided.hangs = true,
            Some(Fault::FailAfter) => {
                let message = format!("connection to {id} was lost before the answer came");
                decided.result =
                    Err(error(ErrorClass::OutcomeUnknown, ErrorCode::Timeout, message));
            }
            _ => {}
        }
        decided
    }

    pub(super) fn decide_observe(&self, target: &Target, call: &Call) -> Decided<Observation> {
        let core = &mut *self.world.lock();
        let id = &target.machine_id;
        let fault = self.fault(core, id, Some(call), CallKind::Observe);
        if let Some(decided) = failed(core, fault, id, &call.action) {
            return decided;
        }
        if let Err(fenced) = fenced(core, id, call.epoch) {
            return Err(fenced).into();
        }
        if fault == Some(Fault::Unknowable) {
            let why = format!("{id} does not say what happened to {}", call.action);
            return Ok(Observation::Unknowable { why }).into();
        }
        let now_ms = core.now_ms();
        core.settle(id, now_ms);
        let fresh = Machine::default();
        let machine = core.state.machine(id).unwrap_or(&fresh);
        if let Some(operation) = machine.operation(call.operation.as_str()) {
            let operation = operation.clone();
            return self.look_at(core, &operation);
        }
        if let Some(other) = machine.in_flight() {
            let observed = format!("{id} is busy with {}", other.id);
            return Ok(Observation::NotDone { observed }).into();
        }
        let Some(action) = Action::of(call) else {
            let message = format!("the fake provider has no action {:?}", call.action);
            return Err(error(ErrorClass::Permanent, ErrorCode::Unsupported, message)).into();
        };
        match Effect::of(action, target, call, self.key) {
            Err(bad) => Err(bad).into(),
            Ok(effect) => match effect.already(&machine.hardware) {
                Some(evidence) => {
                    let mut decided = Self::done(Observation::Done {
                        evidence: evidence.clone(),
                        output: Values::new(),
                    });
                    decided.say([format!("nothing to do: {evidence}")]);
                    decided
                }
                None => {
                    let observed = match effect.shows(&machine.hardware) {
                        Ok(_) => format!("no trace of {} by this operation", call.action),
                        Err((_, observed)) => observed,
                    };
                    Ok(Observation::NotDone { observed }).into()
                }
            },
        }
    }

    pub(super) fn decide_verify(&self, target: &Target, call: &Call) -> Decided<Verification> {
        let core = &mut *self.world.lock();
        let id = &target.machine_id;
        let fault = self.fault(core, id, Some(call), CallKind::Verify);
        if let Some(decided) = failed(core, fault, id, &call.action) {
            return decided;
        }
        if let Err(fenced) = fenced(core, id, call.epoch) {
            return Err(fenced).into();
        }
        let now_ms = core.now_ms();
        core.settle(id, now_ms);
        let Some(action) = Action::of(call) else {
            let message = format!("the fake provider has no action {:?}", call.action);
            return Err(error(ErrorClass::Permanent, ErrorCode::Unsupported, message)).into();
        };
        let fresh = Machine::default();
        let machine = core.state.machine(id).unwrap_or(&fresh);
        let operation = machine.operation(call.operation.as_str());
        if let Some(operation) = operation.filter(|operation| operation.ended.is_none()) {
            return Ok(Verification::Broken {
                expected: format!("{} finished", operation.handle()),
                observed: format!("{} is still in progress", operation.handle()),
            })
            .into();
        }
        // The recorded effect has the arguments that were really used.
        let effect = match operation {
            Some(operation) => Ok(operation.effect.clone()),
            None => Effect::of(action, target, call, self.key),
        };
        match effect {
            Err(bad) => Err(bad).into(),
            Ok(effect) => {
                let verification = effect.check(&machine.hardware, action, call.operation.as_str());
                let line = match &verification {
                    Verification::Holds { evidence } => {
                        (LogStream::Stdout, format!("checked: {evidence}"))
                    }
                    Verification::Broken { expected, observed } => (
                        LogStream::Stderr,
                        format!("check failed: expected {expected}, but {observed}"),
                    ),
                };
                let mut decided = Self::done(verification);
                decided.lines.push(line);
                decided
            }
        }
    }

    pub(super) fn decide_stop(&self, target: &Target, call: &Call) -> Decided<()> {
        let core = &mut *self.world.lock();
        let id = &target.machine_id;
        let fault = self.fault(core, id, Some(call), CallKind::Stop);
        if let Some(decided) = failed(core, fault, id, "stop") {
            return decided;
        }
        if let Err(fenced) = fenced(core, id, call.epoch) {
            return Err(fenced).into();
        }
        let now_ms = core.now_ms();
        core.settle(id, now_ms);
        let in_flight = core.state.machine(id).and_then(Machine::in_flight);
        let stops = in_flight.is_some_and(|operation| {
            operation.id == call.operation.as_str() && !operation.action.is_destructive()
        });
        let mut decided = Self::done(());
        if stops {
            let ending = Ending::Stopped;
            core.record(Record::End { machine: id.to_string(), at_ms: now_ms, ending });
            decided.durable = core.durable(core.state.recorded());
        }
        decided
    }

    pub(super) fn decide_fence(&self, target: &Target, epoch: Epoch) -> Decided<()> {
        let core = &mut *self.world.lock();
        let id = &target.machine_id;
        let fault = self.fault(core, id, None, CallKind::Fence);
        if let Some(decided) = failed(core, fault, id, "fence") {
            return decided;
        }
        if let Err(fenced) = fenced(core, id, epoch) {
            return Err(fenced).into();
        }
        if core.state.machine(id).is_none_or(|machine| machine.fence < epoch.0) {
            // Not waited for: a power loss that loses a fence also ends the caller that it kept out.
            core.record(Record::Fence { machine: id.to_string(), epoch: epoch.0 });
        }
        Self::done(())
    }

    pub(super) fn decide_probe(&self, target: &Target) -> Decided<Health> {
        let core = &mut *self.world.lock();
        let id = &target.machine_id;
        let fault = self.fault(core, id, None, CallKind::Probe);
        if fault == Some(Fault::Unreachable) {
            let message = format!("{id} does not answer");
            let facts = MachineFacts::default();
            return Self::done(Health { reachable: false, degraded: false, message, facts });
        }
        if let Some(decided) = failed(core, fault, id, "probe") {
            return decided;
        }
        let now_ms = core.now_ms();
        core.settle(id, now_ms);
        let fresh = Machine::default();
        let machine = core.state.machine(id).unwrap_or(&fresh);
        let interrupted = machine.in_flight().filter(|operation| operation.action.interrupts());
        let degraded = fault == Some(Fault::Degraded);
        let (reachable, message) = match interrupted {
            Some(operation) => (false, format!("{id} is down for {}", operation.action.as_str())),
            None if !machine.hardware.powered => (false, format!("{id} is powered off")),
            None if degraded => (true, format!("{id} answers, with a failed fan")),
            None => (true, format!("{id} answers")),
        };
        let serial = &target.spec.serial;
        let facts = MachineFacts {
            power: if machine.hardware.powered { Power::On } else { Power::Off },
            firmware: "fake 1".to_owned(),
            serial: if serial.is_empty() { format!("FAKE-{id}") } else { serial.clone() },
            health: if degraded { "a fan has failed" } else { "all parts work" }.to_owned(),
            model: "fake 1".to_owned(),
            mac_addresses: target.spec.mac_addresses.clone(),
            power_word: String::new(),
        };
        let facts = match fault {
            Some(Fault::Swapped) => swapped(id, facts),
            Some(_) | None => facts,
        };
        Self::done(Health { reachable, degraded: reachable && degraded, message, facts })
    }

    fn done<T>(answer: T) -> Decided<T> {
        Ok(answer).into()
    }

    /// The result of *act* for an operation that the world has.
    fn known(&self, core: &mut Core, operation: &Operation) -> Decided<Acted> {
        let mut decided: Decided<Acted> = match (&operation.ended, &operation.planned) {
            (None, _) => Ok(Acted::Accepted {
                handle: operation.handle(),
                poll_at: core.wall_time(operation.until_ms),
            })
            .into(),
            (Some((_, Ending::Stopped)), _) => Err(error(
                ErrorClass::Transient,
                ErrorCode::Stopped,
                "was stopped before it took effect",
            ))
            .into(),
            (Some((_, Ending::AsPlanned)), Planned::Failure(failure)) => {
                let mut decided = Decided::from(Err(failure.error()));
                decided.lines.push((LogStream::Stderr, failure.error().message));
                decided
            }
            (Some((_, Ending::AsPlanned)), Planned::Effect | Planned::Lie) => {
                let evidence = operation.effect.claim();
                let output = operation.effect.output();
                let mut decided = Decided::from(Ok(Acted::Done { evidence, output }));
                decided.say([operation.effect.claim()]);
                decided
            }
        };
        decided.durable = core.durable(operation.recorded);
        decided
    }

    /// The result of *observe* for an operation that the world has.
    ///
    /// One that failed for a transient reason is "not done": to the engine an error would mean that the observation
    /// failed.
    fn look_at(&self, core: &mut Core, operation: &Operation) -> Decided<Observation> {
        let known = self.known(core, operation);
        let result = match known.result {
            Ok(Acted::Done { evidence, output }) => Ok(Observation::Done { evidence, output }),
            Ok(Acted::Accepted { poll_at, .. }) => Ok(Observation::InProgress { poll_at }),
            Err(failure) if failure.kind == ProviderErrorKind::Class(ErrorClass::Transient) => {
                let observed = format!("{}: {}", operation.handle(), failure.message);
                Ok(Observation::NotDone { observed })
            }
            Err(failure) => Err(failure),
        };
        Decided { result, lines: known.lines, durable: known.durable, hangs: false }
    }
}

/// The facts of another machine in its place.
fn swapped(id: &MachineId, facts: MachineFacts) -> MachineFacts {
    MachineFacts {
        serial: format!("OTHER-{id}"),
        mac_addresses: vec!["02:ff:ff:ff:ff:ff".to_owned()],
        ..facts
    }
}
