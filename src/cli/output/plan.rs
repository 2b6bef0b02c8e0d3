//! Plans: as a table, and one in full.

use std::io::{self, Write};

use crate::pb;

use super::sheet::Sheet;
use super::table::write_plain;
use super::text::{
    Look, Meaning, condition_name, effective_name, on_unknown_name, phase_name, run_type_name,
    sanitized,
};
use super::time::duration_text;

/// Writes the table of plans: name for people and the steps in order.
pub(crate) fn write_plans(out: &mut dyn Write, look: Look, plans: &[pb::Plan]) -> io::Result<()> {
    let arrow = format!(" {} ", look.arrow());
    let rows: Vec<Vec<String>> = plans
        .iter()
        .map(|plan| {
            let steps: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
            vec![plan.plan_id.clone(), plan.display_name.clone(), steps.join(&arrow)]
        })
        .collect();
    write_plain(out, look, &[("PLAN", 18), ("DISPLAY", 22), ("STEPS", 0)], &rows)
}

/// What a step or plan of this risk puts at risk. A server that does not know risk classes only says that something
/// is lost.
fn risk_text(risk: pb::Risk, destructive: bool) -> Option<&'static str> {
    match risk {
        pb::Risk::DataDestroying => Some("destroys data"),
        pb::Risk::Disruptive => Some("disrupts service"),
        pb::Risk::Unspecified if destructive => Some("destroys data or disrupts service"),
        pb::Risk::Unspecified | pb::Risk::None => None,
    }
}

/// A step of a plan, in a list of its steps.
pub(crate) fn step_line(look: Look, index: usize, step: &pb::PlanStep) -> String {
    let risk = risk_text(step.risk(), step.destructive).map_or_else(String::new, |text| {
        format!(" {}", look.paint(Meaning::Bad, &text.to_uppercase()))
    });
    format!("  {}. {} ({}){risk}", index + 1, sanitized(&step.name), sanitized(&step.action))
}

/// When the steps of this role are carried out.
pub(crate) fn role_text(role: &str) -> &'static str {
    match role {
        "on_failure" => "After a failure, before anything is undone",
        "finally" => "Last, whatever the end",
        _ => "Steps",
    }
}

/// Writes one plan: its purpose, where it may run, parameters, steps with their rules.
pub(crate) fn write_plan(out: &mut dyn Write, look: Look, plan: &pb::Plan) -> io::Result<()> {
    let mut sheet = Sheet { out, look, now_ms: 0 };
    sheet.field("Plan", &plan.plan_id)?;
    sheet.field("Name", &plan.display_name)?;
    sheet.field("Description", &plan.description)?;
    let default = if plan.is_default { " (default plan of this type)" } else { "" };
    sheet.field("Type", &format!("{}{default}", run_type_name(plan.run_type)))?;
    let destructive = match risk_text(plan.risk(), plan.destructive) {
        Some(text) => look.paint(Meaning::Bad, &format!("yes, it {text}")),
        None => "no".to_owned(),
    };
    sheet.painted("Destructive", &destructive)?;
    let phases: Vec<String> = plan.allowed_phases.iter().map(|phase| phase_name(*phase)).collect();
    sheet.field("Allowed in", &phases.join(", "))?;
    let refused: Vec<String> =
        plan.refused_effective.iter().map(|state| effective_name(*state)).collect();
    sheet.field("Refused while", &refused.join(", "))?;
    sheet.field("  instead", &plan.refused_hint)?;
    sheet.field("Requires", &conditions_words(&plan.required_conditions))?;
    if plan.result_phase != 0 {
        sheet.field("Sets phase", &phase_name(plan.result_phase))?;
    }
    sheet.field("Sets", &conditions_words(&plan.result_conditions))?;
    if plan.time_limit.is_some() {
        sheet.field("Time limit", &duration_text(plan.time_limit.as_ref()))?;
    }
    if plan.role() == pb::Role::Admin {
        sheet.field("For", "admins")?;
    }
    if plan.allow_destructive {
        sheet.field("Allows", "to destroy data, although its type does not suggest it")?;
    }
    sheet.field("Digest", &plan.digest)?;
    if !plan.parameters.is_empty() {
        sheet.heading("Parameters")?;
    }
    for parameter in &plan.parameters {
        let default = if parameter.required {
            "required".to_owned()
        } else {
            format!("default {}", sanitized(&parameter.default_value))
        };
        let mut line = format!(
            "  {} ({}, {default})",
            sanitized(&parameter.name),
            sanitized(&parameter.r#type)
        );
        if !parameter.one_of.is_empty() {
            line.push_str(&format!(", one of {}", sanitized(&parameter.one_of.join(", "))));
        }
        writeln!(sheet.out, "{line}")?;
        if !parameter.description.is_empty() {
            writeln!(sheet.out, "      {}", sanitized(&parameter.description))?;
        }
    }
    sheet.heading("Steps")?;
    let mut role = "steps";
    for (index, step) in plan.steps.iter().enumerate() {
        if step.role != role && !step.role.is_empty() {
            role = &step.role;
            sheet.heading(role_text(role))?;
        }
        writeln!(sheet.out, "{}", step_line(look, index, step))?;
        let mut rules = vec![
            format!("timeout {}", duration_text(step.timeout.as_ref())),
            format!("expected {}", duration_text(step.expected_duration.as_ref())),
            retry_words(step),
            format!("unknown outcome: {}", on_unknown_name(step.on_unknown).to_lowercase()),
        ];
        if !step.needs.is_empty() {
            rules.push(format!("needs {}", sanitized(&step.needs.join(", "))));
        }
        sheet.line(&format!("     {}", look.paint(Meaning::Dim, &rules.join("; "))), 5)?;
        for line in step_rules(step) {
            sheet.line(&format!("     {}", look.paint(Meaning::Dim, &line)), 7)?;
        }
    }
    sheet.next(&format!("bmdemo-cli run start {} MACHINE", plan.plan_id))
}

/// `attempts 3 after transient, pausing 5s to 1m`.
fn retry_words(step: &pb::PlanStep) -> String {
    let mut text = format!("attempts {}", step.max_attempts);
    if step.max_attempts > 1 && !step.retry_on.is_empty() {
        text.push_str(&format!(
            " after {}, pausing {} to {}",
            sanitized(&step.retry_on.join(", ")),
            duration_text(step.backoff.as_ref()),
            duration_text(step.backoff_max.as_ref())
        ));
    }
    text
}

/// The arguments of a step, when it runs, what it sets, and what undoes it.
fn step_rules(step: &pb::PlanStep) -> Vec<String> {
    let mut rules = Vec::new();
    if !step.arguments.is_empty() {
        rules.push(format!("with {}", arguments_words(&step.arguments)));
    }
    if let Some(guard) = &step.when {
        rules.push(format!("only when {}", guard_words(guard)));
    }
    if let Some(until) = &step.until {
        rules.push(format!("waits until {}", guard_words(until)));
    }
    if !step.sets.is_empty() {
        rules.push(format!("sets {}", conditions_words(&step.sets)));
    }
    if !step.compensation.is_empty() {
        let mut text = format!("undone by {}", sanitized(&step.compensation));
        if !step.compensation_arguments.is_empty() {
            text.push_str(&format!(" with {}", arguments_words(&step.compensation_arguments)));
        }
        if step.compensation_timeout.is_some() {
            text.push_str(&format!(
                "; timeout {}, attempts {}",
                duration_text(step.compensation_timeout.as_ref()),
                step.compensation_max_attempts
            ));
        }
        if !step.compensation_sets.is_empty() {
            text.push_str(&format!("; sets {}", conditions_words(&step.compensation_sets)));
        }
        rules.push(text);
    }
    rules
}

/// `image = {image}, wipe-method = quick`: a name in braces is a parameter.
fn arguments_words(arguments: &[pb::PlanArgument]) -> String {
    let each = arguments.iter().map(|argument| {
        if !argument.text.is_empty() {
            format!("{} = {}", sanitized(&argument.name), sanitized(&argument.text))
        } else if argument.parameter.is_empty() {
            format!("{} = {}", sanitized(&argument.name), sanitized(&argument.value))
        } else {
            format!("{} = {{{}}}", sanitized(&argument.name), sanitized(&argument.parameter))
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

/// `Reachable, not InCustomerCluster`.
fn conditions_words(conditions: &[pb::PlanCondition]) -> String {
    let each = conditions.iter().map(|condition| {
        let not = if condition.status { "" } else { "not " };
        format!("{not}{}", condition_name(condition.r#type))
    });
    each.collect::<Vec<_>>().join(", ")
}

fn guard_words(guard: &pb::PlanGuard) -> String {
    let mut parts: Vec<String> = guard
        .parameters
        .iter()
        .map(|(name, value)| format!("{} = {}", sanitized(name), sanitized(value)))
        .collect();
    parts.sort();
    if !guard.conditions.is_empty() {
        parts.push(conditions_words(&guard.conditions));
    }
    if !guard.phases.is_empty() {
        let phases: Vec<String> = guard.phases.iter().map(|phase| phase_name(*phase)).collect();
        parts.push(format!("the phase is {}", phases.join(" or ")));
    }
    parts.extend(guard.labels.iter().map(|(key, value)| {
        if value.is_empty() {
            format!("no label {}", sanitized(key))
        } else {
            format!("label {}={}", sanitized(key), sanitized(value))
        }
    }));
    if !guard.providers.is_empty() {
        parts.push(format!("the provider is {}", sanitized(&guard.providers.join(" or "))));
    }
    parts.extend(guard.outputs.iter().map(|output| {
        let (step, name) = (sanitized(&output.step), sanitized(&output.name));
        format!("{step} has given {name} = {}", sanitized(&output.value))
    }));
    parts.join(" and ")
}
