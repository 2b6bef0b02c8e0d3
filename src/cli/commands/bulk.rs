//! A plan on many machines, driven by the client: so many at a time, and no more after so many failures.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;

use tokio::task::JoinSet;

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{
    Meaning, Tally, bar_status, elapsed_text, hold, run_phase_name, sanitized,
};
use super::super::session::Session;
use super::super::ui::TICK;
use super::super::watch::{RunWatch, Seen};
use super::recipe::{StartFlags, What, request};

/// How a machine came out.
enum Outcome {
    /// The run ended, or is held.
    Run(Box<pb::Run>),
    /// It was not started, or could not be watched.
    Refused(String),
}

/// The state of the whole command.
struct Bulk {
    waiting: VecDeque<String>,
    /// Machines in progress, with their runs once they are known.
    running: BTreeMap<String, Option<String>>,
    tally: Tally,
    id_columns: usize,
}

pub(crate) async fn start(
    session: &mut Session,
    what: &What,
    machines: &[pb::Machine],
    flags: &StartFlags,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let clock = session.ui.clock();
    let (started, mut news) = tokio::sync::mpsc::unbounded_channel();
    let ids: VecDeque<String> = machines.iter().map(|machine| machine.machine_id.clone()).collect();
    let mut bulk = Bulk {
        id_columns: ids.iter().map(String::len).max().unwrap_or(0).max(13),
        tally: Tally { all: ids.len(), ..Tally::default() },
        waiting: ids,
        running: BTreeMap::new(),
    };
    let parallel = usize::try_from(flags.max_parallel).unwrap_or(usize::MAX);
    let failures = usize::try_from(flags.max_failures).unwrap_or(usize::MAX);
    let mut tasks: JoinSet<(String, Outcome)> = JoinSet::new();
    let mut interrupted = pin!(session.ui.interrupted());
    let mut tick = 0;
    loop {
        while bulk.tally.failed < failures
            && bulk.running.len() < parallel
            && let Some(machine) = bulk.waiting.pop_front()
        {
            let request = request(what, &machine, flags, client.new_request_id());
            bulk.running.insert(machine.clone(), None);
            let (client, clock, started, detach) =
                (client.clone(), clock.clone(), started.clone(), flags.detach);
            tasks.spawn(async move {
                let outcome = drive(&client, clock, request, detach, &started).await;
                (machine, outcome.unwrap_or_else(|error| Outcome::Refused(message(&error))))
            });
        }
        bulk.tally.running = bulk.running.len();
        tokio::select! {
            Some((machine, run_id)) = news.recv() => {
                // News of a machine that has come out meanwhile is no news: it must not take a place again.
                if let Some(run) = bulk.running.get_mut(&machine) {
                    *run = Some(run_id);
                }
            }
            done = tasks.join_next() => match done {
                Some(Ok((machine, outcome))) => bulk.settle(session, &machine, &outcome, flags.detach)?,
                Some(Err(error)) => return Err(Error::Answer(error.to_string())),
                None => break,
            },
            () = &mut interrupted => {
                bulk.say_what_goes_on(session);
                return Ok(Exit::Interrupted);
            }
            () = clock.sleep(TICK), if session.ui.is_live() => {
                tick += 1;
                let bar = bar_status(session.ui.note_look, bulk.tally, tick);
                session.ui.status(&bar);
            }
        }
    }
    bulk.tally.running = 0;
    if !bulk.waiting.is_empty() {
        let count = bulk.tally.failed;
        session.ui.note(&format!("Stopped after {count} failed; go further with --max-failures."));
    }
    session.ui.note(&bulk.tally.summary());
    Ok(if bulk.tally.failed > 0 {
        Exit::RunFailed
    } else if bulk.tally.canceled > 0 {
        Exit::RunCanceled
    } else {
        Exit::Ok
    })
}

/// Starts one run and, unless detached, watches it until it ends or is held.
async fn drive(
    client: &Client,
    clock: std::sync::Arc<dyn crate::clock::Clock>,
    request: pb::StartRunRequest,
    detach: bool,
    started: &tokio::sync::mpsc::UnboundedSender<(String, String)>,
) -> Result<Outcome, Error> {
    let run = client.start_run(request).await?;
    // The receiver lives as long as the command.
    let _ = started.send((run.machine_id.clone(), run.run_id.clone()));
    if detach {
        return Ok(Outcome::Run(Box::new(run)));
    }
    let mut watch = RunWatch::new(client.clone(), clock, format!("run_id={}", run.run_id));
    loop {
        match watch.next().await? {
            Seen::Event(event) => {
                let ended = event.snapshot.filter(|run| {
                    let held =
                        hold(run).is_some_and(|waiting| waiting.reason() != pb::WaitReason::Paused);
                    run.finished_at.is_some() || held
                });
                if let Some(run) = ended {
                    return Ok(Outcome::Run(Box::new(run)));
                }
            }
            Seen::Lost => {}
            Seen::Ended => watch.lose(),
        }
    }
}

fn message(error: &Error) -> String {
    let text = error.to_string();
    if text.is_empty() { "refused".to_owned() } else { text }
}

impl Bulk {
    /// Counts and prints how one machine came out.
    fn settle(
        &mut self,
        session: &mut Session,
        machine: &str,
        outcome: &Outcome,
        detach: bool,
    ) -> Result<(), Error> {
        self.running.remove(machine);
        let look = session.ui.look;
        let columns = self.id_columns;
        let id = sanitized(machine);
        let (glyph, meaning, text) = match outcome {
            Outcome::Refused(why) => {
                self.tally.failed += 1;
                (look.bad(), Meaning::Bad, format!("refused: {}", sanitized(why)))
            }
            Outcome::Run(run) if detach => {
                self.tally.succeeded += 1;
                (look.good(), Meaning::Good, format!("started {}", sanitized(&run.run_id)))
            }
            Outcome::Run(run) => self.count(look, run),
        };
        writeln!(session.ui.out(), "{id:columns$} {} {text}", look.paint(meaning, glyph))?;
        session.ui.flush()?;
        Ok(())
    }

    fn count(
        &mut self,
        look: super::super::output::Look,
        run: &pb::Run,
    ) -> (&'static str, Meaning, String) {
        let took =
            super::super::output::run_ms(run, None).map_or_else(|| "-".to_owned(), elapsed_text);
        let (phase, id) = (run_phase_name(run.phase), sanitized(&run.run_id));
        match (run.phase(), &run.error) {
            (pb::RunPhase::Succeeded, _) => {
                self.tally.succeeded += 1;
                (look.good(), Meaning::Good, format!("{phase} {took} {id}"))
            }
            (pb::RunPhase::Canceled, _) => {
                self.tally.canceled += 1;
                (look.canceled(), Meaning::Attention, format!("{phase} {took} {id}"))
            }
            (_, Some(error)) => {
                self.tally.failed += 1;
                let (code, message) = (sanitized(&error.code), sanitized(&error.message));
                (look.bad(), Meaning::Bad, format!("{phase} {took} {id} {code}: {message}"))
            }
            (_, None) => {
                self.tally.failed += 1;
                let why = hold(run).map_or("", |waiting| waiting.message.as_str());
                (look.held(), Meaning::Attention, format!("held {id} {}", sanitized(why)))
            }
        }
    }

    /// After Ctrl-C: nothing more is started, and what was started goes on.
    fn say_what_goes_on(&mut self, session: &mut Session) {
        self.tally.running = self.running.len();
        session.ui.note("Interrupted: no more runs are started. These go on:");
        for (machine, run) in &self.running {
            let run = run.as_deref().unwrap_or("(being started)");
            session.ui.note(&format!(
                "  {}  bmdemo-cli watch {}",
                sanitized(machine),
                sanitized(run)
            ));
        }
        session.ui.note(&self.tally.summary());
    }
}
