//! `history`, `machine history` and `run history`

use clap::Args;

use crate::pb;

use super::super::client::{Client, PAGE_SIZE};
use super::super::error::{About, Error, Exit};
use super::super::flags::{Format, OutputArgs};
use super::super::output::{Subjects, instant, write_history};
use super::super::query::Span;
use super::super::session::Session;
use super::show;

/// Print what happened to all machines and runs, oldest first: the audit trail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli history --last 20
  bmdemo-cli history --kind run.failed --since 1d -o wide
  bmdemo-cli history --kind phase --actor alice
  bmdemo-cli history --machine machine-1 --since 2026-01-31
  bmdemo-cli history --columns at,machine_id,kind,actor -o csv
  bmdemo-cli history -o jsonl > audit.jsonl")]
pub(crate) struct FleetArgs {
    /// Only this machine
    #[arg(short, long, value_name = "MACHINE", conflicts_with = "run")]
    machine: Option<String>,
    /// Only this run: any part of its id, or its machine
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    output: OutputArgs,
}

/// Print what happened to a machine, oldest first: phases, conditions, runs, operator actions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli machine history machine-1
  bmdemo-cli machine history machine-1 --kind phase --last 5 -o wide")]
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
  bmdemo-cli run history machine-1
  bmdemo-cli run history f1034752 --kind step -o yaml")]
pub(crate) struct RunArgs {
    /// Run: any part of its id, or its machine
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which entries of a history.
#[derive(Debug, Args)]
struct Window {
    /// Only entries of this kind, or of all kinds that begin with it: run.failed, step, phase.changed
    #[arg(long, value_name = "KIND", default_value = "")]
    kind: String,
    /// Only what this actor did
    #[arg(long, value_name = "NAME", default_value = "")]
    actor: String,
    #[command(flatten)]
    span: Span,
    /// Print at most this many, from the oldest on
    #[arg(long, value_name = "N", conflicts_with = "last")]
    limit: Option<usize>,
    /// Print only the newest entries, this many
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl Window {
    /// Fetches pages until there are no more, or enough.
    async fn gather(
        &self,
        now_ms: u64,
        mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<pb::HistoryEntry>, String), Error>,
    ) -> Result<Vec<pb::HistoryEntry>, Error> {
        let mut entries = Vec::new();
        let mut page_token = String::new();
        let bounds = self.span.bounds(now_ms);
        loop {
            let left = self.limit.unwrap_or(usize::MAX).saturating_sub(entries.len());
            if left == 0 {
                return Ok(entries);
            }
            let size =
                if self.picks() { PAGE_SIZE } else { i32::try_from(left).unwrap_or(PAGE_SIZE) };
            let (mut more, next) = page(size.min(PAGE_SIZE), page_token).await?;
            more.retain(|entry| self.wants(entry, bounds));
            entries.extend(more);
            if let Some(last) = self.last {
                entries.drain(..entries.len().saturating_sub(last));
            }
            // A page ends with a whole commit and may hold a few more entries than requested.
            entries.truncate(self.limit.unwrap_or(usize::MAX));
            if next.is_empty() {
                return Ok(entries);
            }
            page_token = next;
        }
    }

    /// Asks the server whether there are entries of this kind; only it knows the kinds.
    async fn check_kind(&self, client: &Client) -> Result<(), Error> {
        if self.kind.is_empty() {
            return Ok(());
        }
        let request =
            pb::ListHistoryRequest { page_size: 1, kind: self.kind.clone(), ..Default::default() };
        client.list_history(request).await.map(drop)
    }

    /// Whether only some entries are selected.
    fn picks(&self) -> bool {
        let whole = self.kind.is_empty() && self.actor.is_empty();
        !whole || self.span.since.is_some() || self.span.until.is_some()
    }

    /// The kinds and the actor as the server takes them for the history of the fleet.
    fn wants(&self, entry: &pb::HistoryEntry, bounds: (Option<i64>, Option<i64>)) -> bool {
        let kind = self.kind.is_empty()
            || entry.kind == self.kind
            || entry.kind.strip_prefix(&self.kind).is_some_and(|rest| rest.starts_with('.'));
        let actor = self.actor.is_empty()
            || entry.actor.as_ref().is_some_and(|actor| actor.name == self.actor);
        let at = instant(entry.at.as_ref()).unwrap_or(0);
        kind && actor
            && bounds.0.is_none_or(|since| at >= since)
            && bounds.1.is_none_or(|until| at < until)
    }
}

pub(crate) async fn fleet(session: &mut Session, args: &FleetArgs) -> Result<Exit, Error> {
    if let Some(machine) = &args.machine {
        return of_machine(session, machine, &args.window, &args.output).await;
    }
    if let Some(run) = &args.run {
        return of_run(session, run, &args.window, &args.output).await;
    }
    let client = session.client().await?;
    let entries = args.window.gather(session.ui.now_ms(), async |page_size, page_token| {
        let (kind, actor) = (args.window.kind.clone(), args.window.actor.clone());
        let request = pb::ListHistoryRequest { page_size, page_token, kind, actor };
        let page = client.list_history(request).await?;
        Ok((page.entries, page.next_page_token))
    });
    let entries = entries.await?;
    show(session, &entries, &args.output, Subjects { machine: true, run: false })
}

pub(crate) async fn machine(session: &mut Session, args: &MachineArgs) -> Result<Exit, Error> {
    of_machine(session, &args.machine, &args.window, &args.output).await
}

async fn of_machine(
    session: &mut Session,
    machine: &str,
    window: &Window,
    output: &OutputArgs,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let machine_id = match client.find_machine(machine).await {
        Ok(found) => found.machine_id,
        // The history of a deleted machine is kept for a while; the server says if there is none.
        Err(error)
            if error.status().is_some_and(|status| status.code() == tonic::Code::NotFound) =>
        {
            machine.to_owned()
        }
        Err(error) => return Err(error),
    };
    window.check_kind(&client).await?;
    let entries = window.gather(session.ui.now_ms(), async |page_size, page_token| {
        let machine_id = machine_id.clone();
        let request = pb::ListMachineHistoryRequest { machine_id, page_size, page_token };
        let page = client.list_machine_history(request).await;
        let page = page.map_err(|error| error.about(About::Machine(machine.to_owned())))?;
        Ok((page.entries, page.next_page_token))
    });
    let entries = entries.await?;
    show(session, &entries, output, Subjects::default())
}

pub(crate) async fn run(session: &mut Session, args: &RunArgs) -> Result<Exit, Error> {
    of_run(session, &args.run, &args.window, &args.output).await
}

async fn of_run(
    session: &mut Session,
    run: &str,
    window: &Window,
    output: &OutputArgs,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(run).await?.run_id;
    window.check_kind(&client).await?;
    let entries = window.gather(session.ui.now_ms(), async |page_size, page_token| {
        let run_id = run_id.clone();
        let request = pb::ListRunHistoryRequest { run_id, page_size, page_token };
        let page = client.list_run_history(request).await?;
        Ok((page.entries, page.next_page_token))
    });
    let entries = entries.await?;
    show(session, &entries, output, Subjects::default())
}

fn show(
    session: &mut Session,
    entries: &[pb::HistoryEntry],
    output: &OutputArgs,
    subjects: Subjects,
) -> Result<Exit, Error> {
    if show::table(session, entries, output)? {
        return Ok(Exit::Ok);
    }
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    let subjects = if output.output == Format::Wide {
        Subjects { machine: true, run: true }
    } else {
        subjects
    };
    write_history(session.ui.out(), look, entries, now_ms, subjects)?;
    Ok(Exit::Ok)
}
