//! `watch RUN`, and following a run that was just started

use std::pin::pin;

use clap::Args;

use crate::pb;

use super::super::Context;
use super::super::error::{Error, Exit};
use super::super::output::{
    Progress, instant, next_for_hold, step_status, write_header, write_hold, write_line,
    write_result,
};
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

pub(crate) async fn watch(ctx: &mut Context, args: &WatchArgs) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let run = client.find_run(&args.run).await?;
    follow(ctx, &run.run_id).await
}

/// Prints a run as it goes, from its first step to its result.
pub(crate) async fn follow(ctx: &mut Context, run_id: &str) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let mut watch = RunWatch::new(client, ctx.ui.clock(), format!("run_id={run_id}"));
    let mut interrupted = pin!(ctx.ui.interrupted());
    let clock = ctx.ui.clock();
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
                        ctx.ui.note(&format!("Detached; the run goes on. Watch it again with: {again}"));
                        return Ok(Exit::Interrupted);
                    }
                    () = clock.sleep(TICK), if ctx.ui.is_live() => {
                        tick += 1;
                        shown.spin(ctx, tick);
                    }
                }
            }
        };
        match seen {
            Seen::Event(event) => {
                shown.clock_ahead_ms = instant(event.ts.as_ref())
                    .filter(|_| event.r#type() == pb::RunEventType::Change)
                    .map_or(shown.clock_ahead_ms, |ts| now_ms(ctx) - ts);
                if let Some(run) = &event.snapshot
                    && let Some(exit) = shown.show(ctx, run)?
                {
                    return Ok(exit);
                }
            }
            Seen::Lost => ctx.ui.note("connection lost, reconnecting…"),
            Seen::Ended => {
                watch.lose();
                ctx.ui.note("the server ended the watch, reconnecting…");
            }
        }
    }
}

fn now_ms(ctx: &Context) -> i64 {
    i64::try_from(ctx.ui.now_ms()).unwrap_or(i64::MAX)
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
    fn spin(&self, ctx: &mut Context, tick: usize) {
        if let Some(run) = &self.latest {
            let line = step_status(ctx.ui.note_look, run, now_ms(ctx) - self.clock_ahead_ms, tick);
            ctx.ui.status(&line);
        }
    }

    /// Prints what is new in a snapshot; the exit code once the run has ended or is held by the engine.
    pub(crate) fn show(&mut self, ctx: &mut Context, run: &pb::Run) -> Result<Option<Exit>, Error> {
        let look = ctx.ui.look;
        if !self.begun {
            write_header(ctx.ui.out(), look, run)?;
            self.begun = true;
        }
        for line in self.progress.advance(run) {
            write_line(ctx.ui.out(), look, &line)?;
        }
        if let Some(waiting) = self.progress.new_hold(run) {
            write_hold(ctx.ui.out(), look, waiting)?;
            if let Some(next) = next_for_hold(run) {
                ctx.ui.note(&format!("Next: {next}"));
            }
            if waiting.reason() != pb::WaitReason::Paused {
                ctx.ui.flush()?;
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
            write_result(ctx.ui.out(), look, run)?;
            if exit == Some(Exit::RunFailed) {
                let id = &run.run_id;
                ctx.ui.note(&format!(
                    "Next: bmdemo-cli run describe {id}, then: bmdemo-cli retry {id}"
                ));
            }
        }
        ctx.ui.flush()?;
        Ok(exit)
    }
}
