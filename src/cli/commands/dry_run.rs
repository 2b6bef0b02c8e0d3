//! `--dry-run`: what a run would do, and what blocks it.
//!
//! The server reports what would block a run, with the code that refuses it; the client shows the plan and the
//! changes.

use std::collections::BTreeMap;

use tokio::task::JoinSet;
use tonic::Code;

use crate::pb;
use crate::pb::run_result::Outcome;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{
    Meaning, Verdict, as_flags, effective_name, phase_name, role_text, sanitized, shortened,
    step_line, wrapped,
};
use super::super::session::Session;
use super::recipe::{StartFlags, What, request};
use super::{refusals, show};

/// Most machines in one request.
const BATCH_MAX: usize = 1000;
/// Requests in flight at the same time: the server works on one while another travels.
const IN_FLIGHT: usize = 4;
/// Why a server refuses what --force overrides.
const OVERRIDDEN: &str = "EFFECTIVE_STATE_REFUSED";
/// Machines shown one by one; the rest are counted.
const SHOWN_MAX: usize = 100;

pub(crate) async fn show(
    session: &mut Session,
    what: &What,
    plan: &pb::Plan,
    machines: &[pb::Machine],
    flags: &StartFlags,
) -> Result<Exit, Error> {
    let look = session.ui.look;
    let client = session.client().await?;
    if let [machine] = machines
        && !flags.if_etag.is_empty()
    {
        check_etag(&client, what, &machine.machine_id, flags).await?;
    }
    let verdicts = verdicts(&client, what, plan, machines, flags).await?;
    let overrides = overrides(&client, what, plan, machines, flags).await?;
    let mut blocked = 0;
    if flags.output.output.is_data() || !flags.output.columns.is_empty() {
        let rows: Vec<Verdict> = machines
            .iter()
            .map(|machine| {
                let id = &machine.machine_id;
                verdict(plan, machine, verdicts.get(id), overrides.get(id))
            })
            .collect();
        show::table(session, &rows, &flags.output)?;
        let blocked = rows.iter().any(|row| !row.accepted);
        return Ok(if blocked { Exit::Blocked } else { Exit::Ok });
    }
    let line = format!("Plan {} ({})", sanitized(&plan.plan_id), sanitized(&plan.digest));
    writeln!(session.ui.out(), "{}", wrapped(look, &line, 5))?;
    // As on the first machine on which it would run: guards may depend on the machine.
    let accepted = machines.iter().find_map(|machine| {
        verdicts.get(&machine.machine_id).and_then(|verdict| verdict.as_ref().ok())
    });
    let stopped = accepted.and_then(|run| run.waiting.as_ref()).map(|waiting| &waiting.message);
    let mut role = "steps";
    for (index, step) in plan.steps.iter().enumerate() {
        if step.role != role && !step.role.is_empty() {
            role = &step.role;
            writeln!(session.ui.out(), "{}:", role_text(role))?;
        }
        let status = accepted
            .and_then(|run| run.steps.iter().find(|status| status.name == step.name))
            .filter(|status| status.state() == pb::StepState::Skipped);
        let skipped = status.map_or_else(String::new, |status| {
            let text = format!(" skipped: {}", sanitized(&status.message));
            look.paint(Meaning::Attention, &text)
        });
        let line = format!("{}{skipped}", step_line(look, index, step));
        writeln!(session.ui.out(), "{}", wrapped(look, &line, 5))?;
    }
    for parameter in &plan.parameters {
        let given =
            flags.set.iter().find(|(key, _)| *key == parameter.name).map(|(_, value)| value);
        let bound = accepted.and_then(|run| run.parameters.get(&parameter.name));
        let value = bound.or(given).unwrap_or(&parameter.default_value);
        writeln!(session.ui.out(), "  {} = {}", sanitized(&parameter.name), sanitized(value))?;
    }
    for (index, machine) in machines.iter().enumerate() {
        let blocker = verdicts.get(&machine.machine_id).and_then(|verdict| verdict.as_ref().err());
        blocked += usize::from(blocker.is_some());
        if index >= SHOWN_MAX {
            continue;
        }
        let status = machine.status.clone().unwrap_or_default();
        let (phase, effective) = (phase_name(status.phase), effective_name(status.effective_state));
        let becomes =
            if plan.result_phase == 0 { phase.clone() } else { phase_name(plan.result_phase) };
        let arrow = look.arrow();
        writeln!(
            session.ui.out(),
            "{}: phase {phase} {arrow} {becomes}, effective {effective}, etag {}",
            look.paint(Meaning::Strong, &sanitized(&machine.machine_id)),
            sanitized(&machine.etag)
        )?;
        if let Some(overridden) = overrides.get(&machine.machine_id) {
            let label = look.paint(Meaning::Attention, "overrides:");
            let line = format!("  {label} {}", sanitized(overridden));
            writeln!(session.ui.out(), "{}", wrapped(look, &line, 4))?;
        }
        if let Some(blocker) = blocker {
            let glyph = look.paint(Meaning::Bad, look.bad());
            let line = format!("  {glyph} {}", sanitized(&blocker.message));
            writeln!(session.ui.out(), "{}", wrapped(look, &line, 4))?;
            if !blocker.hint.is_empty() {
                let hint = look.paint(Meaning::Active, "Hint:");
                let line =
                    format!("    {hint} {}", sanitized(&shortened(&as_flags(&blocker.hint))));
                writeln!(session.ui.out(), "{}", wrapped(look, &line, 6))?;
            }
        }
    }
    if machines.len() > SHOWN_MAX {
        writeln!(session.ui.out(), "and {} more", machines.len() - SHOWN_MAX)?;
    }
    let free = machines.len() - blocked;
    session.ui.note(&format!("Nothing was started: {free} would run, {blocked} would be refused."));
    if let Some(why) = stopped {
        session.ui.note(&format!("None could be started now: {why}"));
    }
    Ok(if blocked == 0 { Exit::Ok } else { Exit::Blocked })
}

/// What is to be said of one machine.
fn verdict(
    plan: &pb::Plan,
    machine: &pb::Machine,
    asked: Option<&Result<pb::Run, pb::ItemError>>,
    overrides: Option<&String>,
) -> Verdict {
    let status = machine.status.clone().unwrap_or_default();
    let after = if plan.result_phase == 0 { status.phase() } else { plan.result_phase() };
    let mut verdict = Verdict {
        machine_id: machine.machine_id.clone(),
        plan_id: plan.plan_id.clone(),
        plan_digest: plan.digest.clone(),
        overrides: overrides.cloned().unwrap_or_default(),
        phase: status.phase().as_str_name(),
        phase_after: after.as_str_name(),
        effective_state: status.effective_state().as_str_name(),
        etag: machine.etag.clone(),
        ..Verdict::default()
    };
    match asked {
        Some(Ok(run)) => {
            verdict.accepted = true;
            let skipped = run.steps.iter().filter(|step| step.state() == pb::StepState::Skipped);
            verdict.skipped_steps = skipped.map(|step| step.name.clone()).collect();
            verdict.parameters =
                run.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        Some(Err(error)) => {
            verdict.reason.clone_from(&error.reason);
            verdict.message.clone_from(&error.message);
            verdict.hint = as_flags(&error.hint);
        }
        None => "the server did not answer for it".clone_into(&mut verdict.message),
    }
    verdict
}

/// The refusals that --force overrides, by machine: the server is asked for the same without it.
pub(super) async fn overrides(
    client: &Client,
    what: &What,
    plan: &pb::Plan,
    machines: &[pb::Machine],
    flags: &StartFlags,
) -> Result<BTreeMap<String, String>, Error> {
    if !flags.force {
        return Ok(BTreeMap::new());
    }
    let unforced = StartFlags { force: false, ..flags.clone() };
    let verdicts = verdicts(client, what, plan, machines, &unforced).await?;
    let refused = verdicts.into_iter().filter_map(|(machine, verdict)| {
        let error = verdict.err()?;
        (error.reason == OVERRIDDEN).then_some((machine, error.message))
    });
    Ok(refused.collect())
}

/// On how many machines a run would be refused, and why on the first of them.
pub(super) async fn refused(
    client: &Client,
    what: &What,
    plan: &pb::Plan,
    machines: &[pb::Machine],
    flags: &StartFlags,
) -> Result<Option<(usize, String)>, Error> {
    let verdicts = verdicts(client, what, plan, machines, flags).await?;
    let why = |machine: &pb::Machine| {
        let refusal = verdicts.get(&machine.machine_id)?.as_ref().err()?;
        Some(refusal.message.clone())
    };
    Ok(refusals::count(machines.iter().map(why)))
}

/// Machines in one request: the answer lists every step for each, and must not grow too large for the server.
fn batch_size(steps: usize) -> usize {
    (12_000 / (steps + 4)).clamp(1, BATCH_MAX)
}

/// Checks whether the machine still has the etag. The other blockers are reported for all machines alike.
async fn check_etag(
    client: &Client,
    what: &What,
    machine: &str,
    flags: &StartFlags,
) -> Result<(), Error> {
    let one = request(what, machine, flags, String::new(), "");
    let asked = client.start_run(pb::StartRunRequest { validate_only: true, ..one }).await;
    match asked {
        Err(error) if error.grpc_code() == Some(Code::Aborted) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The server's verdict for each machine: the run as it would be accepted, or what blocks it.
async fn verdicts(
    client: &Client,
    what: &What,
    plan: &pb::Plan,
    machines: &[pb::Machine],
    flags: &StartFlags,
) -> Result<BTreeMap<String, Result<pb::Run, pb::ItemError>>, Error> {
    let one = request(what, "", flags, String::new(), "");
    let mut batches = machines.chunks(batch_size(plan.steps.len()));
    let mut asked: JoinSet<Result<pb::BatchStartRunsResponse, Error>> = JoinSet::new();
    let mut verdicts = BTreeMap::new();
    loop {
        while asked.len() < IN_FLIGHT
            && let Some(batch) = batches.next()
        {
            let request = pb::BatchStartRunsRequest {
                machine_ids: batch.iter().map(|machine| machine.machine_id.clone()).collect(),
                r#type: one.r#type,
                plan_id: one.plan_id.clone(),
                parameters: one.parameters.clone(),
                force: one.force,
                reason: one.reason.clone(),
                validate_only: true,
                ..pb::BatchStartRunsRequest::default()
            };
            let client = client.clone();
            asked.spawn(async move { client.batch_start_runs(request).await });
        }
        let Some(answer) = asked.join_next().await else { break };
        let answer = answer.map_err(|error| Error::Answer(error.to_string()))??;
        for result in answer.results {
            let verdict = match result.outcome {
                Some(Outcome::Error(error)) => Err(error),
                Some(Outcome::Run(run)) => Ok(run),
                None => Ok(pb::Run::default()),
            };
            verdicts.insert(result.machine_id, verdict);
        }
    }
    Ok(verdicts)
}
