//! `issues`

use std::collections::{HashMap, HashSet};

use clap::Args;

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::flags::{Format, OutputArgs};
use super::super::output::{Issue, Record as _, issue_of_lock, issues_of, write_issues};
use super::super::query::{Selection, joined};
use super::super::session::Session;
use super::show;

/// What needs a look.
const TROUBLED: &str = "conditions.NeedsIntervention = true OR conditions.Degraded = true OR conditions.Reachable = false OR conditions.HardwareMatches = false";

/// List what needs a look: machines in trouble, runs that are held, wait or are overdue; why, and what to do next.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli issues\n  bmdemo-cli issues -l rack=r1 -o name\n  bmdemo-cli issues --exit-code"
)]
pub(crate) struct IssuesArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    output: OutputArgs,
    /// Exit with 1 if something needs a look; runs that wait as configured do not
    #[arg(long)]
    exit_code: bool,
}

pub(crate) async fn issues(session: &mut Session, args: &IssuesArgs) -> Result<Exit, Error> {
    show::check_columns::<Issue>(&args.output)?;
    let client = session.client().await?;
    let selected = args.selection.to_filter()?;
    let within = |filter: &str| {
        if selected.is_empty() {
            return filter.to_owned();
        }
        // First, so that an error names the character that the person counts.
        joined([&*selected, &*format!("({filter})")])
    };
    let mut machines = client.all_machines(&within(TROUBLED), usize::MAX).await?;
    let unreadable_machines = client.take_unreadable();
    let busy = client.all_machines(&within("NOT active_run_id = \"\""), usize::MAX).await?;
    let known: HashSet<String> =
        machines.iter().map(|machine| machine.machine_id.clone()).collect();
    machines.extend(busy.into_iter().filter(|machine| !known.contains(&machine.machine_id)));
    client.take_unreadable();
    let active = client.all_runs("phase = PENDING OR phase = RUNNING", usize::MAX).await?;
    let unreadable_runs = client.take_unreadable();
    let mut active: HashMap<String, pb::Run> =
        active.into_iter().map(|run| (run.machine_id.clone(), run)).collect();
    let now_ms = session.ui.now_ms();
    let mut issues: Vec<Issue> = Vec::new();
    // Names are those of machines, to hand on.
    if args.output.output != Format::Name {
        let info = client.server_facts().await?.info.unwrap_or_default();
        issues.extend(info.locks.iter().map(|lock| issue_of_lock(lock, now_ms)));
    }
    for machine in machines {
        let run = match active.remove(&machine.machine_id) {
            Some(run) => Some(run),
            None => client.last_run(&machine.machine_id).await?,
        };
        issues.extend(issues_of(&machine, run.as_ref(), now_ms));
    }
    // What waits as it is configured to is at the end: nothing is wrong with it.
    issues.sort_by_key(|issue| issue.waits);
    let waiting = issues.iter().filter(|issue| issue.waits).count();
    let is_well = waiting == issues.len();
    let exit = if args.exit_code && !is_well { Exit::Refused } else { Exit::Ok };
    if args.output.output == Format::Name {
        // Machines to hand on, each once.
        issues.retain(|issue| !issue.waits);
        issues.dedup_by(|next, first| next.id() == first.id());
    }
    if show::listed(session, &issues, &args.output)?
        || show::columned(session, &issues, &args.output)?
    {
        return Ok(exit);
    }
    if unreadable_machines + unreadable_runs > 0 {
        session.ui.note(&format!(
            "Stored records that cannot be read: {unreadable_machines} machines, {unreadable_runs} active runs. \
             Next: bmdemo-server check names them, bmdemo-server repair restores them."
        ));
    }
    let look = session.ui.look;
    if is_well && unreadable_machines + unreadable_runs == 0 {
        session.ui.note("Nothing needs a look.");
    }
    write_issues(session.ui.out(), look, &issues[..issues.len() - waiting])?;
    if waiting > 0 {
        session.ui.flush()?;
        session.ui.note("Waiting, as configured:");
        write_issues(session.ui.out(), look, &issues[issues.len() - waiting..])?;
    }
    Ok(exit)
}
