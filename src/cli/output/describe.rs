//! One machine or run in full: its state, the reasons, and the next command to type.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use crate::pb;

use super::progress::{hold, is_not_reached};
use super::runbox::{also_failed, also_failed_text};
use super::sheet::Sheet;
use super::table::{condition, effective_meaning, ended_name, run_meaning, run_ms, steps_done};
use super::text::{
    Look, Meaning, activity_name, condition_name, effective_name, installation_stage_name,
    name_text, padded, phase_name, power_state_name, run_type_name, sanitized, step_state_name,
    wait_reason_name,
};
use super::time::{duration_text, elapsed_text, instant};

/// The rule that gave the effective state, in words.
fn rule_text(rule: pb::EffectiveRule) -> &'static str {
    match rule {
        pb::EffectiveRule::ActiveRun => "rule 1: a run is active",
        pb::EffectiveRule::ExplicitPhase => "rule 2: the phase was set explicitly",
        pb::EffectiveRule::InCustomerCluster => "rule 3: the machine is in a customer's cluster",
        pb::EffectiveRule::Phase => "rule 4: nothing else applies, so it is the phase",
        pb::EffectiveRule::Unspecified => "rule unknown",
    }
}

/// Writes one machine: its state and the rule behind it, conditions with reasons, what to do next. `run` is its
/// active run, or the last one.
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
    sheet.field("Drivers", &drivers_text(&spec.provider, &status.capabilities))?;
    let warnings: BTreeSet<&str> = status
        .capabilities
        .iter()
        .map(|able| able.warning.as_str())
        .filter(|it| !it.is_empty())
        .collect();
    for warning in warnings {
        sheet.painted("Warning", &look.paint(Meaning::Bad, &sanitized(warning)))?;
    }
    sheet.field("MAC", &spec.mac_addresses.join(", "))?;
    sheet.field("SSH", &spec.ssh_endpoint)?;
    sheet.field("BMC", &spec.bmc_endpoint)?;
    sheet.field("BMC system", &spec.bmc_system_id)?;
    sheet.field("Credentials", &spec.bmc_credentials)?;
    sheet.field("Certificate", &spec.bmc_certificate_sha256)?;
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
    write_observed(&mut sheet, &status)?;
    if let Some(run) = run {
        sheet.heading(if status.active_run_id.is_empty() { "Last run" } else { "Active run" })?;
        write_run_summary(&mut sheet, run)?;
    }
    match next_for_machine(machine, &status, run) {
        Some(command) => sheet.next(&command),
        None => Ok(()),
    }
}

/// What can be done with a machine and by which driver; empty where its provider does everything itself.
fn drivers_text(provider: &str, capabilities: &[pb::CapabilityDriver]) -> String {
    let mut drivers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for able in capabilities.iter().filter(|able| able.driver != provider) {
        drivers.entry(&able.driver).or_default().push(&able.capability);
    }
    let each = drivers.iter().map(|(driver, able)| format!("{} by {driver}", able.join(", ")));
    sanitized(&each.collect::<Vec<_>>().join("; ")).into_owned()
}

fn write_condition(sheet: &mut Sheet<'_>, condition: &pb::Condition) -> io::Result<()> {
    // NeedsIntervention and Degraded are bad news when true, the others when false.
    let alarming = matches!(
        condition.r#type(),
        pb::ConditionType::NeedsIntervention | pb::ConditionType::Degraded
    ) == condition.status;
    let meaning = if alarming { Meaning::Bad } else { Meaning::Good };
    // The mark says whether it is as it should be, not whether the condition is true.
    let mark = sheet.look.paint(meaning, sheet.look.mark(Some(!alarming)).0);
    let name = padded(&condition_name(condition.r#type), 18);
    let reason = if condition.reason.is_empty() { "-" } else { &condition.reason };
    let since = sheet.when(condition.last_transition_at.as_ref());
    sheet.line(&format!("  {mark} {name} {} since {since}", sanitized(reason)), 6)?;
    if !condition.message.is_empty() {
        sheet.line(&format!("      {}", sanitized(&condition.message)), 6)?;
    }
    if !condition.observed_by.is_empty() {
        let by = format!("observed by {}", sanitized(&condition.observed_by));
        writeln!(sheet.out, "      {}", sheet.look.paint(Meaning::Dim, &by))?;
    }
    Ok(())
}

/// What the hardware and the machine itself have said, if they have.
fn write_observed(sheet: &mut Sheet<'_>, status: &pb::MachineStatus) -> io::Result<()> {
    if let Some(facts) = &status.observed {
        sheet.heading("Observed")?;
        let power = match facts.power_word.as_str() {
            "" => power_state_name(facts.power),
            word => word.to_owned(),
        };
        sheet.field("Power", &power)?;
        sheet.field("Health", &facts.health)?;
        sheet.field("Model", &facts.model)?;
        sheet.field("Firmware", &facts.firmware)?;
        sheet.field("Serial", &facts.serial)?;
        sheet.field("MAC", &facts.mac_addresses.join(", "))?;
        sheet.time("Since", facts.since.as_ref())?;
    }
    if let Some(installation) = &status.installation {
        sheet.heading("Installation")?;
        sheet.field("Stage", &installation_stage_name(installation.stage))?;
        sheet.field("Image", &installation.image_sha256)?;
        sheet.field("Boot id", &installation.boot_id)?;
        sheet.field("Message", &installation.message)?;
        sheet.field("Operation", &installation.operation_id)?;
        sheet.time("Reported", installation.at.as_ref())?;
    }
    Ok(())
}

/// Why disks are not trusted.
fn untrusted_text(disks: &pb::UntrustedDisks) -> String {
    format!(
        "step {} of {} destroys data and did not succeed (run {})",
        sanitized(&disks.step),
        sanitized(&disks.plan_id),
        sanitized(&disks.run_id)
    )
}

/// The next command for a machine, if there is one.
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
    let Some(needs) = needs else { return remedy(id, status) };
    // Only these two block a new run until an operator has looked.
    if matches!(needs.reason.as_str(), "OUTCOME_UNKNOWN" | "ABORTED") {
        return Some(clear_intervention(id));
    }
    match run.filter(|run| matches!(run.phase(), pb::RunPhase::Failed | pb::RunPhase::Canceled)) {
        // The retry failed too: show the step's output first.
        Some(run) if !run.retry_of.is_empty() && run.phase() == pb::RunPhase::Failed => {
            Some(after_failed_retry(run))
        }
        Some(run) => Some(format!("bmdemo-cli retry {}", run.run_id)),
        None => Some(clear_intervention(id)),
    }
}

/// What helps a machine in trouble that no run is blocked by.
fn remedy(id: &str, status: &pb::MachineStatus) -> Option<String> {
    let is = |kind, bad| condition(status, kind) == Some(bad);
    if is(pb::ConditionType::HardwareMatches, false) {
        return Some(format!(
            "bmdemo-cli machine update {id} --serial SERIAL --mac MAC --reason \"board swapped\"   # if it was; otherwise correct its BMC, then: bmdemo-cli machine inspect {id}"
        ));
    }
    if let Some(disks) = &status.untrusted_disks {
        return Some(format!(
            "bmdemo-cli run start {} {id}   # or, if you know what is on them: {}",
            disks.plan_id,
            clear_intervention(id)
        ));
    }
    let is_lost = is(pb::ConditionType::Reachable, false);
    (is_lost || is(pb::ConditionType::Degraded, true))
        .then(|| format!("bmdemo-cli machine inspect {id}   # again, once it is repaired"))
}

/// What to look at when a retry has failed too.
fn after_failed_retry(run: &pb::Run) -> String {
    let step = run.error.as_ref().map_or("", |error| error.step.as_str());
    let step = if step.is_empty() { String::new() } else { format!(" --step {step}") };
    format!("bmdemo-cli logs {}{step}", run.run_id)
}

/// What to do about a run that has failed: first to look, then what the server lets through.
pub(crate) fn next_after_failure(run: &pb::Run) -> String {
    let (id, machine) = (&run.run_id, &run.machine_id);
    let is_aborted = run.error.as_ref().is_some_and(|error| error.code == "ABORTED");
    if is_aborted {
        let clear = clear_intervention(machine);
        return format!("bmdemo-cli machine describe {machine}, then: {clear}");
    }
    format!("bmdemo-cli run describe {id}, then: bmdemo-cli retry {id}")
}

fn clear_intervention(machine: &str) -> String {
    format!("bmdemo-cli machine clear-intervention {machine} --reason \"what you found\"")
}

/// The command that releases a held run.
pub(crate) fn next_for_hold(run: &pb::Run) -> Option<String> {
    let waiting = hold(run)?;
    Some(if waiting.reason() == pb::WaitReason::Approval {
        format!(
            "bmdemo-cli approve {} {} --reason \"why\"   # with --yes or --no",
            run.run_id, run.current_step
        )
    } else if waiting.reason() == pb::WaitReason::OutcomeUnknown {
        format!(
            "bmdemo-cli resolve {} {} ANSWER --reason \"what you found\"   # ANSWER: done, retry, skip, abort",
            run.run_id, run.current_step
        )
    } else {
        format!("bmdemo-cli resume {}", run.run_id)
    })
}

fn write_run_summary(sheet: &mut Sheet<'_>, run: &pb::Run) -> io::Result<()> {
    let (done, all) = steps_done(run);
    let phase = sheet.look.paint(run_meaning(run.phase), &ended_name(run));
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
    for step in also_failed(run) {
        sheet.line(&format!("{indent}{}", also_failed_text(step)), 4)?;
    }
    if let Some(left) = left_by_abort(run) {
        sheet.line(&format!("{indent}Not undone: {}", sanitized(&left)), 4)?;
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
        // A look that was due is repeated without a record of the next one.
        let ahead = waiting.next_wake_at.as_ref().filter(|at| sheet.is_ahead(at));
        sheet.time(&format!("{indent}  next at"), ahead)?;
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

/// The steps that an aborted run leaves as they are.
fn left_by_abort(run: &pb::Run) -> Option<String> {
    let is_aborted = run.error.as_ref().is_some_and(|error| error.code == "ABORTED");
    let left = run.steps.iter().filter(|step| {
        is_aborted && step.compensates.is_empty() && step.state() == pb::StepState::Succeeded
    });
    let left: Vec<&str> = left.map(|step| step.name.as_str()).collect();
    (!left.is_empty()).then(|| left.join(", "))
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
    let mut phase = look.paint(run_meaning(run.phase), &ended_name(run));
    if run.cancel_requested && run.finished_at.is_none() {
        phase.push_str(", cancel requested");
    }
    if run.pause_requested {
        phase.push_str(", pause requested");
    }
    if run.compensating {
        phase.push_str(", compensating");
    }
    sheet.painted("Phase", &phase)?;
    write_trouble(&mut sheet, run, "")?;
    if let Some(actor) = &run.requested_by {
        let verified = if actor.verified { "" } else { " (as the client says)" };
        sheet.field("Requested by", &format!("{}{verified}", name_text(&actor.name)))?;
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
        pb::StepState::Canceled if !is_not_reached(step) => (look.canceled(), Meaning::Attention),
        pb::StepState::Canceled
        | pb::StepState::Skipped
        | pb::StepState::Waiting
        | pb::StepState::Unspecified => ("-", Meaning::Dim),
    };
    let mut line = format!(
        "  {} {} {}",
        look.paint(meaning, glyph),
        padded(&sanitized(&step.name), names),
        if is_not_reached(step) { "NOT_REACHED".to_owned() } else { step_state_name(step.state) }
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
            sheet.line(&format!("      {label}{}", sanitized(text)), 6)?;
        }
    }
    Ok(())
}

fn next_for_run(run: &pb::Run) -> Option<String> {
    let is_aborted = run.error.as_ref().is_some_and(|error| error.code == "ABORTED");
    match run.phase() {
        // It blocks its machine until an operator has looked.
        pb::RunPhase::Failed if is_aborted => {
            Some(format!("bmdemo-cli machine describe {}", run.machine_id))
        }
        // An operator has ended it: nothing of it needs to be looked at.
        pb::RunPhase::Canceled => Some(format!("bmdemo-cli retry {}", run.run_id)),
        pb::RunPhase::Failed if !run.retry_of.is_empty() => Some(after_failed_retry(run)),
        pb::RunPhase::Failed => Some(format!("bmdemo-cli retry {}", run.run_id)),
        pb::RunPhase::Pending | pb::RunPhase::Running => {
            Some(next_for_hold(run).unwrap_or_else(|| format!("bmdemo-cli watch {}", run.run_id)))
        }
        pb::RunPhase::Succeeded | pb::RunPhase::Unspecified => None,
    }
}
