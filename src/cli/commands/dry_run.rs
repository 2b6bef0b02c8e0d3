//! `--dry-run`: what a run would do, and what stands in its way.
//!
//! The client works this out from the machine and the plan; StartRun decides in the end, by the same facts.

use std::collections::BTreeMap;

use crate::pb;

use super::super::Context;
use super::super::error::{Error, Exit};
use super::super::output::{Meaning, effective_name, phase_name, sanitized};
use super::start::StartFlags;

/// Machines shown one by one; more are counted.
const SHOWN_MAX: usize = 100;

pub(crate) fn show(
    ctx: &mut Context,
    plan: &pb::Plan,
    machines: &[pb::Machine],
    flags: &StartFlags,
) -> Result<Exit, Error> {
    let look = ctx.ui.look;
    let plan_blockers = parameter_blockers(plan, &flags.set.iter().cloned().collect());
    let mut blocked = 0;
    writeln!(ctx.ui.out(), "Plan {} ({})", sanitized(&plan.plan_id), sanitized(&plan.digest))?;
    for (index, step) in plan.steps.iter().enumerate() {
        let destructive =
            if step.destructive { look.paint(Meaning::Bad, " DESTRUCTIVE") } else { String::new() };
        writeln!(
            ctx.ui.out(),
            "  {}. {} ({}){destructive}",
            index + 1,
            sanitized(&step.name),
            sanitized(&step.action)
        )?;
    }
    for parameter in &plan.parameters {
        let given =
            flags.set.iter().find(|(key, _)| *key == parameter.name).map(|(_, value)| value);
        let value = given.unwrap_or(&parameter.default_value);
        writeln!(ctx.ui.out(), "  {} = {}", sanitized(&parameter.name), sanitized(value))?;
    }
    for blocker in &plan_blockers {
        writeln!(
            ctx.ui.out(),
            "  {} {}",
            look.paint(Meaning::Bad, look.bad()),
            sanitized(blocker)
        )?;
    }
    for (index, machine) in machines.iter().enumerate() {
        let blockers = machine_blockers(plan, machine);
        blocked += usize::from(!blockers.is_empty() || !plan_blockers.is_empty());
        if index >= SHOWN_MAX {
            continue;
        }
        let status = machine.status.clone().unwrap_or_default();
        let (phase, effective) = (phase_name(status.phase), effective_name(status.effective_state));
        let becomes =
            if plan.result_phase == 0 { phase.clone() } else { phase_name(plan.result_phase) };
        let arrow = look.arrow();
        writeln!(
            ctx.ui.out(),
            "{}: phase {phase} {arrow} {becomes}, effective {effective}, etag {}",
            look.paint(Meaning::Strong, &sanitized(&machine.machine_id)),
            sanitized(&machine.etag)
        )?;
        for blocker in blockers {
            writeln!(
                ctx.ui.out(),
                "  {} {}",
                look.paint(Meaning::Bad, look.bad()),
                sanitized(&blocker)
            )?;
        }
    }
    if machines.len() > SHOWN_MAX {
        writeln!(ctx.ui.out(), "and {} more", machines.len() - SHOWN_MAX)?;
    }
    let free = machines.len() - blocked;
    ctx.ui.note(&format!("Nothing was started: {free} would run, {blocked} would be refused."));
    Ok(if blocked == 0 { Exit::Ok } else { Exit::Blocked })
}

/// What is wrong with the parameters that were given.
fn parameter_blockers(plan: &pb::Plan, given: &BTreeMap<String, String>) -> Vec<String> {
    let mut blockers = Vec::new();
    for parameter in &plan.parameters {
        match given.get(&parameter.name) {
            None if parameter.required => {
                blockers
                    .push(format!("parameter {0} is required: --set {0}=VALUE", parameter.name));
            }
            Some(value) if !parameter.one_of.is_empty() && !parameter.one_of.contains(value) => {
                blockers.push(format!(
                    "parameter {} must be one of {}",
                    parameter.name,
                    parameter.one_of.join(", ")
                ));
            }
            Some(_) | None => {}
        }
    }
    for key in given.keys() {
        if !plan.parameters.iter().any(|parameter| parameter.name == *key) {
            blockers.push(format!("the plan has no parameter {key}"));
        }
    }
    blockers
}

/// What in the state of a machine stands in the way.
fn machine_blockers(plan: &pb::Plan, machine: &pb::Machine) -> Vec<String> {
    let status = machine.status.clone().unwrap_or_default();
    let mut blockers = Vec::new();
    if !status.active_run_id.is_empty() {
        blockers.push(format!("run {} is active", status.active_run_id));
    }
    if !plan.allowed_phases.is_empty() && !plan.allowed_phases.contains(&status.phase) {
        let allowed: Vec<String> =
            plan.allowed_phases.iter().map(|phase| phase_name(*phase)).collect();
        blockers.push(format!(
            "phase {} is not one of {}",
            phase_name(status.phase),
            allowed.join(", ")
        ));
    }
    for condition in &status.conditions {
        let blocks = condition.r#type() == pb::ConditionType::NeedsIntervention
            && condition.status
            && matches!(condition.reason.as_str(), "OUTCOME_UNKNOWN" | "ABORTED");
        if blocks {
            blockers
                .push(format!("NeedsIntervention ({}) must be cleared first", condition.reason));
        }
    }
    blockers
}
