//! `--watch` on lists: every change, until Ctrl-C.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use crate::pb;

use super::super::Context;
use super::super::args::Format;
use super::super::client::Client;
use super::super::error::{Error, Exit, is_connection_loss};
use super::super::output::{DataForm, write_machine_row, write_one, write_run_row};
use super::super::watch::{RunWatch, Seen};
use super::show;

/// How often machines are asked for changes that no run made. Only what changed since the last answer is sent.
const MACHINES_EVERY: Duration = Duration::from_secs(1);

/// One record a line in every form; a document has no place in a stream.
fn line_form(format: Format) -> Option<DataForm> {
    match format.data() {
        Some(DataForm::Json | DataForm::Jsonl) => Some(DataForm::Jsonl),
        other => other,
    }
}

/// Prints the runs that match, then a row for every change.
pub(crate) async fn runs(ctx: &mut Context, filter: String, format: Format) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let mut watch = RunWatch::new(client, ctx.ui.clock(), filter);
    let mut interrupted = pin!(ctx.ui.interrupted());
    let look = ctx.ui.look;
    if line_form(format).is_none() {
        show::runs(ctx, &[], format)?;
    }
    let mut printed: HashMap<String, u64> = HashMap::new();
    loop {
        ctx.ui.flush()?;
        let seen = tokio::select! {
            seen = watch.next() => seen?,
            () = &mut interrupted => return Ok(Exit::Interrupted),
        };
        match seen {
            Seen::Event(event) => {
                let Some(run) = event.snapshot else { continue };
                // A reconnect may begin again with snapshots that are known.
                if printed.get(&run.run_id).is_some_and(|revision| *revision >= run.revision) {
                    continue;
                }
                printed.insert(run.run_id.clone(), run.revision);
                let now_ms = ctx.ui.now_ms();
                match line_form(format) {
                    Some(form) => write_one(ctx.ui.out(), form, &run)?,
                    None => {
                        write_run_row(ctx.ui.out(), look, &run, now_ms, format == Format::Wide)?
                    }
                }
            }
            Seen::Lost => ctx.ui.note("connection lost, reconnecting…"),
            Seen::Ended => watch.lose(),
        }
    }
}

/// Prints the machines that match, then a row for every change.
pub(crate) async fn machines(
    ctx: &mut Context,
    filter: String,
    format: Format,
) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let clock = ctx.ui.clock();
    let look = ctx.ui.look;
    let mut interrupted = pin!(ctx.ui.interrupted());
    let machines = client.all_machines(&filter, usize::MAX).await?;
    match line_form(format) {
        Some(form) => {
            machines.iter().try_for_each(|machine| write_one(ctx.ui.out(), form, machine))?
        }
        None => {
            show::machines(ctx, &machines, format)?;
        }
    }
    let mut revision = newest(0, &machines);
    let mut is_lost = false;
    loop {
        ctx.ui.flush()?;
        tokio::select! {
            () = clock.sleep(MACHINES_EVERY) => {}
            () = &mut interrupted => return Ok(Exit::Interrupted),
        }
        let changed = match changed_since(&client, &filter, revision).await {
            Ok(changed) => changed,
            Err(error) if error.status().is_some_and(is_connection_loss) => {
                if !is_lost {
                    ctx.ui.note("connection lost, reconnecting…");
                }
                is_lost = true;
                continue;
            }
            Err(error) => return Err(error),
        };
        is_lost = false;
        revision = newest(revision, &changed);
        for machine in &changed {
            match line_form(format) {
                Some(form) => write_one(ctx.ui.out(), form, machine)?,
                None => write_machine_row(ctx.ui.out(), look, machine, format == Format::Wide)?,
            }
        }
    }
}

async fn changed_since(
    client: &Client,
    filter: &str,
    revision: u64,
) -> Result<Vec<pb::Machine>, Error> {
    let newer = format!("revision > {revision}");
    let filter = if filter.trim().is_empty() { newer } else { format!("({filter}) AND {newer}") };
    let mut changed = client.all_machines(&filter, usize::MAX).await?;
    changed.sort_by_key(|machine| machine.revision);
    Ok(changed)
}

fn newest(revision: u64, machines: &[pb::Machine]) -> u64 {
    machines.iter().map(|machine| machine.revision).max().unwrap_or(0).max(revision)
}
