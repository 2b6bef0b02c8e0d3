//! Operators' control verbs on runs: `cancel`, `abort`, `pause`, `resume`, `retry`, `skip`, `resolve`

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::flags::OutputArgs;
use super::super::output::{ended_name, hold, sanitized, wait_reason_name};
use super::super::query::RunSelection;
use super::super::session::Session;
use super::bulk::{self, BulkFlags, News, Outcome, Work};
use super::confirm::Question;
use super::start::{drive, watch_or_detach};
use super::{refusals, show, targets};

/// Examples of `cancel`.
pub(crate) const CANCEL_EXAMPLES: &str = "Examples:
  bmdemo-cli cancel machine-3 --reason \"wrong machine\"
  bmdemo-cli cancel f1034752
  bmdemo-cli cancel -l rack=r1 --reason \"power cut at noon\" --yes";
/// Examples of `pause`.
pub(crate) const PAUSE_EXAMPLES: &str = "Examples:
  bmdemo-cli pause machine-3 --reason \"waiting for the vendor\"
  bmdemo-cli pause -l rack=r1 --yes

A call in flight is finished first. Resume with: bmdemo-cli resume machine-3";
/// Examples of `resume`.
pub(crate) const RESUME_EXAMPLES: &str = "Examples:
  bmdemo-cli resume machine-3
  bmdemo-cli resume f1034752 --reason \"part replaced\"
  bmdemo-cli resume -l rack=r1 --yes

A run whose step has an unknown outcome is not resumed: bmdemo-cli resolve";

/// Runs to act on, and why.
#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// Runs: any part of their ids, or their machines
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    selection: RunSelection,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    bulk: BulkFlags,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs to act on, and the mandatory reason.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli abort machine-3 --reason \"smoke from the rack\"
  bmdemo-cli abort -l rack=r1 --reason \"smoke from the rack\" --yes")]
pub(crate) struct RequiredReasonArgs {
    /// Runs: any part of their ids, or their machines
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    selection: RunSelection,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    bulk: BulkFlags,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs to repeat.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli retry machine-2
  bmdemo-cli retry f1034752 --detach --reason \"disk replaced\"
  bmdemo-cli retry -l rack=r1 --filter 'created_at > -1d' --yes")]
pub(crate) struct RetryArgs {
    /// Runs: any part of their ids, or their machines
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    selection: RunSelection,
    /// Print the new run's id and return at once; with several all are started, so not with --max-parallel or --max-failures
    #[arg(short, long, conflicts_with_all = ["max_parallel", "max_failures"])]
    detach: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    bulk: BulkFlags,
}

/// The step to skip.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli skip machine-1 notify --reason \"they know by phone\""
)]
pub(crate) struct SkipArgs {
    /// Run: any part of its id, or its machine
    #[arg(value_name = "RUN")]
    run: String,
    /// Step
    #[arg(value_name = "STEP")]
    step: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What happened to a step.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli resolve machine-1 wipe done --reason \"saw the empty disk on the console\""
)]
pub(crate) struct ResolveArgs {
    /// Run: any part of its id, or its machine
    #[arg(value_name = "RUN")]
    run: String,
    /// Step whose outcome is unknown
    #[arg(value_name = "STEP")]
    step: String,
    /// What to do
    #[arg(value_name = "WHAT")]
    what: Resolution,
    /// How you know; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What to do about a step whose outcome is unknown.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Resolution {
    /// It was done: the step succeeds
    Done,
    /// It was not done: the step makes a new attempt
    Retry,
    /// It does not matter: the step is skipped
    Skip,
    /// Give up: the run is aborted
    Abort,
}

/// What to do with a run in progress.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Cancel,
    Abort,
    Pause,
    Resume,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Cancel => "Cancel",
            Self::Abort => "Abort",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
        }
    }

    /// Why the server would refuse the verb for a run.
    fn would_be_refused(self, run: &pb::Run) -> Option<String> {
        match self {
            Self::Cancel | Self::Abort => refusals::of_ended(run),
            Self::Pause => refusals::of_pause(run),
            Self::Resume => refusals::of_resume(run),
        }
    }

    /// Whether a run is as the verb would have it.
    fn is_done(self, run: &pb::Run) -> bool {
        match self {
            Self::Cancel => run.cancel_requested || run.finished_at.is_some(),
            Self::Pause => {
                let paused = |waiting: &pb::Waiting| waiting.reason() == pb::WaitReason::Paused;
                run.pause_requested || hold(run).is_some_and(paused)
            }
            // What is as they would have it is refused.
            Self::Abort | Self::Resume => false,
        }
    }

    async fn call(self, client: &Client, run_id: String, reason: String) -> Result<pb::Run, Error> {
        let request_id = client.new_request_id();
        match self {
            Self::Cancel => {
                let request =
                    pb::CancelRunRequest { run_id, reason, request_id, ..Default::default() };
                client.cancel_run(request).await
            }
            Self::Abort => {
                let request =
                    pb::AbortRunRequest { run_id, reason, request_id, ..Default::default() };
                client.abort_run(request).await
            }
            Self::Pause => {
                let request =
                    pb::PauseRunRequest { run_id, reason, request_id, ..Default::default() };
                client.pause_run(request).await
            }
            Self::Resume => {
                let request =
                    pb::ResumeRunRequest { run_id, reason, request_id, ..Default::default() };
                client.resume_run(request).await
            }
        }
    }

    /// What an operator should know next.
    fn next(self, run: &pb::Run) -> Option<String> {
        let (id, machine) = (&run.run_id, &run.machine_id);
        match self {
            Self::Cancel if run.finished_at.is_none() => Some(format!(
                "It ends at its next safe point. Watch it with: bmdemo-cli watch {id}"
            )),
            Self::Abort => Some(format!(
                "{machine} is blocked until you have looked: bmdemo-cli machine clear-intervention {machine} --reason \"what you found\""
            )),
            Self::Pause if run.pause_requested => Some(format!(
                "It is held once the call in flight is over. Resume it with: bmdemo-cli resume {id}"
            )),
            Self::Pause => Some(format!("Resume it with: bmdemo-cli resume {id}")),
            Self::Cancel | Self::Resume => None,
        }
    }
}

/// A verb and the runs it applies to, named or selected.
struct Order<'a> {
    runs: &'a [String],
    selection: &'a RunSelection,
    reason: &'a str,
    bulk: &'a BulkFlags,
    output: &'a OutputArgs,
}

impl<'a> Order<'a> {
    fn of(args: &'a ReasonArgs) -> Self {
        Self {
            runs: &args.runs,
            selection: &args.selection,
            reason: &args.reason,
            bulk: &args.bulk,
            output: &args.output,
        }
    }

    async fn carry_out(self, session: &mut Session, verb: Verb) -> Result<Exit, Error> {
        show::check_columns::<pb::Run>(self.output)?;
        let client = session.client().await?;
        if let ([name], true) = (self.runs, self.selection.is_empty()) {
            let found = client.find_run(name).await?;
            let run_id = found.run_id.clone();
            let run = verb.call(&client, run_id, self.reason.to_owned()).await?;
            show::run(session, &run, self.output)?;
            if matches!(verb, Verb::Cancel) && found.finished_at.is_some() {
                let ended = format!("Nothing to cancel: the run has ended ({}).", ended_name(&run));
                session.ui.note(&ended);
            } else if verb.is_done(&found) {
                session.ui.note(&format!("Unchanged: {} was requested before.", verb.name()));
            }
            if let Some(next) = verb.next(&run) {
                session.ui.note(&next);
            }
            return Ok(Exit::Ok);
        }
        let runs = targets::active_runs(&client, self.runs, self.selection).await?;
        let whys = runs.iter().map(|run| verb.would_be_refused(run));
        question(verb.name(), &runs, refusals::count(whys)).settle(session, self.bulk.yes)?;
        let reason: Arc<str> = self.reason.into();
        let (ids, work) = work(&runs, self.bulk);
        let same: HashSet<&str> =
            runs.iter().filter(|run| verb.is_done(run)).map(|run| run.run_id.as_str()).collect();
        let (exit, _) = bulk::each(session, work, |client: Client, target: String, _: News| {
            let (run_id, reason) = (ids.get(&target).cloned().unwrap_or_default(), reason.clone());
            let already = same.contains(run_id.as_str());
            async move {
                let run = verb.call(&client, run_id, reason.to_string()).await?;
                Ok(Outcome::now(already, state(&run)))
            }
        })
        .await?;
        Ok(exit)
    }
}

/// State of a run, for a row of a table.
fn state(run: &pb::Run) -> String {
    match hold(run) {
        Some(waiting) => format!("held: {} {}", wait_reason_name(waiting.reason), run.run_id),
        None if run.cancel_requested && run.finished_at.is_none() => {
            format!("{}, cancel requested {}", ended_name(run), run.run_id)
        }
        None if run.pause_requested => {
            format!("{}, pause requested {}", ended_name(run), run.run_id)
        }
        None => format!("{} {}", ended_name(run), run.run_id),
    }
}

fn question(verb: &str, runs: &[pb::Run], refused: Option<(usize, String)>) -> Question {
    let described = |run: &pb::Run| {
        let (machine, plan) = (sanitized(&run.machine_id), sanitized(&run.plan_id));
        format!("{machine}: {plan} {} {}", ended_name(run), sanitized(&run.current_step))
            .trim_end()
            .to_owned()
    };
    Question {
        what: verb.to_owned(),
        noun: "run",
        targets: runs.iter().map(described).collect(),
        refused,
        loss: None,
        always: false,
    }
}

/// Steps that destroy data again when runs are repeated.
fn repeated(runs: &[pb::Run]) -> Option<String> {
    let steps = runs.iter().flat_map(|run| &run.steps).filter(|step| {
        step.risk() == pb::Risk::DataDestroying && step.state() != pb::StepState::Succeeded
    });
    let names: BTreeSet<&str> = steps.map(|step| step.name.as_str()).collect();
    let names = names.into_iter().map(sanitized).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("They repeat what destroys data: {names}."))
}

/// Runs by their machines, or by their own ids where a machine has several of them.
fn work<'a>(runs: &[pb::Run], flags: &'a BulkFlags) -> (HashMap<String, String>, Work<'a>) {
    let mut ids = HashMap::new();
    let mut names = Vec::new();
    let mut of_machine: HashMap<&str, usize> = HashMap::new();
    for run in runs {
        *of_machine.entry(&run.machine_id).or_default() += 1;
    }
    for run in runs {
        let alone = of_machine.get(run.machine_id.as_str()) == Some(&1);
        let name = if alone { &run.machine_id } else { &run.run_id };
        names.push(name.clone());
        ids.insert(name.clone(), run.run_id.clone());
    }
    (ids, Work { noun: "runs", targets: names, flags, quiet: false })
}

pub(crate) async fn cancel(session: &mut Session, args: &ReasonArgs) -> Result<Exit, Error> {
    Order::of(args).carry_out(session, Verb::Cancel).await
}

pub(crate) async fn abort(session: &mut Session, args: &RequiredReasonArgs) -> Result<Exit, Error> {
    let order = Order {
        runs: &args.runs,
        selection: &args.selection,
        reason: &args.reason,
        bulk: &args.bulk,
        output: &args.output,
    };
    order.carry_out(session, Verb::Abort).await
}

pub(crate) async fn pause(session: &mut Session, args: &ReasonArgs) -> Result<Exit, Error> {
    Order::of(args).carry_out(session, Verb::Pause).await
}

pub(crate) async fn resume(session: &mut Session, args: &ReasonArgs) -> Result<Exit, Error> {
    Order::of(args).carry_out(session, Verb::Resume).await
}

pub(crate) async fn retry(session: &mut Session, args: &RetryArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request = |client: &Client, run_id: String| pb::RetryRunRequest {
        run_id,
        reason: args.reason.clone(),
        request_id: client.new_request_id(),
    };
    if let ([name], true) = (args.runs.as_slice(), args.selection.is_empty()) {
        let run_id = client.find_run(name).await?.run_id;
        let run = client.retry_run(request(&client, run_id)).await?;
        return watch_or_detach(session, &run, args.detach).await;
    }
    let runs = targets::retriable_runs(&client, &args.runs, &args.selection).await?;
    let whys = refusals::count(runs.iter().map(refusals::of_retry));
    let question = Question { loss: repeated(&runs), ..question("Retry", &runs, whys) };
    question.settle(session, args.bulk.yes)?;
    let (ids, work) = work(&runs, &args.bulk);
    let (clock, detach) = (session.ui.clock(), args.detach);
    let (exit, _) = bulk::each(session, work, |client: Client, target: String, news: News| {
        let request = request(&client, ids.get(&target).cloned().unwrap_or_default());
        let clock = clock.clone();
        async move {
            let run = client.retry_run(request).await?;
            drive(&client, clock, run, detach, &news).await
        }
    })
    .await?;
    Ok(exit)
}

pub(crate) async fn skip(session: &mut Session, args: &SkipArgs) -> Result<Exit, Error> {
    show::check_columns::<pb::Run>(&args.output)?;
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let (step, reason) = (args.step.clone(), args.reason.clone());
    let run = client
        .skip_step(pb::SkipStepRequest {
            run_id,
            step,
            reason,
            request_id,
            ..pb::SkipStepRequest::default()
        })
        .await?;
    show::run(session, &run, &args.output)
}

pub(crate) async fn resolve(session: &mut Session, args: &ResolveArgs) -> Result<Exit, Error> {
    show::check_columns::<pb::Run>(&args.output)?;
    let client = session.client().await?;
    let run_id = client.find_run(&args.run).await?.run_id;
    let request_id = client.new_request_id();
    let resolution = match args.what {
        Resolution::Done => pb::StepResolution::Done,
        Resolution::Retry => pb::StepResolution::Retry,
        Resolution::Skip => pb::StepResolution::Skip,
        Resolution::Abort => pb::StepResolution::Abort,
    };
    let request = pb::ResolveStepRequest {
        run_id,
        step: args.step.clone(),
        resolution: resolution.into(),
        reason: args.reason.clone(),
        request_id,
        ..pb::ResolveStepRequest::default()
    };
    let run = client.resolve_step(request).await?;
    show::run(session, &run, &args.output)
}
