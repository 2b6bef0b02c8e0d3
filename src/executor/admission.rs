//! Admission: whether a run may be started. Checks every rule of a plan against the machine's present state. Pure.

mod driver;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{EngineError, FieldViolation, Refusal};
use super::names;
use super::request::{NewRun, Origin};
use super::waiting::lock_words;
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::{Lock, LockTarget, Machine, Run, RunSpec, RunType, StepRecord};
use crate::plan::{Plan, Registered, Registry, Risk, Role, Step, Value};
use crate::provider::{Capabilities, Provider, Target};

/// The refusal of a run that a stop, a lock or a pause holds back.
#[must_use]
pub fn locked(lock: &Lock, machine: &MachineId) -> EngineError {
    let (refusal, subject, hint) = match &lock.target {
        LockTarget::All => (
            Refusal::Stopped,
            "server".to_owned(),
            "an admin lifts it: bmdemo-cli resume-all --reason ...".to_owned(),
        ),
        LockTarget::Machines(_) | LockTarget::Principal(_) => (
            Refusal::MachineLocked,
            format!("machines/{machine}"),
            format!("an admin lifts it: bmdemo-cli unlock {} --reason ...", lock.id),
        ),
        LockTarget::Plan { plan_id, .. } => (
            Refusal::PlanPaused,
            format!("plans/{plan_id}"),
            format!(
                "look at the runs that failed; an admin lifts it: bmdemo-cli plan resume {plan_id} --reason ..."
            ),
        ),
    };
    EngineError::Refused { refusal, subject, message: lock_words(lock), hint }
}

/// The plan that a request selects.
///
/// # Errors
/// [`EngineError::NotFound`] for an unknown plan, [`EngineError::Invalid`] if neither or contradicting plan and type
/// are given.
pub fn choose_plan<'a>(
    registry: &'a Registry,
    new: &NewRun,
) -> Result<&'a Arc<Registered>, EngineError> {
    if new.plan_id.is_empty() {
        let Some(run_type) = new.run_type else {
            return Err(EngineError::invalid("plan_id", "give a plan_id or a type"));
        };
        return registry.default_for(names::plan_run_type(run_type)).ok_or_else(|| {
            EngineError::invalid(
                "type",
                format!("{} has no default plan: give a plan_id", run_type.as_str()),
            )
        });
    }
    let id = if new.plan_id.contains('/') {
        new.plan_id.clone()
    } else {
        format!("plan/{}", new.plan_id)
    };
    let registered = registry
        .get(&id)
        .ok_or_else(|| EngineError::NotFound { kind: "plan", id: new.plan_id.clone() })?;
    let own = names::run_type(registered.plan.run_type());
    match new.run_type {
        Some(given) if given != own => Err(EngineError::invalid(
            "type",
            format!(
                "{} is of type {}, not {}: remove the type or correct it",
                id,
                own.as_str(),
                given.as_str()
            ),
        )),
        Some(_) | None => Ok(registered),
    }
}

/// Binds a request's parameters by the plan's declarations.
///
/// # Errors
/// [`EngineError::Invalid`] with one violation per wrong parameter.
pub fn bind(
    plan: &Plan,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, EngineError> {
    plan.bind(given).map_err(|errors| {
        EngineError::Invalid(
            errors
                .iter()
                .map(|error| {
                    FieldViolation::new(format!("parameters.{}", error.name()), error.what())
                })
                .collect(),
        )
    })
}

/// On what terms a run is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// The plan's refusal by effective state is overridden.
    pub force: bool,
    /// It repeats an earlier run from where that one failed.
    pub is_retry: bool,
}

/// Everything that blocks a run of `plan` on `machine` now, the most important reason first.
#[must_use]
pub fn blockers(
    plan: &Plan,
    machine: &Machine,
    capabilities: Option<Capabilities>,
    terms: Terms,
) -> Vec<EngineError> {
    let Terms { force, is_retry } = terms;
    let mut found = Vec::new();
    let mut refuse = |refusal, message: String, hint: String| {
        found.push(EngineError::Refused {
            refusal,
            subject: format!("machines/{}", machine.id),
            message,
            hint,
        });
    };
    let id = &machine.id;
    if let Some(active) = machine.active_run {
        refuse(
            Refusal::RunActive,
            format!("machine {id} has an active run {active}"),
            format!("watch it, or cancel it first: run {active}"),
        );
    }
    if let Some(block) = machine.blocked_by() {
        refuse(
            Refusal::InterventionNeeded,
            format!("machine {id} is blocked, {}: {}", block.reason, block.message),
            cleared_by(id),
        );
    }
    let phase = names::plan_phase(machine.phase);
    let allows_phase = plan.allowed_phases.contains(&phase);
    let is_refused = plan.refused_effective.contains(&names::plan_effective(machine.effective().0));
    // What helps against the refusal by effective state. Force is no part of it where the phase refuses too: it
    // overrides the effective state only.
    let instead = plan.refused_hint.as_deref().unwrap_or_default();
    let instead = if allows_phase { instead.to_owned() } else { without_force(instead) };
    if !allows_phase {
        let allowed: Vec<_> = plan.allowed_phases.iter().map(|phase| phase.as_str()).collect();
        refuse(
            Refusal::PhaseNotAllowed,
            format!(
                "{} is not allowed on machine {id} in phase {}: allowed are {}",
                plan.id,
                machine.phase,
                allowed.join(", ")
            ),
            // The phase protects what the effective state protects: the plan knows the way around it.
            if is_refused && !instead.is_empty() {
                instead.clone()
            } else {
                phase_hint(machine.phase, &plan.allowed_phases)
            },
        );
    }
    // An active run is reported above; its PROVISIONING would only repeat that.
    let (effective, _) = machine.effective();
    if machine.active_run.is_none() && !force && is_refused {
        refuse(
            Refusal::EffectiveStateRefused,
            format!("{} is refused while {id} is effectively {effective}", plan.id),
            instead,
        );
    }
    let is_own = |kind| plan.steps.iter().any(|step| step.sets.iter().any(|(set, _)| *set == kind));
    for &(kind, wanted) in plan.required_conditions.iter() {
        // The run that is retried met it, and has changed it since.
        if is_retry && is_own(kind) {
            continue;
        }
        if machine.conditions.is_true(names::condition(kind)) != wanted {
            refuse(
                Refusal::ConditionNotMet,
                format!("{} requires {}={wanted} on machine {id}", plan.id, kind.as_str()),
                "runs and probes set conditions: see what the machine is in, and start a plan for that"
                    .to_owned(),
            );
        }
    }
    if let Some(result) = plan.result.phase
        && let Err(illegal) = machine.phase.moved_to(names::phase(result))
    {
        refuse(
            Refusal::PhaseNotAllowed,
            format!("{} would set a phase that machine {id} cannot reach: {illegal}", plan.id),
            String::new(),
        );
    }
    match capabilities {
        None => refuse(
            Refusal::ProviderMissing,
            format!(
                "provider {:?} of machine {id} is not configured on this server",
                machine.spec.provider
            ),
            String::new(),
        ),
        Some(capabilities) => {
            for (step, needed) in plan.capabilities() {
                if !capabilities.contains(needed) {
                    refuse(
                        Refusal::CapabilityMissing,
                        format!(
                            "step {} of {} needs the capability {needed}, which provider {:?} of machine {id} lacks",
                            step.name, plan.id, machine.spec.provider
                        ),
                        format!(
                            "name a driver for {needed} in [machine_classes.{}] of the server's configuration, or take another plan",
                            machine.spec.provider
                        ),
                    );
                }
            }
        }
    }
    found
}

/// Everything that blocks a run of `plan` on a machine whose provider this is, if it has one.
#[must_use]
pub fn refusals(
    plan: &Plan,
    params: &BTreeMap<String, Value>,
    machine: &Machine,
    provider: Option<&dyn Provider>,
    terms: Terms,
) -> Vec<EngineError> {
    let capabilities = provider.map(|provider| provider.capabilities(&Target::from(machine)));
    let mut found = blockers(plan, machine, capabilities, terms);
    if let Some(provider) = provider {
        found.extend(driver::unperformed(plan, machine, provider));
        found.extend(driver::objections(plan, params, machine, provider));
    }
    found
}

/// The refusal of a run that would destroy the data of hardware that is not the registered one; `before` is the run that
/// it repeats.
#[must_use]
pub fn wrong_hardware(plan: &Plan, machine: &Machine, before: Option<&Run>) -> Option<EngineError> {
    let condition = machine.wrong_hardware()?;
    let first = before.map_or(Some(0), |before| first_repeated(before, plan));
    let undoes = |step: &Step| step.compensation.as_ref().map(|undo| undo.action.traits.risk);
    let destroys = |step: &&Step| {
        [Some(step.action.traits.risk), undoes(step)].contains(&Some(Risk::DataDestroying))
    };
    let step = plan.steps.get(first?..)?.iter().find(destroys)?;
    let id = &machine.id;
    Some(EngineError::Refused {
        refusal: Refusal::HardwareMismatch,
        subject: format!("machines/{id}"),
        message: format!(
            "step {} of {} would destroy the data of {id}, whose hardware is not what is registered: {}",
            step.name, plan.id, condition.message
        ),
        hint: format!(
            "if the board was swapped, register what it has (machine update {id} --serial … --mac … --reason …), otherwise correct its BMC; then: machine inspect {id}"
        ),
    })
}

/// A newly accepted run: PENDING, every step waiting.
#[must_use]
pub fn accepted(
    id: RunId,
    machine: &Machine,
    registered: &Registered,
    params: &BTreeMap<String, Value>,
    new: &NewRun,
    origin: &Origin,
    now: Timestamp,
) -> Run {
    let plan = &registered.plan;
    Run {
        id,
        machine_id: machine.id.clone(),
        spec: Arc::new(RunSpec {
            provider: machine.spec.provider.clone(),
            labels: Some(machine.labels.clone()),
            request_id: origin.request_id.clone(),
            run_type: names::run_type(plan.run_type()),
            plan_id: plan.id.to_string(),
            plan_digest: registered.digest().to_owned(),
            parameters: params
                .iter()
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect(),
            retry_of: None,
            requested_by: origin.actor.clone(),
            reason: origin.reason.clone(),
            forced: new.force,
        }),
        state: run::State::Pending,
        steps: plan.steps.iter().map(|step| StepRecord::waiting(step.name.clone())).collect(),
        current_step: None,
        error: None,
        hold: None,
        cancel_requested_at: None,
        queued_at: Some(now),
        created_at: now,
        started_at: None,
        finished_at: None,
        ordinal: 0,
        revision: Revision(0),
    }
}

/// Index of the first step that a retried run repeats: the one that did not succeed, unless that one, or a step to be
/// repeated, `needs` an earlier one. `None` if every step was done.
fn first_repeated(before: &Run, plan: &Plan) -> Option<usize> {
    let done = |place: usize| {
        before
            .steps
            .get(place)
            .is_some_and(|step| matches!(step.state, State::Succeeded | State::Skipped))
    };
    let main = |place: &usize| plan.steps[*place].role == Role::Main;
    let mut first = (0..plan.steps.len()).filter(main).find(|&place| !done(place))?;
    loop {
        let earliest = plan.steps[first..]
            .iter()
            .flat_map(|step| step.needs.iter())
            .filter_map(|need| plan.steps.iter().position(|step| step.name == *need))
            .min()
            .unwrap_or(first);
        if earliest >= first {
            return Some(first);
        }
        first = earliest;
    }
}

/// Whether a retried run repeats nothing destructive: then the machine may be in service, as after a run that failed
/// at its last check, and the plan's refusal of such machines has nothing to protect.
#[must_use]
pub fn repeats_nothing_destructive(before: &Run, plan: &Plan) -> bool {
    let first = first_repeated(before, plan).unwrap_or(plan.steps.len());
    !plan.steps[first..].iter().any(|step| step.action.traits.must_settle())
}

/// Marks the steps that a retried run need not repeat. A step that a compensation has undone is repeated only where
/// it is needed: a run that failed to join must not image its machine again.
pub fn skip_what_was_done(run: &mut Run, before: &Run, plan: &Plan) {
    let Some(first) = first_repeated(before, plan) else { return };
    for place in 0..first {
        let step = &mut run.steps[place];
        step.state = State::Skipped;
        step.message = format!("done by run {}", before.id);
        step.output = before.steps[place].output.clone();
        step.set = before.steps[place].set.clone();
    }
}

/// Type and plan for a repetition of an ended run.
#[must_use]
pub fn repeat_of(before: &Run) -> NewRun {
    NewRun {
        machine_id: before.machine_id.clone(),
        run_type: None::<RunType>,
        plan_id: before.spec.plan_id.clone(),
        parameters: before.spec.parameters.clone(),
        force: before.spec.forced,
        // A retry repeats the plan as it was pinned.
        plan_digest: String::new(),
    }
}

/// How an operator clears a machine that is blocked.
#[must_use]
pub fn cleared_by(id: &MachineId) -> String {
    format!(
        "look at it: machine describe {id}; then clear it: machine clear-intervention {id} --reason \"what you found\""
    )
}

/// What a plan says to do instead, without what only force would do.
fn without_force(hint: &str) -> String {
    let is_force = |part: &&str| part.contains("--force") || part.contains("`force`");
    let parts: Vec<&str> = hint.split(';').filter(|part| !is_force(part)).map(str::trim).collect();
    parts.join("; ")
}

/// How a machine comes to a phase in which the plan is allowed: only moves that are legal from where it is.
fn phase_hint(from: Phase, allowed: &[crate::plan::Phase]) -> String {
    let listed = |phases: Vec<Phase>| {
        phases.iter().map(|phase| phase.as_str()).collect::<Vec<_>>().join(" or ")
    };
    let targets = from.targets();
    let fitting: Vec<Phase> = targets
        .iter()
        .copied()
        .filter(|phase| allowed.contains(&names::plan_phase(*phase)))
        .collect();
    if !fitting.is_empty() {
        format!("set the phase of the machine to {} first", listed(fitting))
    } else if targets.is_empty() {
        format!("a machine in {from} stays in it")
    } else {
        format!("from {from} a machine can only be set to {}", listed(targets))
    }
}

#[cfg(test)]
mod tests;
