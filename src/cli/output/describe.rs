//! One machine, run or plan in full: what it is, why it is so, and the next command to type.

use std::io::{self, Write};

use crate::pb;

use super::progress::hold;
use super::table::{effective_meaning, run_meaning, run_ms, steps_done};
use super::text::{
    Look, Meaning, activity_name, condition_name, effective_name, on_unknown_name, padded,
    phase_name, run_phase_name, run_type_name, sanitized, step_state_name, wait_reason_name,
};
use super::time::{duration_text, elapsed_text, instant, rfc3339};

/// Column at which values begin.
const LABEL_COLUMNS: usize = 16;

/// Writes labelled lines; a value that is empty is left out.
struct Sheet<'a> {
    out: &'a mut dyn Write,
    look: Look,
    now_ms: u64,
}

impl Sheet<'_> {
    fn field(&mut self, label: &str, value: &str) -> io::Result<()> {
        self.painted(label, &sanitized(value))
    }

    /// A value that is safe already and may carry colour.
    fn painted(&mut self, label: &str, value: &str) -> io::Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        let label = self.look.paint(Meaning::Dim, &padded(&format!("{label}:"), LABEL_COLUMNS));
        writeln!(self.out, "{label}{value}")
    }

    fn time(&mut self, label: &str, at: Option<&prost_types::Timestamp>) -> io::Result<()> {
        let text = self.when(at);
        self.painted(label, &text)
    }

    /// `2026-11-23T05:00:00.000Z (3m 05s ago)`, empty if absent.
    fn when(&self, at: Option<&prost_types::Timestamp>) -> String {
        let Some(ms) = instant(at) else { return String::new() };
        let ahead = ms - i64::try_from(self.now_ms).unwrap_or(i64::MAX);
        let relative = if ahead > 0 {
            format!("in {}", elapsed_text(ahead))
        } else {
            format!("{} ago", elapsed_text(-ahead))
        };
        format!("{} ({relative})", rfc3339(at))
    }

    fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "\n{}", self.look.paint(Meaning::Strong, text))
    }

    fn next(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.out, "\n{} {}", self.look.paint(Meaning::Active, "Next:"), sanitized(command))
    }
}

/// The rule of precedence that gave the effective state, in words.
fn rule_text(rule: pb::EffectiveRule) -> &'static str {
    match rule {
        pb::EffectiveRule::ActiveRun => "rule 1: a run is active",
        pb::EffectiveRule::ExplicitPhase => "rule 2: the phase was set explicitly",
        pb::EffectiveRule::InCustomerCluster => "rule 3: the machine is in a customer's cluster",
        pb::EffectiveRule::Phase => "rule 4: nothing else applies, so it is the phase",
        pb::EffectiveRule::Unspecified => "rule unknown",
    }
}

/// Writes one machine: state and the rule behind it, conditions with reasons, what to do next.
/// `run` is its active run, or the last one.
pub(crate) fn write_machine(
    out: &mut dyn Write,
    look: Look,
    machine: &pb::Machine,
    run: Option<&pb::Run>,
    now_ms: u64,
) -> io::Result<()> {
    let status = machine.status.clone().unwrap_or_default();
    let spec = machine.spec.clone().unwrap_or_default();
    let mut sheet = Sheet { out, look, now_ms };
    sheet.field("Machine", &machine.machine_id)?;
    sheet.field("Phase", &phase_name(status.phase))?;
    let effective = look
        .paint(effective_meaning(status.effective_state), &effective_name(status.effective_state));
    sheet.painted("Effective", &format!("{effective} ({})", rule_text(status.effective_rule())))?;
    if let Some(disks) = &status.untrusted_disks {
        let text = format!("not trusted: {}", untrusted_text(disks));
        sheet.painted("Disks", &look.paint(Meaning::Bad, &text))?;
    }
    sheet.field("Active run", &status.active_run_id)?;
    sheet.field("Provider", &spec.provider)?;
    sheet.field("MAC", &spec.mac_addresses.join(", "))?;
    sheet.field("SSH", &spec.ssh_endpoint)?;
    sheet.field("BMC", &spec.bmc_endpoint)?;
    sheet.field("Cluster", &spec.target_cluster)?;
    sheet.field("Serial", &spec.serial)?;
    let mut labels: Vec<String> =
        machine.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    sheet.field("Labels", &labels.join(", "))?;
    sheet.time("Registered", machine.created_at.as_ref())?;
    sheet.time("Changed", machine.updated_at.as_ref())?;
    sheet.field("Etag", &machine.etag)?;
    sheet.heading("Conditions")?;
    if status.conditions.is_empty() {
        writeln!(sheet.out, "  none observed yet")?;
    }
    for condition in &status.conditions {
        write_condition(&mut sheet, condition)?;
    }
    if let Some(run) = run {
        sheet.heading(if status.active_run_id.is_empty() { "Last run" } else { "Active run" })?;
        write_run_summary(&mut sheet, run)?;
    }
    match next_for_machine(machine, &status, run) {
        Some(command) => sheet.next(&command),
        None => Ok(()),
    }
}

fn write_condition(sheet: &mut Sheet<'_>, condition: &pb::Condition) -> io::Result<()> {
    // NeedsIntervention and Degraded are bad news when true, the others when false.
    let alarming = matches!(
        condition.r#type(),
        pb::ConditionType::NeedsIntervention | pb::ConditionType::Degraded
    ) == condition.status;
    let meaning = if alarming { Meaning::Bad } else { Meaning::Good };
    let mark = sheet.look.paint(meaning, sheet.look.mark(Some(condition.status)).0);
    let name = padded(&condition_name(condition.r#type), 18);
    let reason = if condition.reason.is_empty() { "-" } else { &condition.reason };
    let since = sheet.when(condition.last_transition_at.as_ref());
    writeln!(sheet.out, "  {mark} {name} {} since {since}", sanitized(reason))?;
    if !condition.message.is_empty() {
        writeln!(sheet.out, "      {}", sanitized(&condition.message))?;
    }
    if !condition.observed_by.is_empty() {
        let by = format!("observed by {}", sanitized(&condition.observed_by));
        writeln!(sheet.out, "      {}", sheet.look.paint(Meaning::Dim, &by))?;
    }
    Ok(())
}

/// Why disks are not trusted.
pub(super) fn untrusted_text(disks: &pb::UntrustedDisks) -> String {
    format!(
        "step {} of {} destroys data and did not succeed (run {})",
        sanitized(&disks.step),
        sanitized(&disks.plan_id),
        sanitized(&disks.run_id)
    )
}

/// The command that helps a machine on, if one does.
pub(super) fn next_for_machine(
    machine: &pb::Machine,
    status: &pb::MachineStatus,
    run: Option<&pb::Run>,
) -> Option<String> {
    let id = &machine.machine_id;
    let needs = status.conditions.iter().find(|condition| {
        condition.r#type() == pb::ConditionType::NeedsIntervention && condition.status
    });
    if !status.active_run_id.is_empty() {
        return match run.and_then(next_for_hold) {
            Some(command) => Some(command),
            None => Some(format!("bmdemo-cli watch {}", status.active_run_id)),
        };
    }
    let needs = needs?;
    // Only these two block a new run until an operator has looked.
    if matches!(needs.reason.as_str(), "OUTCOME_UNKNOWN" | "ABORTED") {
        return Some(format!(
            "bmdemo-cli machine clear-intervention {id} --reason \"what you found\""
        ));
    }
    match run.filter(|run| matches!(run.phase(), pb::RunPhase::Failed | pb::RunPhase::Canceled)) {
        Some(run) => Some(format!("bmdemo-cli retry {}", run.run_id)),
        None => {
            Some(format!("bmdemo-cli machine clear-intervention {id} --reason \"what you found\""))
        }
    }
}

/// The command that releases a held run.
pub(crate) fn next_for_hold(run: &pb::Run) -> Option<String> {
    let waiting = hold(run)?;
    Some(if waiting.reason() == pb::WaitReason::OutcomeUnknown {
        format!(
            "bmdemo-cli resolve {} {} done|retry|skip|abort --reason \"what you found\"",
            run.run_id, run.current_step
        )
    } else {
        format!("bmdemo-cli resume {}", run.run_id)
    })
}

fn write_run_summary(sheet: &mut Sheet<'_>, run: &pb::Run) -> io::Result<()> {
    let (done, all) = steps_done(run);
    let phase = sheet.look.paint(run_meaning(run.phase), &run_phase_name(run.phase));
    let plan = sanitized(&run.plan_id).into_owned();
    sheet.painted(
        "  Run",
        &format!("{} {plan} {phase}, steps {done}/{all}", sanitized(&run.run_id)),
    )?;
    write_trouble(sheet, run, "  ")
}

/// Why a run does not move, or why it failed.
fn write_trouble(sheet: &mut Sheet<'_>, run: &pb::Run, indent: &str) -> io::Result<()> {
    if let Some(error) = &run.error {
        sheet.field(&format!("{indent}Error"), &format!("{}: {}", error.code, error.message))?;
    }
    if let Some(waiting) = &run.waiting {
        let since = sheet.when(waiting.since.as_ref());
        let reason = sheet.look.paint(Meaning::Attention, &wait_reason_name(waiting.reason));
        sheet.painted(&format!("{indent}Waiting"), &format!("{reason} since {since}"))?;
        sheet.field(&format!("{indent}  why"), &waiting.message)?;
        if waiting.attempt > 0 {
            let attempt = format!("{} of {}", waiting.attempt, waiting.max_attempts);
            sheet.field(&format!("{indent}  attempt"), &attempt)?;
        }
        sheet.time(&format!("{indent}  goes on at"), waiting.next_wake_at.as_ref())?;
        sheet.time(&format!("{indent}  deadline"), waiting.deadline_at.as_ref())?;
    }
    let current = run.steps.iter().find(|step| step.name == run.current_step);
    if let Some(step) =
        current.filter(|step| !step.expected.is_empty() || !step.observed.is_empty())
    {
        sheet.field(&format!("{indent}Expected"), &step.expected)?;
        sheet.field(&format!("{indent}Observed"), &step.observed)?;
    }
    Ok(())
}

/// Writes one run: state, why it waits or failed, every step, what to do next.
pub(crate) fn write_run(
    out: &mut dyn Write,
    look: Look,
    run: &pb::Run,
    now_ms: u64,
) -> io::Result<()> {
    let mut sheet = Sheet { out, look, now_ms };
    sheet.field("Run", &run.run_id)?;
    sheet.field("Machine", &run.machine_id)?;
    sheet.field("Type", &run_type_name(run.r#type))?;
    sheet.field("Plan", &run.plan_id)?;
    sheet.field("Plan digest", &run.plan_digest)?;
    let mut phase = look.paint(run_meaning(run.phase), &run_phase_name(run.phase));
    if run.cancel_requested && run.finished_at.is_none() {
        phase.push_str(", cancel requested");
    }
    if run.compensating {
        phase.push_str(", compensating");
    }
    sheet.painted("Phase", &phase)?;
    write_trouble(&mut sheet, run, "")?;
    if let Some(actor) = &run.requested_by {
        let verified = if actor.verified { "" } else { " (as the client says)" };
        sheet.field("Requested by", &format!("{}{verified}", actor.name))?;
    }
    sheet.field("Reason", &run.reason)?;
    sheet.field("Forced", if run.forced { "yes" } else { "" })?;
    sheet.field("Retry of", &run.retry_of)?;
    let mut parameters: Vec<String> =
        run.parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
    parameters.sort();
    sheet.field("Parameters", &parameters.join(", "))?;
    sheet.time("Created", run.created_at.as_ref())?;
    sheet.time("Started", run.started_at.as_ref())?;
    sheet.time("Finished", run.finished_at.as_ref())?;
    sheet.field("Duration", &run_ms(run, Some(now_ms)).map(elapsed_text).unwrap_or_default())?;
    sheet.heading("Steps")?;
    let names = run.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
    for step in &run.steps {
        write_step(&mut sheet, step, names)?;
    }
    match next_for_run(run) {
        Some(command) => sheet.next(&command),
        None => Ok(()),
    }
}

fn write_step(sheet: &mut Sheet<'_>, step: &pb::StepStatus, names: usize) -> io::Result<()> {
    let look = sheet.look;
    let (glyph, meaning) = match step.state() {
        pb::StepState::Succeeded => (look.good(), Meaning::Good),
        pb::StepState::Failed => (look.bad(), Meaning::Bad),
        pb::StepState::Running => (look.arrow(), Meaning::Active),
        pb::StepState::Canceled => (look.canceled(), Meaning::Attention),
        pb::StepState::Skipped | pb::StepState::Waiting | pb::StepState::Unspecified => {
            ("-", Meaning::Dim)
        }
    };
    let mut line = format!(
        "  {} {} {}",
        look.paint(meaning, glyph),
        padded(&sanitized(&step.name), names),
        step_state_name(step.state)
    );
    if step.state() == pb::StepState::Running {
        line.push_str(&format!(", {}", activity_name(step.activity)));
    }
    if step.attempt > 0 {
        line.push_str(&format!(
            ", attempt {} of {}",
            step.attempt,
            step.max_attempts.max(step.attempt)
        ));
    }
    let (started, finished) =
        (instant(step.started_at.as_ref()), instant(step.finished_at.as_ref()));
    if let Some(started) = started {
        let end = finished.unwrap_or_else(|| i64::try_from(sheet.now_ms).unwrap_or(i64::MAX));
        line.push_str(&format!(", {}", elapsed_text(end - started)));
        if finished.is_none() && step.expected_duration.is_some() {
            line.push_str(&format!(
                " (expected {})",
                duration_text(step.expected_duration.as_ref())
            ));
        }
    }
    if step.overdue {
        line.push_str(&format!(" {}", look.paint(Meaning::Attention, "OVERDUE")));
    }
    writeln!(sheet.out, "{line}")?;
    for (label, text) in
        [("", &step.message), ("expected: ", &step.expected), ("observed: ", &step.observed)]
    {
        if !text.is_empty() {
            writeln!(sheet.out, "      {label}{}", sanitized(text))?;
        }
    }
    Ok(())
}

fn next_for_run(run: &pb::Run) -> Option<String> {
    match run.phase() {
        pb::RunPhase::Failed | pb::RunPhase::Canceled => {
            Some(format!("bmdemo-cli retry {}", run.run_id))
        }
        pb::RunPhase::Pending | pb::RunPhase::Running => {
            Some(next_for_hold(run).unwrap_or_else(|| format!("bmdemo-cli watch {}", run.run_id)))
        }
        pb::RunPhase::Succeeded | pb::RunPhase::Unspecified => None,
    }
}

/// What is lost by a step or a plan of this risk. A server that does not know classes only says that something is.
fn risk_text(risk: pb::Risk, destructive: bool) -> Option<&'static str> {
    match risk {
        pb::Risk::DataDestroying => Some("destroys data"),
        pb::Risk::Disruptive => Some("disrupts service"),
        pb::Risk::Unspecified if destructive => Some("destroys data or disrupts service"),
        pb::Risk::Unspecified | pb::Risk::None => None,
    }
}

/// A step of a plan in a list of its steps.
pub(crate) fn step_line(look: Look, index: usize, step: &pb::PlanStep) -> String {
    let risk = risk_text(step.risk(), step.destructive).map_or_else(String::new, |text| {
        format!(" {}", look.paint(Meaning::Bad, &text.to_uppercase()))
    });
    format!("  {}. {} ({}){risk}", index + 1, sanitized(&step.name), sanitized(&step.action))
}

/// Writes one plan: what it is for, where it may run, parameters, steps with their rules.
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
    if plan.result_phase != 0 {
        sheet.field("Sets phase", &phase_name(plan.result_phase))?;
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
    for (index, step) in plan.steps.iter().enumerate() {
        writeln!(sheet.out, "{}", step_line(look, index, step))?;
        let mut rules = vec![
            format!("timeout {}", duration_text(step.timeout.as_ref())),
            format!("expected {}", duration_text(step.expected_duration.as_ref())),
            format!("attempts {}", step.max_attempts),
            format!("unknown outcome: {}", on_unknown_name(step.on_unknown).to_lowercase()),
        ];
        if !step.needs.is_empty() {
            rules.push(format!("needs {}", sanitized(&step.needs.join(", "))));
        }
        if !step.compensation.is_empty() {
            rules.push(format!("undone by {}", sanitized(&step.compensation)));
        }
        writeln!(sheet.out, "     {}", look.paint(Meaning::Dim, &rules.join("; ")))?;
    }
    sheet.next(&format!("bmdemo-cli run start {} MACHINE", plan.plan_id))
}
