//! `watch RUN`, and following a run that was just started

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use clap::Args;
use tonic::Status;

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::output::{
    Meaning, Progress, elapsed_text, ended_name, instant, next_after_failure, next_for_hold,
    rfc3339, run_ms, sanitized, step_status, write_header, write_hold, write_line, write_result,
};
use super::super::query::RunSelection;
use super::super::session::Session;
use super::super::ui::TICK;
use super::super::watch::{RunWatch, STARTED_OVER, Seen};
use super::targets;

/// Watch runs until they end. Ctrl-C stops watching; the runs stay in progress.
///
/// With several runs each line begins with its machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli watch machine-1
  bmdemo-cli watch f1034752
  bmdemo-cli watch -l rack=r1

Exits with 3 if a run failed or is held by the engine, with 4 if one was canceled.")]
pub(crate) struct WatchArgs {
    /// Runs: any part of their ids, or their machines
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    selection: RunSelection,
}

pub(crate) async fn watch(session: &mut Session, args: &WatchArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let runs = targets::active_runs(&client, &args.runs, &args.selection).await?;
    match (runs.as_slice(), args.selection.is_empty()) {
        ([run], true) => follow(session, &run.run_id).await,
        _ => follow_all(session, runs).await,
    }
}

/// Most runs named in the filter of a watch; with more, every run since the oldest of them is watched.
const NAMED_MAX: usize = 64;

/// Prints several runs as they proceed, each line after its machine.
async fn follow_all(session: &mut Session, runs: Vec<pb::Run>) -> Result<Exit, Error> {
    let client = session.client().await?;
    let columns = runs.iter().map(|run| run.machine_id.len()).max().unwrap_or(0);
    let mut left: HashSet<String> = runs.iter().map(|run| run.run_id.clone()).collect();
    let filter = if runs.len() <= NAMED_MAX {
        runs.iter().map(|run| format!("run_id={}", run.run_id)).collect::<Vec<_>>().join(" OR ")
    } else {
        // Ended runs are included: each is waited for.
        let created = runs.iter().filter_map(|run| run.created_at.as_ref());
        let oldest = created.min_by_key(|at| (at.seconds, at.nanos));
        oldest.map_or_else(String::new, |at| format!("created_at >= {}", rfc3339(Some(at))))
    };
    let mut watch = RunWatch::new(client, session.ui.clock(), filter);
    let mut interrupted = pin!(session.ui.interrupted());
    let mut progress: HashMap<String, Progress> = HashMap::new();
    let mut exit = Exit::Ok;
    // The runs that a server still has that took over the address, until all of them have been sent.
    let mut found: Option<HashSet<String>> = None;
    while !left.is_empty() {
        let seen = tokio::select! {
            biased;
            () = &mut interrupted => {
                let again = session.command_line().to_owned();
                session.ui.note(&format!("Detached; the runs stay in progress. Watch them again with: {again}"));
                return Ok(Exit::Interrupted);
            }
            seen = watch.next() => seen?,
        };
        let run = match seen {
            Seen::Event(event) => {
                if event.r#type() == pb::RunEventType::Synced {
                    let found = found.take();
                    let gone = found.and_then(|found| left.difference(&found).next().cloned());
                    if let Some(run) = gone {
                        let gone = format!("run {run} is not known to the server any more");
                        return Err(Error::rpc(Status::not_found(gone)));
                    }
                }
                match event.snapshot {
                    Some(run) if left.contains(&run.run_id) => run,
                    Some(_) | None => continue,
                }
            }
            Seen::Reset => {
                session.ui.note(STARTED_OVER);
                found = Some(HashSet::new());
                continue;
            }
            Seen::Lost => {
                session.ui.note("connection lost, reconnecting…");
                continue;
            }
            Seen::Ended => {
                watch.lose();
                continue;
            }
        };
        if let Some(found) = &mut found {
            found.insert(run.run_id.clone());
        }
        let look = session.ui.look;
        let machine = look.paint(Meaning::Dim, &format!("{:columns$}", sanitized(&run.machine_id)));
        let shown = progress.entry(run.run_id.clone()).or_default();
        for line in shown.advance(&run) {
            write!(session.ui.out(), "{machine} ")?;
            write_line(session.ui.out(), look, &line)?;
        }
        let held = shown.new_hold(&run);
        if let Some(waiting) = held {
            write!(session.ui.out(), "{machine} ")?;
            write_hold(session.ui.out(), look, waiting)?;
        }
        let is_held = held.is_some_and(|waiting| waiting.reason() != pb::WaitReason::Paused);
        if is_held || run.finished_at.is_some() {
            left.remove(&run.run_id);
            if !is_held {
                let took = run_ms(&run, None).map_or_else(|| "-".to_owned(), elapsed_text);
                let ended = look.paint(Meaning::Strong, &ended_name(&run));
                writeln!(session.ui.out(), "{machine} {ended} {took} {}", sanitized(&run.run_id))?;
            }
            exit = exit.or(Exit::of_run(&run));
        }
        session.ui.flush()?;
    }
    Ok(exit)
}

/// Prints a run as it proceeds, from its first step to its result.
pub(crate) async fn follow(session: &mut Session, run_id: &str) -> Result<Exit, Error> {
    let client = session.client().await?;
    let mut watch = RunWatch::new(client, session.ui.clock(), format!("run_id={run_id}"));
    let mut interrupted = pin!(session.ui.interrupted());
    let clock = session.ui.clock();
    let mut shown = Shown::default();
    let mut tick = 0_usize;
    loop {
        let seen = {
            // The future is kept over the ticks: a reconnect in progress must not start over ten times a second.
            let mut next = pin!(watch.next());
            loop {
                tokio::select! {
                    seen = &mut next => break seen?,
                    () = &mut interrupted => {
                        let again = format!("bmdemo-cli watch {run_id}");
                        session.ui.note(&format!("Detached; the run continues. Watch it again with: {again}"));
                        return Ok(Exit::Interrupted);
                    }
                    () = clock.sleep(TICK), if session.ui.is_live() => {
                        tick += 1;
                        shown.spin(session, tick);
                    }
                }
            }
        };
        match seen {
            Seen::Event(event) => {
                shown.clock_ahead_ms = instant(event.ts.as_ref())
                    .filter(|_| event.r#type() == pb::RunEventType::Change)
                    .map_or(shown.clock_ahead_ms, |ts| now_ms(session) - ts);
                if let Some(run) = &event.snapshot
                    && let Some(exit) = shown.show(session, run)?
                {
                    return Ok(exit);
                }
            }
            Seen::Lost => session.ui.note("connection lost, reconnecting…"),
            Seen::Reset => session.ui.note(STARTED_OVER),
            Seen::Ended => {
                watch.lose();
                session.ui.note("the server ended the watch, reconnecting…");
            }
        }
    }
}

fn now_ms(session: &Session) -> i64 {
    i64::try_from(session.ui.now_ms()).unwrap_or(i64::MAX)
}

/// What has been printed of one run.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    progress: Progress,
    begun: bool,
    latest: Option<pb::Run>,
    /// How far our clock is ahead of the server's, judged by the last change.
    clock_ahead_ms: i64,
}

impl Shown {
    /// Moves the status line.
    fn spin(&self, session: &mut Session, tick: usize) {
        if let Some(run) = &self.latest {
            let line =
                step_status(session.ui.note_look, run, now_ms(session) - self.clock_ahead_ms, tick);
            session.ui.status(&line);
        }
    }

    /// Prints what is new in a snapshot; the exit code once the run has ended or is held by the engine.
    pub(crate) fn show(
        &mut self,
        session: &mut Session,
        run: &pb::Run,
    ) -> Result<Option<Exit>, Error> {
        let look = session.ui.look;
        if !self.begun {
            write_header(session.ui.out(), look, run)?;
            self.begun = true;
        }
        for line in self.progress.advance(run) {
            write_line(session.ui.out(), look, &line)?;
        }
        if let Some(waiting) = self.progress.new_hold(run) {
            write_hold(session.ui.out(), look, waiting)?;
            if let Some(next) = next_for_hold(run) {
                session.ui.note(&format!("Next: {next}"));
            }
            if waiting.reason() != pb::WaitReason::Paused {
                session.ui.flush()?;
                return Ok(Some(Exit::RunFailed));
            }
        }
        self.latest = Some(run.clone());
        let exit = match run.phase() {
            pb::RunPhase::Succeeded => Some(Exit::Ok),
            pb::RunPhase::Failed => Some(Exit::RunFailed),
            pb::RunPhase::Canceled => Some(Exit::RunCanceled),
            pb::RunPhase::Unspecified | pb::RunPhase::Pending | pb::RunPhase::Running => None,
        };
        if exit.is_some() {
            write_result(session.ui.out(), look, run)?;
            if exit == Some(Exit::RunFailed) {
                session.ui.note(&format!("Next: {}", next_after_failure(run)));
            }
        }
        session.ui.flush()?;
        Ok(exit)
    }
}
