//! `wait` and `run wait`

use std::pin::pin;
use std::time::Duration;

use clap::Args;

use crate::pb;

use super::super::Context;
use super::super::args::parse_ms;
use super::super::error::{About, Error, Exit, is_connection_loss};
use super::super::output::{condition_name, effective_name, phase_name, run_phase_name, sanitized};
use super::machine::parse_phase;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Wait until machines are in a state.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli wait machine-1 --for effective=IN_SERVICE
  bmdemo-cli wait machine-1 machine-2 --for condition=Reachable --timeout 5m
  bmdemo-cli wait machine-3 --for condition=NeedsIntervention=false
  bmdemo-cli wait machine-1 --for run=done && echo free

Exits with 5 if the time is over.")]
pub(crate) struct WaitArgs {
    /// Machines
    #[arg(value_name = "MACHINE", required = true)]
    machines: Vec<String>,
    /// effective=STATE, phase=PHASE, condition=NAME[=true|false], or run=done
    #[arg(long = "for", value_name = "WHAT")]
    what: String,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_ms)]
    timeout: u64,
}

/// Wait until runs have ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli run wait 0190f5fe --timeout 10m

Exits with 0 if all succeeded, 3 if one failed, 4 if one was canceled, 5 if the time is over.")]
pub(crate) struct RunWaitArgs {
    /// Runs, or the beginnings of their ids
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_ms)]
    timeout: u64,
}

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    Effective(pb::EffectiveState),
    Phase(pb::Phase),
    Condition(pb::ConditionType, bool),
    NoRun,
}

impl Goal {
    fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |message: String| {
            Error::usage(
                message,
                "wait for effective=STATE, phase=PHASE, condition=NAME, condition=NAME=false or run=done",
            )
        };
        match text.split_once('=') {
            Some(("effective", state)) => {
                let state = state.to_ascii_uppercase().replace('-', "_");
                match pb::EffectiveState::from_str_name(&format!("EFFECTIVE_STATE_{state}")) {
                    Some(state) if state != pb::EffectiveState::Unspecified => {
                        Ok(Self::Effective(state))
                    }
                    _ => Err(wrong(format!("{state:?} is not an effective state"))),
                }
            }
            Some(("phase", phase)) => parse_phase(phase).map(Self::Phase),
            Some(("condition", condition)) => {
                let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
                let kind = (1..=4)
                    .find(|kind| condition_name(*kind).eq_ignore_ascii_case(name))
                    .and_then(|kind| pb::ConditionType::try_from(kind).ok())
                    .ok_or_else(|| wrong(format!("{name:?} is not a condition")))?;
                match value {
                    "true" => Ok(Self::Condition(kind, true)),
                    "false" => Ok(Self::Condition(kind, false)),
                    _ => Err(wrong(format!("{value:?} is neither true nor false"))),
                }
            }
            Some(("run", "done")) => Ok(Self::NoRun),
            _ => Err(wrong(format!("{text:?} is nothing to wait for"))),
        }
    }

    /// Whether a machine is there. A condition that was never observed is false.
    fn is_met(&self, machine: &pb::Machine) -> bool {
        let status = machine.status.clone().unwrap_or_default();
        match self {
            Self::Effective(state) => status.effective_state() == *state,
            Self::Phase(phase) => status.phase() == *phase,
            Self::Condition(kind, wanted) => {
                let seen = status.conditions.iter().find(|condition| condition.r#type() == *kind);
                seen.is_some_and(|condition| condition.status) == *wanted
            }
            Self::NoRun => status.active_run_id.is_empty(),
        }
    }
}

pub(crate) async fn machines(ctx: &mut Context, args: &WaitArgs) -> Result<Exit, Error> {
    let goal = Goal::parse(&args.what)?;
    let client = ctx.client().await?;
    let mut waited = Waited::new(ctx, args.timeout);
    let mut left = args.machines.clone();
    loop {
        let mut still = Vec::new();
        for id in left {
            let machine = client
                .get_machine(pb::GetMachineRequest { machine_id: id.clone(), ..Default::default() })
                .await;
            match machine {
                Ok(machine) if goal.is_met(&machine) => {
                    let id = sanitized(&id).into_owned();
                    writeln!(ctx.ui.out(), "{id}: {} is met", args.what)?;
                    ctx.ui.flush()?;
                }
                Ok(machine) => {
                    let status = machine.status.unwrap_or_default();
                    let (phase, effective) =
                        (phase_name(status.phase), effective_name(status.effective_state));
                    waited.seen =
                        format!("{}: phase {phase}, effective {effective}", sanitized(&id));
                    still.push(id);
                }
                Err(error) if error.status().is_some_and(is_connection_loss) => still.push(id),
                Err(error) => return Err(error.about(About::Machine(id))),
            }
        }
        left = still;
        if left.is_empty() {
            return Ok(Exit::Ok);
        }
        if let Some(exit) = waited.more(ctx).await {
            return Ok(exit);
        }
    }
}

pub(crate) async fn runs(ctx: &mut Context, args: &RunWaitArgs) -> Result<Exit, Error> {
    let client = ctx.client().await?;
    let mut left = Vec::new();
    for id in &args.runs {
        left.push(client.find_run(id).await?.run_id);
    }
    let mut waited = Waited::new(ctx, args.timeout);
    let mut exit = Exit::Ok;
    loop {
        let mut still = Vec::new();
        for run_id in left {
            match client
                .get_run(pb::GetRunRequest { run_id: run_id.clone(), ..Default::default() })
                .await
            {
                Ok(run) => {
                    let phase = run_phase_name(run.phase);
                    let ended = match run.phase() {
                        pb::RunPhase::Succeeded => Some(Exit::Ok),
                        pb::RunPhase::Failed => Some(Exit::RunFailed),
                        pb::RunPhase::Canceled => Some(Exit::RunCanceled),
                        pb::RunPhase::Unspecified
                        | pb::RunPhase::Pending
                        | pb::RunPhase::Running => None,
                    };
                    if let Some(ended) = ended {
                        writeln!(ctx.ui.out(), "{}: {phase}", sanitized(&run_id))?;
                        ctx.ui.flush()?;
                        exit = exit.or(ended);
                    } else {
                        waited.seen = format!(
                            "{}: {phase} in {}",
                            sanitized(&run_id),
                            sanitized(&run.current_step)
                        );
                        still.push(run_id);
                    }
                }
                Err(error) if error.status().is_some_and(is_connection_loss) => still.push(run_id),
                Err(error) => return Err(error),
            }
        }
        left = still;
        if left.is_empty() {
            return Ok(exit);
        }
        if let Some(exit) = waited.more(ctx).await {
            return Ok(exit);
        }
    }
}

/// The time spent waiting, and what was seen last.
struct Waited {
    until: Duration,
    seen: String,
}

impl Waited {
    fn new(ctx: &Context, timeout_ms: u64) -> Self {
        let until = ctx.ui.clock().monotonic().saturating_add(Duration::from_millis(timeout_ms));
        Self { until, seen: String::new() }
    }

    /// Waits a little; the exit if the time is over or Ctrl-C was pressed.
    async fn more(&mut self, ctx: &mut Context) -> Option<Exit> {
        let clock = ctx.ui.clock();
        let left = self.until.saturating_sub(clock.monotonic());
        if left.is_zero() {
            ctx.ui.note(&format!("Waited long enough. Last seen: {}", self.seen));
            return Some(Exit::TimedOut);
        }
        let interrupted = pin!(ctx.ui.interrupted());
        tokio::select! {
            () = clock.sleep(LOOK_EVERY.min(left)) => None,
            () = interrupted => Some(Exit::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals() {
        use pb::ConditionType::{NeedsIntervention, Reachable};
        assert_eq!(
            Goal::parse("effective=in_service").unwrap(),
            Goal::Effective(pb::EffectiveState::InService)
        );
        assert_eq!(Goal::parse("phase=RMA").unwrap(), Goal::Phase(pb::Phase::Rma));
        assert_eq!(Goal::parse("condition=reachable").unwrap(), Goal::Condition(Reachable, true));
        let cleared = Goal::parse("condition=NeedsIntervention=false").unwrap();
        assert_eq!(cleared, Goal::Condition(NeedsIntervention, false));
        assert_eq!(Goal::parse("run=done").unwrap(), Goal::NoRun);
        for wrong in [
            "",
            "effective",
            "effective=X",
            "condition=Hot",
            "condition=Reachable=maybe",
            "run=later",
        ] {
            assert_eq!(Goal::parse(wrong).unwrap_err().code(), 2, "{wrong}");
        }
        let machine = pb::Machine::default();
        assert!(cleared.is_met(&machine), "never observed is false");
        assert!(!Goal::Condition(Reachable, true).is_met(&machine));
        assert!(Goal::NoRun.is_met(&machine));
    }
}
