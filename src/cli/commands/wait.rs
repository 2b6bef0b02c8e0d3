//! `wait` and `run wait`

mod goal;
mod left;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tonic::Code;

use crate::clock::Clock;
use crate::pb;

use super::super::client::Client;
use super::super::error::{About, Error, Exit, is_connection_loss};
use super::super::flags::parse_ms;
use super::super::output::{
    ended_name, hold, next_for_hold, run_phase_name, sanitized, wait_reason_name,
};
use super::super::query::Selection;
use super::super::session::Session;
use super::super::watch::{MachineWatch, STARTED_OVER, Seen};
use super::targets;
use goal::Goal;
use left::{Left, met};

/// Pause between attempts to reach an unavailable server.
const AWAY: Duration = Duration::from_millis(500);

/// Wait until machines are in a state.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli wait machine-1 --for effective=IN_SERVICE
  bmdemo-cli wait machine-1 machine-2 --for condition=Reachable --timeout 5m
  bmdemo-cli wait machine-3 --for condition=NeedsIntervention=false
  bmdemo-cli wait -l rack=r1 --for phase=READY --timeout 1h
  bmdemo-cli wait machine-1 --for run=done && echo free
  bmdemo-cli wait machine-1 --for deleted

Exits with 5 on timeout.")]
pub(crate) struct WaitArgs {
    /// Machines
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// effective=STATE, phase=PHASE, condition=NAME[=true|false], run=done, or deleted
    #[arg(long = "for", value_name = "WHAT")]
    what: String,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_ms)]
    timeout: u64,
}

/// Wait until runs have ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli run wait f1034752 --timeout 10m

Exits with 0 if all succeeded, 3 if one failed or is held until an operator acts, 4 if one was canceled, 5 on timeout.")]
pub(crate) struct RunWaitArgs {
    /// Runs: any part of their ids, or their machines
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_ms)]
    timeout: u64,
}

pub(crate) async fn machines(session: &mut Session, args: &WaitArgs) -> Result<Exit, Error> {
    let goal = Goal::parse(&args.what)?;
    let client = session.client().await?;
    let clock = session.ui.clock();
    let mut over = pin!(clock.sleep(Duration::from_millis(args.timeout)));
    let mut interrupted = pin!(session.ui.interrupted());
    let mut left = Left::default();
    let selected = targets::chosen(&client, &args.machines, &args.selection).await?;
    for id in &selected {
        let request = pb::GetMachineRequest { machine_id: id.clone(), ..Default::default() };
        let machine = match client.get_machine(request).await {
            Ok(machine) => machine,
            Err(error) if goal == Goal::Deleted && was_deleted(&client, id, &error).await => {
                met(session, id, &args.what)?;
                continue;
            }
            Err(error) => return Err(error.about(About::Machine(id.clone()))),
        };
        left.ids.insert(machine.machine_id.clone());
        left.see(session, &args.what, &goal, &machine)?;
    }
    let mut watch = MachineWatch::new(client, clock.clone(), left.filter()).patient();
    // The machines that a server still has that took over the address, until all of them have been sent.
    let mut found: Option<BTreeSet<String>> = None;
    while !left.ids.is_empty() {
        let seen = tokio::select! {
            biased;
            () = &mut interrupted => return Ok(left_waiting(session)),
            seen = watch.next() => seen?,
            () = &mut over => return Ok(timed_out(session, &left.seen)),
        };
        match seen {
            Seen::Event(event) => {
                if event.r#type() == pb::MachineEventType::Synced {
                    let found = found.take();
                    let gone: Option<Vec<String>> =
                        found.map(|found| left.ids.difference(&found).cloned().collect());
                    for id in gone.unwrap_or_default() {
                        left.lose(session, &args.what, &goal, &id)?;
                    }
                    continue;
                }
                let Some(machine) = &event.snapshot else { continue };
                if let Some(found) = &mut found {
                    found.insert(machine.machine_id.clone());
                }
                if event.r#type() == pb::MachineEventType::Removed
                    && left.ids.contains(&machine.machine_id)
                {
                    left.lose(session, &args.what, &goal, &machine.machine_id)?;
                    continue;
                }
                left.see(session, &args.what, &goal, machine)?;
            }
            Seen::Lost => session.ui.note("connection lost, reconnecting…"),
            Seen::Reset => {
                session.ui.note(STARTED_OVER);
                found = Some(BTreeSet::new());
            }
            Seen::Ended => watch.lose(),
        }
    }
    Ok(Exit::Ok)
}

/// Whether a machine that does not exist existed once, so that a mistyped id is not taken for a deleted machine.
async fn was_deleted(client: &Client, id: &str, error: &Error) -> bool {
    if error.grpc_code() != Some(Code::NotFound) {
        return false;
    }
    let request = pb::ListMachineHistoryRequest {
        machine_id: id.to_owned(),
        page_size: 1,
        ..Default::default()
    };
    client.list_machine_history(request).await.is_ok_and(|history| !history.entries.is_empty())
}

pub(crate) async fn runs(session: &mut Session, args: &RunWaitArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let clock = session.ui.clock();
    let mut over = pin!(clock.sleep(Duration::from_millis(args.timeout)));
    let mut interrupted = pin!(session.ui.interrupted());
    let mut left = BTreeSet::new();
    let mut waits = JoinSet::new();
    for id in &args.runs {
        let run = client.find_run(id).await?;
        if left.insert(run.run_id.clone()) {
            waits.spawn(ended(client.clone(), clock.clone(), run));
        }
    }
    let mut exit = Exit::Ok;
    loop {
        let run = tokio::select! {
            biased;
            () = &mut interrupted => return Ok(left_waiting(session)),
            done = waits.join_next() => match done {
                Some(Ok(run)) => run?,
                Some(Err(error)) => return Err(Error::Answer(error.to_string())),
                None => return Ok(exit),
            },
            () = &mut over => {
                let mut seen = String::new();
                if let Some(id) = left.first() {
                    let run = client.find_run(id).await?;
                    let (phase, step) = (run_phase_name(run.phase), sanitized(&run.current_step));
                    seen = format!("{}: {phase} in {step}", sanitized(id));
                }
                return Ok(timed_out(session, &seen));
            }
        };
        left.remove(&run.run_id);
        let id = sanitized(&run.run_id);
        match hold(&run) {
            Some(waiting) => {
                let why = wait_reason_name(waiting.reason);
                writeln!(session.ui.out(), "{id}: held: {why}")?;
                if let Some(next) = next_for_hold(&run) {
                    session.ui.note(&format!("Next: {}", sanitized(&next)));
                }
            }
            None => writeln!(session.ui.out(), "{id}: {}", ended_name(&run))?,
        }
        session.ui.flush()?;
        exit = exit.or(Exit::of_run(&run));
    }
}

/// Waits until the run has ended, or is held until an operator acts. Waits for a server that is unavailable.
async fn ended(client: Client, clock: Arc<dyn Clock>, mut run: pb::Run) -> Result<pb::Run, Error> {
    loop {
        // An operator paused it, and an operator will resume it.
        let paused = hold(&run).is_some_and(|waiting| waiting.reason() == pb::WaitReason::Paused);
        if run.finished_at.is_some() || (hold(&run).is_some() && !paused) {
            return Ok(run);
        }
        let patience = client.patience();
        let request = pb::WaitRunRequest {
            run_id: run.run_id.clone(),
            timeout: prost_types::Duration::try_from(patience).ok(),
            return_when_held: !paused,
        };
        match client.wait_run(request).await {
            Ok(now) => run = now,
            Err(error) if error.status().is_some_and(is_connection_loss) => {
                clock.sleep(AWAY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn timed_out(session: &mut Session, seen: &str) -> Exit {
    session.ui.note(&format!("Timed out. Last seen: {seen}"));
    Exit::TimedOut
}

fn left_waiting(session: &mut Session) -> Exit {
    let again = session.command_line().to_owned();
    session.ui.note(&format!("Stopped waiting; the runs continue. Wait again with: {again}"));
    Exit::Interrupted
}
