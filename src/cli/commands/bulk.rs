//! One operation on many machines or runs, driven by the client: a limited number at a time, stopping after a number
//! of failures.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;

use clap::Args;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{
    Look, Meaning, Tally, also_failed, also_failed_text, bar_status, ended_name, hint_of, hold,
    run_ms, sanitized, short_run, wrapped,
};
use super::super::session::Session;
use super::super::ui::TICK;

/// Limits of a command on many machines or runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct BulkFlags {
    /// With several: how many at a time
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) max_parallel: u32,
    /// With several: start no more once this many failed or are held; what runs is not ended, refusals do not count
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_failures: u32,
    /// Do not ask for confirmation [env: BMDEMO_YES=1]
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// The result for one target.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The run ended, or is held.
    Run(Box<pb::Run>),
    /// The run was started, and is not watched.
    Started(Box<pb::Run>),
    /// It was done; this is its new state.
    Changed(String),
    /// It was so already; this is its state.
    Unchanged(String),
    /// It was refused, or could not be watched: why and what helps, and the code of the process for that.
    Refused(String, u8),
}

impl Outcome {
    /// The answer of the server or the network when the operation did not happen.
    pub(crate) fn refused(error: &Error) -> Self {
        let text = error.to_string();
        let mut text = if text.is_empty() { "refused".to_owned() } else { text };
        if let Some(hint) = hint_of(error) {
            text.push_str(&format!(" ({hint})"));
        }
        Self::Refused(text, error.code())
    }

    /// What was requested is so now; `already` says that it was before, too.
    pub(crate) fn now(already: bool, state: String) -> Self {
        if already { Self::Unchanged(state) } else { Self::Changed(state) }
    }
}

/// Lets an operation report which run it started, before it is over.
#[derive(Debug, Clone)]
pub(crate) struct News {
    target: String,
    sender: UnboundedSender<(String, String)>,
}

impl News {
    pub(crate) fn started(&self, run: &pb::Run) {
        // The receiver lives as long as the command.
        let _ = self.sender.send((self.target.clone(), run.run_id.clone()));
    }
}

/// The state of the whole command.
struct Bulk {
    waiting: VecDeque<String>,
    /// Operations in progress, with their runs once they are known.
    running: BTreeMap<String, Option<String>>,
    tally: Tally,
    id_columns: usize,
    /// What the process would exit with for the refusals, each alone.
    refusals: BTreeSet<u8>,
}

/// What to do, and how to show it.
pub(crate) struct Work<'a> {
    /// Plural noun for the targets.
    pub(crate) noun: &'static str,
    /// The targets, each once.
    pub(crate) targets: Vec<String>,
    /// Limits.
    pub(crate) flags: &'a BulkFlags,
    /// Whether to print only a bar and a summary.
    pub(crate) quiet: bool,
}

/// Performs the operation on each target; returns the results in the order in which they came.
pub(crate) async fn each<F>(
    session: &mut Session,
    work: Work<'_>,
    operation: impl Fn(Client, String, News) -> F,
) -> Result<(Exit, Vec<Outcome>), Error>
where
    F: Future<Output = Result<Outcome, Error>> + Send + 'static,
{
    let client = session.client().await?;
    let clock = session.ui.clock();
    let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
    let mut bulk = Bulk {
        id_columns: work.targets.iter().map(String::len).max().unwrap_or(0).max(13),
        tally: Tally::of(work.noun, work.targets.len()),
        waiting: work.targets.into(),
        running: BTreeMap::new(),
        refusals: BTreeSet::new(),
    };
    let parallel = usize::try_from(work.flags.max_parallel).unwrap_or(usize::MAX);
    let failures = usize::try_from(work.flags.max_failures).unwrap_or(usize::MAX);
    let mut tasks: JoinSet<(String, Outcome)> = JoinSet::new();
    let mut outcomes = Vec::new();
    let mut interrupted = pin!(session.ui.interrupted());
    let mut tick = 0;
    loop {
        while bulk.tally.stopping() < failures
            && bulk.running.len() < parallel
            && let Some(target) = bulk.waiting.pop_front()
        {
            bulk.running.insert(target.clone(), None);
            let news = News { target: target.clone(), sender: sender.clone() };
            let doing = operation(client.clone(), target.clone(), news);
            tasks.spawn(async move {
                (target, doing.await.unwrap_or_else(|error| Outcome::refused(&error)))
            });
        }
        bulk.tally.running = bulk.running.len();
        tokio::select! {
            Some((target, run_id)) = news.recv() => {
                // Ignore news about a target that has a result by now: it must not occupy a place again.
                if let Some(run) = bulk.running.get_mut(&target) {
                    *run = Some(run_id);
                }
            }
            done = tasks.join_next() => match done {
                Some(Ok((target, outcome))) => {
                    bulk.settle(session, &target, &outcome, work.quiet)?;
                    outcomes.push(outcome);
                }
                Some(Err(error)) => return Err(Error::Answer(error.to_string())),
                None => break,
            },
            () = &mut interrupted => {
                bulk.say_what_is_in_progress(session);
                return Ok((Exit::Interrupted, outcomes));
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
        let why = bulk.tally.stopped_after();
        session.ui.note(&format!("Stopped after {why}; allow more with --max-failures."));
    }
    session.ui.note(&bulk.tally.summary());
    Ok((bulk.exit(), outcomes))
}

impl Bulk {
    fn exit(&self) -> Exit {
        let tally = self.tally;
        if tally.failed > 0 || tally.held > 0 {
            Exit::RunFailed
        } else if tally.canceled > 0 {
            Exit::RunCanceled
        } else {
            Exit::of_refusals(&self.refusals)
        }
    }

    /// Counts and prints the result for one target.
    fn settle(
        &mut self,
        session: &mut Session,
        target: &str,
        outcome: &Outcome,
        quiet: bool,
    ) -> Result<(), Error> {
        self.running.remove(target);
        let look = session.ui.look;
        let (glyph, meaning, text) = match outcome {
            Outcome::Refused(why, code) => {
                self.tally.refused += 1;
                self.refusals.insert(*code);
                (look.bad(), Meaning::Bad, format!("refused: {}", sanitized(why)))
            }
            Outcome::Started(run) => {
                self.tally.started += 1;
                (look.good(), Meaning::Good, format!("started {}", sanitized(&run.run_id)))
            }
            Outcome::Changed(what) => {
                self.tally.changed += 1;
                (look.good(), Meaning::Good, sanitized(what).into_owned())
            }
            Outcome::Unchanged(what) => {
                self.tally.unchanged += 1;
                ("=", Meaning::Dim, format!("unchanged: {}", sanitized(what)))
            }
            Outcome::Run(run) => self.count(look, run),
        };
        if quiet {
            return Ok(());
        }
        let columns = self.id_columns;
        let line = format!("{:columns$} {} {text}", sanitized(target), look.paint(meaning, glyph));
        writeln!(session.ui.out(), "{}", wrapped(look, &line, columns + 3))?;
        session.ui.flush()?;
        Ok(())
    }

    fn count(&mut self, look: Look, run: &pb::Run) -> (&'static str, Meaning, String) {
        let took =
            run_ms(run, None).map_or_else(|| "-".to_owned(), super::super::output::elapsed_text);
        let id = if look.columns.is_some() { short_run(&run.run_id) } else { &run.run_id };
        let (phase, id) = (ended_name(run), sanitized(id));
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
                let also: String =
                    also_failed(run).map(|step| format!(". {}", also_failed_text(step))).collect();
                (look.bad(), Meaning::Bad, format!("{phase} {took} {id} {code}: {message}{also}"))
            }
            (_, None) => {
                self.tally.held += 1;
                let why = hold(run).map_or("", |waiting| waiting.message.as_str());
                (look.held(), Meaning::Attention, format!("held {id} {}", sanitized(why)))
            }
        }
    }

    /// After Ctrl-C: nothing more is started, and what was started stays in progress.
    fn say_what_is_in_progress(&mut self, session: &mut Session) {
        self.tally.running = self.running.len();
        session.ui.note("Interrupted: nothing more is started. These stay in progress:");
        for (target, run) in &self.running {
            let run = run.as_deref().unwrap_or("(being started)");
            session.ui.note(&format!(
                "  {}  bmdemo-cli watch {}",
                sanitized(target),
                sanitized(run)
            ));
        }
        session.ui.note(&self.tally.summary());
    }
}
