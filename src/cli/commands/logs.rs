//! `logs RUN…`

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::pb;

use super::super::client::Client;
use super::super::error::{About, Error, Exit};
use super::super::output::{Meaning, multiline, rfc3339, sanitized};
use super::super::query::RunSelection;
use super::super::session::Session;
use super::targets;

/// Most attempts to reconnect in a row.
const RECONNECTS_MAX: u32 = 60;
/// How often credentials are read again before a refusal counts.
const RENEWALS_MAX: u32 = 5;

/// Lines buffered between the streams and the screen.
const UNDER_WAY: usize = 64;

/// Print the output of the steps of runs, step by step. With several runs each line begins with its machine; a selection
/// means the newest run of each machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli logs machine-1
  bmdemo-cli logs f1034752 -f --step repave
  bmdemo-cli logs -l rack=r1 -f --tail 10")]
pub(crate) struct LogsArgs {
    /// Runs: any part of their ids, or their machines
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    selection: RunSelection,
    /// Follow until the runs have ended
    #[arg(short, long)]
    follow: bool,
    /// Only this step
    #[arg(long, value_name = "STEP", default_value = "")]
    step: String,
    /// Begin with this many chunks from the end
    #[arg(long, value_name = "N", default_value = "0")]
    tail: u64,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
}

/// An event of a stream.
enum News {
    Chunk(Box<pb::LogChunk>),
    Lost,
}

pub(crate) async fn logs(session: &mut Session, args: &LogsArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let runs = targets::newest_runs(&client, &args.runs, &args.selection).await?;
    let several = runs.len() > 1 || !args.selection.is_empty();
    let columns = runs.iter().map(|run| run.machine_id.len()).max().unwrap_or(0);
    let mut waiting: VecDeque<pb::Run> = runs.into();
    let mut interrupted = pin!(session.ui.interrupted());
    let (sender, mut news) = tokio::sync::mpsc::channel(UNDER_WAY);
    let mut streams: JoinSet<Result<(), Error>> = JoinSet::new();
    // Logs of ended runs are printed run by run; followed ones as they come.
    let parallel = if args.follow { usize::MAX } else { 1 };
    loop {
        while streams.len() < parallel
            && let Some(run) = waiting.pop_front()
        {
            let request = pb::StreamRunLogsRequest {
                run_id: run.run_id,
                follow: args.follow,
                offset: 0,
                step: args.step.clone(),
                tail: args.tail,
            };
            let name =
                if several { format!("{:columns$} ", run.machine_id) } else { String::new() };
            streams.spawn(stream(
                client.clone(),
                session.ui.clock(),
                request,
                name,
                sender.clone(),
            ));
        }
        tokio::select! {
            biased;
            () = &mut interrupted => return Ok(Exit::Interrupted),
            Some((name, news)) = news.recv() => match news {
                News::Chunk(chunk) => write_chunk(session, &name, &chunk, args.timestamps)?,
                News::Lost => session.ui.note("connection lost, reconnecting…"),
            },
            ended = streams.join_next() => match ended {
                Some(Ok(ended)) => ended?,
                Some(Err(error)) => return Err(Error::Answer(error.to_string())),
                None => return Ok(Exit::Ok),
            },
        }
    }
}

/// Streams the logs of one run to their end, waiting for a server that is unavailable.
async fn stream(
    client: Client,
    clock: Arc<dyn Clock>,
    mut request: pb::StreamRunLogsRequest,
    name: String,
    sender: Sender<(String, News)>,
) -> Result<(), Error> {
    let (mut lost, mut renewals) = (0, 0);
    loop {
        let broken = match client.stream_run_logs(request.clone()).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(chunk)) => {
                        (lost, renewals) = (0, 0);
                        // After a reconnect the offset says where to continue.
                        request.offset = chunk.offset + 1;
                        request.tail = 0;
                        // The receiver lives as long as the command.
                        let _ = sender.send((name.clone(), News::Chunk(Box::new(chunk)))).await;
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => break status,
                }
            },
            Err(status) => status,
        };
        if renewals < RENEWALS_MAX && client.can_renew(&broken) {
            renewals += 1;
            client.renew().await?;
            if renewals > 1 {
                clock.sleep(Duration::from_millis(200)).await;
            }
            continue;
        }
        if !client.is_lost(&broken) || lost >= RECONNECTS_MAX {
            return Err(client.error(broken).about(About::Run(request.run_id)));
        }
        if lost == 0 {
            let _ = sender.send((name.clone(), News::Lost)).await;
        }
        lost += 1;
        clock.sleep(Duration::from_secs(1)).await;
    }
}

/// Prints the lines of a chunk, each after the name of its step.
fn write_chunk(
    session: &mut Session,
    name: &str,
    chunk: &pb::LogChunk,
    timestamps: bool,
) -> Result<(), Error> {
    let look = session.ui.look;
    let text = multiline(&String::from_utf8_lossy(&chunk.data));
    let mut prefix = look.paint(Meaning::Dim, &sanitized(name));
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
