//! `watch RUN`, and following a run that was just started

use std::pin::pin;

use clap::Args;

use crate::pb;

use super::super::Context;
use super::super::error::{Error, Exit};
use super::super::output::{
    Progress, next_for_hold, write_header, write_hold, write_line, write_result,
};
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
    let mut shown = Shown::default();
    loop {
        let seen = tokio::select! {
            seen = watch.next() => seen?,
            () = &mut interrupted => {
                ctx.ui.note(&format!("Detached; the run goes on. Watch it again with: bmdemo-cli watch {run_id}"));
                return Ok(Exit::Interrupted);
            }
        };
        match seen {
            Seen::Event(event) => {
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

/// What has been printed of one run.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    progress: Progress,
    begun: bool,
}

impl Shown {
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
