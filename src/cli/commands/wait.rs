//! `wait` and `run wait`

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::clock::Clock;
use crate::pb;

use super::super::client::Client;
use super::super::error::{About, Error, Exit, is_connection_loss};
use super::super::flags::parse_ms;
use super::super::output::{
    condition_name, effective_name, hold, next_for_hold, phase_name, run_phase_name, sanitized,
    wait_reason_name,
};
use super::super::query::{Selection, quoted};
use super::super::session::Session;
use super::super::watch::{MachineWatch, Seen};
use super::machine::parse_phase;
use super::targets;

/// Pause between attempts to reach an unavailable server.
const AWAY: Duration = Duration::from_millis(500);

/// Wait until machines are in a state.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli wait machine-1 --for effective=IN_SERVICE
  bmdemo-cli wait machine-1 machine-2 --for condition=Reachable --timeout 5m
  bmdemo-cli wait machine-3 --for condition=NeedsIntervention=false
  bmdemo-cli wait -l rack=r1 --for phase=READY --timeout 1h
  bmdemo-cli wait machine-1 --for run=done && echo free
  bmdemo-cli wait machine-1 --for deleted

Exits with 5 on timeout.")]
pub(crate) struct WaitArgs {
    /// Machines
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// effective=STATE, phase=PHASE, condition=NAME[=true|false], run=done, or deleted
    #[arg(long = "for", value_name = "WHAT")]
    what: String,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_ms)]
    timeout: u64,
}

/// Wait until runs have ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli run wait f1034752 --timeout 10m

Exits with 0 if all succeeded, 3 if one failed or is held until an operator acts, 4 if one was canceled, 5 on timeout.")]
pub(crate) struct RunWaitArgs {
    /// Runs: any part of their ids, or their machines
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
    Deleted,
}

impl Goal {
    fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |message: String| {
            Error::usage(
                message,
                "wait for effective=STATE, phase=PHASE, condition=NAME, condition=NAME=false, run=done or deleted",
            )
        };
        match text.split_once('=') {
            Some(("effective", state)) => {
                let state = state.to_ascii_uppercase().replace('-', "_");
                let state = state.trim_start_matches("EFFECTIVE_STATE_");
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
                    .find(|kind| names_condition(*kind, name))
                    .and_then(|kind| pb::ConditionType::try_from(kind).ok())
                    .ok_or_else(|| wrong(format!("{name:?} is not a condition")))?;
                match value {
                    "true" => Ok(Self::Condition(kind, true)),
                    "false" => Ok(Self::Condition(kind, false)),
                    _ => Err(wrong(format!("{value:?} is neither true nor false"))),
                }
            }
            Some(("run", "done")) => Ok(Self::NoRun),
            None if text.eq_ignore_ascii_case("deleted") => Ok(Self::Deleted),
            _ => Err(wrong(format!("{text:?} is nothing to wait for"))),
        }
    }

    /// Whether a machine has reached the goal. A condition that was never observed is false.
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
            Self::Deleted => false,
        }
    }

    /// Whether a machine can never reach the goal: nothing leads out of RETIRED, no run starts there and nothing is
    /// probed, so only NeedsIntervention can change, which an operator clears.
    fn is_out_of_reach(&self, machine: &pb::Machine) -> bool {
        let retired =
            machine.status.as_ref().is_some_and(|status| status.phase() == pb::Phase::Retired);
        retired
            && !self.is_met(machine)
            && match self {
                Self::Effective(_) | Self::Phase(_) => true,
                Self::Condition(kind, wanted) => {
                    *wanted || *kind != pb::ConditionType::NeedsIntervention
                }
                Self::NoRun | Self::Deleted => false,
            }
    }
}

/// Whether this is the name of a condition, as filters write it or as protobuf JSON does.
fn names_condition(kind: i32, name: &str) -> bool {
    let in_json = pb::ConditionType::try_from(kind).map(|kind| kind.as_str_name()).unwrap_or("");
    condition_name(kind).eq_ignore_ascii_case(name) || in_json.eq_ignore_ascii_case(name)
}

/// Most machines named in the filter of a watch; with more, every machine is watched.
const NAMED_MAX: usize = 64;

pub(crate) async fn machines(session: &mut Session, args: &WaitArgs) -> Result<Exit, Error> {
    let goal = Goal::parse(&args.what)?;
    let client = session.client().await?;
    let clock = session.ui.clock();
    let mut over = pin!(clock.sleep(Duration::from_millis(args.timeout)));
    let mut interrupted = pin!(session.ui.interrupted());
    let mut left = Left::default();
    let selected = targets::chosen(&client, &args.machines, &args.selection).await?;
    for id in &selected {
        let request = pb::GetMachineRequest { machine_id: id.clone(), ..Default::default() };
        let machine = match client.get_machine(request).await {
            Ok(machine) => machine,
            Err(error) if goal == Goal::Deleted && was_deleted(&client, id, &error).await => {
                met(session, id, &args.what)?;
                continue;
            }
            Err(error) => return Err(error.about(About::Machine(id.clone()))),
        };
        left.ids.insert(machine.machine_id.clone());
        left.see(session, &args.what, &goal, &machine)?;
    }
    let mut watch = MachineWatch::new(client, clock.clone(), left.filter()).patient();
    while !left.ids.is_empty() {
        let seen = tokio::select! {
            biased;
            () = &mut interrupted => return Ok(left_waiting(session)),
            seen = watch.next() => seen?,
            () = &mut over => return Ok(timed_out(session, &left.seen)),
        };
        match seen {
            Seen::Event(event) => {
                let Some(machine) = &event.snapshot else { continue };
                if event.r#type() == pb::MachineEventType::Removed
                    && left.ids.contains(&machine.machine_id)
                {
                    let id = &machine.machine_id;
                    if goal == Goal::Deleted {
                        left.ids.remove(id);
                        met(session, id, &args.what)?;
                        continue;
                    }
                    let gone = Status::not_found(format!("machine {id} was deleted"));
                    return Err(Error::rpc(gone));
                }
                left.see(session, &args.what, &goal, machine)?;
            }
            Seen::Lost => session.ui.note("connection lost, reconnecting…"),
            Seen::Ended => watch.lose(),
        }
    }
    Ok(Exit::Ok)
}

/// Prints that a machine has reached the goal.
fn met(session: &mut Session, id: &str, what: &str) -> Result<(), Error> {
    writeln!(session.ui.out(), "{}: {} is met", sanitized(id), sanitized(what))?;
    session.ui.flush()?;
    Ok(())
}

/// Whether a machine that does not exist existed once, so that a mistyped id is not taken for a deleted machine.
async fn was_deleted(client: &Client, id: &str, error: &Error) -> bool {
    if error.grpc_code() != Some(Code::NotFound) {
        return false;
    }
    let request = pb::ListMachineHistoryRequest {
        machine_id: id.to_owned(),
        page_size: 1,
        ..Default::default()
    };
    client.list_machine_history(request).await.is_ok_and(|history| !history.entries.is_empty())
}

/// Machines that have not reached the goal yet.
#[derive(Debug, Default)]
struct Left {
    ids: BTreeSet<String>,
    /// The last seen state of one of them.
    seen: String,
}

impl Left {
    fn filter(&self) -> String {
        if self.ids.len() > NAMED_MAX {
            return String::new();
        }
        let terms = self.ids.iter().map(|id| format!("machine_id = {}", quoted(id)));
        terms.collect::<Vec<_>>().join(" OR ")
    }

    /// Records the state of a machine, and prints it if it has reached the goal.
    fn see(
        &mut self,
        session: &mut Session,
        what: &str,
        goal: &Goal,
        machine: &pb::Machine,
    ) -> Result<(), Error> {
        let id = sanitized(&machine.machine_id);
        if !self.ids.contains(&machine.machine_id) {
            return Ok(());
        }
        if goal.is_met(machine) {
            self.ids.remove(&machine.machine_id);
            return met(session, &machine.machine_id, what);
        }
        if goal.is_out_of_reach(machine) {
            let message = format!("machine {id} is RETIRED: {what} can never become true");
            return Err(Error::rpc(Status::failed_precondition(message)));
        }
        let status = machine.status.clone().unwrap_or_default();
        let (phase, effective) = (phase_name(status.phase), effective_name(status.effective_state));
        self.seen = format!("{id}: phase {phase}, effective {effective}");
        Ok(())
    }
}

pub(crate) async fn runs(session: &mut Session, args: &RunWaitArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let clock = session.ui.clock();
    let mut over = pin!(clock.sleep(Duration::from_millis(args.timeout)));
    let mut interrupted = pin!(session.ui.interrupted());
    let mut left = BTreeSet::new();
    let mut waits = JoinSet::new();
    for id in &args.runs {
        let run = client.find_run(id).await?;
        if left.insert(run.run_id.clone()) {
            waits.spawn(ended(client.clone(), clock.clone(), run));
        }
    }
    let mut exit = Exit::Ok;
    loop {
        let run = tokio::select! {
            biased;
            () = &mut interrupted => return Ok(left_waiting(session)),
            done = waits.join_next() => match done {
                Some(Ok(run)) => run?,
                Some(Err(error)) => return Err(Error::Answer(error.to_string())),
                None => return Ok(exit),
            },
            () = &mut over => {
                let mut seen = String::new();
                if let Some(id) = left.first() {
                    let run = client.find_run(id).await?;
                    let (phase, step) = (run_phase_name(run.phase), sanitized(&run.current_step));
                    seen = format!("{}: {phase} in {step}", sanitized(id));
                }
                return Ok(timed_out(session, &seen));
            }
        };
        left.remove(&run.run_id);
        let id = sanitized(&run.run_id);
        match hold(&run) {
            Some(waiting) => {
                let why = wait_reason_name(waiting.reason);
                writeln!(session.ui.out(), "{id}: held: {why}")?;
                if let Some(next) = next_for_hold(&run) {
                    session.ui.note(&format!("Next: {}", sanitized(&next)));
                }
            }
            None => writeln!(session.ui.out(), "{id}: {}", run_phase_name(run.phase))?,
        }
        session.ui.flush()?;
        exit = exit.or(Exit::of_run(&run));
    }
}

/// Waits until the run has ended, or is held until an operator acts. Waits for a server that is unavailable.
async fn ended(client: Client, clock: Arc<dyn Clock>, mut run: pb::Run) -> Result<pb::Run, Error> {
    loop {
        // An operator paused it, and an operator will resume it.
        let paused = hold(&run).is_some_and(|waiting| waiting.reason() == pb::WaitReason::Paused);
        if run.finished_at.is_some() || (hold(&run).is_some() && !paused) {
            return Ok(run);
        }
        let patience = client.patience();
        let request = pb::WaitRunRequest {
            run_id: run.run_id.clone(),
            timeout: prost_types::Duration::try_from(patience).ok(),
            return_when_held: !paused,
        };
        match client.wait_run(request).await {
            Ok(now) => run = now,
            Err(error) if error.status().is_some_and(is_connection_loss) => {
                clock.sleep(AWAY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn timed_out(session: &mut Session, seen: &str) -> Exit {
    session.ui.note(&format!("Timed out. Last seen: {seen}"));
    Exit::TimedOut
}

fn left_waiting(session: &mut Session) -> Exit {
    let again = session.command_line().to_owned();
    session.ui.note(&format!("Stopped waiting; the runs continue. Wait again with: {again}"));
    Exit::Interrupted
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
        assert_eq!(
            Goal::parse("effective=EFFECTIVE_STATE_IN_SERVICE").unwrap(),
            Goal::Effective(pb::EffectiveState::InService)
        );
        assert_eq!(
            Goal::parse("condition=CONDITION_TYPE_NEEDS_INTERVENTION=false").unwrap(),
            cleared
        );
        assert_eq!(Goal::parse("deleted").unwrap(), Goal::Deleted);
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

    #[test]
    fn nothing_leads_out_of_retired() {
        let in_phase = |phase: pb::Phase| pb::Machine {
            status: Some(pb::MachineStatus { phase: phase.into(), ..Default::default() }),
            ..Default::default()
        };
        let (retired, ready) = (in_phase(pb::Phase::Retired), in_phase(pb::Phase::Ready));
        for goal in [
            "phase=READY",
            "effective=in_service",
            "condition=Reachable",
            "condition=NeedsIntervention",
        ] {
            assert!(Goal::parse(goal).unwrap().is_out_of_reach(&retired), "{goal}");
            assert!(!Goal::parse(goal).unwrap().is_out_of_reach(&ready), "{goal}");
        }
        for goal in [
            "phase=RETIRED",
            "run=done",
            "deleted",
            "condition=NeedsIntervention=false",
            "condition=Degraded=false",
        ] {
            assert!(!Goal::parse(goal).unwrap().is_out_of_reach(&retired), "{goal}");
        }
    }
}
