//! `watch RUN`, and following a run that was just started

use std::pin::pin;

use clap::Args;

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::output::{
    Progress, instant, next_for_hold, step_status, write_header, write_hold, write_line,
    write_result,
};
use super::super::session::Session;
use super::super::ui::TICK;
use super::super::watch::{RunWatch, Seen};

/// Watch a run until it ends. Ctrl-C stops watching; the run goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli watch 0190f5fe\n\nExits with 3 if the run failed or is held, with 4 if it was canceled."
)]
pub(crate) struct WatchArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
}

pub(crate) async fn watch(session: &mut Session, args: &WatchArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run = client.find_run(&args.run).await?;
    follow(session, &run.run_id).await
}

/// Prints a run as it goes, from its first step to its result.
pub(crate) async fn follow(session: &mut Session, run_id: &str) -> Result<Exit, Error> {
    let client = session.client().await?;
    let mut watch = RunWatch::new(client, session.ui.clock(), format!("run_id={run_id}"));
    let mut interrupted = pin!(session.ui.interrupted());
    let clock = session.ui.clock();
    let mut shown = Shown::default();
    let mut tick = 0_usize;
    loop {
        let seen = {
            // The future is kept over the ticks: a reconnect in progress must not begin anew ten times a second.
            let mut next = pin!(watch.next());
            loop {
                tokio::select! {
                    seen = &mut next => break seen?,
                    () = &mut interrupted => {
                        let again = format!("bmdemo-cli watch {run_id}");
                        session.ui.note(&format!("Detached; the run goes on. Watch it again with: {again}"));
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
    /// How far our clock is ahead of the server's, as far as the last change tells.
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
                let id = &run.run_id;
                session.ui.note(&format!(
                    "Next: bmdemo-cli run describe {id}, then: bmdemo-cli retry {id}"
                ));
            }
        }
        session.ui.flush()?;
        Ok(exit)
    }
}
