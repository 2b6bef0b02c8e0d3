//! `logs RUN`

use std::pin::pin;
use std::time::Duration;

use clap::Args;

use crate::pb;

use super::super::error::{About, Error, Exit, is_connection_loss};
use super::super::output::{Meaning, multiline, rfc3339, sanitized};
use super::super::session::Session;

/// Most attempts to reconnect in a row.
const RECONNECTS_MAX: u32 = 60;

/// Print what the steps of a run printed, step by step.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli logs 0190f5fe\n  bmdemo-cli logs 0190f5fe -f --step repave"
)]
pub(crate) struct LogsArgs {
    /// Run, or the beginning of its id
    #[arg(value_name = "RUN")]
    run: String,
    /// Go on until the run has ended
    #[arg(short, long)]
    follow: bool,
    /// Only this step
    #[arg(long, value_name = "STEP", default_value = "")]
    step: String,
    /// Begin with so many chunks from the end
    #[arg(long, value_name = "N", default_value = "0")]
    tail: u64,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
}

pub(crate) async fn logs(session: &mut Session, args: &LogsArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let mut interrupted = pin!(session.ui.interrupted());
    let clock = session.ui.clock();
    let mut offset = 0;
    let mut lost = 0;
    'open: loop {
        let request = pb::StreamRunLogsRequest {
            run_id: run_id.clone(),
            follow: args.follow,
            offset,
            step: args.step.clone(),
            // After a reconnect the offset says where to go on.
            tail: if offset == 0 { args.tail } else { 0 },
        };
        let opened = client.stream_run_logs(request).await;
        let broken = match opened {
            Ok(mut stream) => loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    () = &mut interrupted => return Ok(Exit::Interrupted),
                };
                match message {
                    Ok(Some(chunk)) => {
                        lost = 0;
                        offset = chunk.offset + 1;
                        write_chunk(session, &chunk, args.timestamps)?;
                    }
                    Ok(None) => break 'open,
                    Err(status) => break status,
                }
            },
            Err(status) => status,
        };
        if !is_connection_loss(&broken) || lost >= RECONNECTS_MAX {
            return Err(Error::rpc(broken).about(About::Run(run_id)));
        }
        if lost == 0 {
            session.ui.note("connection lost, reconnecting…");
        }
        lost += 1;
        tokio::select! {
            () = clock.sleep(Duration::from_secs(1)) => {}
            () = &mut interrupted => return Ok(Exit::Interrupted),
        }
    }
    Ok(Exit::Ok)
}

/// Prints the lines of a chunk, each with its step in front.
fn write_chunk(session: &mut Session, chunk: &pb::LogChunk, timestamps: bool) -> Result<(), Error> {
    let look = session.ui.look;
    let text = multiline(&String::from_utf8_lossy(&chunk.data));
    let mut prefix = String::new();
    if timestamps {
        prefix.push_str(&look.paint(Meaning::Dim, &rfc3339(chunk.ts.as_ref())));
        prefix.push(' ');
    }
    prefix.push_str(&look.paint(Meaning::Active, &format!("[{}]", sanitized(&chunk.step))));
    let meaning = if chunk.stream == "engine" { Meaning::Dim } else { Meaning::Plain };
    for line in text.trim_end_matches('\n').split('\n') {
        writeln!(session.ui.out(), "{prefix} {}", look.paint(meaning, line))?;
    }
    if chunk.truncated {
        writeln!(
            session.ui.out(),
            "{prefix} {}",
            look.paint(Meaning::Attention, "(later lines of this step were dropped)")
        )?;
    }
    session.ui.flush()?;
    Ok(())
}
