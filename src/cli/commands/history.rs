//! `history`, `machine history` and `run history`

use clap::Args;

use crate::pb;

use super::super::client::PAGE_SIZE;
use super::super::error::{Error, Exit};
use super::super::flags::{Format, OutputArgs};
use super::super::output::{Subjects, write_history, write_list};
use super::super::session::Session;

/// Print what happened to all machines and runs, oldest first: the audit trail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli history --last 20
  bmdemo-cli history --kind run.failed -o wide
  bmdemo-cli history --kind phase --actor alice
  bmdemo-cli history -o jsonl > audit.jsonl")]
pub(crate) struct FleetArgs {
    /// Only entries of this kind, or of all kinds that begin with it: run.failed, step, phase.changed
    #[arg(long, value_name = "KIND", default_value = "")]
    kind: String,
    /// Only what this actor did
    #[arg(long, value_name = "NAME", default_value = "")]
    actor: String,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    output: OutputArgs,
}

/// Print what happened to a machine, oldest first: phases, conditions, runs, operator actions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine history machine-1
  bmdemo-cli machine history machine-1 --last 5 -o wide")]
pub(crate) struct MachineArgs {
    /// Machine, or the beginning of its id
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    output: OutputArgs,
}

/// Print what happened in a run, oldest first: transitions, attempts, operator actions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli run history 0190f5fe
  bmdemo-cli run history 0190f5fe -o yaml")]
pub(crate) struct RunArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which end of a history.
#[derive(Debug, Args)]
struct Window {
    /// Print at most so many, from the oldest on
    #[arg(long, value_name = "N", conflicts_with = "last")]
    limit: Option<usize>,
    /// Print only the newest so many
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl Window {
    /// Gathers pages until there are no more, or enough.
    async fn gather(
        &self,
        mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<pb::HistoryEntry>, String), Error>,
    ) -> Result<Vec<pb::HistoryEntry>, Error> {
        let mut entries = Vec::new();
        let mut page_token = String::new();
        loop {
            let left = self.limit.unwrap_or(usize::MAX).saturating_sub(entries.len());
            if left == 0 {
                return Ok(entries);
            }
            let size = i32::try_from(left).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
            let (more, next) = page(size, page_token).await?;
            entries.extend(more);
            if let Some(last) = self.last {
                entries.drain(..entries.len().saturating_sub(last));
            }
            // A page ends with a whole commit and may hold a few more than were asked for.
            entries.truncate(self.limit.unwrap_or(usize::MAX));
            if next.is_empty() {
                return Ok(entries);
            }
            page_token = next;
        }
    }
}

pub(crate) async fn fleet(session: &mut Session, args: &FleetArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let entries = args.window.gather(async |page_size, page_token| {
        let (kind, actor) = (args.kind.clone(), args.actor.clone());
        let request = pb::ListHistoryRequest { page_size, page_token, kind, actor };
        let page = client.list_history(request).await?;
        Ok((page.entries, page.next_page_token))
    });
    let entries = entries.await?;
    show(session, &entries, args.output.output, Subjects { machine: true, run: false })
}

pub(crate) async fn machine(session: &mut Session, args: &MachineArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let machine_id = client.find_machine(&args.machine).await?.machine_id;
    let entries = args.window.gather(async |page_size, page_token| {
        let machine_id = machine_id.clone();
        let request = pb::ListMachineHistoryRequest { machine_id, page_size, page_token };
        let page = client.list_machine_history(request).await?;
        Ok((page.entries, page.next_page_token))
    });
    let entries = entries.await?;
    show(session, &entries, args.output.output, Subjects::default())
}

pub(crate) async fn run(session: &mut Session, args: &RunArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let entries = args.window.gather(async |page_size, page_token| {
        let run_id = run_id.clone();
        let request = pb::ListRunHistoryRequest { run_id, page_size, page_token };
        let page = client.list_run_history(request).await?;
        Ok((page.entries, page.next_page_token))
    });
    let entries = entries.await?;
    show(session, &entries, args.output.output, Subjects::default())
}

fn show(
    session: &mut Session,
    entries: &[pb::HistoryEntry],
    format: Format,
    subjects: Subjects,
) -> Result<Exit, Error> {
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    let subjects =
        if format == Format::Wide { Subjects { machine: true, run: true } } else { subjects };
    match format.data() {
        Some(form) => write_list(session.ui.out(), form, entries)?,
        None => write_history(session.ui.out(), look, entries, now_ms, subjects)?,
    }
    Ok(Exit::Ok)
}
